"""Finds the images that FROM and --from name: a named context, the store, a registry; and brings their layers."""

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from builder.context.named import ImageContext, LayoutContext, NamedContexts, full_name
from builder.report import Report
from builder.steps.step import Base
from builder.supply import Progress, Supplier, Supply
from cache.store import Store
from layers.digest import Digest, DigestError
from layers.errors import ImageError
from layers.layer import Layer
from layers.layout import Layout
from layers.oci import INDEXES, MANIFESTS, Descriptor, Image, ImageConfig, Index, Manifest, Platform
from layers.registry.reference import Reference
from layers.registry.settings import RegistrySettings

if TYPE_CHECKING:
    from layers.registry.client import Registry

OCI_LAYOUT = "oci-layout://"
_DEEPEST_INDEX = 4
"""An index may name an index, but nobody needs more of them in one another."""


class Images:
    """The images of one build. A name is looked up once, so that all stages FROM it start from the same."""

    def __init__(
        self,
        store: Store,
        contexts: NamedContexts,
        registries: RegistrySettings,
        report: Report,
        supply: Supply,
        *,
        pull: bool,
    ) -> None:
        self._store = store
        self._supply = supply
        self._report = report
        self._contexts = contexts
        self._registries = registries
        self._pull = pull
        self._found: dict[tuple[str, Platform], Base] = {}
        self._stood_on: set[Digest] = set()
        """Layers, by diff_id, of which trees are needed as soon as they are here."""
        self._unnamed: set[Digest] = set()
        """Images of registries that came in this build."""
        self._stack = ExitStack()
        self._registry: Registry | None = None

    def close(self) -> None:
        """Close the connections to registries."""
        self._stack.close()

    def find(self, name: str, platform: Platform, *, any_single: bool = True) -> Base:
        """The image of a name for a platform; ImageError if there is none.

        Its documents are in the store, its layers may not be. `any_single` takes an image that stands in no index
        whatever it is for: as a base that is worth a warning, but no error.
        """
        base = self._found.get((name, platform))
        if base is None:
            base = self._found[name, platform] = self._find(name, platform, any_single=any_single)
        return base

    def fetch(self, base: Base, title: str, *, to_read: bool = True, to_stand_on: bool = False) -> None:
        """Bring the layers that the store lacks, and say so under a title, or that nothing is to be done.

        Each layer is checked against its diff_id, and what is in it remembered. If nobody is `to_read` files of it,
        layers of which that is known already stay where they are. For who is `to_stand_on` them they are unpacked on
        the way.
        """
        missing = self._missing(base.image)
        if not to_read:
            missing = tuple(layer for layer in missing if not self._store.has_index(layer.diff_id))
        if missing:
            if to_stand_on:
                self._stood_on |= {layer.diff_id for layer in missing}
            self._supply.bring(missing, title)
            self.keep()
        else:
            self._report.cached(title)

    def keep(self) -> None:
        """Give those images their names in the store whose layers are all there by now."""
        for base in self._found.values():
            image = base.image.descriptor
            if image.digest in self._unnamed and not self._missing(base.image):
                self._unnamed.discard(image.digest)
                self._store.layout.tag(base.name, base.index or image)

    @property
    def are_here(self) -> bool:
        """Whether the store has every image under its name by now, so that no registry is asked for it again."""
        return not self._unnamed

    def _missing(self, image: Image) -> tuple[Layer, ...]:
        return tuple(layer for layer in _layers_of(image) if not self._store.layout.has(layer.descriptor))

    def _find(self, name: str, platform: Platform, *, any_single: bool) -> Base:
        context = self._contexts.find(name)
        if isinstance(context, LayoutContext):
            return self._from_layout(full_name(name), context.location, platform)
        if isinstance(context, ImageContext):
            name = context.name
        full = full_name(name)
        if not self._pull:
            image = find_local(self._store.layout, full, platform)
            if image is not None and not self._missing(image):
                return Base(full, image)
            if image is not None:
                self._report.warn(f"the store has lost layers of {full}: it is looked for in its registry")
        try:
            return self._from_registry(Reference.parse(name), platform, any_single=any_single)
        except ImageError as error:
            error.hint = self._other_platforms(full) or error.hint
            raise

    def _other_platforms(self, name: str) -> str:
        """What the store has under a name for which it was of no use."""
        images = images_at(self._store.layout, self._store.layout.resolve(name))
        there = ", ".join(str(image.config.platform) for image in images)
        return f"the store has {name} for {there}" if there and not self._pull else ""

    def _from_layout(self, name: str, location: str, platform: Platform) -> Base:
        layout, image = open_layout(location, platform, any_single=True)
        for descriptor in (image.manifest.config, image.descriptor):
            copy_blob(layout, descriptor, self._store.layout)

        def fetch(layers: tuple[Layer, ...], progress: Progress) -> None:
            for layer in layers:
                copy_blob(layout, layer.descriptor, self._store.layout)
                self._store.index_of(layer.diff_id, layer.descriptor)
                progress(layer.descriptor, layer.descriptor.size)

        self._supply.offer(_layers_of(image), Supplier(f"FROM {OCI_LAYOUT}{name}", fetch))
        return Base(f"{OCI_LAYOUT}{name}", image)

    def _from_registry(self, reference: Reference, platform: Platform, *, any_single: bool) -> Base:
        # Not at the top: a build whose base images are in the store needs no HTTP.
        from layers.layer import read_layer
        from layers.registry.client import Registry
        from layers.registry.transfer import fetch_layers

        def fetch(layers: tuple[Layer, ...], progress: Progress) -> None:
            blobs = [layer.descriptor for layer in layers]
            fetch_layers(registry, reference, blobs, self._store.layout, progress=progress, inspect=inspect)

        def inspect(layer: Descriptor, stream: BinaryIO) -> None:
            diff_id = image.diff_id_of(layer)
            read = self._store.trees.grow if diff_id in self._stood_on else read_layer
            self._store.keep_index(diff_id, read(layer, diff_id, stream))

        if self._registry is None:
            self._registry = self._stack.enter_context(Registry(self._registries, warn=self._report.warn))
        registry = self._registry
        with self._report.running(f"[internal] load metadata for {reference}"):
            resolved = registry.resolve(reference, platform, self._store.layout.put, any_single=any_single)
        image = resolved.image
        home = (reference.host, reference.repository)
        self._supply.offer(_layers_of(image), Supplier(f"FROM {reference}", fetch, home))
        self._unnamed.add(image.descriptor.digest)
        return Base(str(reference), image, resolved.index)


