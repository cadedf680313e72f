"""Errors of a build, and the way in which they learn the line that they belong to."""

from collections.abc import Iterator
from contextlib import contextmanager

from layers.data import replace
from layers.errors import Location, PybuildError

__all__ = [
    "CancelledError",
    "CommandError",
    "ContextError",
    "DockerfileError",
    "Location",
    "MalformedError",
    "SandboxError",
    "UsageError",
    "located",
]


class UsageError(PybuildError):
    """The command line asks for something that is not there."""

    exit_status = 2


class DockerfileError(PybuildError):
    """The Dockerfile is wrong, or uses what pybuild does not have."""

    exit_status = 3


class MalformedError(DockerfileError):
    """A statement is no statement, even if nobody will ever carry it out."""


class ContextError(PybuildError):
    """A file that COPY or ADD names is not there, or cannot be used."""

    exit_status = 4


class CommandError(PybuildError):
    """A RUN command ended with something else than 0."""

    exit_status = 5

    def __init__(self, message: str, *, status: int, output: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.output = output
        """The last lines that the command printed."""


class SandboxError(PybuildError):
    """The sandbox cannot be made: this place does not allow what a RUN needs."""

    exit_status = 8


class CancelledError(PybuildError):
    """A step was ended because nobody wants its result any more."""


@contextmanager
def located(location: Location) -> Iterator[None]:
    """Errors that rise through this get the location, unless they knew a better one."""
    try:
        yield
    except PybuildError as error:
        if error.location is None:
            error.location = replace(location, span=error.span) if error.span else location
        raise
