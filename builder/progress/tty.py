"""The listener for terminals: one line a job, what runs in motion, and the whole list at the end."""

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from builder.events import Entered, Event, Started
from builder.progress import picture
from builder.progress.board import Board
from builder.progress.picture import Line, Tone
from builder.progress.sink import Sink, encodable
from builder.progress.text import clean

if TYPE_CHECKING:
    from rich.text import Text

PATIENCE = 0.15
"""Seconds that a job runs before the live view appears: short builds, and all cached ones, never pay for it."""
INTERVAL = 0.1
"""Seconds between two pictures, since times are shown in tenths."""

_STYLES = {
    Tone.PLAIN: "",
    Tone.ENDED: "blue",
    Tone.FAILED: "red",
    Tone.OUTPUT: "dim",
    Tone.WARNING: "yellow",
}


class Tty:
    """Collects events, from any thread; a thread of its own paints them.

    It begins with the first job that runs once the process may have threads; until then a single line says what is
    waited for, and rich is not imported.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._begun = clock()
        self._lock = threading.Lock()
        self._board = Board()
        self._over = threading.Event()
        self._may_paint = False
        self._waits = False
        self._painter: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the live view away, and leave the whole list."""
        self._over.set()
        self._wipe()
        if self._painter:
            self._painter.join()
        if self._board.total or self._board.warnings:
            columns, _ = size_of(self._stream)
            lines = picture.final(self._board, started=self._begun, now=self._clock(), columns=columns)
            Sink(self._stream).write("".join(line.text + "\n" for line in lines))

    def __call__(self, event: Event) -> None:
        """Take note of the event; it is seen with the next picture."""
        with self._lock:
            if isinstance(event, Entered):
                self._may_paint = True
                return
            self._board.apply(event)
            self._wipe()
            if isinstance(event, Started) and not self._over.is_set():
                self._begin(event)

    def _begin(self, event: Started) -> None:
        if not self._may_paint:
            columns, _ = size_of(self._stream)
            Sink(self._stream).write(clean(event.job.title)[: columns - 1])
            self._waits = True
        elif self._painter is None:
            self._painter = threading.Thread(target=self._paint, name="progress", daemon=True)
            self._painter.start()

    def _wipe(self) -> None:
        """Take the single line away."""
        if self._waits:
            Sink(self._stream).write("\r\x1b[K")
            self._waits = False

    def _paint(self) -> None:
        if self._over.wait(PATIENCE):
            return
        # Here and not at the top: it costs a tenth of a second, in which the job already runs.
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, force_terminal=True)
        try:
            with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as view:
                while not self._over.wait(INTERVAL):
                    console.size = size_of(self._stream)
                    view.update(painted(self._picture(*console.size), self._stream.encoding), refresh=True)
        except (OSError, ValueError):
            # The terminal is gone, which is no reason to end a build; ValueError: the stream was closed.
            return

    def _picture(self, columns: int, lines: int) -> list[Line]:
        # A terminal scrolls, or wraps, once its last cell is written: one row and one column stay free.
        with self._lock:
            return picture.live(
                self._board, started=self._begun, now=self._clock(), columns=columns - 1, lines=lines - 1
            )


def painted(lines: list[Line], encoding: str | None = None) -> "Text":
    """The lines as one text of rich's, coloured."""
    from rich.text import Text

    pieces = [(encodable(line.text, encoding), _STYLES[line.tone]) for line in lines]
    return Text("\n", no_wrap=True, overflow="crop", end="").join(Text(text, style) for text, style in pieces)


def size_of(stream: TextIO) -> os.terminal_size:
    """Columns and lines of the terminal; 80 and 24 where it does not tell."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        size = os.terminal_size((0, 0))
    return os.terminal_size((size.columns or 80, size.lines or 24))
