"""The first process of a step: from a fresh clone of the server to the command of the image.

The order of things follows from what each takes away: mounts while there are capabilities, the pivot before anything
of the image is trusted, credentials last. Whatever fails is told as errno and what was being done.
"""

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import termios
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import NoReturn, Protocol

from builder.sandbox import syscalls
from builder.sandbox.calls import Call, call
from builder.sandbox.process import DEFAULT_PATH, Process, Ulimit
from builder.sandbox.recorder.program import Recording
from layers.data import replace
from layers.owners import give

CHANNEL = 3
"""The descriptor of the step's socket, right after stdin, stdout and stderr."""

RECORDER = 4
"""The descriptor of the socket on which the recorder waits for its listener, if there is one."""

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
TIOCGPTN, TIOCSPTLCK = 0x80045430, 0x40045431
"""Terminal ioctls that `termios` does not name."""


Deed = tuple[str, Callable[[], object]]
Action = tuple[str, Call | Callable[[], object]]
"""What it does, as the end of the sentence "cannot ..."; and that."""


class Task(Protocol):
    """What the main process asks of the server, whichever back-end asks."""

    @property
    def process(self) -> Process: ...

    @property
    def namespaces(self) -> int:
        """The CLONE_* flags of the namespaces that the process shall have of its own."""
        ...

    @property
    def recording(self) -> Recording | None:
        """What has to be recorded of it."""
        ...


def become(process: Process, actions: Iterable[Action]) -> NoReturn:
    """Become a command by doing what it needs, in order; never returns."""
    doing = "start a process in new namespaces"
    try:
        left_out = 0
        for doing, act in actions:  # noqa: B007 - `doing` is for the error
            if left_out:
                left_out -= 1
            elif isinstance(act, Call):
                left_out = act.make()
            else:
                act()
        _execute(process)
    except OSError as error:
        _tell({"doing": doing, "errno": error.errno})
    except Exception as error:  # noqa: BLE001 - the edge of a process: nobody else could tell it
        _tell({"doing": doing, "fault": repr(error)})
    finally:
        os._exit(125)


def _tell(message: dict[str, object]) -> None:
    """Send one line to the main process, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(CHANNEL, json.dumps(message).encode() + b"\n")


def ending_with_parent() -> Action:
    """The kernel shall kill this process when its parent has gone."""
    return "end with our parent", call("prctl", syscalls.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def becoming(
    process: Process,
    program: bytes,
    *,
    enter: Call | None = None,
    recording: Recording | None = None,
    tolerated: tuple[int, ...] = (),
) -> Iterator[Action]:
    """The last actions: this process, in its root and namespaces, gets all else that the command shall have.

    `enter` enters the working directory, if it is known how to.
    Capabilities may stay within the bounds of before if those cannot be changed for one of the `tolerated` reasons.
    """
    # Containers may forbid it: then it is theirs.
    forbidden = (errno.EPERM, errno.ENOSYS, errno.EDQUOT)
    keyring = call("keyctl", syscalls.KEYCTL_JOIN_SESSION_KEYRING, None, tolerated=forbidden)
    yield "make a session keyring", keyring
    yield f"enter the working directory {process.cwd}", enter or partial(enter_directory, process)
    for each in process.ulimits:
        yield f"set the ulimit {each.name}", _limiting(each)
    if program:
        # While there is CAP_SYS_ADMIN: without it no_new_privs would be needed, which breaks sudo and su.
        yield "install the seccomp filter", _filtering(program, syscalls.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
    if recording:
        yield from (("have owners recorded", act) for act in _recording(recording, process))
    yield from (("drop capabilities", act) for act in _limiting_capabilities(process.capabilities, tolerated))
    if recording and recording.owners:
        return  # there is one id, and whose it is, the recorder knows
    yield from ((f"become group {process.gid} of {list(process.groups)}", act) for act in _setting_groups(process))
    yield f"become user {process.uid}", call("setresuid", process.uid, process.uid, process.uid)
    yield ending_with_parent()  # which a change of ids has cleared


def _limiting(ulimit: Ulimit) -> Call:
    kind: int = getattr(resource, f"RLIMIT_{ulimit.name.upper()}")
    return call("prlimit64", 0, kind, (ulimit.soft, ulimit.hard), None)  # UNLIMITED is all bits, as the kernel has it


def enter_directory(process: Process) -> None:
    """Enter the working directory; what is missing on the way is made, and belongs to the user, as in BuildKit."""
    os.chdir("/")
    for name in process.cwd.split("/"):
        if name:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755)
                give(name, process.uid, process.gid)
            os.chdir(name)


def loopback_up() -> None:
    """Set IFF_UP on `lo`, by the ioctls of netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("=16sh22x", b"lo", 0))
        (flags,) = struct.unpack_from("=h", answer, 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("=16sh22x", b"lo", flags | IFF_UP))


