"""The one family of errors that a person sees: what failed, and what to do next."""

from typing import ClassVar


class PybuildError(Exception):
    """Something failed whose cause is known.

    `message` says in lower case what failed and on what; `hint`, when there is one, what to do next.
    The class carries the exit status of the program (README has the table).
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ImageError(PybuildError):
    """An image, or a registry that should have it, does not give what was asked for."""

    exit_status = 6


class StoreError(PybuildError):
    """The local store cannot be read or written."""

    exit_status = 7
