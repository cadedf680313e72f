"""An answer of a server whose body is still on the wire."""

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import requests
import urllib3

from layers.registry.errors import DroppedError, RegistryError
from layers.registry.reasons import reason

_PIECE = 64 * 1024
_MOST_PIECES_OF_FAULT = 4
_LONGEST_WORDS = 300


class Answer:
    """One answer whose body is still on the wire; whoever gets it closes it."""

    def __init__(self, url: str, response: requests.Response) -> None:
        self.url = url
        self.host = urlsplit(url).netloc.rpartition("@")[2]
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        # Before 2.1, urllib3 has no way to ask for what is there: then what came before a break is lost.
        self._receive = getattr(response.raw, "read1", response.raw.read)
        self._broken: DroppedError | None = None

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the body as they were sent, nothing at its end; DroppedError if it breaks off.

        What came before it broke off is given first.
        """
        pieces: list[bytes] = []
        left = size
        while left and not self._broken:
            try:
                piece: bytes = self._receive(left, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self._broken = DroppedError(f"{self.host} broke off an answer: {reason(error)}")
                self._broken.__cause__ = error
            else:
                if not piece:
                    break
                pieces.append(piece)
                left -= len(piece)
        if self._broken and not pieces:
            raise self._broken
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def document(self, limit: int) -> bytes:
        """The whole body; RegistryError if it is longer than `limit` bytes."""
        pieces = []
        left = limit
        while piece := self.read(_PIECE):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise RegistryError(f"{self.host} sends more than {limit >> 20} MiB where a document should be")
        return b"".join(pieces)

    def fault(self) -> str:
        """What the server says of its refusal, as a piece of a sentence: `404 (NAME_UNKNOWN: no such name)`."""
        pieces: list[bytes] = []
        while len(pieces) < _MOST_PIECES_OF_FAULT and (piece := self.read(_PIECE)):
            pieces.append(piece)
        words = _words(b"".join(pieces))
        return f"{self.status} ({words})" if words else str(self.status)

    def close(self) -> None:
        """Give the connection back; what was not read of the body is lost.

        A short rest is read, so that the connection can be used again: closing alone would close that too.
        """
        left = self._response.raw.length_remaining
        if left is not None and left <= _PIECE and not self._broken:
            self._response.raw.drain_conn()
            self._response.raw.release_conn()
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _words(body: bytes) -> str:
    """Codes and messages of a registry's error document (distribution-spec, "Error Codes"); empty for anything else."""
    try:
        errors = json.loads(body)["errors"]
        words = "; ".join(f"{error['code']}: {error.get('message') or ''}".rstrip(": ") for error in errors)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in words)[:_LONGEST_WORDS]
