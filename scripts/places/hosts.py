"""Running pybuild as a user of this machine."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import users
from environments import Environment, Forbidden

from builder.sandbox import syscalls
from builder.sandbox.seccomp.abi import ABIS

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Host:
    """An environment of this machine; its files are in a folder of the user's."""

    python = sys.executable

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.environment = environment
        self.folder = str(folder)

    def run(
        self, program: Sequence[str], variables: Mapping[str, str], out: BinaryIO | int
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a Python program to its end, in the checkout."""
        return subprocess.run(
            [sys.executable, "-P", *program],
            env={"PATH": PATH, "HOME": self.folder, "PYTHONPATH": str(users.CHECKOUT), **variables},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            preexec_fn=_entering(self.environment),
        )


def _entering(environment: Environment) -> Callable[[], None]:
    """What a forked child does to be in the environment."""
    become = users.becoming(environment.user, str(users.CHECKOUT))

    def enter() -> None:
        if environment.forbidden is Forbidden.LIMIT:
            _forbid_by_limit()
        if environment.forbidden is Forbidden.FILTER:
            syscalls.set_filter(_refuse_user_namespaces())
        become()
        # A program with the rights of another user may not be looked into; after a login this is over.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)

    return enter


def _forbid_by_limit() -> None:
    """Enter a user namespace with the ids of this machine, in which there may be no further one."""
    process = os.getpid()
    ready, begin = os.pipe()
    mapper = os.fork()
    if not mapper:  # it stays outside, where the right to write the maps is
        os.close(begin)
        os.read(ready, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process}/{name}").write_text("0 0 4294967295\n")
        os._exit(0)
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    os.close(begin)
    os.waitpid(mapper, 0)
    os.close(ready)
    Path("/proc/sys/user/max_user_namespaces").write_text("0\n")


def _refuse_user_namespaces() -> bytes:
    """The BPF program: `unshare` and `clone` with CLONE_NEWUSER are refused, `clone3` does not exist."""
    load, equal, has, ret = 0x20, 0x15, 0x45, 0x06  # of linux/bpf_common.h: LD|W|ABS, JMP|JEQ|K, JMP|JSET|K, RET|K
    allow, refuse, unknown = 0x7FFF0000, 0x00050001, 0x00050026  # of linux/seccomp.h; with EPERM, with ENOSYS
    numbers = {name: number for number, name in ABIS[os.uname().machine][0].calls().items()}
    program = (
        (load, 0, 0, 0),
        (equal, 0, 1, numbers["clone3"]),
        (ret, 0, 0, unknown),
        (equal, 1, 0, numbers["clone"]),
        (equal, 0, 2, numbers["unshare"]),
        (load, 0, 0, 16),  # the flags
        (has, 1, 0, syscalls.CLONE_NEWUSER),
        (ret, 0, 0, allow),
        (ret, 0, 0, refuse),
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
