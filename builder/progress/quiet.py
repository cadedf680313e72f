"""The listener that says nothing, unless a job fails: then what it printed last."""

import threading
from types import TracebackType
from typing import Self, TextIO

from builder.events import Event
from builder.progress.board import Board
from builder.progress.picture import failure
from builder.progress.sink import Sink


class Quiet:
    """Keeps the last lines of each running job, for the one that fails; called from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._sink = Sink(stream)
        self._lock = threading.Lock()
        self._board = Board()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the output of the failed job."""
        with self._lock:
            self._sink.write("".join(line + "\n" for line in failure(self._board)))

    def __call__(self, event: Event) -> None:
        """Take note of the event."""
        with self._lock:
            self._board.apply(event)
