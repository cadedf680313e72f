"""A stage or an image as a tree to copy from."""

import os
from collections.abc import Iterable
from typing import BinaryIO

from cache.files import hash_file
from cache.store import Store
from layers.compress import decompressed
from layers.digest import Digest
from layers.entry import Entry, Kind
from layers.errors import ImageError
from layers.landing import Effect, Landing
from layers.layer import Layer
from layers.tar import read_tar


class StageTree:
    """Answers from the indexes of the layers; reads bytes from unpacked trees, or else from the layers' blobs.

    `fetch` must have been called for an entry before the bytes of what is below it are asked for. Bytes that come from
    blobs are put into temporary files first, since a compressed tar can only be read from its beginning: one pass over
    each layer, whatever the number of files.
    """

    def __init__(self, layers: tuple[Layer, ...], store: Store) -> None:
        self._layers = layers
        self._store = store
        self._view = store.view(layers)
        self._spooled: dict[tuple[int, str], str] = {}

    def lookup(self, path: str) -> Entry | None:
        entry = self._view.lookup(path)
        return self._distinct(entry) if entry else None

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        return self._view.resolve(path, follow_last=follow_last)

    def children(self, path: str) -> list[Entry]:
        return [self._distinct(entry) for entry in self._view.children(path)]

    def content(self, entry: Entry) -> str:
        """The path on disk of a file. It leads through no symlink: names in indexes are as they landed in the tree."""
        layer = self._layer_of(entry)
        spooled = self._spooled.get((layer, entry.path))
        return spooled or os.path.join(self._store.trees.path(self._layers[layer].diff_id), entry.path)

    def digest(self, entry: Entry) -> Digest:
        return hash_file(self.content(entry))

    def fetch(self, entries: Iterable[Entry]) -> None:
        """Make the bytes of those of the entries that are files readable."""
        wanted: dict[int, list[Entry]] = {}
        for entry in entries:
            if entry.kind is Kind.FILE:
                layer = self._layer_of(entry)
                if (layer, entry.path) not in self._spooled:
                    wanted.setdefault(layer, []).append(entry)
        for layer, unread in wanted.items():
            # Trees belong to root, or to the root of a user namespace: nobody else can read all of them.
            if os.geteuid() or not self._store.trees.has(self._layers[layer].diff_id):
                self._spool(layer, unread)

    def _distinct(self, entry: Entry) -> Entry:
        """The entry with an inode that is not that of another layer's file of the same name."""
        if entry.inode is None:
            return entry
        return entry._replace(inode=(self._layer_of(entry), entry.inode))

    def _layer_of(self, entry: Entry) -> int:
        layer = self._view.layer_of(entry.path)
        assert layer is not None, entry.path
        return layer

    def _spool(self, layer: int, entries: list[Entry]) -> None:
        """Write files of a layer's blob to temporary files."""
        folder = self._store.temporary("spool")
        # The bytes of a hard link stand at its first name.
        first_names = {entry.inode[1].rstrip("/") for entry in entries if isinstance(entry.inode, tuple)}
        wanted = first_names.union(entry.path for entry in entries)
        written: dict[str, str] = {}
        landing = Landing()
        with self._store.layout.open(self._layers[layer].descriptor) as blob:
            for number, (raw, stream) in enumerate(read_tar(decompressed(blob))):
                effect, entry, _ = landing.place(raw)
                if effect is Effect.ENTRY and entry.path in wanted:
                    if entry.kind is Kind.FILE:
                        written[entry.path] = os.path.join(folder, str(number))
                        _write(written[entry.path], stream)
                    elif entry.kind is Kind.HARDLINK:
                        written[entry.path] = written[entry.target]
        for entry in entries:
            if entry.path not in written:
                raise ImageError(f"/{entry.path} is a hard link to a file of a layer below, which cannot be copied")
            self._spooled[layer, entry.path] = written[entry.path]


def _write(path: str, stream: BinaryIO) -> None:
    with open(path, "wb") as file:
        while block := stream.read(1 << 20):
            file.write(block)
