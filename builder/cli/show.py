"""How errors look: what failed, where in the Dockerfile, the last output, what to do next."""

from typing import TextIO

from builder.errors import CommandError
from layers.errors import PybuildError


def show_error(error: PybuildError, stream: TextIO) -> None:
    """Write an error for the person who sees it."""
    if isinstance(error, CommandError) and error.output:
        stream.write("------\n" + "".join(f" > {line}\n" for line in error.output) + "------\n")
    if error.location is not None:
        from builder.excerpt import excerpt  # only errors need it

        stream.write(excerpt(error.location) + "\n")
    stream.write(f"ERROR: {error.message}\n")
    if error.hint:
        stream.write(f"hint: {error.hint}\n")
    stream.flush()
