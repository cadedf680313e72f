"""Finds the images that FROM and --from name: a named context, the store, a registry; and brings their layers."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from builder.context.named import ImageContext, LayoutContext, NamedContexts, full_name
from builder.report import Report
from builder.steps.step import Base
from cache.store import Store
from layers.digest import Digest, DigestError
from layers.errors import ImageError, StoreError
from layers.layout import Layout
from layers.oci import INDEXES, MANIFESTS, Descriptor, Image, ImageConfig, Index, Manifest, Platform
from layers.registry.reference import Reference
from layers.registry.settings import RegistrySettings

if TYPE_CHECKING:
    from layers.registry.client import Registry

Progress = Callable[[Descriptor, int], None]
"""Called with a blob and how many of its bytes have come."""

OCI_LAYOUT = "oci-layout://"
_SHORTEST_ID = 4
"""Fewer digits of an id would match by accident."""


Fetch = Callable[[tuple[Descriptor, ...], Progress], None]
"""Brings layers into the store from where they are; each is verified."""


class Images:
    """The images of one build. A name is looked up once, so that all stages FROM it start from the same."""

    def __init__(
        self,
        store: Store,
        contexts: NamedContexts,
        registries: RegistrySettings,
        platform: Platform,
        report: Report,
        *,
        pull: bool,
    ) -> None:
        self._store = store
        self._report = report
        self._contexts = contexts
        self._registries = registries
        self._platform = platform
        self._pull = pull
        self._found: dict[str, Base] = {}
        self._sources: dict[Digest, Fetch] = {}
        self._stack = ExitStack()
        self._registry: Registry | None = None

    def close(self) -> None:
        """Close the connections to registries."""
        self._stack.close()

    def find(self, name: str) -> Base:
        """The image of a name; ImageError if there is none. Its documents are in the store, its layers may not be."""
        base = self._found.get(name)
        if base is None:
            base = self._found[name] = self._find(name)
        return base

    def fetch(self, base: Base, title: str, check: Callable[[], None]) -> None:
        """Bring the layers that the store lacks; builds that want the same ones wait for each other.

        Each layer is checked against its diff_id, and what is in it remembered. `check` is called all the while, and
        raises if nobody wants the image any more.
        """
        if self._missing(base.image):
            self.require(base, title, check)
        else:
            self._report.cached(title)

    def require(self, base: Base, title: str, check: Callable[[], None] = lambda: None) -> None:
        """The same, and nothing is shown where nothing is to be done."""
        if not self._missing(base.image):
            return
        with self._store.lock(base.image.descriptor.digest, waiting=check), self._report.running(title) as job:

            def progress(descriptor: Descriptor, done: int) -> None:
                check()
                self._report.progress(job, descriptor.digest, done, descriptor.size)

            source = self._sources.get(base.image.descriptor.digest)
            if source is None:
                raise StoreError(f"the store has lost layers of {base.name}", hint="build again: they are fetched then")
            source(self._missing(base.image), progress)
            for descriptor, diff_id in zip(base.image.manifest.layers, base.image.config.diff_ids, strict=True):
                self._store.index_of(diff_id, descriptor)
            if not base.name.startswith(OCI_LAYOUT):
                self._store.layout.tag(base.name, base.image.descriptor)

    def _missing(self, image: Image) -> tuple[Descriptor, ...]:
        return tuple(layer for layer in image.manifest.layers if not self._store.layout.has(layer))

    def _find(self, name: str) -> Base:
        context = self._contexts.find(name)
        if isinstance(context, LayoutContext):
            return self._from_layout(full_name(name), context.location)
        if isinstance(context, ImageContext):
            name = context.name
        full = full_name(name)
        if not self._pull:
            image = find_local(self._store.layout, full, self._platform)
            if image is not None and not self._missing(image):
                return Base(full, image)
            if image is not None:
                self._report.warn(f"the store has lost layers of {full}: it is looked for in its registry")
        return self._from_registry(Reference.parse(name))

    def _from_layout(self, name: str, location: str) -> Base:
        layout, image = open_layout(location, self._platform)
        for descriptor in (image.manifest.config, image.descriptor):
            copy_blob(layout, descriptor, self._store.layout)

        def fetch(layers: tuple[Descriptor, ...], progress: Progress) -> None:
            for descriptor in layers:
                copy_blob(layout, descriptor, self._store.layout)
                progress(descriptor, descriptor.size)

        self._sources[image.descriptor.digest] = fetch
        return Base(f"{OCI_LAYOUT}{name}", image)

    def _from_registry(self, reference: Reference) -> Base:
        # Not at the top: a build whose base images are in the store needs no HTTP.
        from layers.layer import read_layer
        from layers.registry.client import Registry
        from layers.registry.transfer import fetch_layers

        def fetch(layers: tuple[Descriptor, ...], progress: Progress) -> None:
            fetch_layers(registry, reference, layers, self._store.layout, progress=progress, inspect=inspect)

        def inspect(layer: Descriptor, stream: BinaryIO) -> None:
            diff_id = image.diff_id_of(layer)
            self._store.keep_index(diff_id, read_layer(layer, diff_id, stream))

        if self._registry is None:
            self._registry = self._stack.enter_context(Registry(self._registries, warn=self._report.warn))
        registry = self._registry
        with self._report.running(f"[internal] load metadata for {reference}"):
            image = registry.resolve(reference, self._platform, self._store.layout.put)
        self._sources[image.descriptor.digest] = fetch
        return Base(str(reference), image)


def find_local(layout: Layout, name: str, platform: Platform) -> Image | None:
    """The image that a layout has under a name for a platform; an empty name is the only one that it has."""
    return _for_platform(layout, layout.resolve(name) if name else _only(layout), platform)


def _for_platform(layout: Layout, descriptor: Descriptor | None, platform: Platform) -> Image | None:
    if descriptor is not None and descriptor.media_type in INDEXES:
        descriptor = Index.parse(layout.read(descriptor)).choose(platform)
    image = read_image(layout, descriptor) if descriptor else None
    return image if image and platform.runs(image.config.platform) else None


def read_image(layout: Layout, descriptor: Descriptor) -> Image | None:
    """The image of a manifest; None for a descriptor of something else, or if a document of it was lost."""
    if descriptor.media_type not in MANIFESTS or not layout.has(descriptor):
        return None
    manifest = Manifest.parse(layout.read(descriptor))
    if not layout.has(manifest.config):
        return None
    return Image(descriptor, manifest, ImageConfig.parse(layout.read(manifest.config)))


def image_at(layout: Layout, descriptor: Descriptor, platform: Platform) -> Image | None:
    """The image of a manifest, or of those in an index the one for a platform; None if there is none."""
    if descriptor.media_type in INDEXES:
        try:
            descriptor = Index.parse(layout.read(descriptor)).choose(platform)
        except ImageError:
            return None
    return read_image(layout, descriptor)


def find_named(layout: Layout, text: str, platform: Platform) -> tuple[str, Image]:
    """The image that a person means by a name, or by the beginning of its id or digest; and its full name."""
    full = full_name(text)
    image = find_local(layout, full, platform)
    if image is not None:
        return full, image
    wanted = text.removeprefix("sha256:")
    for name, descriptor in sorted(layout.names().items()):
        named = image_at(layout, descriptor, platform)
        if named and len(wanted) >= _SHORTEST_ID:
            for digest in (named.manifest.config.digest, named.descriptor.digest):
                if digest.hex.startswith(wanted):
                    return name, named
    raise ImageError(f"there is no image {text!r} in the store", hint="`pybuild images` lists what is there")


def open_layout(location: str, platform: Platform) -> tuple[Layout, Image]:
    """What `DIR[:TAG][@DIGEST]` means: the layout and the image; the digest goes before the tag. Else ImageError."""
    folder, digest = _split_digest(location)
    tag = ""
    while ":" in folder and not os.path.isdir(folder):  # a tag may be a whole image name, with a colon of its own
        folder, _, more = folder.rpartition(":")
        tag = f"{more}:{tag}" if tag else more
    if not os.path.isfile(os.path.join(folder, "index.json")):
        raise ImageError(f"{location} is no OCI image layout", hint="a folder with index.json and blobs/ is one")
    layout = Layout(folder)
    image = _for_platform(layout, _by_digest(layout, digest), platform) if digest else find_local(layout, tag, platform)
    if image is None:
        raise ImageError(
            f"{folder} has no image {digest or tag or 'that is the only one'} for {platform}",
            hint="its index.json has: " + (", ".join(sorted(layout.names())) or "no name"),
        )
    return layout, image


def _split_digest(location: str) -> tuple[str, Digest | None]:
    """`DIR:TAG@DIGEST` in two; a folder's name may have an @ of its own."""
    place, at, text = location.rpartition("@")
    try:
        return (place, Digest(text)) if at else (location, None)
    except DigestError:
        return location, None


def _by_digest(layout: Layout, digest: Digest) -> Descriptor | None:
    """The manifest or index of a digest, whether index.json lists it, or an index that is listed."""
    listed = list(layout.index().manifests)
    while listed:
        descriptor = listed.pop()
        if descriptor.digest == digest:
            return descriptor
        if descriptor.media_type in INDEXES:
            listed += Index.parse(layout.read(descriptor)).manifests
    return None


def copy_blob(source: Layout, descriptor: Descriptor, target: Layout) -> None:
    """Copy a blob unless it is there; it is verified on the way."""
    if not target.has(descriptor):
        with source.open(descriptor) as blob, target.writer() as writer:
            while block := blob.read(1 << 20):
                writer.write(block)
            writer.commit(descriptor)


def _only(layout: Layout) -> Descriptor | None:
    manifests = layout.index().manifests
    return manifests[0] if len(manifests) == 1 else None
