"""What the kernel refuses to keep, noted on the file: owners where there is a single id, and device nodes.

The note is an extended attribute, so that it goes wherever the file goes: it survives renames and the copies that
overlay makes, and the layers above see it. Symlinks and FIFOs can have none of user.*, but the kernel lets them
have file capabilities, which mean nothing there: their note is in the form of those.
"""

import errno
import os
import re
import struct
from collections.abc import Mapping
from contextlib import suppress

OWNER = "user.pybuild.owner"
"""On files and folders: `UID:GID`."""
CAPABILITY = "security.capability"
DEVICE = "user.pybuild.dev"
"""On an empty file that stands for a device node where none may be made: `c MAJOR MINOR`, or `b`."""
NOTES = frozenset({OWNER, DEVICE})
"""What nobody but us writes; beside capabilities of what is neither a file nor a folder."""
_FIRST_NAMESPACE = 0xEFFFFFFD
"""PROC_USER_INIT_INO of linux/proc_ns.h: the inode number of the user namespace that is there from the beginning."""
_OWNER_NOTE = rb"(\d{1,10}):(\d{1,10})"
_DEVICE_NOTE = rb"([cb]) (\d{1,4}) (\d{1,7})"
_CAPABILITIES = struct.Struct("<5I")
"""struct vfs_cap_data of linux/capability.h, without an id of root: revision, then twice permitted, inheritable."""
_REVISION_2 = 0x02000000
_MARK = (0x70796275, 0x696C6421)
"""The upper halves of the sets, in which no kernel has capabilities yet: they tell an owner from real ones."""


def has_one_id(uid_map: str = "/proc/self/uid_map") -> bool:
    """Whether this process is in a user namespace that has one user id only (user_namespaces(7))."""
    with open(uid_map, "rb") as file:
        return [line.split()[2] for line in file] == [b"1"]


def may_make_devices() -> bool:
    """Whether devices could be made here, so that none is noted: only outside of all user namespaces (mknod(2)).

    Their ids do not tell: root of a container maps all of its own into a namespace of its own.
    """
    return os.stat("/proc/self/ns/user").st_ino == _FIRST_NAMESPACE


def give(file: int | str, uid: int, gid: int) -> None:
    """Change the owner of an open file, or of what stands at a path, a symlink itself; where need be, by a note.

    As with chown(2), -1 leaves an id as it is, and setuid bits and capabilities are cleared. OSError if the kernel
    refuses the owner for another reason than that there is only one id.
    """
    opened = isinstance(file, int)
    try:
        os.chown(file, uid, gid, follow_symlinks=opened)
    except OSError as error:
        if error.errno != errno.EINVAL or not has_one_id():
            raise
        before = noted(attributes(file, follow=opened)) or (0, 0)
        os.chown(file, 0, 0, follow_symlinks=opened)
        uid, gid = (old if new == -1 else new for old, new in zip(before, (uid, gid), strict=True))
        note(file, uid, gid, follow=opened)


def note(file: int | str | bytes, uid: int, gid: int, *, follow: bool) -> None:
    """Note the owner on a file, folder, symlink or FIFO; OSError where that is impossible."""
    try:
        os.setxattr(file, OWNER, b"%d:%d" % (uid, gid), follow_symlinks=follow)
    except PermissionError:  # neither a file nor a folder
        packed = _CAPABILITIES.pack(_REVISION_2, uid, gid, *_MARK)
        os.setxattr(file, CAPABILITY, packed, follow_symlinks=follow)


def forget(file: int | str | bytes, *, follow: bool) -> None:
    """Remove the note of a file whose capabilities have been cleared: it is root's again."""
    with suppress(OSError):  # it has none, or only had capabilities
        os.removexattr(file, OWNER, follow_symlinks=follow)


def attributes(file: int | str | bytes, *, follow: bool) -> dict[str, bytes]:
    """Those attributes of a file that we write, and its capabilities; OSError if it cannot be reached."""
    names = os.listxattr(file, follow_symlinks=follow)
    return {
        name: os.getxattr(file, name, follow_symlinks=follow) for name in names if name in NOTES or name == CAPABILITY
    }


def noted(xattrs: Mapping[str, bytes]) -> tuple[int, int] | None:
    """The owner that is noted among the attributes of a file, folder, symlink or FIFO."""
    if OWNER in xattrs:
        found = re.fullmatch(_OWNER_NOTE, xattrs[OWNER])
        return (int(found[1]), int(found[2])) if found else None
    packed = xattrs.get(CAPABILITY, b"")
    if len(packed) != _CAPABILITIES.size:
        return None
    revision, uid, gid, *mark = _CAPABILITIES.unpack(packed)
    return (uid, gid) if (revision, *mark) == (_REVISION_2, *_MARK) else None


def noted_device(xattrs: Mapping[str, bytes]) -> tuple[str, int, int] | None:
    """What an empty file stands for: `c` or `b`, and the numbers of the device."""
    found = re.fullmatch(_DEVICE_NOTE, xattrs.get(DEVICE, b""))
    return (found[1].decode(), int(found[2]), int(found[3])) if found else None
