"""A cache in a registry (`type=registry`).

The table is what the reference names. Registries have no way to replace a tag only if nobody else did meanwhile, so
of two builds that write the table at once one may undo what the other did. Hence each fact has a tag of its own beside
it, REFERENCE.KEY, which only builds write that have found the same fact: nothing is ever lost, and the table is what
makes looking up quick.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cache.shared.artifact import (
    ARTIFACT,
    EMPTY,
    EMPTY_DESCRIPTOR,
    LARGEST_NOTE,
    document_in,
    manifest_of,
    manifest_with,
)
from cache.shared.shelf import TABLE, Inspect, Obtain, Progress
from layers.data import replace
from layers.layout import Layout
from layers.oci import INDEXES, Descriptor, Index, Manifest, Platform
from layers.registry.client import Registry
from layers.registry.errors import NotFoundError
from layers.registry.parallel import TRANSFERS, Stop, each
from layers.registry.places import Endpoint
from layers.registry.push import Neighbour, push_blobs, put_manifest
from layers.registry.reference import Reference
from layers.registry.transfer import fetch_layers

_LONGEST_TAG = 63
"""Of the 128 characters of a tag (distribution-spec, "Pulling manifests"), those that a dot and 64 digits leave."""


class RegistryShelf:
    """The cache under one reference."""

    def __init__(
        self, registry: Registry, reference: Reference, platform: Platform, scratch: Layout, neighbour: Neighbour
    ) -> None:
        """`scratch` is for documents on their way; `neighbour` knows where in the registry blobs are already."""
        self.title = reference.familiar
        self.home: tuple[str, str] | None = (reference.host, reference.repository)
        self.by_platform = False
        self._registry = registry
        self._reference = reference
        self._platform = platform
        self._scratch = scratch
        self._neighbour = neighbour
        self._sent: set[str] = set()
        """Documents that are there for certain."""
        self._is_image = False
        """Whether the reference is an image that carries its cache, and so has no further documents."""

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        yield False

    def read(self, name: str) -> bytes | None:
        if name and self._is_image:
            return None
        reference = self._named(name)
        try:
            data, kind = self._registry.manifest(reference)
            if kind in INDEXES:  # an image for several platforms, each of which may carry what made it
                self.by_platform = True
                chosen = Index.parse(data).choose(self._platform)
                data, kind = self._registry.manifest(replace(reference, digest=chosen.digest))
        except NotFoundError:
            return None
        manifest = Manifest.parse(data)
        self._is_image = manifest.config.media_type != ARTIFACT
        return document_in(manifest, lambda blob: self._registry.document(reference, blob))

    def write(self, name: str, data: bytes, blobs: Sequence[Descriptor]) -> None:
        if name != TABLE and len(data) <= LARGEST_NOTE:
            self._send(EMPTY)
            manifest = manifest_with(data, blobs)
        else:
            manifest = manifest_of(self._send(data), blobs)
            if EMPTY_DESCRIPTOR in manifest.layers:
                self._send(EMPTY)
        stored = self._scratch.put(manifest.serialise(), manifest.media_type)
        put_manifest(self._registry, self._scratch, self._endpoint, stored, self._named(name).tag)

    def lacking(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        lacking: list[Descriptor] = []

        def look(blob: Descriptor, _: Stop) -> None:
            if not self._registry.has_blob(self._reference, blob):
                lacking.append(blob)

        each(look, blobs, parallel=TRANSFERS, pause=self._registry.pause, name="look")
        return lacking

    def fetch(self, blobs: Sequence[Descriptor], layout: Layout, inspect: Inspect, progress: Progress) -> None:
        fetch_layers(self._registry, self._reference, blobs, layout, progress=progress, inspect=inspect)

    def put(self, blobs: Sequence[Descriptor], layout: Layout, obtain: Obtain, progress: Progress) -> None:
        push_blobs(
            self._registry,
            layout,
            self._endpoint,
            blobs,
            neighbour=self._neighbour,
            progress=progress,
            obtain=obtain,
        )

    def close(self) -> None:
        """The connections belong to whoever made them."""

    def _send(self, data: bytes) -> Descriptor:
        """Make sure that a document is there."""
        document = self._scratch.put(data, ARTIFACT)
        if document.digest not in self._sent:
            self.put([document], self._scratch, _nothing, _nothing)
            self._sent.add(document.digest)
        return document

    @property
    def _endpoint(self) -> Endpoint:
        return self._registry.dialogue.places.target(self._reference)

    def _named(self, name: str) -> Reference:
        tag = self._reference.tag
        return replace(self._reference, tag=f"{tag[:_LONGEST_TAG]}.{name}", digest=None) if name else self._reference


def _nothing(*_: object) -> None:
    """For what needs no telling."""
