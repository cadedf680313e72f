"""A stream that tells how far it has been read."""

from collections.abc import Callable
from typing import BinaryIO, cast

_OFTEN = 1 << 20
"""Bytes between two reports."""


def counted(stream: BinaryIO, tell: Callable[[int], object]) -> BinaryIO:
    """The stream; `tell` is called with the bytes read so far, every so often. Closing is left to the owner."""
    return cast(BinaryIO, _Counted(stream, tell))


class _Counted:
    def __init__(self, stream: BinaryIO, tell: Callable[[int], object]) -> None:
        self._stream = stream
        self._tell = tell
        self._done = 0
        self._told = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        if self._done - self._told >= _OFTEN or (not data and self._told < self._done):
            self._told = self._done
            self._tell(self._done)
        return data
