"""What a build is asked to do: the command line as a value."""

from collections.abc import Mapping

from builder.caches import CachePlace, CacheTarget, Kind
from builder.credentials import Credentials
from builder.export.output import IMAGELESS, Output, Packing
from builder.sandbox.process import Limits
from builder.steps.step import RunSettings
from layers.compress import Compression
from layers.data import dataclass, field
from layers.oci import Platform
from layers.registry.settings import RegistrySettings

AUTO, NONE = "auto", "none"
BACKENDS = (AUTO, "overlay", "chroot", NONE)
"""The ways to run commands: the best that works here, each of them, and not at all."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Everything that a build depends on beside files; paths are as the person gave them."""

    context: str
    """A folder, a repository, a URL, or `-` for standard input."""
    root: str
    """The folder of the store."""
    platforms: tuple[Platform, ...] = ()
    """What is built for. Without any, this machine: then the image is for what its base is for."""
    dockerfile: str = ""
    """Empty: `Dockerfile` in the context; `-`: standard input; a URL; a path, in the context if that is no folder."""
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)
    """Named contexts: name -> a folder, a repository, a URL, `docker-image://...` or `oci-layout://...`."""
    outputs: tuple[Output, ...] = ()
    """Without any, the image goes to the store."""
    packing: Packing = field(default_factory=Packing)
    """How the image is put together that goes to the store."""
    credentials: Credentials = field(default_factory=Credentials)
    """What --secret and --ssh lend."""
    network: str = "default"
    """Of a RUN that does not say which."""
    allowed: frozenset[str] = frozenset()
    """What --allow names."""
    run_settings: RunSettings = field(default_factory=RunSettings)
    limits: Limits = field(default_factory=Limits)
    """Of what all processes of a RUN use together."""
    step_timeout: float | None = None
    """Seconds that a RUN may take."""
    backend: str = AUTO
    """How commands are run: one of BACKENDS."""
    source_date_epoch: str = ""
    """Seconds since 1970, `git` or `context`; "" leaves it to build argument and environment."""
    unset_env: tuple[str, ...] = ()
    """Variables that the image does not have in the end, whoever set them."""
    unset_labels: tuple[str, ...] = ()
    use_cache: bool = True
    fresh_stages: frozenset[str] = frozenset()
    """Those that the cache does not answer, by their names in lower case."""
    cache_from: tuple[CachePlace, ...] = ()
    """Shared caches that are asked what this machine does not know, in this order."""
    cache_to: tuple[CacheTarget, ...] = ()
    """Shared caches that are given what was made or used."""
    keep_records: bool = True
    """Whether later builds may be answered with what this one makes."""
    pull: bool = False
    iid_file: str = ""
    metadata_file: str = ""
    registries: RegistrySettings = field(default_factory=RegistrySettings)
    """How registries are spoken to, and with which logins."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The person's, of which programs that fetch contexts are given what leads to the network."""

    @property
    def targets(self) -> tuple[Platform, ...]:
        """The platforms, this machine's if none is named."""
        return self.platforms or (Platform.host(),)

    @property
    def packings(self) -> tuple[Packing, ...]:
        """How the image is put together, for each place where it goes."""
        packings = tuple(output.packing for output in self.outputs if output.form not in IMAGELESS)
        return packings if self.outputs else (self.packing,)

    @property
    def compression(self) -> Compression:
        """How new layers are written: as all who take them want them, else by gzip, from which other forms are made."""
        wanted = {packing.direct for packing in self.packings}
        wanted |= {target.direct for target in self.cache_to if target.place.kind is not Kind.INLINE}
        return wanted.pop() if len(wanted) == 1 else Compression.GZIP

    @property
    def attests(self) -> bool:
        """Whether anything is to be said of the image beside it."""
        return any(packing.attestations for packing in self.packings)
