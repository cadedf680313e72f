"""From the ends of a build, or an image that is there, to what an output wants, with all its documents.

That is one image, or for several platforms an index of one image each.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from builder.events import Job
from builder.export.output import Annotations, Packing, Squash
from builder.report import Report
from cache.store import Store
from layers.compress import Compression
from layers.data import dataclass, replace
from layers.digest import Digest
from layers.errors import ImageError
from layers.layer import Layer
from layers.layout import Layout
from layers.oci import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYERS,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Descriptor,
    History,
    Image,
    ImageConfig,
    Index,
    Manifest,
)

# What few builds ask for is imported where it is used.
if TYPE_CHECKING:
    from builder.attest.evidence import Evidence
    from cache.shared.facts import Facts

SQUASHED = "pybuild: squashed the layers above into one"
"""What the history says of a layer that was made of others."""

_OCI_LAYERS = {docker: oci for oci, docker in DOCKER_LAYERS.items()}


@dataclass(frozen=True, slots=True)
class Draft:
    """An image before anybody has said in what form it is wanted. Its layers may still be elsewhere."""

    config: ImageConfig
    layers: tuple[Layer, ...]
    base: int = 0
    """How many of the layers, from the lowest, are the base image's."""
    image: Image | None = None
    """The image, if it is one already: then it stays as it is unless something is asked of it."""
    facts: "Facts | None" = None
    """What the image is to carry of the cache."""
    evidence: "Evidence | None" = None
    """What can be attested of how it was made; of an image that is there, nothing."""

    @classmethod
    def of(cls, image: Image) -> "Draft":
        """An image that is in the store."""
        layers = zip(image.manifest.layers, image.config.diff_ids, strict=True)
        return cls(image.config, tuple(Layer(diff_id, blob, 0) for blob, diff_id in layers), image=image)


@dataclass(frozen=True, slots=True)
class Packaged:
    """What was made of drafts, with all its documents in the store."""

    images: tuple[Image, ...]
    """One for each draft, in their order."""
    root: Descriptor
    """What names stand for: the manifest, or an index around them. With the annotations that layouts list it by."""

    @property
    def image(self) -> Image:
        """The image; of several the first."""
        return self.images[0]

    @property
    def id(self) -> Digest:
        """What people call it by: the digest of the configuration, or of the index around several images."""
        return self.image.manifest.config.digest if len(self.images) == 1 else self.root.digest


def package(drafts: Sequence[Draft], packing: Packing, store: Store, report: Report) -> Packaged:
    """Put images together; layers are squashed and compressed as far as that is asked for.

    Several images, each for a platform of its own, get an index around them. So does an image with attestations, which
    stand behind all images.
    """
    annotations = packing.annotations
    made = [_package(draft, packing, store, report) for draft in drafts]
    images = tuple(image for image, _ in made)
    attested = _attested(images, drafts, packing, store, report)
    if len(made) == 1 and not (packing.index or annotations.want_index or attested):
        return Packaged(images, made[0][1])
    listed = [replace(descriptor, platform=image.config.platform) for image, descriptor in made]
    index = _index((*listed, *attested), annotations, store.layout, docker_types=packing.docker_types)
    return Packaged(images, index)


def _attested(
    images: Sequence[Image], drafts: Sequence[Draft], packing: Packing, store: Store, report: Report
) -> list[Descriptor]:
    """A manifest of what is said of each image."""
    if not packing.attestations:
        return []
    from builder.attest.attach import attach  # not many want it

    pairs = [(image, draft.evidence) for image, draft in zip(images, drafts, strict=True)]
    return [attach(image, told, packing.attestations, store, report) for image, told in pairs if told is not None]


def _package(draft: Draft, packing: Packing, store: Store, report: Report) -> tuple[Image, Descriptor]:
    """One image, and how an index or a layout lists it."""
    annotations = packing.annotations.of(draft.config.platform)
    if draft.image is not None and replace(packing, annotations=annotations, index=False) == Packing():
        return draft.image, draft.image.descriptor
    draft = _compressed(_squashed(draft, packing.squash, store, report), packing, store, report)
    layers = tuple(_typed(layer.descriptor, packing) for layer in draft.layers)
    manifest = Manifest(
        config=store.layout.put(draft.config.serialise(), DOCKER_CONFIG if packing.docker_types else CONFIG),
        layers=layers,
        media_type=DOCKER_MANIFEST if packing.docker_types else MANIFEST,
        annotations={**dict(annotations.manifest), **_note(draft, layers)},
    )
    descriptor = replace(store.layout.put(manifest.serialise(), manifest.media_type), platform=draft.config.platform)
    return Image(descriptor, manifest, draft.config), replace(
        descriptor, annotations=dict(annotations.manifest_descriptor)
    )


