"""The process that starts steps: forked before the main process has threads, and busy in one thread only.

The main process holds one end of a socket pair, and sends for every step one message: the flags of its namespaces,
whether the step is recorded, and four descriptors, namely the server's end of the step's own channel and the three
standard streams. Over the channel comes what to do (`child.Task`). The step's first process may answer with lines of
JSON; the last line is the server's, `{"status": ...}` as of waitpid(2). Whoever shuts down or closes the main end of a
channel ends that step; the end of the main process ends all steps and the server.

A step in a pid namespace ends with its first process, which the server kills. Where there is none, the first process
is asked to end, and takes all others with it (`jail`).
"""

import contextlib
import gc
import json
import os
import pickle
import select
import signal
import socket
import struct
from _thread import start_new_thread  # a `threading.Thread` waits until it has begun
from collections.abc import Iterable, Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import TYPE_CHECKING, NoReturn

from builder.sandbox import child, jail, launcher, syscalls
from builder.sandbox.jail import JailRequest
from builder.sandbox.mounts import in_first_namespace
from builder.sandbox.preparation import Descriptors, Preparation, Request
from layers.data import dataclass

if TYPE_CHECKING:
    from builder.sandbox.recorder.watch import Watch

MESSAGE = struct.Struct("=i?")
"""What stands in a message besides its descriptors: the CLONE_* flags, and whether a recorder is needed."""

_CONTROL = 3
POLLRDHUP = 0x2000
"""The other end will write no more; `select` has no name for it before Python 3.14."""


def serve(control: socket.socket) -> NoReturn:
    """Turn this process, a fork of the main one, into the server; never returns."""
    try:
        _leave_main_process(control.fileno())
        _Server(socket.socket(fileno=_CONTROL)).loop()
    finally:
        os._exit(0)


