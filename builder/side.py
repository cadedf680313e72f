"""An image that is compared: what it says of itself, what is in it, and which instruction made which layer."""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from cache.packs import uncompressed
from cache.store import Store
from layers.digest import Digest
from layers.entry import Entry, Kind
from layers.index import LayerIndex
from layers.landing import Effect, Landing
from layers.layer import Layer
from layers.oci import History, Image
from layers.tar import read_tar
from layers.view import View

_BLOCK = 1 << 20


class Side:
    """One of two images. Its blobs are in the store; nothing is read before somebody asks."""

    def __init__(self, image: Image, store: Store) -> None:
        self.image = image
        self._store = store

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Lowest first."""
        pairs = zip(self.image.manifest.layers, self.image.config.diff_ids, strict=True)
        return tuple(Layer(diff_id, blob, 0) for blob, diff_id in pairs)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration as it is written, with what only others understand."""
        value: Mapping[str, Any] = json.loads(self._store.layout.read(self.image.manifest.config))
        return value

    @cached_property
    def indexes(self) -> tuple[LayerIndex, ...]:
        """What is in each layer."""
        return tuple(self._store.index_of(layer.diff_id, layer.descriptor) for layer in self.layers)

    @cached_property
    def view(self) -> View:
        return View(self.indexes)

    @cached_property
    def instructions(self) -> tuple[History | None, ...]:
        """The item of the history that made each layer; None where the history does not tell."""
        made = [item for item in self.image.config.history if not item.empty_layer]
        return tuple(made) if len(made) == len(self.layers) else (None,) * len(self.layers)

    def instruction(self, layer: int | None) -> str:
        """What made a layer, in one line; empty if nobody knows."""
        item = self.instructions[layer] if layer is not None else None
        return shown(item.created_by) if item else ""

    def adder(self, path: str) -> int | None:
        """The layer that first brought what is at a path now; the upper ones may have changed it."""
        first = None
        for number, index in enumerate(self.indexes):
            if path in index.whiteouts:
                first = None
            if first is None and path in index.entries:
                first = number
        return first

    def remover(self, path: str) -> int | None:
        """The layer that took away what lower ones had at a path; None if there never was anything."""
        above = [path]
        while above[-1]:
            above.append(above[-1].rpartition("/")[0])
        for number in reversed(range(len(self.indexes))):
            index = self.indexes[number]
            if any(folder in index.whiteouts or (folder in index.opaque and folder != path) for folder in above):
                return number
        return None

    def place(self, path: str) -> tuple[int, str] | None:
        """The layer that has the bytes of a file of the image, and under which name; None if that is no file."""
        layer, view = self.view.layer_of(path), self.view
        while layer is not None:
            entry = self.indexes[layer].entries[path]
            if entry.kind is not Kind.HARDLINK:
                return (layer, path) if entry.kind is Kind.FILE else None
            path, view = entry.target, View(self.indexes[:layer])
            layer = view.layer_of(path)
        return None

    def digests(self, layer: int, paths: Iterable[str]) -> Mapping[str, Digest]:
        """The digests of files of a layer, by path; the layer is read once."""
        import hashlib  # nothing else here needs it

        wanted: dict[str, list[str]] = {}
        for path in paths:
            wanted.setdefault(_first_name(self.indexes[layer].entries[path]), []).append(path)
        found: dict[str, Digest] = {}
        if not wanted:
            return found
        landing = Landing()
        with uncompressed(self.layers[layer], self._store, lambda _blob, _done: None) as tar:
            for raw, content in read_tar(tar):
                effect, entry, _ = landing.place(raw)
                if effect is Effect.ENTRY and entry.kind is Kind.FILE and entry.path in wanted:
                    hasher = hashlib.sha256()
                    while block := content.read(_BLOCK):
                        hasher.update(block)
                    digest = Digest(f"sha256:{hasher.hexdigest()}")
                    found.update((path, digest) for path in wanted[entry.path])
        return found

    def content(self, layer: int, path: str, limit: int) -> bytes:
        """The beginning of one file of a layer."""
        first = _first_name(self.indexes[layer].entries[path])
        landing = Landing()
        data = b""
        with uncompressed(self.layers[layer], self._store, lambda _blob, _done: None) as tar:
            for raw, content in read_tar(tar):
                effect, entry, _ = landing.place(raw)
                if effect is Effect.ENTRY and entry.kind is Kind.FILE and entry.path == first:
                    data = content.read(limit)
        return data


def shown(created_by: str) -> str:
    """An item of a history as people know the instruction, in one line."""
    return " ".join(created_by.split()).removesuffix(" # buildkit")


def _first_name(entry: Entry) -> str:
    """The name under which the tar has the bytes of a file."""
    return entry.path if entry.inode is None else str(entry.inode).rstrip("/")
