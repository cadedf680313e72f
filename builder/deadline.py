"""A time limit for one step: a descriptor that becomes readable when the build is cancelled, or when time is up."""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


class Deadline:
    """When a step has to end."""

    def __init__(self, cancelled: int, expired: int | None = None) -> None:
        self.cancelled = cancelled
        """To be given to a back-end."""
        self._expired = expired

    @property
    def passed(self) -> bool:
        """Whether the time was up."""
        return self._expired is not None and bool(select.select([self._expired], [], [], 0)[0])


@contextmanager
def deadline(cancelled: int, seconds: float | None) -> Iterator[Deadline]:
    """Begin to wait; None waits for ever. `cancelled` is the descriptor that says that nobody wants the step."""
    if seconds is None:
        yield Deadline(cancelled)
        return
    with ExitStack() as stack:
        expired = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        stack.callback(os.close, expired)
        either = stack.enter_context(select.epoll())
        for descriptor in (cancelled, expired):
            either.register(descriptor, select.EPOLLIN)
        timer = threading.Timer(seconds, os.eventfd_write, (expired, 1))
        timer.daemon = True
        timer.start()
        stack.callback(timer.join)
        stack.callback(timer.cancel)
        yield Deadline(either.fileno(), expired)
