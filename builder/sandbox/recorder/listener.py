"""The descriptor on which the kernel tells of system calls, and takes the answers (seccomp_unotify(2))."""

import contextlib
import errno
import fcntl
import select
import signal
import struct
from typing import NamedTuple

_RECEIVE, _SEND, _ADD_DESCRIPTOR, _SET_FLAGS = 0xC0502100, 0xC0182101, 0xC0182103, 0x40082104
"""The ioctls SECCOMP_IOCTL_NOTIF_* of linux/seccomp.h, which have the sizes of their structures in them."""
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_DESCRIPTOR = struct.Struct("=QIIII")
_SYNC_WAKE_UP = 1
"""Caller and recorder take turns, so let them do that on one processor."""
_CONTINUE = 1
"""SECCOMP_USER_NOTIF_FLAG_CONTINUE: the kernel does what was called for, as if nobody had been asked."""


class Notification(NamedTuple):
    """A system call that waits for an answer."""

    id: int
    pid: int
    """Of the thread, as we number processes; 0 if we cannot see it."""
    number: int
    architecture: int
    """AUDIT_ARCH_*."""
    arguments: tuple[int, ...]


class Listener:
    """Receives calls and answers them. Answers to a process that has died meanwhile are nobody's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray(_NOTIFICATION.size)
        with contextlib.suppress(OSError):  # before Linux 6.6
            fcntl.ioctl(descriptor, _SET_FLAGS, _SYNC_WAKE_UP)

    def receive(self) -> Notification | None:
        """Wait for a call; None if the caller has died. With nobody left to call, it waits for our own end."""
        buffer = self._buffer
        buffer[:] = bytes(_NOTIFICATION.size)  # the kernel takes no other
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, buffer)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            self._rest_in_the_end()
            return None
        call, pid, _, number, architecture, _, *arguments = _NOTIFICATION.unpack(buffer)
        return Notification(call, pid, number, architecture, tuple(arguments))

    def proceed(self, call: Notification) -> None:
        """Let the kernel do it."""
        self._send(_ANSWER.pack(call.id, 0, 0, _CONTINUE))

    def answer(self, call: Notification, value: int) -> None:
        """Return a value."""
        self._send(_ANSWER.pack(call.id, value, 0, 0))

    def fail(self, call: Notification, number: int) -> None:
        """Fail with this errno."""
        self._send(_ANSWER.pack(call.id, 0, -number, 0))

    def add_descriptor(self, call: Notification, descriptor: int, *, flags: int) -> int:
        """Give the caller a copy of a descriptor; returns the number that it has there. `flags` is 0 or O_CLOEXEC."""
        request = bytearray(_DESCRIPTOR.pack(call.id, 0, descriptor, 0, flags))
        return int(fcntl.ioctl(self._descriptor, _ADD_DESCRIPTOR, request))

    def _send(self, answer: bytes) -> None:
        try:
            fcntl.ioctl(self._descriptor, _SEND, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def _rest_in_the_end(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if poll.poll(0):  # POLLHUP
            while True:
                signal.pause()
