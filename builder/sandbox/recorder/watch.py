"""The server's part in recording a step: to wait for the listener, and to fork the recorder when it is first needed.

Most steps that only want their device nodes recorded never make one: they cost no process.
"""

import contextlib
import json
import os
import select
import signal
import socket
from typing import NoReturn

from builder.sandbox import syscalls
from builder.sandbox.recorder.serve import Opening, serve

_LARGEST = 1 << 20
"""Bytes of an opening: a process can have 65536 groups."""


class Watch:
    """Waits in three states, each with a descriptor: for the opening, for the first call, for the recorder's end."""

    def __init__(self, opening: socket.socket, channel: int) -> None:
        """`opening` is where the step's first process sends its listener; `channel` leads to the main process."""
        self._socket: socket.socket | None = opening
        self._channel = channel
        self._opening: Opening | None = None
        self._listener = self._root = -1
        self._pid = 0
        self._pidfd = -1

    def fileno(self) -> int:
        """What to wait for now; -1 for nothing more."""
        if self._socket is not None:
            return self._socket.fileno()
        return self._pidfd if self._pid else self._listener

    def advance(self, events: int) -> bool:
        """Do what the descriptor is ready for; False if the step has lost its recorder."""
        if self._socket is not None:
            self._receive(self._socket)
            return True
        if self._pid:
            return False
        if events & select.POLLIN:
            self._fork()
        else:
            self._close_listener()  # nobody is left who could call
        return True

    def end(self) -> None:
        """End the recorder; its step must have ended."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._close_listener()
        if self._pid:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._pidfd)
            self._pid, self._pidfd = 0, -1

    def _receive(self, opening: socket.socket) -> None:
        data, descriptors, _, _ = socket.recv_fds(opening, _LARGEST, 2)
        opening.close()
        self._socket = None
        if len(descriptors) == 2:
            self._opening = Opening.parse(data)
            self._listener, self._root = descriptors

    def _fork(self) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_recorder()
        self._pid, self._pidfd = pid, os.pidfd_open(pid)
        self._close_listener()

    def _close_listener(self) -> None:
        for descriptor in (self._listener, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._listener = self._root = -1

    def _become_recorder(self) -> NoReturn:
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            listener, root, channel = _keep_only(self._listener, self._root, self._channel)
            try:
                assert self._opening is not None, "with a listener comes an opening"
                serve(self._opening, listener, root)
            except BaseException as error:  # noqa: BLE001 - the edge of a process: nobody else could tell it
                _tell(channel, repr(error))
        finally:
            os._exit(1)


def _keep_only(*descriptors: int) -> tuple[int, ...]:
    """Close all others, but for the standard streams."""
    highest = max(descriptors)
    moved = [os.dup2(each, highest + 1 + place, inheritable=False) for place, each in enumerate(descriptors)]
    for place, each in enumerate(moved):
        os.dup2(each, 3 + place, inheritable=False)
    syscalls.close_from(3 + len(moved))
    return tuple(range(3, 3 + len(moved)))


def _tell(channel: int, fault: str) -> None:
    data = json.dumps({"doing": "record owners", "fault": fault}).encode() + b"\n"
    with socket.socket(fileno=channel) as stream, contextlib.suppress(OSError):
        stream.send(data, socket.MSG_NOSIGNAL)
