"""A blob as it comes: what was fetched before a kill, then the rest over as many connections as it takes."""

import io
import re
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from layers.errors import ImageError, PybuildError
from layers.oci import Descriptor
from layers.partial import PartialBlob
from layers.registry.answer import Answer
from layers.registry.errors import DroppedError, RegistryError, UnreachableError, WrongBytesError
from layers.registry.retry import retrying

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE = 128 * 1024
"""Bytes between two reports of progress: a second of a slow line, a millisecond of a fast one."""

_PART = re.compile(r"bytes (\d+)-")

Progress = Callable[[Descriptor, int], object]


class Incoming(io.RawIOBase):
    """One blob; what somebody reads of it is written on its way. After an error there is only that error.

    A connection that breaks is followed by another one for what is missing; an error are only as many in a row that
    bring nothing as any request may fail. Closing the stream means nothing: its owner hangs up.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        partial: PartialBlob,
        connect: Callable[[int], Answer],
        *,
        progress: Progress,
        pause: Callable[[float], object],
        check: Callable[[], object],
    ) -> None:
        """`connect` asks for the blob from an offset on; `check` raises if nobody wants it any more."""
        super().__init__()
        self.descriptor = descriptor
        self._partial = partial
        self._connect = connect
        self._progress = progress
        self._pause = pause
        self._check = check
        self._answer: Answer | None = None
        self._start = 0
        """Where the last connection began."""
        self._error: PybuildError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """For io.BufferedReader, which makes a file of this."""
        view = memoryview(buffer)
        piece = self._next(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def keep(self) -> None:
        """Take what nobody has read, and make a blob of all; WrongBytesError if it is not the right one."""
        while self._next(PIECE):
            pass
        try:
            self._partial.commit()
        except ImageError as error:
            raise WrongBytesError(f"{self._what}: wrong bytes came: {error.message}", hint=error.hint) from error

    def _next(self, size: int) -> bytes:
        if self._error:
            raise self._error
        try:
            return self._receive(size)
        except PybuildError as error:
            self._error = error
            if isinstance(error, WrongBytesError):
                self._partial.discard()
            raise

    def _receive(self, size: int) -> bytes:
        self._check()
        if not (piece := self._partial.read_back(size)) and (
            piece := retrying(lambda: self._from_network(size), pause=self._pause)
        ):
            self._partial.write(piece)
        if self._partial.size > self.descriptor.size:
            raise WrongBytesError(f"{self._what}: more than its {self.descriptor.size} bytes come")
        if piece:
            self._progress(self.descriptor, self._partial.size)
        return piece

    def _from_network(self, size: int) -> bytes:
        """The next bytes; nothing at the end of the blob. A DroppedError leaves this ready for another try."""
        received = self._partial.size
        if self._answer is None and received >= self.descriptor.size:
            return b""
        try:
            answer = self._answer = self._answer or self._connected(received)
            piece = answer.read(size)
            if not piece and received < self.descriptor.size:
                raise DroppedError(f"{self._what}: it ends after {received} of {self.descriptor.size} bytes")
        except UnreachableError as error:
            if received == self._partial.found:
                raise
            # It has been there a moment ago, and may be about to start again.
            raise DroppedError(error.message, hint=error.hint) from error
        except DroppedError:
            self.hang_up()
            if received > self._start:
                # This connection brought something: another one at once.
                return self._from_network(size)
            raise
        return piece

    def _connected(self, start: int) -> Answer:
        """An answer whose next byte is the one at `start`."""
        self._start = start
        self._answer = answer = self._connect(start)
        if answer.status == 206:
            part = _PART.match(answer.headers.get("Content-Range", ""))
            if not part or int(part[1]) != start:
                raise RegistryError(f"{self._what}: asked for what follows byte {start}, it sends something else")
        else:
            # It does not know ranges: what is here comes once more.
            left = start
            while left:
                self._check()
                if not (again := answer.read(min(left, PIECE))):
                    raise DroppedError(f"{self._what}: it ends after {start - left} of {self.descriptor.size} bytes")
                left -= len(again)
        return answer

    def hang_up(self) -> None:
        """Let go of the connection."""
        if self._answer is not None:
            with closing(self._answer):
                self._answer = None

    @property
    def _what(self) -> str:
        origin = f" from {self._answer.host}" if self._answer else ""
        return f"blob {self.descriptor.digest}{origin}"