def _leave_main_process(control: int) -> None:
    """Give up all that a fork inherits: descriptors (locks hang on them), signal handlers, the terminal."""
    gc.disable()  # a collection would close descriptors by numbers that are ours now,
    gc.freeze()  # and touch pages that are shared
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(control, _CONTROL, inheritable=False)
    syscalls.close_from(_CONTROL + 1)
    os.umask(0o022)  # what is made for steps, and what they make
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # steps inherit what is ignored here
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@dataclass(frozen=True, slots=True)
class _Step:
    pid: int
    pidfd: int
    channel: socket.socket
    watch: "Watch | None"
    is_supervised: bool
    """Whether the process ends the others of the step, not the kernel."""

    def end(self) -> None:
        """Have it end."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGTERM if self.is_supervised else signal.SIGKILL)


class _NotStarted(Exception):  # noqa: N818 - it is told as what could not be done
    """A step that came to nothing."""

    def __init__(self, message: dict[str, object]) -> None:
        super().__init__(message)
        self.message = message


class _Home:
    """The mount namespace of the server, which it leaves to prepare those of steps."""

    def __init__(self) -> None:
        self._root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        in_first_namespace()  # which remembers what cannot be seen from the root of a step

    @contextlib.contextmanager
    def left(self) -> Iterator[None]:
        """For the length of a block this process is in a new mount namespace."""
        syscalls.unshare(syscalls.CLONE_NEWNS)
        try:
            yield
        finally:
            try:
                syscalls.enter(self._mounts, syscalls.CLONE_NEWNS)
                os.fchdir(self._root)  # which may not be the root of the namespace
                os.chroot(".")
            except OSError:  # nothing more could be done right from here
                os._exit(1)


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._home: _Home | None = None
        self._launches = launcher.available(os.uname().machine)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._steps: dict[int, _Step] = {}
        """By the descriptor of the process, and by that of the channel until the main process ends the step."""
        self._watched: dict[int, _Step] = {}
        """By the descriptor that its `watch` waits for."""

    def loop(self) -> None:
        """Serve until the main process is gone."""
        while True:
            # One at a time: what is done for one may close, or give out again, the descriptors of the others.
            descriptor, events = self._poll.poll()[0]
            if descriptor == _CONTROL:
                if not self._start():
                    self._end_all()
                    return
            elif descriptor in self._watched:
                self._advance(descriptor, events)
            elif descriptor == self._steps[descriptor].pidfd:
                self._reap(self._steps[descriptor])
            else:
                self._kill(self._steps[descriptor])

    def _start(self) -> bool:
        """Start the first process of a step; False if the main process has gone."""
        message, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE.size, 4)
        if not message:
            return False
        channel, *stdio = descriptors
        flags, records = MESSAGE.unpack(message)
        is_supervised = not flags & syscalls.CLONE_NEWPID
        if is_supervised:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)  # should the supervisor itself be killed
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) if records else (None, None)
        given = Descriptors(channel, (stdio[0], stdio[1], stdio[2]), theirs.fileno() if theirs else None)
        try:
            pid = self._clone(flags, given)
        except _NotStarted as failure:
            _tell(channel, failure.message)
            _tell(channel, {"status": 125 << 8})
            os.close(channel)
        else:
            watch = _watch(ours, channel) if ours else None
            self._follow(_Step(pid, os.pidfd_open(pid), socket.socket(fileno=channel), watch, is_supervised))
        for each in stdio:
            os.close(each)
        if theirs:
            theirs.close()
        return True

    def _clone(self, flags: int, given: Descriptors) -> int:
        """Make the first process of a step; gives its pid. _NotStarted says what was refused."""
        doing = "start a process"
        try:
            task = _receive(given.channel)
            if isinstance(task, JailRequest):
                pid = syscalls.clone(flags)
                if pid == 0:
                    child.become(task.process, task.actions(given.channel, given.stdio))
                return pid
            doing = "make new namespaces"
            self._home = self._home or _Home()
            with self._home.left(), closing(Preparation(task, given)) as preparation:
                for doing, act in preparation.outside():  # noqa: B007 - `doing` is for the error
                    act()
                doing = "make new namespaces"
                pid = self._launch(preparation)
                if pid:
                    return pid
                pid = syscalls.clone(flags & ~syscalls.CLONE_NEWNS)
                if pid == 0:
                    child.become(task.process, preparation.left)
                return pid
        except OSError as error:
            raise _NotStarted({"doing": doing, "errno": error.errno}) from error
        except Exception as error:
            raise _NotStarted({"doing": doing, "fault": repr(error)}) from error

    def _launch(self, preparation: Preparation) -> int:
        """Start the step's program, if it can be one; gives its pid, or 0."""
        if not self._launches:
            return 0
        file = os.memfd_create("step", os.MFD_CLOEXEC)
        try:
            program = preparation.program(file)
            if not program:
                return 0
            os.write(file, program)
            started: SimpleQueue[int | OSError] = SimpleQueue()
            arguments = (f"/proc/self/fd/{file}", {file, *preparation.descriptors}, started)
            # With the namespace that its children get, a thread can do nothing else any more. It lives as long as the
            # process, which else would be told that its parent has gone.
            start_new_thread(_spawn, arguments)
            pid = started.get()
        finally:
            os.close(file)
        if isinstance(pid, OSError):
            self._launches = False  # some places execute nothing that is in memory only
            return 0
        return pid

    def _follow(self, step: _Step) -> None:
        self._steps[step.pidfd] = self._steps[step.channel.fileno()] = step
        self._poll.register(step.pidfd, select.POLLIN)
        self._poll.register(step.channel, POLLRDHUP)  # not POLLIN: the bytes are the child's
        self._await(step)

    def _await(self, step: _Step) -> None:
        if step.watch and step.watch.fileno() >= 0:
            self._watched[step.watch.fileno()] = step
            self._poll.register(step.watch.fileno(), select.POLLIN)

    def _forget(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None):
            self._poll.unregister(descriptor)

    def _advance(self, descriptor: int, events: int) -> None:
        step = self._watched[descriptor]
        self._forget(descriptor)
        assert step.watch is not None, "it is what the descriptor belongs to"
        if step.watch.advance(events):
            self._await(step)
        else:  # without its recorder, calls of the step would fail that should not
            _tell(step.channel.fileno(), {"doing": "record owners", "fault": "the process that does it has ended"})
            signal.pidfd_send_signal(step.pidfd, signal.SIGKILL)

    def _kill(self, step: _Step) -> None:
        """End a step that the main process wants no more; its death is reported like any other."""
        step.end()
        self._poll.unregister(step.channel)
        del self._steps[step.channel.fileno()]

    def _reap(self, step: _Step) -> None:
        """Tell how a step ended. All its processes have: it was the first of their pid namespace, or their reaper."""
        _, status = os.waitpid(step.pid, 0)
        if step.watch:
            self._forget(step.watch.fileno())
            step.watch.end()
        if step.is_supervised:
            jail.end_children({other.pid for other in self._steps.values() if other is not step})
        _tell(step.channel.fileno(), {"status": status})
        self._poll.unregister(step.pidfd)
        del self._steps[step.pidfd]
        if self._steps.pop(step.channel.fileno(), None):
            self._poll.unregister(step.channel)
        step.channel.close()
        os.close(step.pidfd)

    def _end_all(self) -> None:
        for step in {step.pid: step for step in self._steps.values()}.values():
            step.end()
            os.waitpid(step.pid, 0)
            if step.watch:
                step.watch.end()
        jail.end_children()


def _watch(opening: socket.socket, channel: int) -> "Watch":
    from builder.sandbox.recorder.watch import Watch  # only where something has to be recorded

    return Watch(opening, channel)


def _spawn(path: str, descriptors: Iterable[int], started: "SimpleQueue[int | OSError]") -> None:
    """Start a program in a process namespace of its own, and wait for its end; `started` gets its pid."""
    try:
        # Root and working directory too: who shares them cannot enter another mount namespace, as the server will.
        syscalls.unshare(syscalls.CLONE_NEWPID | syscalls.CLONE_FS)
        inherited = [(os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in descriptors]
        pid = os.posix_spawn(path, ["step"], {}, file_actions=inherited)
    except OSError as error:
        started.put(error)
        return
    started.put(pid)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _receive(channel: int) -> "Request | JailRequest":
    """Read from the channel what to do: its length in 8 bytes, then itself."""
    with open(channel, "rb", closefd=False) as stream:
        (length,) = struct.unpack("=Q", stream.read(8).ljust(8, b"\0"))
        data = stream.read(length)
    if not length or len(data) < length:
        raise EOFError("the main process has gone")
    task: Request | JailRequest = pickle.loads(data)  # noqa: S301 - written by the process that we are a fork of
    return task


def _tell(channel: int, message: dict[str, object]) -> None:
    """Send one line to the main process, which may be gone."""
    data = json.dumps(message).encode() + b"\n"
    with socket.socket(fileno=os.dup(channel)) as stream, contextlib.suppress(OSError):
        stream.send(data, socket.MSG_NOSIGNAL)
