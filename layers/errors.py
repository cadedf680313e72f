"""The one family of errors that a person sees: what failed, where, and what to do next."""

from typing import ClassVar

from layers.data import dataclass


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


class PybuildError(Exception):
    """Something failed whose cause is known.

    `message` says in lower case what failed and on what; `hint`, when there is one, what to do next. `location` is
    often filled in while the error rises, by who knows the line of the Dockerfile; `span` are the words that are wrong,
    from where that line is not known. The class carries the exit status of the program (README has the table).
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", location: Location | None = None, span: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.location = location
        self.span = span


class ImageError(PybuildError):
    """An image, or a registry that should have it, does not give what was asked for."""

    exit_status = 6


class StoreError(PybuildError):
    """The local store cannot be read or written."""

    exit_status = 7