def open_terminal(window: tuple[int, int]) -> None:
    """Open a terminal of the devpts in /dev/pts, send its other end to the main process, and live on it."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("=i", 0))
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("=4H", *window, 0, 0))
    (number,) = struct.unpack("=i", fcntl.ioctl(master, TIOCGPTN, bytes(4)))
    terminal = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    with socket.socket(fileno=os.dup(CHANNEL)) as channel:
        socket.send_fds(channel, [b'{"terminal": true}\n'], [master])
    for place in (0, 1, 2):
        os.dup2(terminal, place)
    os.close(master)
    os.close(terminal)


def own_streams(process: Process, stdio: Sequence[int] = (0, 1, 2)) -> None:
    """Let the command open /dev/stdout and /dev/stderr anew, whoever it runs as; as runc does."""
    for descriptor in stdio:
        if process.terminal or stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            with contextlib.suppress(OSError):  # a pipe of the caller may belong to somebody else
                os.fchown(descriptor, process.uid, -1)


def _filtering(program: bytes, flags: int, tolerated: tuple[int, ...] = ()) -> Call:
    """To run a seccomp program; its instructions have 8 bytes."""
    described = (len(program) // 8, program)
    return call("seccomp", syscalls.SECCOMP_SET_MODE_FILTER, flags, described, tolerated=tolerated)


def _recording(recording: Recording, process: Process) -> Iterator[Call]:
    """To send the recorder its listener; from then on, calls that it has to answer wait for it.

    The two descriptors that are opened are the lowest ones that are free.
    """
    from builder.sandbox.recorder.serve import Opening  # where there is a recorder, the server has imported it

    owners = recording.owners
    opening = Opening(process.uid, process.gid, process.groups, process.capabilities, owners).serialise()
    root, listener = RECORDER + 1, RECORDER + 2
    yield call("openat", syscalls.AT_FDCWD, b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    usual = syscalls.SECCOMP_FILTER_FLAG_NEW_LISTENER | syscalls.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    # A call that has been told of is not begun anew because of a signal (Linux 5.19): it may have been done.
    killable = _filtering(recording.program, usual | syscalls.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, (errno.EINVAL,))
    yield replace(killable, passes=1)
    yield _filtering(recording.program, usual)
    rights = struct.pack("=Qii2i", 16 + 8, socket.SOL_SOCKET, socket.SCM_RIGHTS, listener, root)
    yield call("sendmsg", RECORDER, (0, 0, (opening, len(opening)), 1, rights, len(rights), 0), 0)
    yield call("close_range", RECORDER, 0xFFFFFFFF, 0)


@cache  # of a process, which keeps those that it has
def _limiting_capabilities(kept: int, tolerated: tuple[int, ...]) -> tuple[Call, ...]:
    """To cut the bounding set, which the command's capabilities come from, and then our own sets."""
    effective, permitted = syscalls.capabilities()
    dropped = [number for number in _bounding_set() if not kept >> number & 1]
    return (
        *[call("prctl", syscalls.PR_CAPBSET_DROP, number, 0, 0, 0, tolerated=tolerated) for number in dropped],
        call("capset", *syscalls.capability_sets(effective & kept, permitted & kept)),
    )


def _bounding_set() -> Iterator[int]:
    for number in range(64):
        try:
            if syscalls.prctl(syscalls.PR_CAPBSET_READ, number):
                yield number
        except OSError:  # past the last capability of this kernel
            return


def _setting_groups(process: Process) -> Iterator[Call]:
    # In a namespace with a single id nobody may. Root reaches everything there without them, and others cannot be.
    tolerated = () if process.groups and process.uid else (errno.EPERM,)
    groups = struct.pack(f"={len(process.groups)}I", *process.groups)
    yield call("setgroups", len(process.groups), groups, tolerated=tolerated)
    yield call("setresgid", process.gid, process.gid, process.gid)


def _execute(process: Process) -> NoReturn:
    """Replace this process by the command; if that is impossible, say why as Docker does and end with 127 or 126."""
    environment = dict(process.environment)
    try:
        path = found(process)
        _refuse_interpreter(path)
        os.execve(path, process.argv, environment)  # noqa: S606 - this is what a sandbox is for
    except OSError as error:
        status, text = unexecuted(process.argv[0], error.errno or 0)
        os.write(2, text)
        os._exit(status)


def unexecuted(name: str, number: int) -> tuple[int, bytes]:
    """The status of a command that could not be executed, and what is said about it."""
    missing = number in {errno.ENOENT, errno.ENOTDIR}
    known = "/" in name or not missing
    reason = os.strerror(number).lower() if known else "executable file not found in $PATH"
    return 127 if missing else 126, os.fsencode(f'exec: "{name}": {reason}\n')


def found(process: Process) -> str:
    """The path of the command; without a slash, it is the first executable file of this name in the folders of PATH."""
    name = process.argv[0]
    if "/" in name:
        return name
    path = dict(process.environment).get("PATH", DEFAULT_PATH)
    failure = errno.ENOENT
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder or ".", name)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            failure = errno.EACCES
    raise OSError(failure, os.strerror(failure))


def _refuse_interpreter(path: str) -> None:
    """Refuse a command that is, directly or by `#!`, /proc/self/exe: at this moment that is the host's Python.

    A hostile image could otherwise run the host's interpreter with libraries of its own, and write to it later.
    """
    try:
        own = os.stat("/proc/self/exe")
    except FileNotFoundError:  # a root without /proc has no way to it
        return
    for _ in range(5):  # as deep as the kernel follows interpreters (fs/exec.c, exec_binprm)
        if os.path.samestat(own, os.stat(path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        words = _interpreter(path)
        if not words:
            return
        path = words[0]


def _interpreter(path: str) -> list[str]:
    """The words after `#!`, or none; none too for a file that may be run but not read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return []
    first_line = os.read(file, 256).partition(b"\n")[0]
    os.close(file)
    return os.fsdecode(first_line[2:]).split() if first_line.startswith(b"#!") else []
