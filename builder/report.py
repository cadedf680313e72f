"""The engine's voice: gives jobs their numbers and hands events to the listener."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from builder.errors import CancelledError, Location
from builder.events import Cached, Canceled, Entered, Failed, Finished, Job, Listener, Output, Progress, Started, Warned
from layers.errors import PybuildError


class Report:
    """One for a build; its methods may be called from any thread."""

    def __init__(self, listener: Listener, clock: Callable[[], float]) -> None:
        self._listener = listener
        self.clock = clock
        """Seconds of a clock that only grows."""
        self._count = 0
        self._warned: set[Warned] = set()
        self._lock = threading.Lock()

    def cached(self, title: str) -> None:
        """The cache answered a step."""
        self._listener(Cached(self._job(title)))

    @contextmanager
    def running(self, title: str) -> Iterator[Job]:
        """Say that a job begins, and how it ends."""
        job = self._job(title)
        self._listener(Started(job, self.clock()))
        try:
            yield job
        except CancelledError:
            self._listener(Canceled(job, self.clock()))
            raise
        except PybuildError as error:
            self._listener(Failed(job, self.clock(), error.message))
            raise
        self._listener(Finished(job, self.clock()))

    def found_cached(self, job: Job) -> None:
        """A job that had begun was answered by the cache after all."""
        self._listener(Cached(job))

    def entered(self) -> None:
        """From here on the listener may start threads."""
        self._listener(Entered())

    def output(self, job: Job, data: bytes) -> None:
        """A piece of what a command prints."""
        self._listener(Output(job, data, self.clock()))

    def progress(self, job: Job, part: str, done: int, total: int) -> None:
        """Bytes moved so far, of one part of a job."""
        self._listener(Progress(job, part, done, total))

    def warn(self, message: str, location: Location | None = None, rule: str = "") -> None:
        """Something that does not end the build, told once; `rule` names the check that found it."""
        warned = Warned(message, location, rule)
        if warned not in self._warned:
            self._warned.add(warned)
            self._listener(warned)

    def _job(self, title: str) -> Job:
        with self._lock:
            self._count += 1
            return Job(self._count, title)
