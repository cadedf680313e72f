"""The listener for a mode of `--progress`."""

import io
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Literal, TextIO

from builder.events import Event, Listener

Mode = Literal["auto", "tty", "plain", "quiet", "rawjson"]
"""What `--progress` may be."""


class _Copy(io.StringIO):
    """Text that would be written to a stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._original = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a text has none, but what it is for does
        return self._original.encoding

    def fileno(self) -> int:
        return self._original.fileno()

    def isatty(self) -> bool:
        return self._original.isatty()


def transcript(mode: Mode, stream: TextIO, events: Iterable[Event]) -> str:
    """What a listener for `stream` would write of events that happen all at once."""
    copy = _Copy(stream)
    with open_listener(mode, copy, lambda: 0.0) as listener:
        for event in events:
            listener(event)
    return copy.getvalue()


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
    if mode == "rawjson":
        from builder.progress.rawjson import RawJson

        return RawJson(stream, clock)
    from builder.progress.plain import Plain

    return Plain(stream, clock)
