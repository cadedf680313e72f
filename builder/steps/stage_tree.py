"""A stage or an image as a tree to copy from."""

import os
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from cache.files import hash_file
from cache.store import Store
from layers.compress import decompressed
from layers.digest import Digest
from layers.entry import Entry, Kind
from layers.landing import Effect, Landing
from layers.layer import Layer
from layers.tar import read_tar


class Home(NamedTuple):
    """Where the bytes of a file are."""

    layer: int
    path: str
    """As it is in the layer; not always the name that the file has in the whole."""


class StageTree:
    """Answers from the indexes of the layers; reads bytes from unpacked trees, or else from the layers' blobs.

    `fetch` must have been called for a file before its bytes are asked for. Bytes that come from blobs are put into
    temporary files first, since a compressed tar can only be read from its beginning: one pass over each layer,
    whatever the number of files.
    """

    def __init__(self, layers: tuple[Layer, ...], store: Store) -> None:
        self._layers = layers
        self._store = store
        self._view = store.view(layers)
        self._children: dict[str, list[Entry]] = {}
        self._homes: dict[str, Home] = {}
        self._spooled: dict[Home, str] = {}

    def lookup(self, path: str) -> Entry | None:
        entry = self._view.lookup(path)
        return self._distinct(entry) if entry else None

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        return self._view.resolve(path, follow_last=follow_last)

    def children(self, path: str) -> list[Entry]:
        children = self._children.get(path)
        if children is None:
            children = self._children[path] = [self._distinct(entry) for entry in self._view.children(path)]
        return children

    def content(self, entry: Entry) -> str:
        """The path on disk of a file. It leads through no symlink: names in indexes are as they landed in the tree."""
        home = self._home(entry)
        spooled = self._spooled.get(home)
        return spooled or os.path.join(self._store.trees.path(self._layers[home.layer].diff_id), home.path)

    def digest(self, entry: Entry) -> Digest:
        return hash_file(self.content(entry))

    def fetch(self, entries: Iterable[Entry]) -> None:
        """Make the bytes of those of the entries that are files readable."""
        wanted: dict[int, set[str]] = {}
        for entry in entries:
            if entry.kind is Kind.FILE:
                home = self._home(entry)
                if home not in self._spooled:
                    wanted.setdefault(home.layer, set()).add(home.path)
        for layer, paths in wanted.items():
            # Trees belong to root, or to the root of a user namespace: nobody else can read all of them.
            if os.geteuid() or not self._store.trees.has(self._layers[layer].diff_id):
                self._spool(layer, paths)

    def _distinct(self, entry: Entry) -> Entry:
        """The entry with an inode that is not that of another layer's file of the same name."""
        if entry.inode is None:
            return entry
        return entry._replace(inode=(self._view.layer_of(entry.path), entry.inode))

    def _home(self, entry: Entry) -> Home:
        home = self._homes.get(entry.path)
        if home is None:
            home = self._homes[entry.path] = self._find_home(entry.path)
        return home

    def _find_home(self, path: str) -> Home:
        """Where the bytes of a file are: a hard link may lead to a file of a layer below, and that again."""
        layers, view = self._layers, self._view
        while True:
            number = view.layer_of(path)
            assert number is not None, path
            layer = layers[number]
            entry = self._store.index_of(layer.diff_id, layer.descriptor).entries[path]
            if entry.kind is not Kind.HARDLINK:
                return Home(number, path)
            layers, path = layers[:number], entry.target
            view = self._store.view(layers)

    def _spool(self, layer: int, wanted: set[str]) -> None:
        """Write files of a layer's blob to temporary files."""
        folder = self._store.temporary("spool")
        needed = wanted | self._first_names(layer, wanted)
        written: dict[str, str] = {}
        landing = Landing()
        with self._store.layout.open(self._layers[layer].descriptor) as blob:
            for number, (raw, stream) in enumerate(read_tar(decompressed(blob))):
                effect, entry, _ = landing.place(raw)
                if effect is Effect.ENTRY and entry.kind is Kind.FILE and entry.path in needed:
                    written[entry.path] = os.path.join(folder, str(number))
                    _write(written[entry.path], stream)
                elif effect is Effect.ENTRY and entry.kind is Kind.HARDLINK and entry.target in written:
                    written[entry.path] = written[entry.target]
        for path in wanted:
            self._spooled[Home(layer, path)] = written[path]

    def _first_names(self, layer: int, paths: set[str]) -> set[str]:
        """The names that bytes stand at in the tar, for those of the paths that are further names of a file."""
        index = self._store.index_of(self._layers[layer].diff_id, self._layers[layer].descriptor)
        inodes = (index.entries[path].inode for path in paths)
        # Slashes tell files apart that had the same first name, one after the other.
        return {inode.rstrip("/") for inode in inodes if isinstance(inode, str)}


def _write(path: str, stream: BinaryIO) -> None:
    with open(path, "wb") as file:
        while block := stream.read(1 << 20):
            file.write(block)
