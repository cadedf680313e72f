"""What is done for a step before its first process is there: its mounts, and the list of what that process has to do.

The server does what it can by itself, in the mount namespace that the step then gets. What only the step's own process
can do, because it takes rights away or needs the other namespaces, is laid out as system calls (`calls`), as far as
that is possible. If all of it is, the process need not be a fork of Python (`launcher`).
"""

import os
from collections.abc import Iterator
from functools import partial

from builder.sandbox import child, launcher, syscalls
from builder.sandbox.calls import Argument, Call, call
from builder.sandbox.child import CHANNEL, RECORDER, Action, Deed
from builder.sandbox.mounts import LATER, Mount, Overlay, Proc, Sys
from builder.sandbox.process import Process
from builder.sandbox.recorder.program import Recording
from layers.data import dataclass

_OF_LIBC = (32, 33)
"""Signals without a name: below SIGRTMIN, as programs see it."""

_NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS


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
        """See `child.Task`."""
        network = syscalls.CLONE_NEWNET if self.process.network == "none" else 0
        # Limits are joined by the process itself. The names of its groups and of those above are the host's business:
        # in a namespace that is made afterwards, its group is the root.
        groups = 0 if self.process.cgroups else syscalls.CLONE_NEWCGROUP
        return _NAMESPACES | network | groups


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What the step's process gets of the server's."""

    channel: int
    stdio: tuple[int, int, int]
    recorder: int | None
    """Where the recorder waits for its listener, if there is one."""


class Preparation:
    """Of one step."""

    def __init__(self, request: Request, given: Descriptors) -> None:
        self._request = request
        self._given = given
        self._host = -1
        self._opened: list[int] = []
        self._command: Call | None = None
        self.left: list[Action] = []
        """What the process has to do, once `outside` has come to its end."""

    @property
    def _doing(self) -> str:
        return f"change the root to {self._request.root.target}"

    @property
    def descriptors(self) -> set[int]:
        """Those of the server that the process needs."""
        given = self._given
        recorder = () if given.recorder is None else (given.recorder,)
        return {given.channel, *given.stdio, *recorder, self._host, *self._opened}

    def program(self, file: int) -> bytes:
        """The executable that does all that is left, and becomes the command; empty if it takes more than calls.

        `file` is where it will be. No command can execute it again: it is /proc/self/exe until the command is there.
        """
        if self._command is None:
            return b""
        told = [(launcher.message("doing", doing), act) for doing, act in self.left if isinstance(act, Call)]
        if len(told) < len(self.left):
            return b""
        # The mount namespace is there, and so is the process namespace.
        others = self._request.namespaces & ~(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
        told[1:1] = [
            (launcher.message("doing", "close the way back"), call("fchmod", file, 0)),
            (launcher.message("doing", "make new namespaces"), call("unshare", others)),
        ]
        # glibc's posix_spawn has a process ignore the two that are glibc's own.
        default = launcher.message("doing", "reset signals")
        told += [(default, call("rt_sigaction", each, bytes(32), None, 8)) for each in _OF_LIBC]
        name = self._request.process.argv[0]
        return launcher.program([*told, (launcher.message("program", name), self._command)], os.uname().machine)

    def outside(self) -> Iterator[Deed]:
        """What the server does, in the mount namespace of the step."""
        request, process = self._request, self._request.process
        yield "make the mounts private", partial(syscalls.mount, None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        yield "open the host's root", self._open_host
        self.left += self._places()
        for path in process.cgroups:
            yield f"join the cgroup {os.path.dirname(path)}", partial(self._leave_joining, path)
        for mount in (*request.before, request.root):
            yield mount.describe(), partial(mount.apply, self._host)
        # So that a symlink of a hostile image (/proc -> /etc) leads nowhere but into the image itself.
        yield self._doing, partial(_change_root, request.root.target)
        early, late = _split(request)
        for mount in early:
            yield mount.describe(), partial(mount.apply, self._host)
        if process.cgroups:
            self.left.append(("make a cgroup namespace", call("unshare", syscalls.CLONE_NEWCGROUP)))
        self.left += [
            ("start a session", call("setsid")),
            ("set the umask", call("umask", 0o022)),
            (self._doing, call("chroot", os.fsencode(request.root.target))),
            (self._doing, call("chdir", b"/")),
        ]
        for mount in late:
            yield mount.describe(), partial(self._leave, mount)
        self.left += self._pivoting()
        if not process.terminal:
            yield "hand over the standard streams", partial(child.own_streams, process, self._given.stdio)
        self.left += self._becoming()
        self._command = _executing(process)
        yield self._doing, self._leave_root

    def close(self) -> None:
        """Close what was opened for it; the process has copies."""
        for descriptor in (self._host, *self._opened):
            if descriptor >= 0:
                os.close(descriptor)
        self._host, self._opened = -1, []

    def _open_host(self) -> None:
        self._host = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _leave_joining(self, path: str) -> None:
        """Leave it to the process to join a group, whose file is not to be seen from its root."""
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._opened.append(file)
        # Whoever writes 0 is meant.
        self.left.append((f"join the cgroup {os.path.dirname(path)}", call("write", file, b"0", 1)))

    def _leave(self, mount: Mount) -> None:
        """Leave a mount to the process."""
        acts = (
            mount.calls(self._host, self._opened) if isinstance(mount, LATER) else (partial(mount.apply, self._host),)
        )
        self.left += ((mount.describe(), act) for act in acts)

    def _leave_root(self) -> None:
        os.fchdir(self._host)
        os.chroot(".")

    def _places(self) -> Iterator[Action]:
        """The descriptors come to their places: the channel first, for all that fails is told there."""
        given = self._given
        places = [(given.channel, CHANNEL, os.O_CLOEXEC), *((each, place, 0) for place, each in enumerate(given.stdio))]
        if given.recorder is not None:
            places.append((given.recorder, RECORDER, os.O_CLOEXEC))
        for descriptor, place, flags in places:
            yield "place the descriptors", call("dup3", descriptor, place, flags)
        yield child.ending_with_parent()

    def _pivoting(self) -> Iterator[Action]:
        """Leave the host for good: back out of the changed root, then swap the roots and detach the old one."""
        calls = (
            call("fchdir", self._host),
            call("chroot", b"."),
            call("chdir", os.fsencode(self._request.root.target)),
            call("pivot_root", b".", b"."),  # stacks the old root on the new: no folder for it is needed
            call("umount2", b".", syscalls.MNT_DETACH),
            call("chdir", b"/"),
        )
        yield from (("make the new root the only one", call) for call in calls)
        first = CHANNEL + 1 if self._given.recorder is None else RECORDER + 1
        yield "close all other descriptors", call("close_range", first, 0xFFFFFFFF, 0)

    def _becoming(self) -> Iterator[Action]:
        request, process = self._request, self._request.process
        if process.network == "none":
            yield "bring up the loopback interface", child.loopback_up
        name = process.hostname.encode()
        yield "set the host name", call("sethostname", name, len(name))
        if process.terminal:
            yield "open a terminal", partial(child.open_terminal, request.window)
            yield "hand over the standard streams", partial(child.own_streams, process)
        # Made, if it is not there, when all is mounted.
        there = os.path.isdir(process.cwd)
        enter = call("chdir", os.fsencode(process.cwd), subject=process.cwd) if there else None
        yield from child.becoming(process, request.filter, enter=enter, recording=request.recording)


def _executing(process: Process) -> Call | None:
    """The call that turns into the command; None if only its own user can tell which file that is, or whether."""
    try:
        path = child.found(process) if "/" in process.argv[0] or process.uid == 0 else ""
    except OSError:
        return None
    argv: list[Argument] = [os.fsencode(word) for word in process.argv]
    environment: list[Argument] = [os.fsencode(f"{name}={value}") for name, value in process.environment]
    return call("execve", os.fsencode(path), (*argv, 0), (*environment, 0)) if path else None


def _split(request: Request) -> tuple[tuple[Mount, ...], tuple[Mount, ...]]:
    """The mounts that the server can make; and those from the first on that shows namespaces of the step's own."""
    own_network = request.process.network == "none"
    for place, mount in enumerate(request.mounts):
        if isinstance(mount, Proc) or (own_network and isinstance(mount, Sys)):
            return request.mounts[:place], request.mounts[place:]
    return request.mounts, ()


def _change_root(folder: str) -> None:
    os.chroot(folder)
    os.chdir("/")
