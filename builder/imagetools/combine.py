"""Several images and indexes as one index."""

from collections.abc import Sequence

from builder.errors import UsageError
from builder.export.output import Annotations
from builder.imagetools.gather import Found
from layers.data import replace
from layers.layout import Layout
from layers.oci import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    INDEXES,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
)

_SUBJECT = "vnd.docker.reference.digest"
"""In an attestation's descriptor, the digest of the image that it is about."""


def combine(
    sources: Sequence[Found], layout: Layout, *, replaced: Found | None = None, platforms: Sequence[Platform] = ()
) -> Index:
    """An index of the images of all sources, in their order; with `platforms`, of those for these.

    What `replaced` has is kept as far as no source brings an image for the same platform. UsageError if two sources do.
    """
    entries: list[Descriptor] = []
    for source in sources:
        for entry in _entries(source.root, layout):
            if any(entry.digest == other.digest for other in entries):
                continue
            same = next((other for other in entries if _is_rival(entry, other)), None)
            if same is not None:
                raise UsageError(
                    f"{source.name}: there is an image for {entry.platform} already, {same.digest}",
                    hint="an index has one image for each platform",
                )
            entries.append(entry)
    if replaced is not None:
        old = _entries(replaced.root, layout)
        entries = [*(entry for entry in old if not any(_replaces(new, entry) for new in entries)), *entries]
    if platforms:
        entries = [entry for entry in entries if _is_system(entry) or entry.platform in platforms]
    there = {entry.digest for entry in entries}
    entries = [entry for entry in entries if entry.annotations.get(_SUBJECT) in {None, *there}]
    if not entries:
        raise UsageError("the index would have no image", hint="sources are images and indexes")
    docker = all(entry.media_type in {DOCKER_MANIFEST, DOCKER_INDEX} for entry in entries)
    return Index(tuple(entries), DOCKER_INDEX if docker else INDEX)


def annotated(index: Index, annotations: Annotations) -> Index:
    """The index with annotations of its own, and of how it lists its images."""
    manifests = []
    for entry in index.manifests:
        new = annotations.of(entry.platform).manifest_descriptor if entry.platform else ()
        manifests.append(entry if _is_system(entry) else replace(entry, annotations={**entry.annotations, **dict(new)}))
    return replace(index, manifests=tuple(manifests), annotations={**index.annotations, **dict(annotations.index)})


def _entries(root: Descriptor, layout: Layout) -> list[Descriptor]:
    """The lines of an index; a single image is one line, for the platform that its configuration says."""
    if root.media_type in INDEXES:
        return list(Index.parse(layout.read(root)).manifests)
    config = Manifest.parse(layout.read(root)).config
    return [replace(root, platform=ImageConfig.parse(layout.read(config)).platform)]


def _is_system(entry: Descriptor) -> bool:
    """Whether a line is of something that is no image, such as an attestation."""
    return entry.platform is not None and entry.platform.os == "unknown"


def _is_rival(entry: Descriptor, other: Descriptor) -> bool:
    return entry.platform is not None and entry.platform == other.platform and not _is_system(entry)


def _replaces(new: Descriptor, old: Descriptor) -> bool:
    return new.digest == old.digest or _is_rival(new, old)
