"""What runs in a sandbox, and how it ended: plain values."""

from dataclasses import dataclass
from typing import Literal

DOCKER_CAPABILITIES = 0xA80425FB
"""What Docker grants by default: chown, dac_override, fsetid, fowner, mknod, net_raw, setgid, setuid, setfcap, setpcap,
net_bind_service, sys_chroot, kill and audit_write, each as the bit 1 << CAP_x of linux/capability.h."""

ALL_CAPABILITIES = (1 << 64) - 1
"""Everything that this process holds itself."""

HOSTNAME = "buildkitsandbox"
"""The name that BuildKit gives its steps; fixed, so that it cannot make two builds differ."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where commands are looked for when the environment has no PATH."""


Network = Literal["host", "none"]


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
    terminal: bool = False
    """Give the command a terminal of its own; only for `Backend.attach`."""


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
