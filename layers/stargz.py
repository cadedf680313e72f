"""eStargz: gzip layers of which a runtime can fetch single files (stargz-snapshotter, docs/estargz.md).

Each piece of a file's bytes is a gzip member of its own, and a table of contents, the last entry of the tar, tells
where they are. Who knows nothing of it sees a layer with two small files more. Headers are passed on as they are.
"""

import base64
import hashlib
import io
import os
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, cast

from layers.blob import BlobWriter
from layers.compress import gzip_member
from layers.data import dataclass
from layers.digest import Digest, canonical_json
from layers.entry import SECOND, Entry, Kind
from layers.errors import ImageError
from layers.index import LayerIndex
from layers.indexing import IndexBuilder
from layers.tar import read_tar
from layers.tar_header import BLOCK, ZEROS, encode

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
"""The annotation of a layer's descriptor by which a runtime verifies the table of contents."""
UNCOMPRESSED_SIZE = "io.containers.estargz.uncompressed-size"
"""Another one: bytes of the whole tar."""

CHUNK = 4 << 20
"""Bytes of a file in one member, at most."""

_TOC = "stargz.index.json"
_LANDMARK = ".no.prefetch.landmark"
"""Says that no file is to be fetched before it is asked for: nobody has told which would be."""
_OWN = frozenset({_TOC, _LANDMARK, ".prefetch.landmark"})
"""Entries that a layer has which was eStargz before: they are made anew."""
_TYPES: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.FILE: "reg",
        Kind.DIRECTORY: "dir",
        Kind.SYMLINK: "symlink",
        Kind.HARDLINK: "hardlink",
        Kind.CHARACTER: "char",
        Kind.BLOCK: "block",
        Kind.FIFO: "fifo",
    }
)
_READ = 1 << 20
_MOST_HEADERS = 1 << 20
"""Bytes of headers in one member."""


@dataclass(frozen=True, slots=True)
class Stargz:
    """What became of a layer."""

    diff_id: Digest
    size: int
    """Bytes of the uncompressed tar."""
    toc: Digest
    """Of the table of contents, as JSON."""
    index: LayerIndex


def write_stargz(tar: BinaryIO, diff_id: Digest, blob: BlobWriter, level: int | None = None) -> Stargz:
    """Write the layer of an uncompressed tar as eStargz; ImageError if it is not the tar of this diff_id.

    The same tar and level give the same bytes. Memory grows with the number of entries, not with their size.
    """
    source, writer = _Source(tar), _Writer(blob, level)
    writer.add(Entry(_LANDMARK, Kind.FILE, 0o444, size=1), None, io.BytesIO(b"\x0f"))
    passed = 0
    for entry, content in read_tar(cast(BinaryIO, source)):
        header = source.taken()[passed:]
        padding = -entry.size % BLOCK
        if entry.path in _OWN:
            passed = entry.size + padding
        else:
            writer.add(entry, header, _Drained(content, source))
            passed = padding
    while source.read(_READ):
        source.taken()
    if source.digest() != diff_id:
        raise ImageError(
            f"a layer unpacks to {source.digest()}, and its image says {diff_id}",
            hint="the image is damaged, or was put together wrongly: fetch or build it again",
        )
    return writer.finish()


