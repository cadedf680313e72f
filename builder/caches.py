"""Which shared caches a build asks and fills: one --cache-from or --cache-to as a value."""

from collections.abc import Mapping
from enum import StrEnum

from layers.compress import Compression
from layers.data import dataclass, field


class Kind(StrEnum):
    """Where a cache is; the values are those of `type=`."""

    REGISTRY = "registry"
    LOCAL = "local"
    """A folder."""
    INLINE = "inline"
    """The image itself."""
    S3 = "s3"
    ACTIONS = "gha"
    """The cache service of GitHub Actions."""


@dataclass(frozen=True, slots=True)
class CachePlace:
    """One cache."""

    kind: Kind
    settings: Mapping[str, str] = field(default_factory=dict)
    """The keys of its kind, as `docker buildx build` has them; all that are needed are there, and no others."""


@dataclass(frozen=True, slots=True)
class CacheTarget:
    """One cache that a build fills."""

    place: CachePlace
    every_stage: bool = False
    """Whether steps of all stages go there (`mode=max`), and not only those of the image itself."""
    may_fail: bool = False
    """Whether the build goes on if the cache cannot be written."""
    compression: Compression | None = None
    """Of all layers that go there; None: as they are stored."""
    level: int | None = None

    @property
    def direct(self) -> Compression:
        """How a step may write a layer for this to take it as it is."""
        return self.compression if self.compression and self.level is None else Compression.GZIP
