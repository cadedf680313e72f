"""The main process's side of the server: start it, start steps, follow and end them. Any thread may start steps."""

import contextlib
import json
import os
import pickle
import select
import socket
import struct
from collections.abc import Callable
from typing import Self

from builder.errors import SandboxError
from builder.sandbox import server
from builder.sandbox.child import Task, unexecuted

_BLOCK = 1 << 16

SERVER_ENDED = "the process that starts commands in the sandbox has ended unexpectedly"


class SetupError(Exception):
    """The command never ran: what was being done, and the errno of it.

    `fault` says what went wrong if it was not the kernel that refused.
    """

    def __init__(self, doing: str, errno: int, fault: str = "") -> None:
        super().__init__(doing)
        self.doing = doing
        self.errno = errno
        self.fault = fault


class Server:
    """The step server, from `start` to `close`."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self._pid = pid
        self._control = control

    @classmethod
    def start(cls) -> "Server":
        """Fork the server. The process must have one thread, and the ids that the steps shall have."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = os.fork()
            if pid == 0:
                server.serve(theirs)
        return cls(pid, ours)

    def launch(self, request: Task, stdin: int, stdout: int, stderr: int) -> "Step":
        """Start a step with these descriptors as its standard streams; they stay the caller's to close."""
        message = server.MESSAGE.pack(request.namespaces, request.recording is not None)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [message], [theirs.fileno(), stdin, stdout, stderr])
            except OSError as error:
                ours.close()
                raise SandboxError(SERVER_ENDED) from error
        step = Step(ours)
        step.send(request)
        return step

    def close(self) -> None:
        """End all steps and the server, and wait for it."""
        if self._control.fileno() >= 0:
            self._control.close()
            os.waitpid(self._pid, 0)


class Step:
    """A running step. Leaving the `with` block ends it, if it has not ended, and waits until it is gone."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._text = b""
        self._open = True
        self._status: int | None = None
        self._failure: SetupError | None = None
        self._unexecuted: tuple[str, int] | None = None
        self.terminal: int | None = None
        """The master end of the step's terminal, once it is there; the reader closes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        while self.receive():
            pass
        self._channel.close()

    def fileno(self) -> int:
        """For poll(2): `receive` has something to read."""
        return self._channel.fileno()

    def send(self, request: Task) -> None:
        """Tell the child what to do."""
        data = pickle.dumps(request)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # no child: the answer says why
            self._channel.sendall(struct.pack("=Q", len(data)) + data, socket.MSG_NOSIGNAL)

    def receive(self) -> bool:
        """Read once from the step, waiting if need be; False when it has ended."""
        if not self._running():
            return False
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, 4096, 1)
        except ConnectionResetError:  # the server went without reading all that we sent
            data, descriptors = b"", []
        if descriptors:
            self.terminal = descriptors[0]
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            self._note(json.loads(line))
        self._open = bool(data)
        return self._running()

    def _running(self) -> bool:
        return self._status is None and self._open

    def _note(self, message: dict[str, int | str]) -> None:
        if "status" in message:
            self._status = int(message["status"])
        elif "program" in message:
            self._unexecuted = (str(message["program"]), int(message["errno"]))
        elif "doing" in message and not self._failure:
            self._failure = SetupError(
                str(message["doing"]), int(message.get("errno", 0)), str(message.get("fault", ""))
            )

    def kill(self) -> None:
        """Let the server kill the step; harmless when it has ended."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def complaint(self) -> bytes:
        """What is to be said in the name of a command that could not be executed; empty for all others."""
        return unexecuted(*self._unexecuted)[1] if self._unexecuted else b""

    def outcome(self) -> tuple[int, int]:
        """Exit status as a shell tells it, and the signal or 0; SetupError if the command never ran.

        Only after `receive` has said that the step has ended.
        """
        if self._failure:
            raise self._failure
        if self._status is None:
            raise SandboxError(SERVER_ENDED)
        if self._unexecuted:
            return unexecuted(*self._unexecuted)[0], 0
        code = os.waitstatus_to_exitcode(self._status)
        return (code, 0) if code >= 0 else (128 - code, -code)


def follow(step: Step, output: int, on_output: Callable[[bytes], None], cancelled: int | None) -> bool:
    """Hand on what the step writes to a pipe, until the step has ended; False if `cancelled` became readable first."""
    poll = select.poll()
    for descriptor in (step.fileno(), output, *(() if cancelled is None else (cancelled,))):
        poll.register(descriptor, select.POLLIN)
    running = True
    while running:
        for descriptor, _ in poll.poll():
            if descriptor == cancelled:
                return False
            if descriptor == step.fileno():
                running = step.receive()
            elif not _pump(output, on_output):
                poll.unregister(output)
    # Everything that could write is dead, but what it wrote may still be in the pipe.
    os.set_blocking(output, False)
    while _pump(output, on_output):
        pass
    if complaint := step.complaint():
        on_output(complaint)
    return True


def _pump(output: int, on_output: Callable[[bytes], None]) -> bool:
    """Hand on one block; False at the end of the pipe, or when it is empty and does not block."""
    try:
        data = os.read(output, _BLOCK)
    except BlockingIOError:
        return False
    if data:
        on_output(data)
    return bool(data)