def _note(draft: Draft, blobs: tuple[Descriptor, ...]) -> Mapping[str, str]:
    """The annotation with what the image carries of the cache: the records of its own layers, as they are in it."""
    if draft.facts is None:
        return {}
    from cache.shared.artifact import note_of  # few images carry it

    inside = {layer.diff_id: blob for layer, blob in zip(draft.layers, blobs, strict=True)}
    return note_of(draft.facts.of_image(inside).serialise())


def _index(
    listed: tuple[Descriptor, ...], annotations: Annotations, layout: Layout, *, docker_types: bool
) -> Descriptor:
    """An index with these manifests."""
    media_type = DOCKER_INDEX if docker_types else INDEX
    index = Index(listed, media_type, dict(annotations.index))
    return replace(layout.put(index.serialise(), media_type), annotations=dict(annotations.index_descriptor))


def _squashed(draft: Draft, squash: Squash, store: Store, report: Report) -> Draft:
    """The draft with the layers made one that are to be."""
    kept = {Squash.NONE: len(draft.layers), Squash.NEW: draft.base, Squash.ALL: 0}[squash]
    if len(draft.layers) - kept < 2:
        return draft
    from cache import packs  # not many want it

    below, above = draft.layers[:kept], draft.layers[kept:]
    with report.running(f"squashing {len(above)} layers") as job:
        layer = packs.squash(below, above, store, _progress(report, job))
    layers = (*below, layer)
    config = replace(
        draft.config,
        diff_ids=tuple(layer.diff_id for layer in layers),
        history=_squashed_history(draft.config.history, kept),
    )
    return Draft(config, layers, base=min(kept, draft.base))


def _squashed_history(history: tuple[History, ...], kept: int) -> tuple[History, ...]:
    """Every instruction stays in the history; those whose layers are gone are marked empty. One tells of the new."""
    rewritten = []
    for item in history:
        if not item.empty_layer and kept:
            kept -= 1
            rewritten.append(item)
        else:
            rewritten.append(replace(item, empty_layer=True))
    return (*rewritten, History(history[-1].created if history else "", SQUASHED))


def _compressed(draft: Draft, packing: Packing, store: Store, report: Report) -> Draft:
    """The draft with its new layers, or with `force` all, in the compression that is wanted."""
    compression, level = packing.compression or Compression.GZIP, packing.level
    left = _to_compress(draft, packing, store)
    if not left:
        return draft
    from cache import packs  # not many want it

    layers = list(draft.layers)
    with report.running(f"compressing {len(left)} of {len(layers)} layers by {compression}") as job:
        for number in left:
            layers[number] = packs.packed(layers[number], compression, level, store, _progress(report, job))
    config = replace(draft.config, diff_ids=tuple(layer.diff_id for layer in layers))
    # As eStargz they are layers of which the cache knows nothing.
    facts = None if compression is Compression.ESTARGZ else draft.facts
    return Draft(config, tuple(layers), draft.base, facts=facts)


def _to_compress(draft: Draft, packing: Packing, store: Store) -> list[int]:
    """Which layers are not in the compression that is wanted; of an image that is there, each is as it should be."""
    if packing.compression is None and draft.image is not None:
        return []
    first = 0 if packing.force else draft.base
    return [n for n, layer in enumerate(draft.layers) if n >= first and not _is_as_wanted(layer, packing, store)]


def _is_as_wanted(layer: Layer, packing: Packing, store: Store) -> bool:
    compression = Compression.of(layer.descriptor.media_type)
    if packing.compression is not None:
        return packing.level is None and compression is packing.compression
    if compression is Compression.GZIP:
        return True
    from cache import packs  # few layers are anything else

    return not packs.is_direct(layer, store)


def layers_to_pack(draft: Draft, packing: Packing, store: Store) -> tuple[Layer, ...]:
    """The layers whose bytes are needed to put an image together, which a push alone does not read."""
    if packing.attestations.sbom:  # which tells what is in each
        return draft.layers
    if packing.squash is not Squash.NONE:
        return draft.layers if packing.squash is Squash.ALL else draft.layers[draft.base :]
    return tuple(draft.layers[number] for number in _to_compress(draft, packing, store))


def _progress(report: Report, job: Job) -> Callable[[Descriptor, int], None]:
    return lambda blob, done: report.progress(job, blob.digest, done, blob.size)


def _typed(blob: Descriptor, packing: Packing) -> Descriptor:
    """A layer's descriptor as manifests of this family say it; ImageError for a layer that Docker has no name for."""
    if not packing.docker_types:
        return replace(blob, media_type=_OCI_LAYERS.get(blob.media_type, blob.media_type), platform=None)
    media_type = DOCKER_LAYERS.get(blob.media_type, blob.media_type)
    if Compression.of(media_type) is Compression.ZSTD:
        raise ImageError(
            f"layer {blob.digest} is compressed by zstd, which manifests of Docker's own kind do not have",
            hint="leave out oci-mediatypes=false, or add compression=gzip,force-compression=true",
        )
    return replace(blob, media_type=media_type)
