"""The listener for pipes and logs: every line begins with the number of its job, in BuildKit's plain form."""

import math
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from builder.events import Cached, Canceled, Entered, Event, Failed, Finished, Job, Output, Progress, Started, Warned
from builder.progress.board import found_by_checks, warning_text
from builder.progress.sink import Sink
from builder.progress.text import LineBuffer, clean, title, transfer
from layers.data import dataclass, field

PROGRESS_INTERVAL = 5.0
"""Seconds between two lines about one download: a log should show that it moves, and stay readable."""


LAST_LINES = 20
"""Lines that are told once more of the job that failed: others may have written below them meanwhile."""


@dataclass(slots=True)
class _Item:
    started: float
    cached: bool = False
    lines: LineBuffer = field(default_factory=LineBuffer)
    told: dict[str, float] = field(default_factory=dict)
    """When each part was last written of; infinite once it is complete."""
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    """The end of the output."""


class Plain:
    """Writes each event as it comes. Called from any thread."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._sink = Sink(stream)
        self._clock = clock
        self._lock = threading.Lock()
        self._items: dict[int, _Item] = {}
        self._failed: tuple[Job, tuple[str, ...]] | None = None
        self._found: list[Warned] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what jobs that never ended have begun to say, how the one that failed ended, and what checks found."""
        with self._lock:
            for number, item in self._items.items():
                self._write(
                    number, [f"{_seconds(self._clock() - item.started)} {line}" for line in item.lines.finish()]
                )
            if self._failed and self._failed[1]:
                job, lines = self._failed
                text = "".join(f" {line}\n" for line in lines)
                self._sink.write(f"------\n > {title(job.title)}:\n{text}------\n")
            self._sink.write("".join(line + "\n" for line in found_by_checks(self._found)))

    def __call__(self, event: Event) -> None:
        """Write what is to be said of the event."""
        with self._lock:
            match event:
                case Warned() if event.rule:
                    self._found.append(event)
                case Warned():
                    self._sink.write(f"WARNING: {warning_text(event)}\n")
                case Started(job, at):
                    self._item(job, at)
                case Cached(job):
                    self._item(job, 0.0).cached = True
                    self._write(job.number, ["CACHED"])
                case Output(job, data, at):
                    item = self._item(job, at)
                    self._output(job, at - item.started, item.lines.feed(data))
                case Progress():
                    self._progress(event)
                case Entered():
                    pass
                case Finished(job, at) | Failed(job, at) | Canceled(job, at):
                    self._end(event, at - self._item(job, at).started)

    def _item(self, job: Job, at: float) -> _Item:
        item = self._items.get(job.number)
        if item is None:
            blank = "\n" if self._items else ""
            item = self._items[job.number] = _Item(at)
            self._sink.write(f"{blank}#{job.number} {title(job.title)}\n")
        return item

    def _output(self, job: Job, seconds: float, lines: list[str]) -> None:
        self._items[job.number].last.extend(lines)
        self._write(job.number, [f"{_seconds(seconds)} {line}".rstrip() for line in lines])

    def _progress(self, event: Progress) -> None:
        now = self._clock()
        told = self._item(event.job, now).told
        last = told.get(event.part, -math.inf)
        complete = 0 < event.total <= event.done
        if now - last < PROGRESS_INTERVAL and not (complete and last < math.inf):
            return
        told[event.part] = math.inf if complete else now
        self._write(event.job.number, [transfer(event.part, event.done, event.total)])

    def _end(self, event: Finished | Failed | Canceled, seconds: float) -> None:
        number = event.job.number
        self._output(event.job, seconds, self._items[number].lines.finish())
        if isinstance(event, Canceled):
            self._write(number, ["CANCELED"])
        elif isinstance(event, Failed):
            self._failed = self._failed or (event.job, tuple(self._items[number].last))
            self._write(number, [f"ERROR: {clean(line)}" for line in event.message.splitlines() or [""]])
        elif not self._items[number].cached:  # a job may begin, and then find its result in the cache
            self._write(number, [f"DONE {seconds:.1f}s"])

    def _write(self, number: int, lines: list[str]) -> None:
        if lines:
            self._sink.write("".join(f"#{number} {line}\n" for line in lines))


def _seconds(seconds: float) -> str:
    """Five characters for up to a day: `0.312`, `12.34`, `123.4`."""
    return f"{seconds:.{3 if seconds < 10 else 2 if seconds < 100 else 1}f}"
