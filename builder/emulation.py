"""Whether programs of other processors run here: natively, or by an emulator that the kernel was told of.

The kernel hands what it cannot execute to interpreters that are registered with it (binfmt_misc; kernel documentation,
admin-guide/binfmt-misc.rst). Instead of reading that list, which a container does not see, the kernel is asked: an
executable without any content is refused with ENOEXEC if and only if nobody is registered for its kind.
"""

import errno
import os
import struct
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from builder.errors import DockerfileError, UsageError, located
from builder.steps.step import Run, Step
from layers.oci import Platform


class _Machine(NamedTuple):
    """How executables of a processor begin (ELF gABI, chapter 4)."""

    number: int
    """e_machine."""
    bits: int = 64
    order: str = "<"
    """Of bytes, as `struct` has it."""


_MACHINES = {
    "386": _Machine(3, 32),
    "amd64": _Machine(62),
    "arm": _Machine(40, 32),
    "arm64": _Machine(183),
    "loong64": _Machine(258),
    "mips": _Machine(8, 32, ">"),
    "mipsle": _Machine(8, 32),
    "mips64": _Machine(8, 64, ">"),
    "mips64le": _Machine(8),
    "ppc64": _Machine(21, 64, ">"),
    "ppc64le": _Machine(21),
    "riscv64": _Machine(243),
    "s390x": _Machine(22, 64, ">"),
}
"""By the names of platforms."""
_NOT_EXECUTED, _NOT_FOUND = 126, 127
"""How a command ends that is not started, as shells have it."""


def refuse_strangers(steps: Iterable[Step]) -> None:
    """DockerfileError for the first RUN whose program nothing here can execute, before anything has been done."""
    for step in steps:
        if isinstance(step.action, Run):
            with located(step.location):
                refuse(step.action.platform, "RUN", DockerfileError)


def refuse(platform: Platform, what: str, kind: type[DockerfileError | UsageError]) -> None:
    """Raise an error if programs of a platform do not run here."""
    if can_run(platform):
        return
    host = Platform.host()
    if platform.os != host.os or platform.architecture not in _MACHINES:
        raise kind(f"{what} for {platform}: this machine ({host}) cannot run its programs, nor emulate them")
    raise kind(
        f"{what} for {platform}: this machine ({host}) has no emulator for its programs",
        hint="register QEMU, as root: apt-get install qemu-user-static binfmt-support. "
        "Stages FROM --platform=$BUILDPLATFORM need none",
    )


def caveat(platform: Platform, status: int, output: Iterable[str]) -> str:
    """What may be behind a command that did not start; empty for one that did."""
    if status == _NOT_EXECUTED and any("exec format error" in line for line in output):
        return f"the image says that it is for {platform}, and the program is not"
    if status not in {_NOT_EXECUTED, _NOT_FOUND} or not platform.architecture or Platform.host().runs(platform):
        return ""
    return (
        f"an emulator runs programs for {platform} here, and is not found inside of images unless it was registered "
        "with binfmt_misc under the flag F"
    )


@cache
def can_run(platform: Platform) -> bool:
    """Whether the kernel executes programs of a platform, itself or by a registered interpreter."""
    if not platform.architecture or Platform.host().runs(platform):
        return True  # an image that does not say is believed to be made for here
    machine = _MACHINES.get(platform.architecture)
    return platform.os == "linux" and machine is not None and _is_executed(_header(machine))


def _header(machine: _Machine) -> bytes:
    """An executable for it with nothing to execute."""
    identity = b"\x7fELF" + bytes([machine.bits // 32, 1 if machine.order == "<" else 2, 1]) + bytes(9)
    word = "I" if machine.bits == 32 else "Q"
    size = 52 if machine.bits == 32 else 64
    return identity + struct.pack(
        f"{machine.order}HHI3{word}I6H", 2, machine.number, 1, 0, 0, 0, 0, size, 0, 0, 0, 0, 0
    )


def _is_executed(program: bytes) -> bool:
    """Whether the kernel finds somebody to execute it, whatever comes of that."""
    file = os.memfd_create("program", 0)
    try:
        os.write(file, program)
        path = f"/proc/self/fd/{file}"
        silence = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
        child = os.posix_spawn(path, [path], {}, file_actions=silence)
    except OSError as error:
        return error.errno != errno.ENOEXEC
    finally:
        os.close(file)
    os.waitpid(child, 0)
    return True
