"""What is known of every job so far, for listeners that show all jobs together."""

from collections import deque
from collections.abc import Sequence
from enum import Enum

from builder.events import (
    Cached,
    Canceled,
    Entered,
    Event,
    Failed,
    Finished,
    Job,
    JobEvent,
    Output,
    Progress,
    Started,
    Warned,
)
from builder.progress.text import LineBuffer, title
from layers.data import dataclass, field

KEPT_LINES = 500
"""Lines of output that a job keeps, for the case that it fails."""


class State(Enum):
    """Where a job stands."""

    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"
    CANCELED = "canceled"
    """Ended because another job failed."""


@dataclass(slots=True)
class Row:
    """One job; times in seconds of the build's clock."""

    number: int
    title: str
    state: State = State.RUNNING
    started: float = 0.0
    ended: float = 0.0
    output: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    """Seconds since the start of the job, and a line."""
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes done and in total, by part."""
    lines: LineBuffer = field(default_factory=LineBuffer)

    def seconds(self, now: float) -> float:
        """How long the job has taken, up to now or its end."""
        if self.state is State.CACHED:
            return 0.0
        return max(0.0, (now if self.state is State.RUNNING else self.ended) - self.started)


class Board:
    """The rows by number, and the warnings. Not locked: the listener that owns it is."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.warnings: list[Warned] = []

    @property
    def total(self) -> int:
        """Jobs announced."""
        return len(self.rows)

    @property
    def ended(self) -> int:
        """Jobs that will not change any more."""
        return sum(row.state is not State.RUNNING for row in self.rows.values())

    @property
    def failed(self) -> Row | None:
        """The row of the job that failed first, and by that ended all others."""
        return next((row for row in self.rows.values() if row.state is State.FAILED), None)

    def apply(self, event: Event) -> None:
        """Take note of one event."""
        if isinstance(event, Warned):
            self.warnings.append(event)
        elif not isinstance(event, Entered):
            self._apply_to_job(event)

    def _apply_to_job(self, event: JobEvent) -> None:
        at = 0.0 if isinstance(event, Cached | Progress) else event.at
        row = self._row(event.job, at)
        match event:
            case Started():
                row.started = at
            case Cached():
                row.state = State.CACHED
            case Output(data=data):
                row.output.extend((at - row.started, line) for line in row.lines.feed(data))
            case Progress(part=part, done=done, total=total):
                row.parts[part] = (done, total)
            case Finished() if row.state is State.RUNNING:
                row.state, row.ended = State.DONE, at
                # A thousand jobs that went well need not keep what they said.
                row.output.clear()
            case Failed():
                row.output.extend((at - row.started, line) for line in row.lines.finish())
                row.state, row.ended = State.FAILED, at
            case Canceled():
                row.state, row.ended = State.CANCELED, at

    def _row(self, job: Job, at: float) -> Row:
        row = self.rows.get(job.number)
        if row is None:
            row = self.rows[job.number] = Row(job.number, title(job.title), started=at)
        return row


def found_by_checks(warnings: Sequence[Warned]) -> list[str]:
    """What checks found, as BuildKit tells it below a build."""
    found = [warning for warning in warnings if warning.rule]
    if not found:
        return []
    lines = [
        f" - {warning.rule}: {title(warning.message)}"
        + (f" (line {warning.location.first})" if warning.location else "")
        for warning in found
    ]
    return ["", f" {len(found)} warning{'s' * (len(found) > 1)} found (use --check to expand):", *lines]


def warning_text(warning: Warned) -> str:
    """One line: the message, and where it belongs."""
    where = f" ({warning.location.file}:{warning.location.first})" if warning.location else ""
    return title(warning.message + where)
