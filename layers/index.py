"""The index of a layer: its entries, what it hides of the layers below, and the few files that a builder reads.

It is made in the pass in which a layer is written or verified, and kept, so that questions about an image need neither
its blobs nor an unpacked tree.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, BinaryIO, Self

from layers.data import dataclass, field
from layers.digest import canonical_json
from layers.entry import HARDLINK, Entry, Kind
from layers.errors import StoreError
from layers.landing import Effect, Landing

FORMAT = 1
"""Raise it when the bytes of an index, or what they mean, change: old ones are then made anew."""

LARGEST_FILE = 1 << 20
"""Bytes of a file that an index carries, at most."""

_CARRIED = frozenset({"etc/passwd", "etc/group", "etc/os-release", "usr/lib/os-release"})
_COLUMNS = ("path", "kind", "mode", "uid", "gid", "size", "mtime_ns", "target")
_ENTRY = Effect.ENTRY  # for each of a hundred thousand files, as in `layers.entry`
_KINDS = {kind.value: kind for kind in Kind}


class IndexFormatError(StoreError):
    """Bytes that should be an index are none, or one of another format: make it anew."""


@dataclass(frozen=True)  # without slots, for `folders`
class LayerIndex:
    """What one layer says. Paths are as they land in its tree (`layers.landing`), without any symlink on the way."""

    entries: Mapping[str, Entry]
    """By path, in the order of the tar. A hard link is an entry like its first name, and both have as `inode` the path
    of that first name; a link to a file of a layer below stays a HARDLINK with its target."""
    whiteouts: frozenset[str] = frozenset()
    """Paths of the layers below that are hidden. An entry of this layer may stand at the same path."""
    opaque: frozenset[str] = frozenset()
    """Folders of which nothing that the layers below have in them is seen."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The bytes of /etc/passwd, /etc/group and os-release, as far as they are in this layer, by path."""

    @cached_property
    def folders(self) -> Mapping[str, set[str]]:
        """The names in each folder of this layer. A folder that the tar does not list, but needs, is among them.

        Kept here so that all views over this layer share it.
        """
        folders: dict[str, set[str]] = {"": set()}
        for entry in self.entries.values():
            if entry.kind is Kind.DIRECTORY:
                _open_folder(folders, entry.path)
            else:
                folder, _, name = entry.path.rpartition("/")
                _open_folder(folders, folder).add(name)
        for path in self.whiteouts:
            _open_folder(folders, path.rpartition("/")[0])
        for path in self.opaque:
            _open_folder(folders, path)
        return folders

    def serialise(self) -> bytes:
        """The same index always gives the same bytes."""
        entries = list(self.entries.values())
        return canonical_json(
            {
                "format": FORMAT,
                "entries": [list(map(itemgetter(column), entries)) for column in range(len(_COLUMNS))],
                "device": [[row, *entry.device] for row, entry in enumerate(entries) if entry.device != (0, 0)],
                "xattrs": [
                    [row, [[name, value.decode("latin-1")] for name, value in entry.xattrs]]
                    for row, entry in enumerate(entries)
                    if entry.xattrs
                ],
                "inode": [[row, entry.inode] for row, entry in enumerate(entries) if entry.inode is not None],
                "whiteouts": sorted(self.whiteouts),
                "opaque": sorted(self.opaque),
                "files": {path: data.decode("latin-1") for path, data in self.files.items()},
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The index of these bytes; IndexFormatError if they are none of this format."""
        try:
            value = json.loads(data)
            if value["format"] != FORMAT:
                raise IndexFormatError(f"a layer's index has format {value['format']!r}, not {FORMAT}")
            return cls(
                {entry.path: entry for entry in _rows(value)},
                frozenset(value["whiteouts"]),
                frozenset(value["opaque"]),
                {path: text.encode("latin-1") for path, text in value["files"].items()},
            )
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise IndexFormatError("a layer's index cannot be read") from error


def _open_folder(folders: dict[str, set[str]], path: str) -> set[str]:
    """The names in a folder, which from now on is one, as are all above it."""
    names = folders.get(path)
    if names is not None:
        return names
    names = folders[path] = set()
    while path:
        path, _, name = path.rpartition("/")
        known = path in folders
        folders.setdefault(path, set()).add(name)
        if known:
            break
    return names


def _rows(value: Mapping[str, Any]) -> Sequence[Entry]:
    """The entries of a parsed document: columns of what all have, pairs with the row's number for what few have."""
    columns = value["entries"]
    if len(columns) != len(_COLUMNS) or len(set(map(len, columns))) != 1:
        raise IndexFormatError("a layer's index has columns of several lengths")
    path, kind, *others = columns
    entries = list(map(Entry, path, map(_KINDS.__getitem__, kind), *others))
    for row, major, minor in value["device"]:
        entries[row] = entries[row]._replace(device=(major, minor))
    for row, pairs in value["xattrs"]:
        xattrs = tuple((name, text.encode("latin-1")) for name, text in pairs)
        entries[row] = entries[row]._replace(xattrs=xattrs)
    for row, inode in value["inode"]:
        entries[row] = entries[row]._replace(inode=inode)
    return entries


class IndexBuilder:
    """Makes the index of a layer from the entries of its tar, one by one in their order."""

    def __init__(self) -> None:
        self._landing = Landing()
        self._entries: dict[str, Entry] = {}
        self._whiteouts: set[str] = set()
        self._opaque: set[str] = set()
        self._files: dict[str, bytes] = {}
        self._carried = set(_CARRIED)
        self._inodes: set[str] = set()

    def wants(self, entry: Entry) -> bool:
        """Whether the bytes of this file belong into the index, so that `add` should get them."""
        return entry.path in self._carried and entry.kind is Kind.FILE and entry.size <= LARGEST_FILE

    def add(self, entry: Entry, stream: BinaryIO | None = None) -> None:
        """Take one entry as it is in the tar, whiteouts too; the stream is read only if the index `wants` the file.

        ImageError for an entry that could not be unpacked either.
        """
        effect, entry, replaces = self._landing.place(entry)
        if effect is _ENTRY or effect is Effect.BORROW:
            path = entry.path
            if replaces is not None:
                self._remove(entry, replaces)
            if entry.kind is HARDLINK:
                self._link(entry)
            else:
                self._entries[path] = entry if entry.inode is None else entry._replace(inode=None)
                if path in self._carried:
                    self._carry(entry, stream)
        elif effect is Effect.WHITEOUT:
            self._whiteouts.add(entry.path)
        elif effect is Effect.OPAQUE:
            self._opaque.add(entry.path)

    def finish(self) -> LayerIndex:
        """The index of all entries so far."""
        return LayerIndex(self._entries, frozenset(self._whiteouts), frozenset(self._opaque), self._files)

    def _remove(self, entry: Entry, replaced: Kind) -> None:
        """Drop what a later entry of the same path replaces; only a folder over a folder keeps its place."""
        path = entry.path
        if replaced is not Kind.DIRECTORY:
            self._entries.pop(path, None)
            self._files.pop(path, None)
        elif entry.kind is not Kind.DIRECTORY:
            self._entries.pop(path, None)
            self._opaque.discard(path)
            for paths in (self._entries, self._files):
                for below in _below(path, paths):
                    del paths[below]
            for marks in (self._whiteouts, self._opaque):
                marks.difference_update(_below(path, marks))

    def _link(self, entry: Entry) -> None:
        path, first = entry.path, self._entries.get(entry.target)
        if first is None:
            self._entries[path] = entry._replace(inode=None)
        elif first.kind is Kind.HARDLINK:
            self._entries[path] = entry._replace(target=first.target, inode=None)
        else:
            if first.inode is None:
                first = self._entries[first.path] = first._replace(inode=self._new_inode(first.path))
            self._entries[path] = first._replace(path=path)
            if first.path in self._files:
                self._files[path] = self._files[first.path]

    def _new_inode(self, path: str) -> str:
        """The path, or with slashes after it when names of a file that was there before still carry it."""
        while path in self._inodes:
            path += "/"
        self._inodes.add(path)
        return path

    def _carry(self, entry: Entry, stream: BinaryIO | None) -> None:
        """Keep one of the files that an index carries."""
        if entry.kind is Kind.SYMLINK:  # /etc/passwd may lead to another file: tars are mostly sorted: it comes later
            target = os.path.normpath(os.path.join("/", os.path.dirname(entry.path), entry.target))
            self._carried.add(target.lstrip("/"))
        elif stream is not None and self.wants(entry):
            self._files[entry.path] = stream.read(entry.size)


def _below(path: str, paths: Iterable[str]) -> list[str]:
    prefix = path + "/"
    return [other for other in paths if other.startswith(prefix)]
