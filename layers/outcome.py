"""What a thread will have made, or what went wrong with it, for others to wait for.

The standard library's is `concurrent.futures.Future`, which comes with logging, and with all that logging needs: a
twentieth of a build with one RUN.
"""

from threading import Event
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Outcome(Generic[T]):
    """It is set once, by whoever does the work. Any number of threads may wait."""

    def __init__(self) -> None:
        self._is_set = Event()
        self._result: T | None = None
        self._exception: BaseException | None = None

    def set_result(self, result: T) -> None:
        """It is done."""
        self._result = result
        self._is_set.set()

    def set_exception(self, error: BaseException) -> None:
        """It will never be done."""
        self._exception = error
        self._is_set.set()

    def done(self) -> bool:
        """Whether nobody has to wait any more."""
        return self._is_set.is_set()

    def exception(self) -> BaseException | None:
        """Wait; what went wrong, None for nothing."""
        self._is_set.wait()
        return self._exception

    def result(self) -> T:
        """Wait; the result, or raise what went wrong."""
        if error := self.exception():
            raise error
        return cast(T, self._result)
