"""The Linux system calls that Python's `os` lacks: thin wrappers, and the one place where errno becomes OSError.

Calls from number 424 on have the same number on every architecture; the few older ones without a libc wrapper are in
`_NUMBERS`. Structures and constants are those of the kernel's uapi headers. Calls that are laid out to be made later
are in `calls`.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

CAP_SYS_ADMIN = 21

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_GET_NO_NEW_PRIVS = 39

AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 4
KEYCTL_JOIN_SESSION_KEYRING = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_GET_ACTION_AVAIL = 2
# Without it, kernels before 5.16 would slow the whole process down for the sake of its speculation.
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20
_SECCOMP_RET_ERRNO = 0x00050000
_SECCOMP_RET_USER_NOTIF = 0x7FC00000
_SIGCHLD = 17

_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "keyctl": 250, "seccomp": 317, "statx": 332},
    "aarch64": {"clone": 220, "pivot_root": 41, "keyctl": 219, "seccomp": 277, "statx": 291},
}.get(os.uname().machine, {})
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_CLOSE_RANGE = 436
_MOUNT_SETATTR = 442

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
# PyDLL keeps the interpreter's lock during the call: the copy of the process that `clone` makes then still holds it.
_locked_libc = ctypes.PyDLL(None, use_errno=True)
_locked_libc.syscall.restype = ctypes.c_long

_Argument = int | bytes | None


def supported() -> bool:
    """Whether the table of numbers knows this processor."""
    return bool(_NUMBERS)


def _checked(result: int, name: str, subject: str = "") -> int:
    """Give the result of a call, or raise OSError with the call's name, its subject and the errno it left."""
    if result >= 0:
        return result
    raise failed(name, subject)


def failed(name: str, subject: str = "") -> OSError:
    """The error of a call of `libc` that has just failed."""
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}", subject or None)


