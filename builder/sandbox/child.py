"""The first process of a step: from a fresh clone of the server to the command of the image.

The order of things follows from what each takes away: mounts while there are capabilities, the pivot before anything
of the image is trusted, credentials last. Whatever fails is told as errno and what was being done.
"""

import contextlib
import errno
import fcntl
import json
import os
import pickle
import resource
import signal
import socket
import stat
import struct
import termios
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn, Protocol

from builder.sandbox import syscalls
from builder.sandbox.mounts import Mount, Overlay
from builder.sandbox.process import DEFAULT_PATH, UNLIMITED, Process, Ulimit
from builder.sandbox.recorder.program import Recording
from layers.data import dataclass
from layers.owners import give

CHANNEL = 3
"""The descriptor of the step's socket, right after stdin, stdout and stderr."""

_RECORDER = 4
"""The descriptor of the socket on which the recorder waits for its listener, if there is one."""

_HOST = 5
"""The descriptor of the host's root folder, until it is left."""

_NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
TIOCGPTN, TIOCSPTLCK = 0x80045430, 0x40045431
"""Terminal ioctls that `termios` does not name."""


Action = tuple[str, Callable[[], object]]


class Task(Protocol):
    """What the main process asks of a child, whichever back-end asks."""

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

    def actions(self) -> Iterator[Action]:
        """All that has to be done before the command can run, in order, each with its name."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A command on an overlay, in namespaces of its own."""

    root: Overlay
    before: tuple[Mount, ...]
    mounts: tuple[Mount, ...]
    process: Process
    window: tuple[int, int] = (0, 0)
    """Rows and columns of the terminal, if the process has one."""
    filter: bytes = b""
    """The seccomp program, see `syscalls.set_filter`; empty for none."""
    recording: Recording | None = None

    @property
    def namespaces(self) -> int:
        """The CLONE_* flags of the namespaces that the process shall have of its own."""
        network = syscalls.CLONE_NEWNET if self.process.network == "none" else 0
        return _NAMESPACES | network

    def actions(self) -> Iterator[Action]:
        """All that has to be done before the command can run, in order, each with its name."""
        return _actions(self)


def run(channel: int, stdio: tuple[int, int, int], recorder: int | None) -> NoReturn:
    """Become the command that the main process sends over the channel; never returns."""
    doing = "start a process in new namespaces"
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        _keep_only(channel, stdio, recorder)
        request = _receive()
        for doing, act in request.actions():  # noqa: B007 - `doing` is for the error
            act()
        _execute(request.process)
    except OSError as error:
        _tell({"doing": doing, "errno": error.errno})
    except Exception as error:  # noqa: BLE001 - the edge of a process: nobody else could tell it
        _tell({"doing": doing, "fault": repr(error)})
    finally:
        os._exit(125)


def _keep_only(channel: int, stdio: tuple[int, int, int], recorder: int | None) -> None:
    """Put the four or five descriptors at 0 to 4 and close all others."""
    kept = (*stdio, channel) if recorder is None else (*stdio, channel, recorder)
    # First out of each other's way, then into place.
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, len(kept)) for each in kept]
    for place, descriptor in enumerate(moved):
        os.dup2(descriptor, place, inheritable=place < CHANNEL)
    syscalls.close_from(len(kept))


def _receive() -> Task:
    """Read the request: its length in 8 bytes, then itself."""
    with os.fdopen(CHANNEL, "rb", closefd=False) as stream:
        (length,) = struct.unpack("=Q", stream.read(8).ljust(8, b"\0"))
        data = stream.read(length)
    if not length or len(data) < length:  # the main process has gone
        os._exit(125)
    request: Task = pickle.loads(data)  # noqa: S301 - written by the process that we are a fork of
    return request


