"""What runs in a sandbox, and how it ended: plain values."""

from typing import Literal

from layers.data import dataclass

DOCKER_CAPABILITIES = 0xA80425FB
"""What Docker grants by default: chown, dac_override, fsetid, fowner, mknod, net_raw, setgid, setuid, setfcap, setpcap,
net_bind_service, sys_chroot, kill and audit_write, each as the bit 1 << CAP_x of linux/capability.h."""

ALL_CAPABILITIES = (1 << 64) - 1
"""Everything that this process holds itself."""

HOSTNAME = "buildkitsandbox"
"""The name that BuildKit gives its steps; fixed, so that it cannot make two builds differ."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where commands are looked for when the environment has no PATH."""

SHARED_MEMORY = 64 << 20
"""Bytes of /dev/shm that Docker gives."""

Network = Literal["host", "none"]

UNLIMITED = -1
"""As a limit: that there is none."""


@dataclass(frozen=True, slots=True)
class Host:
    """A line of /etc/hosts."""

    name: str
    address: str
    """An IP address, in its shortest form."""


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A limit that each process of a step has for itself, see setrlimit(2)."""

    name: str
    """As docker has it: `nofile` is RLIMIT_NOFILE."""
    soft: int
    hard: int
    """Both may be UNLIMITED."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the processes of a step may use together. None leaves a thing as it is."""

    memory: int | None = None
    """Bytes."""
    memory_and_swap: int | None = None
    """Bytes, or UNLIMITED; only with `memory`."""
    cpu_period: int | None = None
    """Microseconds."""
    cpu_quota: int | None = None
    """Microseconds of CPU time in each period, or UNLIMITED."""
    cpu_shares: int | None = None
    """Weight in the competition for CPU time; 1024 is what everybody has."""
    cpus: str = ""
    """CPUs that may be used, as in cpuset(7): `0-2,7`."""
    memory_nodes: str = ""
    """NUMA nodes, in the same form."""
    processes: int | None = None
    """Processes and threads, or UNLIMITED."""
    parent: str = ""
    """The cgroup below which all this is counted, from the root of each hierarchy; empty: our own."""

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        return self != Limits()


@dataclass(frozen=True, slots=True)
class Process:
    """A command and all that it inherits; nothing of the caller's own environment is added."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    """Absolute path inside the root; it must exist."""
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    """Supplementary groups."""
    hostname: str = HOSTNAME
    network: Network = "host"
    capabilities: int = DOCKER_CAPABILITIES
    seccomp: bool = True
    """Refuse the system calls that Docker's default profile refuses."""
    hosts: tuple[Host, ...] = ()
    """Names that are known beside those that every step knows."""
    shared_memory: int = SHARED_MEMORY
    """Bytes of /dev/shm, where it has one of its own."""
    ulimits: tuple[Ulimit, ...] = ()
    cgroups: tuple[str, ...] = ()
    """The `cgroup.procs` files of the groups that it joins before anything else."""
    terminal: bool = False
    """Give the command a terminal of its own; only for `Backend.attach`."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What a command asks for that not every back-end can give."""

    network: Network = "host"
    privileged: bool = False
    """All rights that the process has which builds, and nothing hidden."""
    limits_memory: bool = False
    """A folder in memory, /dev/shm for one, that holds no more than a number of bytes."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    status: int
    """As a shell tells it: the exit status, or 128 plus the number of the signal that killed it."""
    signal: int
    """The signal that killed the command, or 0."""
    seconds: float
    upper: str = ""
    """The overlay upper folder: everything that the command changed. It is the caller's now."""
