"""Errors that know the Dockerfile, and how they show it."""

from dataclasses import dataclass

from layers.errors import PybuildError


@dataclass(frozen=True, slots=True)
class Location:
    """Where a statement stands: the name of the file, its first and last line (from 1), and the text of the file."""

    file: str
    first: int
    last: int
    source: tuple[str, ...] = ()
    """All lines of the file, without line ends; for excerpts."""
    span: str = ""
    """The offending words within the lines, to be marked; empty marks the whole lines."""


class UsageError(PybuildError):
    """The command line asks for something that is not there."""

    exit_status = 2


class LocatedError(PybuildError):
    """An error that belongs to lines of a Dockerfile. `location` may be filled in while the error rises."""

    def __init__(self, message: str, *, hint: str = "", location: Location | None = None) -> None:
        super().__init__(message, hint=hint)
        self.location = location


class DockerfileError(LocatedError):
    """The Dockerfile is wrong, or uses what pybuild does not have."""

    exit_status = 3


class ContextError(LocatedError):
    """A file that COPY or ADD names is not there, or cannot be used."""

    exit_status = 4


class CommandError(LocatedError):
    """A RUN command ended with something else than 0."""

    exit_status = 5

    def __init__(
        self,
        message: str,
        *,
        status: int,
        output: tuple[str, ...] = (),
        hint: str = "",
        location: Location | None = None,
    ) -> None:
        super().__init__(message, hint=hint, location=location)
        self.status = status
        self.output = output
        """The last lines that the command printed."""


class SandboxError(LocatedError):
    """This place does not allow what a RUN needs."""

    exit_status = 8
