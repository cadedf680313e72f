"""The listener for a mode of `--progress`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, TextIO

from builder.events import Listener

Mode = Literal["auto", "tty", "plain", "quiet"]


def open_listener(mode: Mode, stream: TextIO, clock: Callable[[], float]) -> AbstractContextManager[Listener]:
    """A listener that writes to `stream` until its context is left; `auto` means tty on a terminal, else plain.

    `clock` is the one that the times of events are of. The listener shows what failed commands printed, in every mode.
    """
    if mode == "auto":
        mode = "tty" if stream.isatty() else "plain"
    # Each in its turn: a build in a pipe has no use for the others.
    if mode == "tty":
        from builder.progress.tty import Tty

        return Tty(stream, clock)
    if mode == "quiet":
        from builder.progress.quiet import Quiet

        return Quiet(stream)
    from builder.progress.plain import Plain

    return Plain(stream, clock)
