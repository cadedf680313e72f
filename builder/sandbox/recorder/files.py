"""The calls that make files and give them away: what the kernel cannot do is noted on the file."""

import errno
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress

from builder.sandbox.recorder.call import Call, Handler
from builder.sandbox.recorder.identity import LEAVE, Identity, refused
from builder.sandbox.recorder.program import MAKES_A_FILE
from builder.sandbox.recorder.tasks import AT_FDCWD
from layers import owners
from layers.owners import DEVICE, attributes, noted
from layers.paths import MOST_LINKS

_AT_EMPTY_PATH, _AT_SYMLINK_NOFOLLOW = 0x1000, 0x100
_ROOT = (0, 0)
_MODE = 0o7777


class Ownership:
    """Owners in a step that has one id."""

    def __init__(self) -> None:
        self._interpreter = os.stat("/proc/self/exe")

    def handlers(self) -> dict[str, Handler]:
        """By the name of the call."""
        return {
            **dict.fromkeys(("chown", "chown32"), lambda call: self._change(call, AT_FDCWD, 0, 0)),
            **dict.fromkeys(("lchown", "lchown32"), lambda call: self._change(call, AT_FDCWD, 0, _AT_SYMLINK_NOFOLLOW)),
            **dict.fromkeys(("fchown", "fchown32"), self._change_opened),
            "fchownat": lambda call: self._change(call, call.number(0), 1, call.word(4)),
        }

    def _change(self, call: Call, folder: int, index: int, flags: int) -> int | None:
        """Change the owner of what the argument at `index` names; the ids are the two after it."""
        path = call.text(index)
        if not path and not flags & _AT_EMPTY_PATH:
            return None
        wanted = call.id(index + 1), call.id(index + 2)
        follow = not flags & _AT_SYMLINK_NOFOLLOW or not path
        return self._give(call.tasks.identity(call.pid), call.name(folder, path), wanted, follow=follow)

    def _change_opened(self, call: Call) -> int | None:
        if call.number(0) < 0:
            return None
        wanted = call.id(1), call.id(2)
        return self._give(call.tasks.identity(call.pid), call.name(call.number(0), b""), wanted, follow=True)

    def _give(self, identity: Identity, name: bytes, wanted: tuple[int, int], *, follow: bool) -> int | None:
        if wanted == (LEAVE, LEAVE):
            return None
        before = _owner(name, follow=follow)
        after = (before[0] if wanted[0] == LEAVE else wanted[0], before[1] if wanted[1] == LEAVE else wanted[1])
        if not identity.privileged and not _may_give(identity, before, after):
            raise refused()
        if before == after == _ROOT:
            return None
        if os.path.samestat(os.stat(name, follow_symlinks=follow), self._interpreter):
            raise refused()  # it is the host's, which a container's /proc can show a step
        # The kernel clears what a change of owner clears, also of notes on what is neither file nor folder.
        real = (LEAVE if wanted[0] == LEAVE else 0, LEAVE if wanted[1] == LEAVE else 0)
        os.chown(name, *real, follow_symlinks=follow)
        if after == _ROOT:
            owners.forget(name, follow=follow)
        else:
            _note(name, after, follow=follow)
        return 0


