"""The Linux system calls that Python's `os` lacks: thin wrappers, and the one place where errno becomes OSError.

Calls from number 424 on have the same number on every architecture; the few older ones without a libc wrapper are in
`_NUMBERS`. Structures and constants are those of the kernel's uapi headers.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Collection, Sequence

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

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
KEYCTL_JOIN_SESSION_KEYRING = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_GET_ACTION_AVAIL = 2
# Without it, kernels before 5.16 would slow the whole process down for the sake of its speculation.
_SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
_SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
_SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20
_SECCOMP_RET_ERRNO = 0x00050000
_SECCOMP_RET_USER_NOTIF = 0x7FC00000
_SIGCHLD = 17

_NUMBERS = {
    "x86_64": {
        "write": 1,
        "clone": 56,
        "execve": 59,
        "chdir": 80,
        "fchdir": 81,
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
        "unshare": 272,
        "dup3": 292,
        "seccomp": 317,
        "statx": 332,
    },
    "aarch64": {
        "dup3": 24,
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "chdir": 49,
        "fchdir": 50,
        "chroot": 51,
        "capset": 91,
        "write": 64,
        "unshare": 97,
        "setresuid": 147,
        "setresgid": 149,
        "setsid": 157,
        "setgroups": 159,
        "sethostname": 161,
        "umask": 166,
        "prctl": 167,
        "keyctl": 219,
        "clone": 220,
        "execve": 221,
        "seccomp": 277,
        "statx": 291,
    },
}.get(os.uname().machine, {})
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_CLOSE_RANGE = 436
_MOUNT_SETATTR = 442
_EVERYWHERE = {"move_mount": _MOVE_MOUNT, "close_range": _CLOSE_RANGE}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# PyDLL keeps the interpreter's lock during the call: the copy of the process that `clone` makes then still holds it.
_locked_libc = ctypes.PyDLL(None, use_errno=True)
_locked_libc.syscall.restype = ctypes.c_long

_Argument = int | bytes | None
_Laid = ctypes.Array[ctypes.c_char_p] | ctypes.Array[ctypes.c_uint32] | ctypes.Array[ctypes.c_char]
"""Memory that a call is given the address of."""


def supported() -> bool:
    """Whether the table of numbers knows this processor."""
    return bool(_NUMBERS)


def _checked(result: int, name: str, subject: str = "") -> int:
    """Give the result of a call, or raise OSError with the call's name, its subject and the errno it left."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    raise OSError(number, f"{name}: {os.strerror(number)}", subject or None)


