"""System calls as values: laid out beforehand, and made by a process that does nothing else.

Two can make them: Python, one by one, or a `launcher`, which is a program made of them.
"""

import ctypes
import os
from collections.abc import Collection, Sequence

from builder.sandbox.syscalls import failed, libc
from layers.data import dataclass

_NUMBERS = {
    "x86_64": {
        "write": 1,
        "rt_sigaction": 13,
        "sendmsg": 46,
        "execve": 59,
        "chdir": 80,
        "fchdir": 81,
        "fchmod": 91,
        "umask": 95,
        "setsid": 112,
        "setgroups": 116,
        "setresuid": 117,
        "setresgid": 119,
        "capset": 126,
        "pivot_root": 155,
        "prctl": 157,
        "chroot": 161,
        "mount": 165,
        "umount2": 166,
        "sethostname": 170,
        "keyctl": 250,
        "openat": 257,
        "unshare": 272,
        "dup3": 292,
        "prlimit64": 302,
        "seccomp": 317,
    },
    "aarch64": {
        "dup3": 24,
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "chdir": 49,
        "fchdir": 50,
        "chroot": 51,
        "fchmod": 52,
        "openat": 56,
        "write": 64,
        "capset": 91,
        "unshare": 97,
        "rt_sigaction": 134,
        "setresuid": 147,
        "setresgid": 149,
        "setsid": 157,
        "setgroups": 159,
        "sethostname": 161,
        "umask": 166,
        "prctl": 167,
        "sendmsg": 211,
        "keyctl": 219,
        "execve": 221,
        "prlimit64": 261,
        "seccomp": 277,
    },
}
_EVERYWHERE = {"move_mount": 429, "close_range": 436}
"""Calls from number 424 on have the same number on every architecture."""

_MACHINE = os.uname().machine

Argument = int | bytes | None | tuple["Argument", ...]
"""A number; bytes or None are passed by address, and so is a tuple, as an array of words, each such an argument."""


@dataclass(frozen=True, slots=True)
class Call:
    """One system call."""

    name: str
    arguments: tuple[Argument, ...] = ()
    subject: str = ""
    """What it is done to, for the error."""
    tolerated: Collection[int] = ()
    """The errnos that are no errors."""
    passes: int = 0
    """How many of the calls that follow are left out if it succeeds."""
    skips: int = 0
    """How many are left out if it ends with a tolerated errno."""

    def number(self, machine: str) -> int:
        """Of the call, on a processor that uname(2) calls so."""
        return _EVERYWHERE.get(self.name) or _NUMBERS[machine][self.name]

    def make(self) -> int:
        """Make it here and now; gives how many of the following to leave out. OSError for what is not tolerated."""
        kept: list[object] = []
        words = [_word(each, kept) for each in self.arguments]
        if libc.syscall(ctypes.c_long(self.number(_MACHINE)), *words) >= 0:
            return self.passes
        if ctypes.get_errno() in self.tolerated:
            return self.skips
        raise failed(self.name, self.subject)


def call(name: str, *arguments: Argument, subject: str = "", tolerated: Collection[int] = ()) -> Call:
    """A call in its usual form."""
    return Call(name, arguments, subject, tolerated)


def make_all(calls: Sequence[Call]) -> None:
    """Make calls in their order."""
    place = 0
    while place < len(calls):
        place += 1 + calls[place].make()


def _word(argument: Argument, kept: list[object]) -> ctypes.c_long | ctypes.c_void_p:
    """An argument in a register; what it points to is kept as long as the list."""
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, bytes):
        memory: ctypes.Array[ctypes.c_char] = ctypes.create_string_buffer(argument)
        kept.append(memory)
        return ctypes.c_void_p(ctypes.addressof(memory))
    words = (ctypes.c_uint64 * len(argument))(*(_word(each, kept).value or 0 for each in argument))
    kept.append(words)
    return ctypes.c_void_p(ctypes.addressof(words))
