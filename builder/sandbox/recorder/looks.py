"""The calls that tell what a file is: where something is noted, the answer has it; else it is the kernel's own."""

import os
import stat
import struct
from functools import partial
from typing import NamedTuple

from builder.sandbox import syscalls
from builder.sandbox.recorder.call import Call, Handler
from builder.sandbox.recorder.tasks import AT_FDCWD
from builder.sandbox.seccomp.abi import AARCH64, ARM, I386, X86_64
from layers.owners import CAPABILITY, DEVICE, OWNER, attributes, noted, noted_device

_AT_EMPTY_PATH, _AT_SYMLINK_NOFOLLOW = 0x1000, 0x100
_STATX_FLAGS = 0x6000 | 0x0800
"""AT_STATX_* and AT_NO_AUTOMOUNT, which statx(2) takes besides."""
_TELLING = {OWNER, DEVICE, CAPABILITY}
_SECOND = 1_000_000_000
_TYPES = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}


class _Seen(NamedTuple):
    """What a program is to see of a file, where that is not what the kernel sees."""

    name: bytes
    follow: bool
    user: int
    group: int
    device: tuple[str, int, int] | None


def _look(call: Call, folder: int, address: int, flags: int) -> _Seen | None:
    """See what a name leads to; None if nothing is noted there, or the name is for the kernel to judge."""
    path = call.tasks.text(call.pid, address) if address else b""
    if not path and not flags & _AT_EMPTY_PATH:
        return None
    return _see(call.name(folder, path), follow=not flags & _AT_SYMLINK_NOFOLLOW or not path)


def _see(name: bytes, *, follow: bool) -> _Seen | None:
    try:
        names = os.listxattr(name, follow_symlinks=follow)
    except OSError:
        return None
    if not names or _TELLING.isdisjoint(names):
        return None
    found = attributes(name, follow=follow)
    owner, device = noted(found), noted_device(found)
    return _Seen(name, follow, *(owner or (0, 0)), device) if owner or device else None


def _stat_named(call: Call, *, follow: bool) -> int | None:
    seen = _look(call, AT_FDCWD, call.address(0), 0 if follow else _AT_SYMLINK_NOFOLLOW)
    return _tell(call, seen, call.address(1))


def _stat_at(call: Call) -> int | None:
    seen = _look(call, call.number(0), call.address(1), call.word(3))
    return _tell(call, seen, call.address(2))


def _stat_opened(call: Call) -> int | None:
    if call.number(0) < 0:
        return None
    return _tell(call, _see(call.name(call.number(0), b""), follow=True), call.address(1))


def _statx(call: Call) -> int | None:
    flags = call.word(2)
    seen = _look(call, call.number(0), call.address(1), flags)
    if seen is None:
        return None
    nofollow = 0 if seen.follow else _AT_SYMLINK_NOFOLLOW
    told = syscalls.statx(seen.name, flags & _STATX_FLAGS | nofollow, call.word(3))
    struct.pack_into("=II", told, 20, seen.user, seen.group)
    if seen.device:
        letter, major, minor = seen.device
        (mode,) = struct.unpack_from("=H", told, 28)
        struct.pack_into("=H", told, 28, _TYPES[letter] | stat.S_IMODE(mode))
        struct.pack_into("=II", told, 128, major, minor)
    call.tasks.write(call.pid, call.address(4), bytes(told))
    return 0


def _tell(call: Call, seen: _Seen | None, address: int) -> int | None:
    layout = _LAYOUTS.get(call.notification.architecture)
    if seen is None or layout is None:
        return None
    status = os.stat(seen.name, follow_symlinks=seen.follow)
    mode, device = status.st_mode, status.st_rdev
    if seen.device:
        letter, major, minor = seen.device
        mode, device = _TYPES[letter] | stat.S_IMODE(mode), os.makedev(major, minor)
    fields = {
        "device": status.st_dev,
        "inode": status.st_ino,
        "inode_low": status.st_ino & 0xFFFFFFFF,
        "links": status.st_nlink,
        "mode": mode,
        "user": seen.user,
        "group": seen.group,
        "node": device,
        "size": status.st_size,
        "block": status.st_blksize,
        "blocks": status.st_blocks,
    }
    for field, time in (("a", status.st_atime_ns), ("m", status.st_mtime_ns), ("c", status.st_ctime_ns)):
        fields[f"{field}time"], fields[f"{field}rest"] = divmod(time, _SECOND)
    call.tasks.write(call.pid, address, layout.pack(fields))
    return 0


class _Layout(NamedTuple):
    """A `struct stat` of the kernel's asm/stat.h."""

    form: struct.Struct
    fields: tuple[str, ...]

    def pack(self, fields: dict[str, int]) -> bytes:
        return self.form.pack(*(fields[name] for name in self.fields))


def _layout(form: str, fields: str) -> _Layout:
    return _Layout(struct.Struct(form), tuple(fields.split()))


_TIMES = " atime arest mtime mrest ctime crest"
_LAYOUTS = {
    X86_64.architecture: _layout(
        "=QQQIII4xQqqqqQqQqQ24x", "device inode links mode user group node size block blocks" + _TIMES
    ),
    AARCH64.architecture: _layout(
        "=QQIIIIQ8xqi4xqqQqQqQ8x", "device inode mode links user group node size block blocks" + _TIMES
    ),
    I386.architecture: _layout(
        "=Q4xIIIIIQ4xqIQiIiIiIQ", "device inode_low mode links user group node size block blocks" + _TIMES + " inode"
    ),
    ARM.architecture: _layout(
        "=Q4xIIIIIQ8xqI4xQiIiIiIQ", "device inode_low mode links user group node size block blocks" + _TIMES + " inode"
    ),
}
"""By AUDIT_ARCH_*: `struct stat` of the 64-bit ABIs, `struct stat64` of the others, whose `struct stat` has only 16
bits for an id and is what no C library uses any more."""

WIDE: dict[str, Handler] = {
    "stat": partial(_stat_named, follow=True),
    "lstat": partial(_stat_named, follow=False),
    "fstat": _stat_opened,
    "newfstatat": _stat_at,
}
"""Of ABIs with 64 bits."""

NARROW: dict[str, Handler] = {
    "stat64": partial(_stat_named, follow=True),
    "lstat64": partial(_stat_named, follow=False),
    "fstat64": _stat_opened,
    "fstatat64": _stat_at,
}
"""Of ABIs with 32."""

BOTH: dict[str, Handler] = {"statx": _statx}
