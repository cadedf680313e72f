"""Layers: written from changes, and read to be verified, with their index made in the same pass."""

import hashlib
import io
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from layers.compress import Compression
from layers.data import dataclass
from layers.digest import Digest
from layers.entry import DIRECTORY, SECOND, Change, Entry, Kind, new
from layers.errors import ImageError
from layers.index import LayerIndex
from layers.layout import Layout
from layers.oci import Descriptor

# Tars, compressors and threads are imported by those who need them: the cache of steps deals in `Layer`, and a build
# that it answers altogether writes and reads none.

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from layers.blob import BlobWriter
    from layers.landing import Placed

_READ = 1 << 18


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is stored, or that a registry has."""

    diff_id: Digest
    """Of the uncompressed tar (config.md, "Layer DiffID")."""
    descriptor: Descriptor
    """Of the blob."""
    size: int
    """Bytes of the uncompressed tar."""


def write_layer(
    changes: Iterable[Change],
    layout: Layout,
    *,
    compression: Compression = Compression.GZIP,
    level: int | None = None,
) -> tuple[Layer, LayerIndex]:
    """Write changes, in their order, as a layer; its index is what `read_layer` would make of it.

    The same changes give the same bytes. Of entries with one inode the first has the data, the others become hard links
    to it. Memory does not grow with the layer, but for its index. If anything fails, nothing of it is on disk.
    """
    with layout.writer() as blob:
        layer, index = fill_layer(changes, blob, compression=compression, level=level)
        blob.commit()
    return layer, index


def fill_layer(
    changes: Iterable[Change],
    blob: "BlobWriter",
    *,
    compression: Compression = Compression.GZIP,
    level: int | None = None,
) -> tuple[Layer, LayerIndex]:
    """The same, into a blob that somebody else commits."""
    from layers.compress import compressor
    from layers.indexing import IndexBuilder
    from layers.pipeline import Pipeline
    from layers.tar import TarWriter, read_content

    builder = IndexBuilder()
    with Pipeline(blob, compressor(compression, level)) as pipeline:
        tar = TarWriter(pipeline.write)
        for entry, content in _linked(changes):
            if builder.wants(entry):
                data = b"".join(read_content(entry, content))
                builder.add(entry, io.BytesIO(data))
                tar.add(entry, data)
            else:
                builder.add(entry)
                tar.add(entry, content)
        tar.close()
        diff_id, size = pipeline.finish()
    return Layer(diff_id, Descriptor(compression.media_type, blob.digest, blob.size), size), builder.finish()


def read_layer(
    descriptor: Descriptor, diff_id: Digest, stream: BinaryIO, also: "Callable[[Placed, BinaryIO], None] | None" = None
) -> LayerIndex:
    """The index of the layer in this blob. ImageError if it is no layer, or not the one that has this diff_id.

    `also` is given each entry of the tar in the same pass, where it lands, with its content.
    """
    from layers.indexing import IndexBuilder
    from layers.landing import Landing
    from layers.tar import read_tar

    landing = Landing()
    builder = IndexBuilder()
    with verified_tar(descriptor, diff_id, stream) as tar:
        for entry, content in read_tar(tar):
            placed = landing.place(entry)
            if builder.wants(entry):
                content = io.BytesIO(content.read())  # noqa: PLW2901 - it is small, and read twice
                builder.take(placed, content)
                content.seek(0)
            else:
                builder.take(placed)
            if also:
                also(placed, content)
    return builder.finish()


@contextmanager
def verified_tar(descriptor: Descriptor, diff_id: Digest, stream: BinaryIO) -> Iterator[BinaryIO]:
    """The tar in this blob. At the end of the block, ImageError if it is not the one that has this diff_id."""
    from layers.compress import decompressed

    hashed = _Hashed(decompressed(stream), diff_id)
    tar = io.BufferedReader(hashed, _READ)
    yield tar
    while tar.read(_READ):
        pass  # the diff_id goes on to the last byte, the tar need not
    if hashed.digest() != diff_id:
        raise ImageError(
            f"layer {descriptor.digest} unpacks to {hashed.digest()}, and its image says {diff_id}",
            hint="the image is damaged, or was put together wrongly: fetch or build it again",
        )


def _linked(changes: Iterable[Change]) -> Iterator[Change]:
    """The changes as a tar says them: whole seconds, and HARDLINK for any further name of an inode."""
    first_names: dict[Hashable, str] = {}
    for change in changes:
        entry, content = change
        path, kind, mode, uid, gid, size, mtime_ns, target, device, xattrs, inode = entry
        part = mtime_ns % SECOND
        if inode is None and not part:
            yield change
        elif inode is None or kind is DIRECTORY or (first_name := first_names.setdefault(inode, path)) == path:
            fields = (path, kind, mode, uid, gid, size, mtime_ns - part, target, device, xattrs, None)
            yield new(Change, (new(Entry, fields), content))
        else:
            yield Change(Entry(path, Kind.HARDLINK, mode, uid, gid, 0, mtime_ns - part, first_name))


class _Hashed(io.RawIOBase):
    """A stream that is hashed as it is read."""

    def __init__(self, stream: io.BufferedReader, expected: Digest) -> None:
        self._stream = stream
        self._algorithm = expected.algorithm
        self._hash = hashlib.new(expected.algorithm)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        size = self._stream.readinto(view)
        self._hash.update(view[:size])
        return size

    def digest(self) -> Digest:
        """Of what has been read so far."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")
