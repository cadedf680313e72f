"""Several transfers at the same time, and one end for all of them."""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from layers.registry.errors import RegistryError

T = TypeVar("T")

TRANSFERS = 4
"""At once: more of them make no line wider, and registries count connections."""
_GRACE = 2.0
"""Seconds that the others get to end after an error. One that waits for a silent server would need a minute."""


class Stop:
    """The wish to end, which transfers look at between two pieces."""

    def __init__(self, pause: Callable[[float], object]) -> None:
        self._event = threading.Event()
        self._pause = pause

    def check(self) -> None:
        """Raise if the end has come."""
        if self._event.is_set():
            raise RegistryError("another blob could not be moved")

    def wait(self) -> None:
        """Wait a moment for something that others do; raises when the end comes."""
        self._event.wait(0.2)
        self.check()

    def pause(self, seconds: float) -> None:
        """Wait before another try. Sleeping would keep all others from ending."""
        (self._event.wait if self._pause is time.sleep else self._pause)(seconds)
        self.check()

    def set(self) -> None:
        """Let all end."""
        self._event.set()


def each(
    act: Callable[[T, Stop], object],
    items: Iterable[T],
    *,
    parallel: int,
    pause: Callable[[float], object],
    name: str,
) -> None:
    """Do something with all items in several threads; the first error ends all, and rises.

    The threads are daemons: one that a silent server holds keeps neither the error nor the program waiting.
    """
    stop = Stop(pause)
    todo: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while True:
                item = todo.get_nowait()
                stop.check()
                act(item, stop)
        except queue.Empty:
            ends.put(None)
        except BaseException as error:  # noqa: BLE001 - it rises where all threads come together
            ends.put(error)

    count = min(parallel, todo.qsize())
    threads = [threading.Thread(target=work, name=f"{name}-{place}", daemon=True) for place in range(count)]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            if (error := ends.get()) is not None:
                raise error
    finally:
        stop.set()
        last = time.monotonic() + _GRACE
        for thread in threads:
            thread.join(max(0.0, last - time.monotonic()))