class _Source:
    """A tar as it is read, and what of it has been read since that was taken."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._held: list[bytes] = []

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self._held.append(data)
        return data

    def taken(self) -> bytes:
        held, self._held = self._held, []
        return b"".join(held)

    def digest(self) -> Digest:
        return Digest(f"sha256:{self._hash.hexdigest()}")


class _Drained:
    """The content of an entry, which the source need not hold any longer."""

    def __init__(self, content: BinaryIO, source: _Source) -> None:
        self._content = content
        self._source = source

    def read(self, size: int) -> bytes:
        data = self._content.read(size)
        self._source.taken()
        return data


class _Writer:
    """Writes members, and keeps the rows of the table of contents, each as its JSON."""

    def __init__(self, blob: BlobWriter, level: int | None) -> None:
        self._blob = blob
        self._level = level
        self._offset = 0
        self._size = 0
        self._hash = hashlib.sha256()
        self._headers: list[bytes] = []
        self._held = 0
        self._rows: list[bytes] = []
        self._builder = IndexBuilder()

    def add(self, entry: Entry, header: bytes | None, content: "BinaryIO | _Drained") -> None:
        """An entry with the blocks before its content as they were read, or else as they would be written."""
        self._hold(encode(entry) if header is None else header)
        if entry.kind is Kind.FILE and entry.size:
            data = self._add_content(entry, content)
            self._hold(ZEROS[: -entry.size % BLOCK])
            self._builder.add(entry, io.BytesIO(data) if self._builder.wants(entry) else None)
        else:
            self._rows.append(canonical_json(_row(entry)))
            self._builder.add(entry, io.BytesIO() if self._builder.wants(entry) else None)

    def finish(self) -> Stargz:
        """Write table and footer."""
        self._flush()
        table = b'{"version":1,"entries":[%b]}' % b",".join(self._rows)
        entry = Entry(_TOC, Kind.FILE, 0o444, size=len(table))
        self._builder.add(entry)
        offset = self._offset
        self._write(b"".join((encode(entry), table, ZEROS[: -len(table) % BLOCK], ZEROS * 2)))
        field = b"%016xSTARGZ" % offset
        self._blob.write(gzip_member(b"", extra=b"SG%b%b" % (len(field).to_bytes(2, "little"), field)))
        diff_id = Digest(f"sha256:{self._hash.hexdigest()}")
        return Stargz(diff_id, self._size, Digest.of(table), self._builder.finish())

    def _add_content(self, entry: Entry, content: "BinaryIO | _Drained") -> bytes:
        """Write the bytes of a file in members of their own; the first piece, which is all of a small file."""
        self._flush()
        whole = hashlib.sha256()
        rows: list[dict[str, Any]] = []
        first, done = b"", 0
        while done < entry.size:
            data = _exactly(content, min(CHUNK, entry.size - done))
            whole.update(data)
            chunk = {"offset": self._offset, "chunkDigest": Digest.of(data)}
            place = {"chunkOffset": done} if done else {}
            done += len(data)
            length = {"chunkSize": len(data)} if done < entry.size else {}
            rows.append({"name": _text(entry.path), "type": "chunk", **chunk, **place, **length})
            first = first or data
            self._write(data)
        rows[0] |= {**_row(entry), "digest": f"sha256:{whole.hexdigest()}"}
        self._rows += map(canonical_json, rows)
        return first

    def _hold(self, headers: bytes) -> None:
        self._headers.append(headers)
        self._held += len(headers)
        if self._held > _MOST_HEADERS:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._write(b"".join(self._headers))
            self._headers, self._held = [], 0

    def _write(self, data: bytes) -> None:
        """One member."""
        self._hash.update(data)
        self._size += len(data)
        member = gzip_member(data, self._level)
        self._offset += len(member)
        self._blob.write(member)


def _exactly(stream: "BinaryIO | _Drained", size: int) -> bytes:
    pieces = []
    while size and (data := stream.read(min(size, _READ))):
        pieces.append(data)
        size -= len(data)
    return b"".join(pieces)


def _row(entry: Entry) -> dict[str, Any]:
    """What the table of contents says of an entry."""
    name = _text(entry.path)
    row: dict[str, Any] = {
        "name": f"{name}/" if entry.kind is Kind.DIRECTORY else name,
        "type": _TYPES[entry.kind],
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "modtime": _time(entry.mtime_ns),
    }
    if entry.kind is Kind.FILE:
        row["size"] = entry.size
    if entry.target:
        row["linkName"] = _text(entry.target)
    if entry.kind in {Kind.CHARACTER, Kind.BLOCK}:
        row["devMajor"], row["devMinor"] = entry.device
    if entry.xattrs:
        row["xattrs"] = {_text(key): base64.b64encode(value).decode() for key, value in entry.xattrs}
    return row


def _text(name: str) -> str:
    """A name as JSON can have it: bytes that are no UTF-8 are lost, as with all who write this format."""
    return os.fsencode(name).decode("utf-8", "replace")


def _time(mtime_ns: int) -> str:
    """RFC 3339, in UTC. A year that it cannot say is that of the epoch."""
    moment = time.gmtime(mtime_ns // SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", moment if 0 < moment.tm_year < 10_000 else time.gmtime(0))