def _may_give(identity: Identity, before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether somebody who is not root may: its own file, to a group that it is in (chown(2))."""
    is_own = identity.users.files == before[0] == after[0]
    return is_own and (after[1] == before[1] or identity.in_group(after[1]))


def _owner(name: bytes, *, follow: bool) -> tuple[int, int]:
    try:
        return noted(attributes(name, follow=follow)) or _ROOT
    except OSError:  # what is wrong, the change of owner will say
        return _ROOT


def _note(file: int | bytes, owner: tuple[int, int], *, follow: bool) -> None:
    """Note an owner. Where no note can be had, such as on a pipe, nothing reaches a layer."""
    with suppress(OSError):
        owners.note(file, *owner, follow=follow)


def _owner_of_new(call: Call, name: bytes) -> tuple[int, int] | None:
    """Whose a file will be that is made; None if it is root's, so that the kernel can make it."""
    identity = call.tasks.identity(call.pid)
    user, group = identity.users.files, identity.groups.files
    folder = name.rstrip(b"/").rpartition(b"/")[0] or b"/"
    try:
        mode = os.stat(folder).st_mode
    except OSError:
        return None
    if mode & stat.S_ISGID:
        group = _owner(folder, follow=True)[1]
    return None if (user, group) == _ROOT else (user, group)


def _make(call: Call, folder: int, index: int, make: Callable[[bytes], object]) -> int | None:
    """Make something that is no file, and note its owner."""
    path = call.text(index)
    name = call.name(folder, path)
    owner = _owner_of_new(call, name) if path else None
    if owner is None:
        return None
    with call.tasks.umask_of(call.pid):
        make(name)
    _note(name.rstrip(b"/"), owner, follow=False)
    return 0


def _make_folder(call: Call, folder: int, index: int) -> int | None:
    return _make(call, folder, index, lambda name: os.mkdir(name, call.word(index + 1) & _MODE))


def _make_link(call: Call, folder: int, index: int) -> int | None:
    return _make(call, folder, index, lambda name: os.symlink(call.text(0), name))


def _make_node(call: Call, folder: int, index: int) -> int | None:
    mode, device = call.word(index + 1), call.word(index + 2)
    if stat.S_IFMT(mode) in {stat.S_IFCHR, stat.S_IFBLK} and device:  # device 0/0 anybody may make: overlay's whiteout
        return _make_device(call, folder, index)
    return _make(call, folder, index, lambda name: os.mknod(name, mode, device))


def _make_device(call: Call, folder: int, index: int) -> int | None:
    """Make an empty file, with a note of the device that it stands for."""
    path = call.text(index)
    if not path:
        return None
    name = call.name(folder, path)
    mode, device = call.word(index + 1), call.word(index + 2)
    with call.tasks.umask_of(call.pid) as status:
        if not status.may_make_devices or not call.tasks.identity(call.pid).privileged:
            raise refused()
        owner = _owner_of_new(call, name)
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & _MODE)
    try:
        letter = "c" if stat.S_ISCHR(mode) else "b"
        with suppress(OSError):
            os.setxattr(file, DEVICE, f"{letter} {os.major(device)} {os.minor(device)}".encode())
        if owner:
            _note(file, owner, follow=True)
    finally:
        os.close(file)
    return 0


def _open(call: Call, folder: int, index: int, flags: int, mode: int) -> int | None:
    """Open a file that may have to be made; one that is there is the kernel's business."""
    path = call.text(index)
    if not path or not flags & MAKES_A_FILE:
        return None
    name = call.name(folder, path)
    nameless = not flags & os.O_CREAT
    for _ in range(MOST_LINKS):
        owner = _owner_of_new(call, name + b"/x" if nameless else name)
        if owner is None:
            return None
        exclusive = 0 if nameless else os.O_EXCL
        try:
            with call.tasks.umask_of(call.pid):
                file = os.open(name, flags | exclusive | os.O_CLOEXEC, mode & _MODE)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            if os.path.exists(name) or not os.path.islink(name):
                return None
            # A link to nothing yet: what it leads to is made.
            name = os.path.join(os.path.dirname(name), os.readlink(name))
        else:
            try:
                _note(file, owner, follow=True)
                return call.listener.add_descriptor(call.notification, file, flags=flags & os.O_CLOEXEC)
            finally:
                os.close(file)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _openat2(call: Call) -> int | None:
    """See openat2(2). With limits on where a name may lead, which are the caller's safety, it is left to the kernel."""
    flags, mode, limits = struct.unpack("=QQQ", call.tasks.read(call.pid, call.address(2), 24))
    return None if limits else _open(call, call.number(0), 1, flags & 0xFFFFFFFF, mode)


def _change_root(call: Call) -> None:
    call.tasks.expect_roots()


DEVICES: dict[str, Handler] = {
    "mknod": lambda call: _make_node(call, AT_FDCWD, 0),
    "mknodat": lambda call: _make_node(call, call.number(0), 1),
}
"""What the kernel lets nobody make in a user namespace."""

MAKERS: dict[str, Handler] = {
    "creat": lambda call: _open(call, AT_FDCWD, 0, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, call.word(1)),
    "open": lambda call: _open(call, AT_FDCWD, 0, call.word(1), call.word(2)),
    "openat": lambda call: _open(call, call.number(0), 1, call.word(2), call.word(3)),
    "openat2": _openat2,
    "mkdir": lambda call: _make_folder(call, AT_FDCWD, 0),
    "mkdirat": lambda call: _make_folder(call, call.number(0), 1),
    "symlink": lambda call: _make_link(call, AT_FDCWD, 1),
    "symlinkat": lambda call: _make_link(call, call.number(1), 2),
    "chroot": _change_root,
}
"""What gives a file its first owner."""
