"""Reads images out of archives into the store: those of `docker save` in all their forms, and OCI image layouts.

An archive is read once, as a stream, in whatever order it is. It may come from anybody: blobs are checked against their
names, layers against the diff_ids of their image, and no path of it ever becomes one on this machine.
"""

import json
import os
from collections.abc import Iterator
from typing import BinaryIO

from builder.images import choose_image, copy_blob, images_at
from cache.store import Store
from layers.compress import decompressed
from layers.digest import Digest, DigestError
from layers.entry import Entry, Kind
from layers.errors import ImageError
from layers.layout import LARGEST_DOCUMENT, Layout
from layers.oci import (
    CONFIG,
    IMAGE_NAME,
    INDEXES,
    LAYER,
    LAYER_GZIP,
    LAYER_ZSTD,
    MANIFEST,
    REF_NAME,
    Descriptor,
    Image,
    ImageConfig,
    Index,
    Manifest,
)
from layers.registry.reference import Reference
from layers.tar import TarError, read_tar

_MOST_DOCUMENTS = 64 << 20
"""Bytes of all small files together; an image has some kilobytes of them."""
_MOST_LINKS = 40

Loaded = tuple[str, Image]
"""A full name, or "" for an image without one, and the image."""


def load_archive(stream: BinaryIO, store: Store) -> list[Loaded]:
    """Put all images of an archive into the store, under the names that they have in it.

    ImageError if it is no archive of images, or not a whole one; then no name has changed.
    """
    archive = _Archive(store)
    try:
        for entry, content in read_tar(decompressed(stream)):
            archive.add(entry, content)
    except TarError as error:
        raise ImageError(f"this is no archive of images: {error.message}") from error
    images = list(archive.images())
    return _keep(images, store)


def load_folder(folder: str, store: Store) -> list[Loaded]:
    """Put all images of an OCI layout folder into the store."""
    layout = Layout(folder)
    images = list(_listed(layout.index()))
    for _, root in images:
        for blob in _blobs(root, layout):
            copy_blob(layout, blob, store.layout)
    return _keep(images, store)


def _blobs(root: Descriptor, layout: Layout) -> Iterator[Descriptor]:
    """Everything that a manifest or index leads to, as far as the layout has it; a document comes after its parts."""
    if root.media_type in INDEXES:
        for listed in Index.parse(layout.read(root)).manifests:
            if layout.has(listed):
                yield from _blobs(listed, layout)
    else:
        manifest = Manifest.parse(layout.read(root))
        yield from (manifest.config, *manifest.layers)
    yield root


def _keep(images: list[tuple[str, Descriptor]], store: Store) -> list[Loaded]:
    """Give images their names, once all of them are known to be whole."""
    loaded = [(name, _checked(name, root, store)) for name, root in images]
    for name, root in images:
        if name:
            store.layout.tag(name, root)
    return loaded


def _checked(name: str, root: Descriptor, store: Store) -> Image:
    """The image of a manifest or index, once all that are there are whole and what they say; of several this machine's.

    An index may name more than an archive has: whoever wrote it had the images of some platforms only.
    """
    images = images_at(store.layout, root)
    if not images:
        raise ImageError(f"{root.media_type} is not an image")
    for image in images:
        for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
            if not store.layout.has(layer):
                raise ImageError(f"layer {layer.digest} of {name or root.digest} is missing")
            store.index_of(diff_id, layer)
    return choose_image(store.layout, root, None) or images[0]


def _listed(index: Index) -> Iterator[tuple[str, Descriptor]]:
    """What an index.json lists, by full name; a tag alone, as skopeo writes it, is no name."""
    for manifest in index.manifests:
        name = manifest.annotations.get(IMAGE_NAME) or manifest.annotations.get(REF_NAME, "")
        is_name = bool(manifest.annotations.get(IMAGE_NAME)) or ":" in name or "/" in name
        yield (str(Reference.parse(name)) if is_name else ""), _bare(manifest)


def _bare(descriptor: Descriptor) -> Descriptor:
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, descriptor.platform)