def _tell(message: dict[str, object]) -> None:
    """Send one line to the main process, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(CHANNEL, json.dumps(message).encode() + b"\n")


def _actions(request: Request) -> Iterator[Action]:
    process = request.process
    yield from joining(process)
    # The names of ours and of those above are the host's business: in a namespace made now, it is the root.
    yield "make a cgroup namespace", partial(syscalls.unshare, syscalls.CLONE_NEWCGROUP)
    yield "start a session", os.setsid
    yield "make the mounts private", partial(syscalls.mount, None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    os.umask(0o022)
    yield "open the host's root", _open_host
    mounts: tuple[Mount, ...] = (*request.before, request.root, _Chroot(request.root.target), *request.mounts)
    for mount in mounts:
        yield mount.describe(), partial(mount.apply, _HOST)
    yield "make the new root the only one", partial(_pivot, request.root.target)
    if process.network == "none":
        yield "bring up the loopback interface", _loopback_up
    yield "set the host name", partial(socket.sethostname, process.hostname)
    if process.terminal:
        yield "open a terminal", partial(open_terminal, request.window)
    yield from becoming(process, request.filter, recording=request.recording)


def joining(process: Process) -> Iterator[Action]:
    """The first actions: the limits of the process count for all that is done for it."""
    for path in process.cgroups:
        yield f"join the cgroup {os.path.dirname(path)}", partial(_join, path)


def becoming(
    process: Process, program: bytes, *, recording: Recording | None = None, tolerated: tuple[int, ...] = ()
) -> Iterator[Action]:
    """The last actions: this process, in its root and namespaces, gets all else that the command shall have.

    Capabilities may stay within the bounds of before if those cannot be changed for one of the `tolerated` reasons.
    """
    yield "hand over the standard streams", partial(_own_streams, process)
    yield "make a session keyring", _new_keyring
    yield f"enter the working directory {process.cwd}", partial(_enter_directory, process)
    for each in process.ulimits:
        yield f"set the ulimit {each.name}", partial(_set_ulimit, each)
    if program:
        # While there is CAP_SYS_ADMIN: without it no_new_privs would be needed, which breaks sudo and su.
        yield "install the seccomp filter", partial(syscalls.set_filter, program)
    if recording:
        yield "have owners recorded", partial(_record, recording, process)
    yield "drop capabilities", partial(_limit_capabilities, process.capabilities, tolerated)
    if recording and recording.owners:
        return  # there is one id, and whose it is, the recorder knows
    yield f"become group {process.gid} of {list(process.groups)}", partial(_set_groups, process)
    yield f"become user {process.uid}", partial(os.setresuid, process.uid, process.uid, process.uid)
    # A change of ids has cleared it.
    yield "end with our parent", partial(syscalls.prctl, syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _join(path: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(b"0")  # whoever writes


def _set_ulimit(ulimit: Ulimit) -> None:
    kind: int = getattr(resource, f"RLIMIT_{ulimit.name.upper()}")
    soft, hard = (resource.RLIM_INFINITY if each == UNLIMITED else each for each in (ulimit.soft, ulimit.hard))
    try:
        resource.setrlimit(kind, (soft, hard))
    except ValueError as error:  # which is EPERM in Python's words
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from error


def _open_host() -> None:
    descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if descriptor != _HOST:
        os.dup2(descriptor, _HOST, inheritable=False)
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Chroot:
    """Jails the mounts that follow; `_HOST` is the way back."""

    folder: str

    def describe(self) -> str:
        return f"change the root to {self.folder}"

    def apply(self, host: int) -> None:  # noqa: ARG002 - part of the protocol
        os.chroot(self.folder)
        os.chdir("/")


def _pivot(target: str) -> None:
    """Leave the host for good: back out of the chroot, then swap the roots and detach the old one."""
    os.fchdir(_HOST)
    os.chroot(".")
    os.close(_HOST)
    os.chdir(target)
    syscalls.pivot_root(".", ".")  # stacks the old root on the new: no folder for it is needed
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _enter_directory(process: Process) -> None:
    """Enter the working directory; what is missing on the way is made, and belongs to the user, as in BuildKit."""
    os.chdir("/")
    for name in process.cwd.split("/"):
        if name:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755)
                give(name, process.uid, process.gid)
            os.chdir(name)


def _loopback_up() -> None:
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


def _own_streams(process: Process) -> None:
    """Let the command open /dev/stdout and /dev/stderr anew, whoever it runs as; as runc does."""
    for descriptor in (0, 1, 2):
        if process.terminal or stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            with contextlib.suppress(OSError):  # a pipe of the caller may belong to somebody else
                os.fchown(descriptor, process.uid, -1)


def _new_keyring() -> None:
    try:
        syscalls.new_session_keyring()
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOSYS, errno.EDQUOT}:  # containers forbid it: then it is theirs
            raise


def _record(recording: Recording, process: Process) -> None:
    """Send the recorder its listener; from here on, calls that it has to answer wait for it."""
    from builder.sandbox.recorder.serve import Opening  # where there is a recorder, the server has imported it

    owners = recording.owners
    opening = Opening(process.uid, process.gid, process.groups, process.capabilities, owners).serialise()
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(fileno=_RECORDER) as recorder:
        listener = syscalls.listen(recording.program)
        socket.send_fds(recorder, [opening], [listener, root])
    os.close(listener)
    os.close(root)


def _limit_capabilities(kept: int, tolerated: tuple[int, ...]) -> None:
    """Cut the bounding set, which the command's capabilities come from, and then our own sets."""
    effective, permitted = syscalls.capabilities()
    try:
        for number in range(64):
            if not kept >> number & 1:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    except OSError as error:
        if error.errno not in {errno.EINVAL, *tolerated}:  # EINVAL: past the last capability of this kernel
            raise
    syscalls.set_capabilities(effective & kept, permitted & kept)


def _set_groups(process: Process) -> None:
    try:
        os.setgroups(process.groups)
    except PermissionError:
        # In a namespace with a single id nobody may. Root reaches everything there without them, and others cannot be.
        if process.groups and process.uid:
            raise
    os.setresgid(process.gid, process.gid, process.gid)


def _execute(process: Process) -> NoReturn:
    """Replace this process by the command; if that is impossible, say why as Docker does and end with 127 or 126."""
    environment = dict(process.environment)
    name = process.argv[0]
    try:
        path = name if "/" in name else _search(name, environment.get("PATH", DEFAULT_PATH))
        _refuse_interpreter(path)
        os.execve(path, process.argv, environment)  # noqa: S606 - this is what a sandbox is for
    except OSError as error:
        missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
        found = "/" in name or not missing
        reason = os.strerror(error.errno or 0).lower() if found else "executable file not found in $PATH"
        os.write(2, os.fsencode(f'exec: "{name}": {reason}\n'))
        os._exit(127 if missing else 126)


def _search(name: str, path: str) -> str:
    """The first executable file of this name in the folders of PATH."""
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
        with open(path, "rb") as file:
            first_line = file.read(256).partition(b"\n")[0]
    except PermissionError:
        return []
    return os.fsdecode(first_line[2:]).split() if first_line.startswith(b"#!") else []
