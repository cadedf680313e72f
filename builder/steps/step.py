"""What a stage is made of: steps, and the three actions that change its file system."""

from builder.errors import Location
from builder.sandbox.process import Host, Ulimit
from builder.steps.mode import Mode
from builder.steps.remote import Remote
from cache.mount_sharing import Sharing
from layers.data import dataclass
from layers.oci import Descriptor, Image, Platform


@dataclass(frozen=True, slots=True)
class FromContext:
    """Files come from the build context, or from a folder that --build-context names."""

    name: str = ""
    """The full name of --build-context; "" is the build context itself."""


@dataclass(frozen=True, slots=True)
class FromStage:
    """Files come from the end of another stage, by its index."""

    stage: int


@dataclass(frozen=True, slots=True)
class FromImage:
    """Files come from an image that is no stage."""

    base: "Base"


Origin = FromContext | FromStage | FromImage


@dataclass(frozen=True, slots=True)
class Base:
    """An image that a stage, or a copy, starts from."""

    name: str
    """As shown: `docker.io/library/debian:12`."""
    image: Image
    index: Descriptor | None = None
    """What the name stands for, if that is an index that the image was chosen from."""


@dataclass(frozen=True, slots=True)
class BindMount:
    """A folder or file of the context, a stage or an image, seen by the command and not part of the layer."""

    target: str
    """Absolute, as in all mounts."""
    origin: Origin
    source: str = ""
    """Relative to the root of the origin; "" is all of it."""
    writable: bool = False
    """The command may write; all that it writes is gone after it."""


@dataclass(frozen=True, slots=True)
class CacheMount:
    """A folder that stays on this machine from one build to the next."""

    target: str
    id: str
    sharing: Sharing = Sharing.SHARED
    seed: BindMount | None = None
    """What a new cache begins with."""
    read_only: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """An empty folder in memory."""

    target: str
    size: int | None = None
    """Most bytes that it holds."""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class SecretMount:
    """A secret of the command line, as a file, a variable, or both."""

    id: str
    target: str = ""
    """Empty: no file."""
    variable: str = ""
    """Empty: no variable."""
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class SshMount:
    """The socket of an SSH agent."""

    id: str
    target: str
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


RunMount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


@dataclass(frozen=True, slots=True)
class Script:
    """A here-document that is executed: an executable file, there for this command alone."""

    target: str
    text: str


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the command line says of every RUN, and a command can see."""

    hosts: tuple[Host, ...] = ()
    shared_memory: int | None = None
    """Bytes of /dev/shm; None: the usual ones."""
    ulimits: tuple[Ulimit, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command on the file system; what it leaves is the layer."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    """Sorted by name: their order is nothing that a command could rely on."""
    directory: str
    user: str
    """As USER has it: resolved only when the step runs, since an earlier step may have made the user."""
    platform: Platform
    """What the programs of the file system are for."""
    network: str = "default"
    proxies: tuple[tuple[str, str], ...] = ()
    """Proxy variables: the command sees them, the key and the history do not."""
    mounts: tuple[RunMount, ...] = ()
    script: Script | None = None
    insecure: bool = False
    """With all capabilities that there are, and nothing hidden."""
    hostname: str = ""
    """Empty: the usual one."""
    settings: RunSettings = RunSettings()

    @property
    def binds(self) -> tuple[BindMount, ...]:
        """What is read of contexts, stages and images: bind mounts, and what caches begin with."""
        seeds = (mount.seed if isinstance(mount, CacheMount) else mount for mount in self.mounts)
        return tuple(bind for bind in seeds if isinstance(bind, BindMount))


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A here-document that is copied: a file of this name, mode 0644."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy files, as COPY and ADD do."""

    origin: Origin
    sources: tuple[str, ...]
    destination: str
    """Absolute; a trailing slash means a directory."""
    inline: tuple[InlineFile, ...] = ()
    """Here-documents; they come after the sources."""
    chown: str = ""
    mode: Mode | None = None
    unpack: bool = False
    """Local archives are unpacked: ADD."""
    link: bool = False
    """The layer stands on an empty root, whatever is below it."""
    parents: bool = False
    """The path of a source stays, or what of it follows `/./`."""
    excludes: tuple[str, ...] = ()
    """Patterns of what of each source is left out."""
    remotes: tuple[Remote, ...] = ()
    """Those of the sources that are elsewhere."""


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory for WORKDIR, and those above it, owned by the current user."""

    path: str
    user: str


Action = Run | Copy | MakeDirectory


def origins_of(action: Action) -> tuple[Origin, ...]:
    """Where an action reads files from, beside the file system that it changes."""
    match action:
        case Run() as run:
            return tuple(bind.origin for bind in run.binds)
        case Copy(origin=origin):
            return (origin,)
        case _:
            return ()


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a stage, with all its variables expanded."""

    location: Location
    title: str
    """The instruction as written, on one line."""
    created_by: str
    """For the image's history, as `docker build` words it."""
    action: Action | None = None
    """None: only the configuration changed."""