class _Archive:
    """The files of an archive while it is read: large ones in the store, small ones in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._blobs: dict[str, Descriptor] = {}
        self._documents: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._size = 0

    def add(self, entry: Entry, content: BinaryIO) -> None:
        """Take one entry."""
        if entry.kind is Kind.SYMLINK:
            self._links[entry.path] = os.path.normpath(os.path.join(os.path.dirname(entry.path), entry.target))
        elif entry.kind is Kind.HARDLINK:
            self._links[entry.path] = entry.target
        elif entry.kind is Kind.FILE and (entry.path.startswith("blobs/") or entry.path.endswith(".tar")):
            self._blobs[entry.path] = self._store_blob(entry, content)
        elif entry.kind is Kind.FILE:
            self._size += entry.size
            if entry.size > LARGEST_DOCUMENT or self._size > _MOST_DOCUMENTS:
                raise ImageError(f"the archive has a file {entry.path!r} that is too large for what it should be")
            self._documents[entry.path] = content.read()

    def images(self) -> Iterator[tuple[str, Descriptor]]:
        """The names and what they stand for, by whichever table of contents there is."""
        if "index.json" in self._documents:
            yield from _listed(Index.parse(self._documents["index.json"]))
        elif "manifest.json" in self._documents:
            yield from self._by_manifest(self._documents["manifest.json"])
        else:
            raise ImageError(
                "this is no archive of images: it has neither index.json nor manifest.json",
                hint="pybuild save and docker save write such archives; a root file system is for FROM scratch and ADD",
            )

    def _store_blob(self, entry: Entry, content: BinaryIO) -> Descriptor:
        expected = None
        folder, _, name = entry.path.rpartition("/")
        if folder.startswith("blobs/"):
            try:
                expected = Descriptor("", Digest(f"{folder.removeprefix('blobs/')}:{name}"), entry.size)
            except DigestError as error:
                raise ImageError(f"the archive has a blob {entry.path!r}, which is no name of one") from error
        with self._store.layout.writer() as blob:
            head = b""
            while block := content.read(1 << 20):
                head = head or block[:4]
                blob.write(block)
            digest, size = blob.commit(expected)
        return Descriptor(_layer_type(head), digest, size)

    def _by_manifest(self, table: bytes) -> Iterator[tuple[str, Descriptor]]:
        """Images as docker wrote them before it knew of OCI: a configuration, and the paths of the layers."""
        for config_path, names, layer_paths in _rows(table):
            config = self._document(config_path)
            ImageConfig.parse(config)
            manifest = Manifest(
                self._store.layout.put(config, CONFIG), tuple(self._layer(path) for path in layer_paths)
            )
            root = self._store.layout.put(manifest.serialise(), MANIFEST)
            for name in names or [""]:
                yield (str(Reference.parse(name)) if name else ""), root

    def _document(self, path: str) -> bytes:
        if path in self._documents:
            return self._documents[path]
        if path in self._blobs:
            return self._store.layout.read(self._blobs[path])
        raise ImageError(f"the archive has no {path!r}, which its manifest.json names")

    def _layer(self, path: str) -> Descriptor:
        for _ in range(_MOST_LINKS):
            if path in self._blobs:
                return self._blobs[path]
            path = self._links.get(path, path)
        raise ImageError(f"the archive has no layer {path!r}, which its manifest.json names")


def _rows(table: bytes) -> list[tuple[str, list[str], list[str]]]:
    """Configuration, names and layers of each image in a manifest.json."""
    try:
        rows = [(row["Config"], row.get("RepoTags") or [], row["Layers"]) for row in json.loads(table)]
        if all(isinstance(text, str) for config, names, layers in rows for text in (config, *names, *layers)):
            return rows
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ImageError("the archive's manifest.json cannot be read") from error
    raise ImageError("the archive's manifest.json has something else where there should be names")


def _layer_type(head: bytes) -> str:
    """The media type of a layer that begins so."""
    if head.startswith(b"\x1f\x8b"):
        return LAYER_GZIP
    return LAYER_ZSTD if head.startswith(b"\x28\xb5\x2f\xfd") else LAYER
