"""What names stand for: images and indexes of the store, of layouts, of registries. Layers stay where they are."""

from collections.abc import Sequence

from builder.images import OCI_LAYOUT, copy_blob, find_root
from builder.report import Report
from builder.stored import find_stored
from cache.store import Store
from layers.data import dataclass
from layers.digest import Digest
from layers.errors import ImageError
from layers.oci import INDEXES, MANIFESTS, Descriptor, Index, Manifest
from layers.parts import is_whole, parts_of
from layers.registry.client import Registry
from layers.registry.push import push
from layers.registry.reference import Reference
from layers.registry.transfer import fetch_layers

_DEEPEST_INDEX = 4


@dataclass(frozen=True, slots=True)
class Found:
    """What a name stands for; its manifests and configurations are in the store."""

    name: str
    root: Descriptor
    """A manifest or an index."""


class Gathering:
    """Brings the documents of names together, and sends what is made of them."""

    def __init__(self, store: Store, registry: Registry, report: Report, *, pull: bool) -> None:
        """`pull` looks names up in their registries, whatever the store has."""
        self._store = store
        self._registry = registry
        self._report = report
        self._pull = pull
        self._homes: dict[Digest, Reference] = {}
        """Where blobs are that came by name alone."""

    def find(self, text: str) -> Found:
        """What a text names, in a layout, in the store if it has all of it, or in a registry; else ImageError."""
        if text.startswith(OCI_LAYOUT):
            return self._from_layout(text)
        if not self._pull:
            try:
                stored = find_stored(self._store.layout, text)
            except ImageError:
                pass
            else:
                if self._is_here(stored.image):
                    return Found(stored.names[0], _bare(stored.image))
        return self.from_registry(Reference.parse(text))

    def from_registry(self, reference: Reference) -> Found:
        """What a reference names in its registry."""
        with self._report.running(f"[internal] load metadata for {reference}"):
            return Found(str(reference), self._documents(reference, 0))

    def send(self, image: Descriptor, references: Sequence[Reference]) -> None:
        """Push an image or index that is made of what was found.

        Blobs are mounted from where they are in the same registry, and else fetched.
        """
        with self._report.running(f"pushing {', '.join(map(str, references))}") as job:

            def progress(blob: Descriptor, done: int) -> None:
                self._report.progress(job, blob.digest, done, blob.size)

            push(
                self._registry,
                self._store.layout,
                image,
                references,
                progress=progress,
                neighbour=self._home_of,
                obtain=self._obtain,
            )

    def keep(self, image: Descriptor, names: Sequence[str]) -> None:
        """Give names in the store to what is made of what was found, with all its layers."""
        parts = parts_of(self._store.layout, image)
        for blob in (*parts.blobs, *parts.foreign):
            self._obtain(blob)
        for name in names:
            self._store.layout.tag(name, image)

    def _is_here(self, image: Descriptor) -> bool:
        layout = self._store.layout
        return is_whole(layout, image) and all(layout.has(blob) for blob in parts_of(layout, image).blobs)

    def _from_layout(self, text: str) -> Found:
        layout, root = find_root(text.removeprefix(OCI_LAYOUT))
        parts = parts_of(layout, root)
        for blob in (*parts.blobs, *parts.foreign, *parts.manifests, root):
            copy_blob(layout, blob, self._store.layout)
        return Found(text, _bare(root))

    def _documents(self, reference: Reference, depth: int) -> Descriptor:
        """Bring what a reference names, and all documents below it."""
        data, kind = self._registry.manifest(reference)
        if kind in INDEXES:
            if depth == _DEEPEST_INDEX:
                raise ImageError(f"{reference.familiar}: its indexes name one another without end")
            for child in Index.parse(data).manifests:
                self._documents(Reference(reference.host, reference.repository, digest=child.digest), depth + 1)
        elif kind in MANIFESTS:
            manifest = Manifest.parse(data)
            if not self._store.layout.has(manifest.config):
                document = self._registry.document(reference, manifest.config)
                self._store.layout.put(document, manifest.config.media_type)
            self._homes |= {blob.digest: reference for blob in (manifest.config, *manifest.layers)}
        else:
            raise ImageError(f"{reference.familiar} is neither an image nor an index: {kind}")
        return self._store.layout.put(data, kind)

    def _home_of(self, host: str, blob: Descriptor) -> str:
        home = self._homes.get(blob.digest)
        return home.repository if home and home.host == host else ""

    def _obtain(self, blob: Descriptor) -> None:
        home = self._homes.get(blob.digest)
        if home is not None and not self._store.layout.has(blob):
            fetch_layers(self._registry, home, [blob], self._store.layout, progress=lambda _blob, _done: None)


def _bare(descriptor: Descriptor) -> Descriptor:
    """Without what a layout says of it."""
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)
