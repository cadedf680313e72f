"""Several transfers at the same time, and one end for all of them."""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from layers.registry.errors import RegistryError

T = TypeVar("T")

TRANSFERS = 4
"""At once: more of them make no line wider, and registries count connections."""


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
    """Do something with all items in several threads; the first error ends all, and rises."""
    stop = Stop(pause)
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix=name) as pool:
        futures = [pool.submit(act, item, stop) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
