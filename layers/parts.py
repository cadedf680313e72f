"""What an image, or an index of images, is made of."""

from collections.abc import Iterator

from layers.data import dataclass
from layers.errors import ImageError
from layers.layout import Layout
from layers.oci import INDEXES, MANIFESTS, Descriptor, Index, Manifest


@dataclass(frozen=True, slots=True)
class Parts:
    """All that an image is made of, each once."""

    blobs: tuple[Descriptor, ...]
    """Layers and configurations."""
    foreign: tuple[Descriptor, ...]
    """Layers that nobody may pass on (with URLs of their own)."""
    manifests: tuple[Descriptor, ...]
    """Those below the image, each before what names it; empty for a single image."""


def parts_of(layout: Layout, image: Descriptor) -> Parts:
    """The parts of an image or index. What an index names and the layout does not have is an ImageError."""
    blobs: dict[str, Descriptor] = {}
    manifests: dict[str, Descriptor] = {}
    for descriptor in _below(layout, image):
        manifests[descriptor.digest] = descriptor
        if descriptor.media_type in MANIFESTS:
            manifest = Manifest.parse(layout.read(descriptor))
            blobs |= {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
    del manifests[image.digest]
    foreign = tuple(blob for blob in blobs.values() if _is_foreign(blob))
    return Parts(tuple(blob for blob in blobs.values() if blob not in foreign), foreign, tuple(manifests.values()))


def is_whole(layout: Layout, image: Descriptor) -> bool:
    """Whether all manifests that an index leads to are there: who pulls one platform has no others."""
    try:
        parts_of(layout, image)
    except ImageError:
        return False
    return True


def _below(layout: Layout, descriptor: Descriptor) -> Iterator[Descriptor]:
    """The manifests under a descriptor, children first, and the descriptor itself last."""
    if descriptor.media_type in INDEXES:
        for child in Index.parse(layout.read(descriptor)).manifests:
            if not layout.has(child):
                raise ImageError(
                    f"the index {descriptor.digest} names {child.platform or child.digest}, which is not in the store",
                    hint="pull or build it first, or push one platform alone",
                )
            yield from _below(layout, child)
    elif descriptor.media_type not in MANIFESTS:
        raise ImageError(f"{descriptor.digest} is neither an image nor an index: {descriptor.media_type}")
    yield descriptor


def _is_foreign(blob: Descriptor) -> bool:
    """Whether a layer may not be passed on (image-spec, "Non-Distributable Layers"; Docker's "foreign" ones)."""
    return "nondistributable" in blob.media_type or ".foreign." in blob.media_type or bool(blob.urls)
