"""Makes the index of a layer in the pass in which the layer is written or verified."""

import os
from collections.abc import Iterable
from typing import BinaryIO

from layers.entry import HARDLINK, Entry, Kind
from layers.index import LayerIndex
from layers.landing import Effect, Landing, Placed

LARGEST_FILE = 1 << 20
"""Bytes of a file that an index carries, at most."""

_CARRIED = frozenset({"etc/passwd", "etc/group", "etc/os-release", "usr/lib/os-release"})
_ENTRY = Effect.ENTRY  # for each of a hundred thousand files, as in `layers.entry`


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
        self.take(self._landing.place(entry), stream)

    def take(self, placed: Placed, stream: BinaryIO | None = None) -> None:
        """The same of an entry of which it is known where it lands; for who asks a `Landing` himself."""
        effect, entry, replaces = placed
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
