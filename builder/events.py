"""What happens in a build, as values. The engine only ever hands these to a listener; listeners print."""

from collections.abc import Callable

from builder.errors import Location
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """Something that takes time and is shown as one item, such as a step, a download or an export."""

    number: int
    """From 1, in the order in which jobs are announced."""
    title: str
    """As the person reads it: `[build 2/5] RUN make`."""


@dataclass(frozen=True, slots=True)
class Started:
    """Work on a job begins; `at` is in seconds of a clock that only grows."""

    job: Job
    at: float


@dataclass(frozen=True, slots=True)
class Cached:
    """The cache answered the job."""

    job: Job


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what the command of a job prints, as it came: any bytes, any length."""

    job: Job
    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A job moved bytes: `done` of `total` (0: unknown) of one part, such as a blob."""

    job: Job
    part: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is done."""

    job: Job
    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The job failed; the error itself ends the build and is shown by the command line."""

    job: Job
    at: float
    message: str


@dataclass(frozen=True, slots=True)
class Canceled:
    """The job was ended because nobody wants its result any more."""

    job: Job
    at: float


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the person should know and that does not end the build."""

    message: str
    location: Location | None = None
    rule: str = ""
    """The name of the check that found it: these are told together, once the build is over."""


@dataclass(frozen=True, slots=True)
class Entered:
    """The process has entered what namespaces it needs: from here on it may have more than one thread."""


JobEvent = Started | Cached | Output | Progress | Finished | Failed | Canceled
Event = Entered | Warned | JobEvent
Listener = Callable[[Event], None]
