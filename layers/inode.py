"""One file, folder or other thing on this machine's disk: read as an entry, and made from one."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import BinaryIO

from layers.entry import FILE, Entry, Kind
from layers.errors import ImageError, StoreError
from layers.owners import CAPABILITY, DEVICE, OWNER, give, has_one_id, may_make_devices, noted, noted_device

OPAQUE = "overlay.opaque"
"""The extended attribute of opaque folders, after `user.` or `trusted.` (kernel: filesystems/overlayfs.rst)."""

HAS_WHITEOUTS = b"x"
"""Its value on a folder that is not opaque but has marks that are files with an attribute."""
_WHITEOUT = "user.overlay.whiteout"
_PRIVATE = ("user.overlay.", "trusted.overlay.", "user.pybuild.")
"""Speak to the kernel, or to us."""
_SELINUX = "security.selinux"
_CAPABILITY_V3_SIZE = 24
"""Flags in 3 bytes, revision, capabilities in 16, and the id of a user namespace's root (linux/capability.h)."""
_BLOCK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LATEST = 2**62
"""In ns; what utimensat(2) takes is more, what file systems keep is less."""

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}
_DEVICE_TYPES = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}


def is_whiteout(status: os.stat_result) -> bool:
    """Whether an lstat is that of overlay's mark for "nothing here": a character device 0/0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make_whiteout(folder: int, name: str) -> bool:
    """Make such a mark in an open folder; False if it is of the other form, of which the folder has to tell.

    On an overlay, so on the files of a container, nobody may make the device. Linux 6.7 knows an attribute instead.
    """
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=folder)
    except PermissionError:
        file = _create(folder, name)
        try:
            os.setxattr(file, _WHITEOUT, b"y")
        finally:
            os.close(file)
        return False
    return True


def is_marked_as_whiteout(file: str, status: os.stat_result) -> bool:
    """Whether what stands at `file`, of which `status` is the lstat, is a mark of the other form."""
    if not stat.S_ISREG(status.st_mode) or status.st_size:
        return False
    try:
        return bool(os.getxattr(file, _WHITEOUT, follow_symlinks=False))
    except OSError:  # no such attribute, or a file system without any
        return False


def is_opaque(folder: int | str) -> bool:
    """Whether overlay shows nothing of the trees below in this folder (a descriptor, or a path that is no symlink)."""
    for space in ("user.", "trusted."):
        try:
            if os.getxattr(folder, space + OPAQUE) == b"y":
                return True
        except OSError:  # no such attribute, or a file system without any
            continue
    return False


def show_below(folder: str) -> None:
    """Take overlay's mark from a folder, if it has one: the trees below are seen in it again."""
    for space in ("user.", "trusted."):
        with suppress(OSError):  # as in `is_opaque`
            os.removexattr(folder, space + OPAQUE)


def is_private(name: str) -> bool:
    """Whether an extended attribute belongs to this machine: no layer brings it, and none is told of it."""
    return name == _SELINUX or name.startswith(_PRIVATE)


def describe(file: str, status: os.stat_result, path: str) -> Entry | None:
    """What stands at `file` on the disk, of which `status` is the lstat, as the entry at `path`; None for a socket.

    Hard links share an `inode`. Overlay's notes, our own and SELinux's are not among the attributes; where there is
    only one id, the owner is the one that is noted, and where no device can be made, the kind. Elsewhere a command may
    have written such a note, to give itself what it may not have.
    """
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    xattrs = {name: os.getxattr(file, name, follow_symlinks=False) for name in xattr_names(file)}
    uid, gid = _take_owner(xattrs) or (status.st_uid, status.st_gid)
    device = (0, 0)
    size = 0
    if kind is Kind.FILE:
        size = status.st_size
        if CAPABILITY in xattrs:
            xattrs[CAPABILITY] = _without_root_id(xattrs[CAPABILITY])
        if DEVICE in xattrs and (note := noted_device(xattrs)) and not may_make_devices():
            kind, device, size = Kind(note[0]), note[1:], 0
    elif kind in _DEVICE_TYPES:
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return Entry(
        path,
        kind,
        stat.S_IMODE(status.st_mode),
        uid,
        gid,
        size,
        status.st_mtime_ns,
        os.readlink(file) if kind is Kind.SYMLINK else "",
        device,
        tuple(sorted((name, value) for name, value in xattrs.items() if not is_private(name))) if xattrs else (),
        (status.st_dev, status.st_ino) if status.st_nlink > 1 and kind is not Kind.DIRECTORY else None,
    )


def make(entry: Entry, folder: int, name: str, content: BinaryIO | None) -> None:
    """Make a file, symlink, FIFO or device node in an open folder that does not have this name.

    Where device nodes may not be made, which is in all user namespaces, an empty file with a note stands for one.
    """
    if entry.kind is FILE:
        _make_file(entry, folder, name, content)
    elif entry.kind is Kind.SYMLINK:
        os.symlink(entry.target, name, dir_fd=folder)
        _dress_name(entry, folder, name)
    elif entry.kind is Kind.FIFO:
        os.mkfifo(name, 0o600, dir_fd=folder)
        _dress_name(entry, folder, name)
    else:
        _make_device(entry, folder, name)