def _words(arguments: Sequence[_Argument]) -> list[ctypes.c_long | ctypes.c_char_p]:
    """Each argument at the full width of a register, as the variadic `syscall` needs it."""
    return [ctypes.c_long(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]


def _call(number: int, name: str, *arguments: _Argument, subject: str = "") -> int:
    return _checked(_libc.syscall(ctypes.c_long(number), *_words(arguments)), name, subject)


class Prepared:
    """A system call with its arguments laid out: to make it, Python touches little memory.

    So it suits a process that has just been forked, which has to copy every page that it touches.
    """

    __slots__ = ("_kept", "_name", "_subject", "_tolerated", "_words")

    def __init__(
        self,
        name: str,
        *arguments: _Argument | _Laid,
        subject: str = "",
        tolerated: Collection[int] = (),
        kept: object = None,
    ) -> None:
        """`tolerated` are errors that are none; `kept` is memory that the arguments point to."""
        self._name = name
        self._subject = subject
        self._tolerated = tolerated
        self._kept = kept
        number = _EVERYWHERE.get(name) or _NUMBERS[name]
        self._words = (
            ctypes.c_long(number),
            *(each if isinstance(each, ctypes.Array) else _words([each])[0] for each in arguments),
        )

    def __call__(self) -> bool:
        """Make the call; False if it ended with a tolerated error."""
        if _libc.syscall(*self._words) >= 0:
            return True
        if ctypes.get_errno() in self._tolerated:
            return False
        _checked(-1, self._name, self._subject)
        return False


def pointers(texts: Sequence[str]) -> "ctypes.Array[ctypes.c_char_p]":
    """An array of strings as execve(2) takes it."""
    return (ctypes.c_char_p * (len(texts) + 1))(*map(os.fsencode, texts), None)


def numbers(values: Sequence[int]) -> "ctypes.Array[ctypes.c_uint32]":
    """An array of ids."""
    return (ctypes.c_uint32 * len(values))(*values)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def unshare(flags: int) -> None:
    """Move this process into new namespaces; EINVAL for CLONE_NEWUSER if it has threads."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def enter(namespace: int, kind: int) -> None:
    """Move this process into the namespace of an open descriptor, see setns(2); `kind` is a CLONE_* flag."""
    _checked(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(kind)), "setns")


def clone(flags: int) -> int:
    """Fork into new namespaces and give the child's pid, or 0 in the child.

    Only for a process with one thread: nothing that `os.fork` repairs in the child is repaired here.
    """
    words = _words((flags | _SIGCHLD, 0, 0, 0, 0))
    return _checked(_locked_libc.syscall(ctypes.c_long(_NUMBERS["clone"]), *words), "clone")


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """Mount, remount or bind; of the options the kernel takes one page."""
    result = _libc.mount(
        _bytes(source), os.fsencode(target), _bytes(kind), ctypes.c_ulong(flags), ctypes.c_char_p(_bytes(options))
    )
    _checked(result, "mount", target)


def umount(target: str, flags: int = 0) -> None:
    """Detach a mount, see umount2(2)."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of the mount namespace, and hang the old one at `put_old`."""
    _call(_NUMBERS["pivot_root"], "pivot_root", os.fsencode(new_root), os.fsencode(put_old), subject=new_root)


def open_tree(path: str, *, folder: int = _AT_FDCWD, recursive: bool = False) -> int:
    """Give a descriptor of a detached copy of the mount at `path`; relative paths start at descriptor `folder`."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _call(_OPEN_TREE, "open_tree", folder, os.fsencode(path), flags, subject=path)


def move_mount(tree: int, target: str) -> None:
    """Attach a detached mount at `target`; a symlink as the last component is not followed."""
    moving(tree, target)()


def moving(tree: int, target: str, *, tolerated: Collection[int] = ()) -> Prepared:
    """To do what `move_mount` does."""
    path = os.fsencode(target)
    flags = _MOVE_MOUNT_F_EMPTY_PATH
    return Prepared("move_mount", tree, b"", _AT_FDCWD, path, flags, subject=target, tolerated=tolerated)


def set_mount_attributes(tree: int, attributes: int) -> None:
    """Set MOUNT_ATTR_* flags on a mount and everything mounted below it."""
    request = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _call(_MOUNT_SETATTR, "mount_setattr", tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, request, len(request))


def statx(path: bytes, flags: int, mask: int) -> bytearray:
    """A `struct statx` of what stands at a path."""
    buffer = ctypes.create_string_buffer(256)
    words = _words((_AT_FDCWD, path, flags, mask))
    _checked(_libc.syscall(ctypes.c_long(_NUMBERS["statx"]), *words, buffer), "statx")
    return bytearray(buffer.raw)


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    _call(_CLOSE_RANGE, "close_range", first, 0xFFFFFFFF, 0)


def prctl(option: int, value: int = 0) -> int:
    """Read or change a setting of this process that is a single number."""
    words = [ctypes.c_ulong(each) for each in (value, 0, 0, 0)]
    return _checked(_libc.prctl(ctypes.c_int(option), *words), "prctl")


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
    Prepared("keyctl", KEYCTL_JOIN_SESSION_KEYRING, None)()


def set_filter(program: bytes) -> None:
    """See `filtering`."""
    filtering(program)()


def filtering(program: bytes) -> Prepared:
    """To run a seccomp program, an array of `struct sock_filter`, at every system call afterwards, and in all children.

    EACCES without CAP_SYS_ADMIN, unless no_new_privs is set.
    """
    instructions, descriptor = _program(program)
    mode, flags = _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_SPEC_ALLOW
    return Prepared("seccomp", mode, flags, descriptor, kept=instructions)


def listen(program: bytes) -> int:
    """Install a program that asks, and give the descriptor on which it does; see seccomp_unotify(2).

    EINVAL on kernels before 5.0, and EBUSY where a program that asks is installed already, as some containers have it.
    """
    try:
        # A call that has been told of is not begun anew because of a signal (Linux 5.19): it may have been done.
        return _install(program, _SECCOMP_FILTER_FLAG_NEW_LISTENER | _SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _install(program, _SECCOMP_FILTER_FLAG_NEW_LISTENER)


def _program(program: bytes) -> "tuple[ctypes.Array[ctypes.c_char], bytes]":
    """The instructions, and what points to them."""
    instructions = ctypes.create_string_buffer(program, len(program))
    return instructions, struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))


def _install(program: bytes, flags: int) -> int:
    _instructions, descriptor = _program(program)  # held until the call has been made
    flags |= _SECCOMP_FILTER_FLAG_SPEC_ALLOW
    return _call(_NUMBERS["seccomp"], "seccomp", _SECCOMP_SET_MODE_FILTER, flags, descriptor)


def capabilities() -> tuple[int, int]:
    """The effective and the permitted capabilities of this process, as bit masks."""
    data = ctypes.create_string_buffer(24)
    _checked(_libc.capget(struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0), data), "capget")
    low_effective, low_permitted, _, high_effective, high_permitted, _ = struct.unpack("=6I", data.raw)
    return low_effective | high_effective << 32, low_permitted | high_permitted << 32


def set_capabilities(effective: int, permitted: int) -> None:
    """Set both masks and empty the inheritable set, and with it the ambient one."""
    having_capabilities(effective, permitted)()


def having_capabilities(effective: int, permitted: int) -> Prepared:
    """To set both masks and empty the inheritable set, and with it the ambient one."""
    low, high = 0xFFFFFFFF, 32
    data = struct.pack("=6I", effective & low, permitted & low, 0, effective >> high, permitted >> high, 0)
    return Prepared("capset", struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0), data)