def _layers_of(image: Image) -> tuple[Layer, ...]:
    pairs = zip(image.manifest.layers, image.config.diff_ids, strict=True)
    return tuple(Layer(diff_id, descriptor, 0) for descriptor, diff_id in pairs)


def find_local(layout: Layout, name: str, platform: Platform) -> Image | None:
    """The image that a layout has under a name for a platform."""
    descriptor = layout.resolve(name)
    return choose_image(layout, descriptor, platform) if descriptor else None


def read_image(layout: Layout, descriptor: Descriptor) -> Image | None:
    """The image of a manifest; None for a descriptor of something else, or if a document of it was lost."""
    if descriptor.media_type not in MANIFESTS or not layout.has(descriptor):
        return None
    manifest = Manifest.parse(layout.read(descriptor))
    if not layout.has(manifest.config):
        return None
    return Image(descriptor, manifest, ImageConfig.parse(layout.read(manifest.config)))


def image_at(layout: Layout, descriptor: Descriptor, platform: Platform) -> Image | None:
    """The image of a manifest, or of those in an index the one for a platform; None if it is not there."""
    for _ in range(_DEEPEST_INDEX):
        if descriptor.media_type not in INDEXES:
            return read_image(layout, descriptor)
        try:
            descriptor = Index.parse(layout.read(descriptor)).choose(platform)
        except ImageError:
            return None
        if not layout.has(descriptor):
            return None
    return None


def images_at(layout: Layout, descriptor: Descriptor | None) -> list[Image]:
    """All images of a manifest or index that are there; what stands in an index beside images is none."""
    if descriptor is None or not layout.has(descriptor):
        return []
    if descriptor.media_type not in INDEXES:
        return list(filter(None, [read_image(layout, descriptor)]))
    offers = Index.parse(layout.read(descriptor)).offers
    return [image for offer in offers for image in images_at(layout, offer)]


def find_named(layout: Layout, text: str, platform: Platform | None = None) -> tuple[str, Image]:
    """The image that a person means by a name, or by the beginning of its id or digest; and its full name.

    Of an index it is the one for a platform. None is this machine's, else the only one that there is.
    """
    from builder.stored import find_stored  # builds know full names

    stored = find_stored(layout, text)
    image = choose_image(layout, stored.image, platform)
    if image is None:
        there = ", ".join(str(other.config.platform) for other in images_at(layout, stored.image)) or "nothing else"
        raise ImageError(
            f"the store has no {stored.names[0]} for {platform or Platform.host()}; there is {there}",
            hint="--platform chooses one" if platform is None else "",
        )
    return stored.names[0], image


def choose_image(layout: Layout, descriptor: Descriptor, platform: Platform | None) -> Image | None:
    """The image of a manifest or index for a platform. None is this machine's, else the only one that there is."""
    if platform is not None:
        image = image_at(layout, descriptor, platform)
        return image if image and platform.runs(image.config.platform) else None
    images = images_at(layout, descriptor)
    return images[0] if len(images) == 1 else image_at(layout, descriptor, Platform.host())


def open_layout(location: str, platform: Platform | None, *, any_single: bool = False) -> tuple[Layout, Image]:
    """What `DIR[:TAG][@DIGEST]` means: the layout and the image for a platform; ImageError if it has none.

    `any_single` takes an image that stands in no index whatever it is for.
    """
    layout, root = find_root(location)
    image = choose_image(layout, root, platform)
    if image is None and any_single:
        image = read_image(layout, root)
    if image is None:
        there = ", ".join(str(other.config.platform) for other in images_at(layout, root)) or "nothing else"
        raise ImageError(f"{location} has no image for {platform or Platform.host()}; there is {there}")
    return layout, image


def find_root(location: str) -> tuple[Layout, Descriptor]:
    """The layout of `DIR[:TAG][@DIGEST]`, and the manifest or index there; the digest goes before the tag."""
    folder, digest = _split_digest(location)
    tag = ""
    while ":" in folder and not os.path.isdir(folder):  # a tag may be a whole image name, with a colon of its own
        folder, _, more = folder.rpartition(":")
        tag = f"{more}:{tag}" if tag else more
    if not os.path.isfile(os.path.join(folder, "index.json")):
        raise ImageError(f"{location} is no OCI image layout", hint="a folder with index.json and blobs/ is one")
    layout = Layout(folder)
    named = layout.resolve(tag) if tag else _only(layout)
    root = _by_digest(layout, digest) if digest else named
    if root is None:
        raise ImageError(
            f"{folder} has no image {digest or tag or 'that is the only one'}",
            hint="its index.json has: " + (", ".join(sorted(layout.names())) or "no name"),
        )
    return layout, root


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
