"""Several layers as one stream of entries: a whole root file system, or one layer that does what all of them do.

Indexes tell what is still seen of each layer; bytes come from the layers' tars, each read once and from the lowest up.
The order is one that a tar can have: folders first, and a hard link after the file that it is a further name of. Memory
grows with the number of folders and hard links, not with the bytes.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO

from layers.entry import Change, Entry, Kind, whiteout
from layers.index import LayerIndex
from layers.landing import Effect, Landing
from layers.tar import read_tar
from layers.view import View

OpenTar = Callable[[int], AbstractContextManager[BinaryIO]]
"""Opens the uncompressed tar of a layer, by its place in the stack."""


def merged(indexes: Sequence[LayerIndex], open_tar: OpenTar) -> Iterator[Change]:
    """All that is seen of stacked layers, lowest first; contents can be read until the next change is asked for.

    Folders that no tar lists are among it, as `View` shows them; the root is not.
    """
    view = View(indexes)
    for path in _folder_paths(indexes):
        entry = view.lookup(path)
        if path and entry is not None and entry.kind is Kind.DIRECTORY:
            yield Change(entry)
    yield from _contents(indexes, open_tar)


def squashed(below: Sequence[LayerIndex], indexes: Sequence[LayerIndex], open_tar: OpenTar) -> Iterator[Change]:
    """One layer upon `below` that does what the layers of `indexes` do one after the other.

    What they hide of the layers below is hidden by a whiteout for each path, after the folder that it is in.
    """
    base, view = View(below), View([*below, *indexes])
    gone: dict[str, list[str]] = {}
    for path in _removed(base, view, indexes, ""):
        gone.setdefault(path.rpartition("/")[0], []).append(path)
    named = {path for index in indexes for path in index.folders}
    listed = {path for index in indexes for path in index.folders if path in index.entries}
    for path in sorted(named.union(gone), key=os.fsencode):
        entry = view.lookup(path)
        if entry is not None and entry.kind is Kind.DIRECTORY and (path in listed or entry != base.lookup(path)):
            yield Change(entry)
        yield from map(whiteout, gone.get(path, ()))
    yield from _contents(indexes, open_tar)


def _folder_paths(indexes: Iterable[LayerIndex]) -> list[str]:
    """Every path at which a layer has a folder: parents before what is in them."""
    return sorted({path for index in indexes for path in index.folders}, key=os.fsencode)


def _removed(base: View, view: View, indexes: Sequence[LayerIndex], folder: str) -> Iterator[str]:
    """What the layers of `indexes` hide of a folder of the base without putting anything in its place."""
    for child in base.children(folder):
        path = child.path
        after = view.lookup(path)
        if after is None:
            yield path
        elif child.kind is after.kind is Kind.DIRECTORY and any(path in index.folders for index in indexes):
            yield from _removed(base, view, indexes, path)


def _contents(indexes: Sequence[LayerIndex], open_tar: OpenTar) -> Iterator[Change]:
    """All that is seen and is no folder, layer by layer."""
    view = View(indexes)
    borrowed = _Borrowed(indexes, view)
    for number in range(len(indexes)):
        yield from _OneLayer(number, indexes[number], view, borrowed).changes(open_tar)


class _Borrowed:
    """The names of upper layers that are hard links to files of lower ones: where the bytes of each are."""

    def __init__(self, indexes: Sequence[LayerIndex], view: View) -> None:
        self._indexes = indexes
        self.names: dict[tuple[int, str], list[str]] = {}
        """By layer, and first name of the file in that layer's tar."""
        self.others: dict[int, list[Entry]] = {}
        """By the layer of the link: links to what has no bytes, and to what is below all these layers."""
        for number, index in enumerate(indexes):
            for path, entry in index.entries.items():
                if entry.kind is Kind.HARDLINK and view.layer_of(path) == number:
                    self._find(number, entry)

    def _find(self, number: int, link: Entry) -> None:
        target, layer = link.target, number
        while True:
            found = View(self._indexes[:layer]).layer_of(target)
            if found is None:
                self.others.setdefault(number, []).append(link)
                return
            layer, entry = found, self._indexes[found].entries[target]
            if entry.kind is not Kind.HARDLINK:
                break
            target = entry.target
        if entry.kind is Kind.FILE:
            self.names.setdefault((layer, first_name(entry)), []).append(link.path)
        else:
            self.others.setdefault(number, []).append(entry._replace(path=link.path, inode=None))


