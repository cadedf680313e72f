"""Where an image is to go, and in what form: one -o as a value."""

from collections.abc import Mapping
from enum import StrEnum

from layers.compress import STREAMS, Compression
from layers.data import dataclass, field, replace
from layers.oci import Platform


class Form(StrEnum):
    """What an output is; the values are those of `type=`."""

    IMAGE = "image"
    """The store, under names."""
    REGISTRY = "registry"
    OCI = "oci"
    """An OCI image layout: a tar, or a folder."""
    DOCKER = "docker"
    """An archive for `docker load`, or without a destination docker or podman themselves."""
    TAR = "tar"
    """The root file system as a tar."""
    LOCAL = "local"
    """The root file system in a folder."""
    CACHEONLY = "cacheonly"
    """Nowhere: what is wanted are the steps, in the cache."""


FILE_SYSTEMS = frozenset({Form.TAR, Form.LOCAL})
"""The forms that are the files alone."""
IMAGELESS = FILE_SYSTEMS | {Form.CACHEONLY}
"""The forms that are no image: neither names nor packing say anything of them."""


class Squash(StrEnum):
    """Which layers become one."""

    NONE = "none"
    NEW = "new"
    """Those that the build made; the base image's stay."""
    ALL = "all"


Texts = tuple[tuple[str, str], ...]
"""Names with what they mean, sorted by name."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Texts beside an image, by what document they stand in (image-spec annotations.md)."""

    manifest: Texts = ()
    index: Texts = ()
    """Of the index around the manifests; one is made for them if there is but one manifest."""
    manifest_descriptor: Texts = ()
    """Where an index or layout lists the manifest."""
    index_descriptor: Texts = ()
    """Where a layout lists the index."""
    by_platform: tuple[tuple[Platform, "Annotations"], ...] = ()
    """What is said of the manifest of one platform alone."""

    @property
    def want_index(self) -> bool:
        """Whether any is of an index."""
        return bool(self.index or self.index_descriptor)

    def of(self, platform: Platform) -> "Annotations":
        """Those of the image of one platform."""
        joined = replace(self, by_platform=())
        for other, annotations in self.by_platform:
            joined = joined.joined(annotations) if other == platform else joined
        return joined

    def joined(self, other: "Annotations") -> "Annotations":
        """These, and those of the other, which wins."""
        return Annotations(
            _joined(self.manifest, other.manifest),
            _joined(self.index, other.index),
            _joined(self.manifest_descriptor, other.manifest_descriptor),
            _joined(self.index_descriptor, other.index_descriptor),
            (*self.by_platform, *other.by_platform),
        )


def _joined(first: Texts, second: Texts) -> Texts:
    return tuple(sorted((dict(first) | dict(second)).items()))


@dataclass(frozen=True, slots=True)
class Provenance:
    """How much of a build is told in the statement about how an image was made."""

    everything: bool = False
    """BuildKit's mode max: the values of arguments, the Dockerfile, each step; else what went in, and when."""
    version: str = "v1"
    """Of SLSA's predicate: v1 or v0.2."""
    builder_id: str = ""
    """A URI that names who built."""
    reproducible: bool = False
    """What the person says of it."""


@dataclass(frozen=True, slots=True)
class Attestations:
    """What is said of an image beside it."""

    sbom: bool = False
    """Which packages are in it."""
    provenance: Provenance | None = None

    def __bool__(self) -> bool:
        return self.sbom or self.provenance is not None


@dataclass(frozen=True, slots=True)
class Packing:
    """How an image is put together for an output: all that changes its bytes and not what runs."""

    compression: Compression | None = None
    """Of the new layers; None: as they are stored."""
    level: int | None = None
    """None: the default of the compression."""
    force: bool = False
    """Compress the base image's layers too."""
    docker_types: bool = False
    """The media types that Docker had before there was an OCI."""
    squash: Squash = Squash.NONE
    annotations: Annotations = field(default_factory=Annotations)
    index: bool = False
    """An index even around a single image."""
    attestations: Attestations = field(default_factory=Attestations)

    @property
    def direct(self) -> Compression:
        """How a step may write a layer for this to take it as it is; gzip if it takes none so."""
        as_it_is = self.compression in STREAMS and self.level is None and self.squash is Squash.NONE
        return self.compression if self.compression and as_it_is else Compression.GZIP


@dataclass(frozen=True, slots=True)
class Output:
    """One place where the image goes."""

    form: Form
    destination: str = ""
    """A file, a folder, or `-` for standard output; "" for forms that need none."""
    tar: bool = True
    """For OCI: a tar and no folder."""
    names: tuple[str, ...] = ()
    """Full names, instead of those that the image has anyway."""
    packing: Packing = field(default_factory=Packing)
    rest: Mapping[str, str] = field(default_factory=dict)
    """What is said of a registry beyond all this."""
    split: bool | None = None
    """For file systems: each platform in a folder of its own. None: if there are several."""
    spare: bool = False
    """For the store: only if all layers are there anyway, since nobody asked for the image here."""

    @property
    def pushes(self) -> bool:
        """Whether an image of the store is pushed as well (`push=true`)."""
        return self.rest.get("push") in {"true", "1"}

    @property
    def is_stdout(self) -> bool:
        return self.destination == "-"