def _words(arguments: Sequence[_Argument]) -> list[ctypes.c_long | ctypes.c_char_p]:
    """Each argument at the full width of a register, as the variadic `syscall` needs it."""
    return [ctypes.c_long(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]


def _call(number: int, name: str, *arguments: _Argument, subject: str = "") -> int:
    return _checked(libc.syscall(ctypes.c_long(number), *_words(arguments)), name, subject)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def unshare(flags: int) -> None:
    """Move this process into new namespaces; EINVAL for CLONE_NEWUSER if it has threads."""
    _checked(libc.unshare(ctypes.c_int(flags)), "unshare")


def enter(namespace: int, kind: int) -> None:
    """Move this process into the namespace of an open descriptor, see setns(2); `kind` is a CLONE_* flag."""
    _checked(libc.setns(ctypes.c_int(namespace), ctypes.c_int(kind)), "setns")


def clone(flags: int) -> int:
    """Fork into new namespaces and give the child's pid, or 0 in the child.

    Only for a process whose other threads, if any, wait in the kernel: nothing that `os.fork` repairs in the child is
    repaired here.
    """
    words = _words((flags | _SIGCHLD, 0, 0, 0, 0))
    return _checked(_locked_libc.syscall(ctypes.c_long(_NUMBERS["clone"]), *words), "clone")


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """Mount, remount or bind; of the options the kernel takes one page."""
    result = libc.mount(
        _bytes(source), os.fsencode(target), _bytes(kind), ctypes.c_ulong(flags), ctypes.c_char_p(_bytes(options))
    )
    _checked(result, "mount", target)


def umount(target: str, flags: int = 0) -> None:
    """Detach a mount, see umount2(2)."""
    _checked(libc.umount2(os.fsencode(target), ctypes.c_int(flags)), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of the mount namespace, and hang the old one at `put_old`."""
    _call(_NUMBERS["pivot_root"], "pivot_root", os.fsencode(new_root), os.fsencode(put_old), subject=new_root)


def open_tree(path: str, *, folder: int = AT_FDCWD, recursive: bool = False) -> int:
    """Give a descriptor of a detached copy of the mount at `path`; relative paths start at descriptor `folder`."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _call(_OPEN_TREE, "open_tree", folder, os.fsencode(path), flags, subject=path)


def move_mount(tree: int, target: str) -> None:
    """Attach a detached mount at `target`; a symlink as the last component is not followed."""
    _call(_MOVE_MOUNT, "move_mount", tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH, subject=target)


def set_mount_attributes(tree: int, attributes: int) -> None:
    """Set MOUNT_ATTR_* flags on a mount and everything mounted below it."""
    request = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _call(_MOUNT_SETATTR, "mount_setattr", tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, request, len(request))


def statx(path: bytes, flags: int, mask: int) -> bytearray:
    """A `struct statx` of what stands at a path."""
    buffer = ctypes.create_string_buffer(256)
    words = _words((AT_FDCWD, path, flags, mask))
    _checked(libc.syscall(ctypes.c_long(_NUMBERS["statx"]), *words, buffer), "statx")
    return bytearray(buffer.raw)


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    _call(_CLOSE_RANGE, "close_range", first, 0xFFFFFFFF, 0)


def prctl(option: int, value: int = 0) -> int:
    """Read or change a setting of this process that is a single number."""
    words = [ctypes.c_ulong(each) for each in (value, 0, 0, 0)]
    return _checked(libc.prctl(ctypes.c_int(option), *words), "prctl")


def can_filter() -> bool:
    """Whether this kernel has seccomp filters."""
    return _has_action(_SECCOMP_RET_ERRNO)


def can_notify() -> bool:
    """Whether filters of this kernel can ask another process (Linux 5.0)."""
    return _has_action(_SECCOMP_RET_USER_NOTIF)


def _has_action(action: int) -> bool:
    try:
        _call(_NUMBERS["seccomp"], "seccomp", _SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("=I", action))
    except OSError:
        return False
    return True


def new_session_keyring() -> None:
    """Leave the caller's session keyring for a new, empty one."""
    _call(_NUMBERS["keyctl"], "keyctl", KEYCTL_JOIN_SESSION_KEYRING, None)


def set_filter(program: bytes) -> None:
    """Run a seccomp program, an array of `struct sock_filter`, at every system call from now on, and in all children.

    EACCES without CAP_SYS_ADMIN, unless no_new_privs is set.
    """
    _install(program, 0)


def listen(program: bytes) -> int:
    """Install a program that asks, and give the descriptor on which it does; see seccomp_unotify(2).

    EINVAL on kernels before 5.0, and EBUSY where a program that asks is installed already, as some containers have it.
    """
    try:
        # A call that has been told of is not begun anew because of a signal (Linux 5.19): it may have been done.
        return _install(program, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _install(program, SECCOMP_FILTER_FLAG_NEW_LISTENER)


def _install(program: bytes, flags: int) -> int:
    instructions = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW
    return _call(_NUMBERS["seccomp"], "seccomp", SECCOMP_SET_MODE_FILTER, flags, descriptor)


def capabilities() -> tuple[int, int]:
    """The effective and the permitted capabilities of this process, as bit masks."""
    data = ctypes.create_string_buffer(24)
    _checked(libc.capget(struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0), data), "capget")
    low_effective, low_permitted, _, high_effective, high_permitted, _ = struct.unpack("=6I", data.raw)
    return low_effective | high_effective << 32, low_permitted | high_permitted << 32


def set_capabilities(effective: int, permitted: int) -> None:
    """Set both masks and empty the inheritable set, and with it the ambient one."""
    _checked(libc.capset(*capability_sets(effective, permitted)), "capset")


def capability_sets(effective: int, permitted: int) -> tuple[bytes, bytes]:
    """What capset(2) takes for this process to have these capabilities, and none to inherit."""
    low, high = 0xFFFFFFFF, 32
    data = struct.pack("=6I", effective & low, permitted & low, 0, effective >> high, permitted >> high, 0)
    return struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0), data
