"""The listener for programs: each event is a line of JSON, in the form of BuildKit's client.SolveStatus."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TextIO

from builder.events import Cached, Canceled, Event, Failed, Finished, Job, JobEvent, Output, Progress, Started, Warned
from builder.progress.sink import Sink

_STDOUT = 1


class RawJson:
    """Writes each event as it comes. Called from any thread."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._sink = Sink(stream)
        self._clock = clock
        self._epoch = time.time() - clock()
        """When the clock, which knows no date, was at 0."""
        self._lock = threading.Lock()
        self._jobs: dict[int, dict[str, Any]] = {}
        self._parts: dict[tuple[int, str], str] = {}
        """When each part began."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held back."""

    def __call__(self, event: Event) -> None:
        """Write the event."""
        with self._lock:
            if isinstance(event, Warned):
                self._write("warnings", _warning(event))
            elif isinstance(event, JobEvent):
                self._tell(event)

    def _tell(self, event: JobEvent) -> None:
        vertex = self._vertex(event.job)
        match event:
            case Output(data=data, at=at):
                log = {"stream": _STDOUT, "data": _bytes(data), "timestamp": self._date(at)}
                self._write("logs", {"vertex": vertex["digest"], **log})
                return
            case Progress():
                self._write("statuses", self._status(event, vertex["digest"]))
                return
            case Started(at=at):
                vertex["started"] = self._date(at)
            case Cached():
                now = self._date(self._clock())
                vertex |= {"started": vertex.get("started", now), "completed": now, "cached": True}
            case Failed(at=at, message=message):
                vertex |= {"completed": self._date(at), "error": message}
            case Canceled(at=at):
                vertex |= {"completed": self._date(at), "error": "context canceled"}
            case Finished(at=at):
                vertex["completed"] = self._date(at)
        self._write("vertexes", vertex)

    def _vertex(self, job: Job) -> dict[str, Any]:
        if job.number not in self._jobs:
            digest = hashlib.sha256(f"{job.number} {job.title}".encode(errors="replace")).hexdigest()
            self._jobs[job.number] = {"digest": f"sha256:{digest}", "name": job.title}
        return self._jobs[job.number]

    def _status(self, event: Progress, vertex: str) -> dict[str, Any]:
        now = self._date(self._clock())
        started = self._parts.setdefault((event.job.number, event.part), now)
        status: dict[str, Any] = {"id": event.part, "vertex": vertex}
        if event.total:
            status["total"] = event.total
        status |= {"current": event.done, "timestamp": now, "started": started}
        return status | ({"completed": now} if 0 < event.total <= event.done else {})

    def _date(self, at: float) -> str:
        return datetime.fromtimestamp(self._epoch + at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    def _write(self, kind: str, value: dict[str, Any]) -> None:
        self._sink.write(json.dumps({kind: [value]}, separators=(",", ":")) + "\n")


def _warning(event: Warned) -> dict[str, Any]:
    where = event.location
    named = f"{event.rule}: {event.message}" if event.rule else event.message
    short = f"{named} (line {where.first})" if event.rule and where else named
    warning: dict[str, Any] = {"level": 1, "short": _bytes(short.encode(errors="replace"))}
    if where:
        source = "\n".join(where.source).encode(errors="replace")
        warning["sourceInfo"] = {"filename": where.file, "data": _bytes(source)}
        warning["range"] = [{"start": {"line": where.first}, "end": {"line": where.last}}]
    return warning


def _bytes(data: bytes) -> str:
    return base64.b64encode(data).decode()
