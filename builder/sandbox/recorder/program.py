"""Which system calls of a step are told to its recorder: the programs that pick them out."""

import os
import signal
import stat
import struct
from collections.abc import Mapping

from builder.sandbox.seccomp.filter import compiled
from builder.sandbox.seccomp.profile import ALLOW, NOTIFY, Among, Verdict
from builder.sandbox.syscalls import listen
from layers.data import dataclass, field

RLIMIT_LOCKS = 10
"""A limit that nothing has looked at since Linux 2.4 (getrlimit(2))."""

PR_SET_KEEPCAPS = 8

_TMPFILE = 0o20000000
"""The bit of O_TMPFILE that O_DIRECTORY has not."""
MAKES_A_FILE = os.O_CREAT | _TMPFILE


@dataclass(frozen=True, slots=True)
class Recording:
    """What is to be recorded of a step."""

    program: bytes = field(repr=False)
    """See `syscalls.listen`."""
    owners: bool
    """Owners and who processes are, since there is but one id; else only device nodes."""


def recording(machine: str, *, owners: bool) -> Recording | None:
    """What this place lets us record; None for nothing. Compile it once for all steps.

    It forks to try, and so is only for a process that has one thread.
    """
    if not can_listen():
        return None
    special = OWNERS if owners else DEVICES
    program = compiled(machine, lambda call: special.get(call, ALLOW), unknown=ALLOW, foreign=ALLOW)
    return Recording(program, owners) if program else None


def can_listen() -> bool:
    """Whether a process of ours may install a program that asks."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            listen(struct.pack("=HBBI", 0x06, 0, 0, ALLOW))  # BPF_RET
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _with_bits(argument: int, bits: int) -> Among:
    return Among(argument, frozenset({0}), mask=bits, then=ALLOW, otherwise=NOTIFY)


def _with_value(argument: int, *values: int, mask: int = 0xFFFFFFFF) -> Among:
    return Among(argument, frozenset(values), mask=mask, then=NOTIFY, otherwise=ALLOW)


_DEVICE_TYPES = (stat.S_IFCHR, stat.S_IFBLK)

_NOTES = dict.fromkeys(
    ("setxattr", "lsetxattr", "fsetxattr", "setxattrat", "listxattr", "llistxattr", "flistxattr"), NOTIFY
)
"""Our notes are nobody else's to write, and to see."""

DEVICES: Mapping[str, Verdict] = {
    **_NOTES,
    "mknod": _with_value(1, *_DEVICE_TYPES, mask=0o170000),
    "mknodat": _with_value(2, *_DEVICE_TYPES, mask=0o170000),
}

_ALL = (
    # Who a process is,
    " getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32"
    " getresuid getresuid32 getresgid getresgid32 getgroups getgroups32"
    " setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32"
    " setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 execve execveat"
    # what its files are,
    " chown chown32 lchown lchown32 fchown fchown32 fchownat chroot"
    " creat openat2 mkdir mkdirat symlink symlinkat mknod mknodat"
    # and what they look like.
    " stat lstat fstat stat64 lstat64 fstat64 newfstatat fstatat64 statx"
)
OWNERS: Mapping[str, Verdict] = {
    **_NOTES,
    **dict.fromkeys(_ALL.split(), NOTIFY),
    "open": _with_bits(1, MAKES_A_FILE),
    "openat": _with_bits(2, MAKES_A_FILE),
    # Ids may be changed by those who keep root's rights without being root.
    "prctl": _with_value(0, PR_SET_KEEPCAPS),
    # We keep something there (`tasks`).
    "setrlimit": _with_value(0, RLIMIT_LOCKS),
    "prlimit64": _with_value(1, RLIMIT_LOCKS),
    # A child that ends should not let calls fail which wait for us (`signals`).
    "rt_sigaction": _with_value(0, signal.SIGCHLD),
}
