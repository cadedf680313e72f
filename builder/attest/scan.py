"""Which packages an image has, and which layer brought each.

Indexes tell where databases are; each layer that has any is read once as a stream, and what was found in it is kept. So
an image need not be unpacked, and a layer that many images share is read for the first of them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import BinaryIO

from builder.attest.databases import database_of
from builder.attest.package import DatabaseError, Distribution, Package
from cache.documents import find_document, keep_document
from cache.packs import Progress, uncompressed
from cache.store import Store
from layers.data import dataclass, fields
from layers.digest import Digest, canonical_json
from layers.entry import Entry, Kind
from layers.index import LayerIndex
from layers.landing import Effect, Landing
from layers.layer import Layer
from layers.merge import first_name
from layers.tar import read_tar
from layers.view import View

FORMAT = 1
"""Raise it when the same layer would give something else: what was kept is then found out again."""


@dataclass(frozen=True, slots=True)
class Found:
    """A package of an image."""

    package: Package
    path: str
    """Of the file that lists it."""
    layer: int
    """The layer that brought it, counted from the lowest: since then it has been there."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in an image, as far as package managers know."""

    distribution: Distribution
    packages: tuple[Found, ...]
    """By path, and in the order of the database."""
    notes: tuple[str, ...]
    """Databases that are there and could not be read, a sentence for each."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What one layer has, whatever is above and below it."""

    packages: Mapping[str, tuple[Package, ...]]
    notes: Mapping[str, str]
    """Why a database could not be read, by path."""

    def serialise(self) -> bytes:
        packages = {path: [_row(package) for package in packages] for path, packages in self.packages.items()}
        return canonical_json({"packages": packages, "notes": dict(self.notes)})

    @classmethod
    def parse(cls, document: bytes) -> "_Facts":
        value = json.loads(document)
        rows = value["packages"].items()
        return cls({path: tuple(Package(*row) for row in packages) for path, packages in rows}, value["notes"])


def _row(package: Package) -> list[str]:
    return [getattr(package, item.name) for item in fields(package)]


def contents_of(layers: Sequence[Layer], store: Store, progress: Progress) -> Contents:
    """Look through the layers of an image, lowest first; they must be in the store."""
    indexes = [store.index_of(layer.diff_id, layer.descriptor) for layer in layers]
    facts = [_facts_of(layer, index, store, progress) for layer, index in zip(layers, indexes, strict=True)]
    view = View(indexes)
    below = cache(lambda layer: View(indexes[:layer]))
    found: list[Found] = []
    notes: list[str] = []
    for path in sorted({path for index in indexes for path in _databases(index)}):
        place = _place(path, indexes, below)
        if place is None:
            continue
        layer, name = place
        if name in facts[layer].notes:
            notes.append(f"/{path} is not in the SBOM: {facts[layer].notes[name]}")
        packages = facts[layer].packages.get(name, ())
        found += [Found(package, path, _first_layer(package, path, view, facts, below)) for package in packages]
    release = view.read("etc/os-release") or view.read("usr/lib/os-release") or b""
    return Contents(Distribution.parse(release), tuple(found), tuple(notes))


def _databases(index: LayerIndex) -> dict[str, Entry]:
    """The files of a layer that list packages, those among them that are further names of files in layers below."""
    kinds = {Kind.FILE, Kind.HARDLINK}
    return {path: entry for path, entry in index.entries.items() if entry.kind in kinds and database_of(path)}


def _place(path: str, indexes: Sequence[LayerIndex], below: Callable[[int], View]) -> tuple[int, str] | None:
    """The layer that has the bytes which are seen at a path, and their name there; None if no file is seen."""
    layers = len(indexes)
    while (layer := below(layers).layer_of(path)) is not None:
        entry = indexes[layer].entries[path]
        if entry.kind is not Kind.HARDLINK:
            return (layer, path) if entry.kind is Kind.FILE else None
        path, layers = entry.target, layer
    return None


def _first_layer(package: Package, path: str, view: View, facts: Sequence[_Facts], below: Callable[[int], View]) -> int:
    """The lowest layer from which on a package has been listed at its path all the time."""
    layer = view.layer_of(path)
    assert layer is not None, "it is seen"
    while (lower := below(layer).layer_of(path)) is not None and package in facts[lower].packages.get(path, ()):
        layer = lower
    return layer


def _facts_of(layer: Layer, index: LayerIndex, store: Store, progress: Progress) -> _Facts:
    """What a layer has; its blob is read only if there is anything in it, and once."""
    names: dict[str, list[str]] = {}
    for path, entry in _databases(index).items():
        if entry.kind is Kind.FILE:
            names.setdefault(first_name(entry), []).append(path)
    if not names:
        return _Facts({}, {})
    key = Digest.of(canonical_json({"packages of": layer.diff_id, "format": FORMAT}))
    document = find_document(key, store)
    if document is not None:
        return _Facts.parse(document)
    with uncompressed(layer, store, progress) as tar:
        facts = _read(tar, names)
    keep_document(key, facts.serialise(), store)
    return facts


def _read(tar: BinaryIO, names: Mapping[str, Sequence[str]]) -> _Facts:
    """What the files of a tar say; `names` are the paths to read, each with the paths under which that counts."""
    packages: dict[str, tuple[Package, ...]] = {}
    notes: dict[str, str] = {}
    landing = Landing()
    for raw, content in read_tar(tar):
        effect, entry, _ = landing.place(raw)
        if effect is Effect.ENTRY and entry.kind is Kind.FILE and entry.path in names:
            paths = names[entry.path]
            try:
                packages |= dict.fromkeys(paths, _parsed(paths[0], entry, content))
                notes = {path: note for path, note in notes.items() if path not in paths}  # of an earlier entry
            except DatabaseError as error:
                notes |= dict.fromkeys(paths, error.message)
                packages |= dict.fromkeys(paths, ())
    return _Facts(packages, notes)


def _parsed(path: str, entry: Entry, content: BinaryIO) -> tuple[Package, ...]:
    database = database_of(path)
    assert database is not None, "only databases are asked for"
    if database.is_whole and entry.size > database.most:
        raise DatabaseError(f"it has {entry.size} bytes, and at most {database.most} are read")
    return tuple(dict.fromkeys(database.parse(content.read(min(entry.size, database.most)))))
