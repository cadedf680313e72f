"""How errors look: what failed, where in the Dockerfile, what to do next. What a command printed, listeners show."""

from typing import TextIO

from layers.errors import PybuildError


def show_error(error: PybuildError, stream: TextIO) -> None:
    """Write an error for the person who sees it."""
    if error.location is not None:
        from builder.excerpt import excerpt  # only errors need it

        stream.write(excerpt(error.location) + "\n")
    stream.write(f"ERROR: {error.message}\n")
    if error.hint:
        stream.write(f"hint: {error.hint}\n")
    stream.flush()
