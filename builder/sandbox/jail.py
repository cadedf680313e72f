"""The first processes of a step without namespaces: one that supervises, and the command in its changed root.

Without a pid namespace the kernel ends nothing with the command. So the supervisor is made the reaper of all that the
command leaves behind (PR_SET_CHILD_SUBREAPER, prctl(2)): whatever a process of the step does, setsid(2) and double
forks included, its parents' deaths bring it to the supervisor, which does not end before it has no child any more.
"""

import errno
import os
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

from builder.sandbox import child, syscalls
from builder.sandbox.process import Process
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class JailRequest:
    """What the main process asks of a child."""

    root: str
    """The folder to which the command is confined, as far as chroot(2) confines."""
    process: Process
    window: tuple[int, int] = (0, 0)
    """Rows and columns of the terminal, if the process has one."""
    filter: bytes = b""
    """The seccomp program, see `syscalls.set_filter`; empty for none."""
    recording: None = None
    """There are all ids, so nothing is recorded."""

    @property
    def namespaces(self) -> int:
        """See `child.Task`."""
        return 0

    def actions(self, channel: int, stdio: Sequence[int]) -> Iterator[child.Action]:
        """All that the first process has to do before it can run the command, in order, each with its name."""
        yield "place the descriptors", partial(_keep_only, channel, stdio)
        yield "supervise the command", _supervise
        for path in self.process.cgroups:
            yield f"join the cgroup {os.path.dirname(path)}", partial(_join, path)
        yield "start a session", os.setsid
        os.umask(0o022)
        if self.process.terminal:
            yield "open a terminal", partial(child.open_terminal, self.window)
        yield f"change the root to {self.root}", partial(_change_root, self.root)
        yield "hand over the standard streams", partial(child.own_streams, self.process)
        # A container that was denied CAP_SETPCAP has its own bounds.
        yield from child.becoming(self.process, self.filter, tolerated=(errno.EPERM,))


def _join(path: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(b"0")  # whoever writes


def _keep_only(channel: int, stdio: Sequence[int]) -> None:
    """Put the descriptors at 0 to 3 and close all others."""
    os.dup2(channel, child.CHANNEL, inheritable=False)
    for place, descriptor in enumerate(stdio):
        os.dup2(descriptor, place)
    syscalls.close_from(child.CHANNEL + 1)


def _change_root(root: str) -> None:
    os.chdir(root)
    os.chroot(".")


def _supervise() -> None:
    """Go on as a child; the process that called this sees it and all that comes of it end, and then ends like it."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    # Whoever wants us to end, the server or the kernel when the server is gone, says so: we have to take all with us.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    waited_for = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    command = os.fork()
    if command == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waited_for)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    status = None
    while status is None:
        if signal.sigwait(waited_for) == signal.SIGTERM:
            break
        status = _reap(command)
    end_children()
    _end_like(signal.SIGKILL if status is None else status)


def _reap(command: int) -> int | None:
    """Wait for all that have ended; the status of the command if it is among them."""
    status = None
    with suppress(ChildProcessError):
        while True:
            pid, how = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == command:
                status = how
    return status


def end_children(spared: Collection[int] = ()) -> None:
    """Kill all processes below this one, but some children and what is below those; wait until they are gone.

    By process groups: of such a one none can fork while it is killed, so that what only forks and ends has no chance.
    Processes that each make a group of their own, and faster than they are found, could only be held by a limit of the
    container's.
    """
    while True:
        children = [pid for pid in _children(os.getpid()) if pid not in spared]
        if not children:
            return
        below = list(children)
        for pid in below:
            below += _children(pid)
        for pid in below:
            with suppress(ProcessLookupError):
                group = os.getpgid(pid)
                if group == os.getpgrp():
                    os.kill(pid, signal.SIGKILL)
                else:  # of the step: no process can join a group of another session
                    os.killpg(group, signal.SIGKILL)
        for pid in children:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children(pid: int) -> list[int]:
    """The children of all threads of a process, as /proc/PID/task/TID/children lists them (proc(5))."""
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as file:
                found += map(int, file.read().split())
    return found


def _end_like(status: int) -> NoReturn:
    """End as a process with this status of waitpid(2) did."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # the command may have left a core, we need not
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 125)
