"""Where an output's bytes go: a file that is complete or as it was before, or standard output."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from layers.errors import PybuildError


class OutputError(PybuildError):
    """The result cannot be written where it should go."""


@contextmanager
def opened(destination: str) -> Iterator[BinaryIO]:
    """A stream to a file, or to standard output for `-`. A regular file is replaced, in one step, after the block.

    Anything else that is there, such as a pipe or a device, is written to as it is.
    """
    try:
        if destination == "-":
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif _is_regular(destination):
            with _replaced(destination) as file:
                yield file
        else:
            with open(destination, "wb") as file:
                yield file
    except BrokenPipeError:
        raise  # whoever read it went away: the command line knows what to do
    except OSError as error:
        raise unwritable(destination, error) from error


def unwritable(path: str, error: OSError) -> OutputError:
    """Why something cannot be written, and what to do about it."""
    hint = "is the disk full?" if error.filename is None else ""
    return OutputError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}", hint=hint)


def _is_regular(path: str) -> bool:
    """Whether a file is there that may be replaced, or nothing."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


@contextmanager
def _replaced(path: str) -> Iterator[BinaryIO]:
    path = os.path.realpath(path)  # a symlink stays one
    temporary = f"{path}.{os.urandom(4).hex()}.part"
    try:
        with open(temporary, "xb") as file:
            yield file
        os.rename(temporary, path)
    finally:
        with suppress(OSError):
            os.unlink(temporary)