class _OneLayer:
    """What is seen of one layer."""

    def __init__(self, number: int, index: LayerIndex, view: View, borrowed: _Borrowed) -> None:
        self._number = number
        self._index = index
        self._view = view
        self._borrowed = borrowed
        self._moved: dict[str, str] = {}
        """Names in the tar that are not seen as files -> the name under which their file has come out instead."""
        self._names: dict[str, list[str]] = {}
        """First names in the tar -> the names under which the file is seen, where there may be several."""
        for path, entry in index.entries.items():
            if entry.kind is Kind.FILE and entry.inode is not None and self._is_seen(path):
                self._names.setdefault(first_name(entry), []).append(path)

    def changes(self, open_tar: OpenTar) -> Iterator[Change]:
        """First what needs no bytes, then files as they come in the tar, which is not opened if there are none."""
        kinds = {Kind.SYMLINK, Kind.CHARACTER, Kind.BLOCK, Kind.FIFO}
        for path, entry in self._index.entries.items():
            if entry.kind in kinds and self._is_seen(path):
                yield Change(entry._replace(inode=None))
        yield from map(Change, self._borrowed.others.get(self._number, ()))
        if not self._has_files():
            return
        landing = Landing()
        with open_tar(self._number) as tar:
            for raw, content in read_tar(tar):
                effect, entry, _ = landing.place(raw)
                if effect is Effect.ENTRY and entry.kind is Kind.FILE:
                    yield from self._file(entry, content)
                elif effect is Effect.ENTRY and entry.kind is Kind.HARDLINK:
                    yield from self._link(entry)

    def _has_files(self) -> bool:
        entries = self._index.entries.items()
        return any(layer == self._number for layer, _ in self._borrowed.names) or any(
            entry.kind is Kind.FILE and self._is_seen(path) for path, entry in entries
        )

    def _file(self, entry: Entry, content: BinaryIO) -> Iterator[Change]:
        """A file with bytes: under its name, or if that is not seen, under another one of it that is."""
        path = entry.path
        borrowers = self._borrowed.names.get((self._number, path), [])
        if self._is_seen_file(path):
            name, others = path, borrowers
        else:
            links = self._names.get(path, [])
            if not links and not borrowers:
                return
            name, *others = [*links[:1], *borrowers]
            self._moved[path] = name
        yield Change(entry._replace(path=name), content)
        for other in others:
            yield Change(_link_to(entry._replace(path=other), name))

    def _link(self, entry: Entry) -> Iterator[Change]:
        name = self._moved.get(entry.target, entry.target)
        if not self._is_seen_file(entry.path):
            self._moved[entry.path] = name
        elif entry.path != name:
            yield Change(_link_to(self._index.entries[entry.path], name))

    def _is_seen(self, path: str) -> bool:
        return self._view.layer_of(path) == self._number

    def _is_seen_file(self, path: str) -> bool:
        entry = self._index.entries.get(path)
        return entry is not None and entry.kind is Kind.FILE and self._is_seen(path)


def first_name(entry: Entry) -> str:
    """The name of a file in its tar that has the bytes."""
    return entry.path if entry.inode is None else str(entry.inode).rstrip("/")


def _link_to(entry: Entry, name: str) -> Entry:
    """The entry as a further name of a file."""
    return entry._replace(kind=Kind.HARDLINK, size=0, target=name, xattrs=(), inode=None)