def opened(folder: int, name: str) -> BinaryIO:
    """The content of a file in an open folder; the caller closes it. No symlink is followed."""
    return open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb")


def separate(path: str, spare: str) -> None:
    """Give one of the names of a file a file of its own; `spare` is a free path on the same file system."""
    status = os.lstat(path)
    entry = describe(path, status, path)
    if status.st_nlink < 2 or entry is None:
        return
    above, name = os.path.split(spare)
    folder = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(path, "rb") if entry.kind is Kind.FILE else nullcontext() as content:
            make(entry, folder, name, content)
    finally:
        os.close(folder)
    with keeping_times(os.path.dirname(path)):
        os.rename(spare, path)


@contextmanager
def keeping_times(folder: str) -> Iterator[None]:
    """Put the times of a folder back after what is done to its names within the block."""
    before = os.stat(folder)
    try:
        yield
    finally:
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def dress(file: int, entry: Entry) -> None:
    """Give an open file or folder its owner, mode, attributes and time.

    In this order: a change of owner clears setuid bits and capabilities, and all of them may change the time.
    """
    try:
        give(file, entry.uid, entry.gid)
    except OSError as error:
        raise _foreign_owner(entry, error) from error
    os.chmod(file, entry.mode & 0o7777)
    if entry.xattrs:
        _set_xattrs(file, entry)
    os.utime(file, ns=_times(entry))


def _make_file(entry: Entry, folder: int, name: str, content: BinaryIO | None) -> None:
    file = _create(folder, name)
    try:
        left = entry.size
        while left:
            block = content.read(min(left, _BLOCK)) if content else b""
            if not block:
                raise ImageError(f"the layer ends within {entry.path!r}")
            left -= len(block)
            written = os.write(file, block)
            while written < len(block):
                written += os.write(file, block[written:])
        dress(file, entry)
    finally:
        os.close(file)


def _create(folder: int, name: str) -> int:
    return os.open(name, _NEW, 0o600, dir_fd=folder)


def _make_device(entry: Entry, folder: int, name: str) -> None:
    major, minor = entry.device
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ImageError(f"the layer has a device {entry.path!r} with the number {major}:{minor}")
    try:
        os.mknod(name, 0o600 | _DEVICE_TYPES[entry.kind], os.makedev(major, minor), dir_fd=folder)
    except PermissionError:
        file = _create(folder, name)
        try:
            os.setxattr(file, DEVICE, f"{entry.kind} {major} {minor}".encode())
            dress(file, entry)
        finally:
            os.close(file)
    else:
        _dress_name(entry, folder, name)


def _dress_name(entry: Entry, folder: int, name: str) -> None:
    """As `dress`, for what should not or cannot be opened. It was made by us just now, so its name is safe to use."""
    place = f"/proc/self/fd/{folder}/{name}"  # not all calls take the descriptor of a folder
    try:
        give(place, entry.uid, entry.gid)
    except OSError as error:
        raise _foreign_owner(entry, error) from error
    if entry.kind is not Kind.SYMLINK:
        os.chmod(name, entry.mode & 0o7777, dir_fd=folder)
    _set_xattrs(place, entry)
    os.utime(name, ns=_times(entry), dir_fd=folder, follow_symlinks=False)


def _set_xattrs(file: int | str, entry: Entry) -> None:
    for name, value in entry.xattrs:
        if is_private(name):
            continue
        try:
            os.setxattr(file, name, value, follow_symlinks=isinstance(file, int))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreError(
                f"the extended attribute {name!r} of {entry.path!r} cannot be set: {reason}",
                hint="keep the store on a file system that has them, such as ext4; only real root may set trusted.*",
            ) from error


def _take_owner(xattrs: dict[str, bytes]) -> tuple[int, int] | None:
    """The owner that a note says; where chown can be had, notes are not ours."""
    owner = noted(xattrs) if xattrs else None
    if owner is None or not has_one_id():
        return None
    if OWNER not in xattrs:
        del xattrs[CAPABILITY]  # which was the note
    return owner


def xattr_names(file: str | int) -> list[str]:
    """The names of the extended attributes of an open file, or of what stands at a path."""
    try:
        return os.listxattr(file, follow_symlinks=isinstance(file, int))
    except OSError:  # a file system without any
        return []


def _without_root_id(value: bytes) -> bytes:
    """Capabilities of a file in the form that any user namespace can set: revision 3 is bound to one, 2 is not."""
    if len(value) != _CAPABILITY_V3_SIZE:
        return value
    flags = value[:3]
    return flags + b"\2" + value[4:20]


def _foreign_owner(entry: Entry, error: OSError) -> StoreError:
    return StoreError(
        f"{entry.path!r} cannot be given to {entry.uid}:{entry.gid}: {error.strerror}",
        hint="an ordinary user needs subordinate ids for this: install uidmap, and as root run "
        "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
    )


def _times(entry: Entry) -> tuple[int, int]:
    """Times of access and change in ns, within what system calls can say."""
    time = min(max(entry.mtime_ns, -_LATEST), _LATEST)
    return time, time
