"""A system call of a step, with what its arguments mean."""

from collections.abc import Callable
from typing import NamedTuple

from builder.sandbox.recorder.listener import Listener, Notification
from builder.sandbox.recorder.tasks import Tasks

_SIGN, _WORD = 1 << 31, 1 << 32


class Call(NamedTuple):
    """One call that waits, and those who can answer it. A tuple, since a step makes tens of thousands."""

    notification: Notification
    narrow: bool
    """Ids have 16 bits in this call."""
    tasks: Tasks
    listener: Listener

    @property
    def pid(self) -> int:
        return self.notification.pid

    def word(self, index: int) -> int:
        """An argument that is a number without sign, of 32 bits."""
        return self.notification.arguments[index] & 0xFFFFFFFF

    def number(self, index: int) -> int:
        """An argument that is a number of 32 bits with a sign, such as a descriptor."""
        word = self.notification.arguments[index] & 0xFFFFFFFF
        return word - _WORD if word & _SIGN else word

    def id(self, index: int) -> int:
        """An argument that is a user or group id; -1 (`LEAVE`) is none."""
        word = self.notification.arguments[index] & (0xFFFF if self.narrow else 0xFFFFFFFF)
        return -1 if word == (0xFFFF if self.narrow else 0xFFFFFFFF) else word

    def address(self, index: int) -> int:
        """An argument that points to something."""
        return self.notification.arguments[index]

    def text(self, index: int) -> bytes:
        """What an argument points to, up to the first byte that is 0."""
        return self.tasks.text(self.pid, self.notification.arguments[index])

    def name(self, folder: int, path: bytes) -> bytes:
        """A name of the caller's as ours."""
        return self.tasks.name(self.pid, folder, path)


Handler = Callable[[Call], int | None]
"""Gives the value that a call returns, or None to let the kernel do it; OSError lets it fail."""
