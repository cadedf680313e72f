"""One blob into a repository: found there, mounted from a neighbour, or sent.

Follows "Pushing blobs" of the OCI distribution specification 1.1. After whatever breaks, the registry is asked how much
it has; one that has forgotten the upload gets it anew, in smaller pieces.
"""

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

from layers.blob import explained
from layers.errors import StoreError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.answer import Answer
from layers.registry.body import EMPTY, Body
from layers.registry.connection import joined
from layers.registry.dialogue import Dialogue
from layers.registry.errors import (
    DroppedError,
    LostUploadError,
    RegistryError,
    TransientError,
    UnreachableError,
)
from layers.registry.pace import Pace, Way
from layers.registry.places import Endpoint
from layers.registry.retry import retrying

_BLOCK = 32 * 1024
"""Bytes that are handed over at a time: each must be on its way within seconds, on slow lines too."""
_PIECE = 128 * 1024
"""Bytes between two reports of progress."""
_RANGE = re.compile(r"(?:bytes[= ])?0-(\d+)")
_DONE = frozenset({200, 201, 204})
_FORGOTTEN = frozenset({404, 410})
_NO_SUCH_WAY = frozenset({400, 405, 411, 415, 501})
_NO_STATUS = frozenset({405, 501})


class Upload:
    """The way of one blob into one repository."""

    def __init__(
        self,
        dialogue: Dialogue,
        endpoint: Endpoint,
        descriptor: Descriptor,
        layout: Layout,
        *,
        pace: Pace,
        progress: Callable[[Descriptor, int], object],
        pause: Callable[[float], object],
        check: Callable[[], object] = lambda: None,
        neighbour: str = "",
        obtain: Callable[[Descriptor], object] = lambda _: None,
    ) -> None:
        """`neighbour` is a repository of the same registry that may have the blob; `check` raises if all shall end.

        `obtain` brings the blob into the layout, and is called when it has to be sent and is not there.
        """
        self._dialogue = dialogue
        self._endpoint = endpoint
        self._descriptor = descriptor
        self._layout = layout
        self._pace = pace
        self._progress = progress
        self._pause = pause
        self._check = check
        self._neighbour = neighbour
        self._obtain = obtain
        self._location = ""
        """Where the next piece goes; empty before an upload has begun."""
        self._offset = 0
        """Bytes that the registry has said it has."""
        self._sent = 0
        """Bytes that left in the last request."""
        self._least = 0
        """The smallest piece that this registry takes (OCI-Chunk-Min-Length)."""
        self._way = Way.PIECES
        self._broken: TransientError | None = None
        """Why the last try ended."""

    def run(self) -> None:
        """Do it; the blob is in the repository afterwards. RegistryError if it cannot be brought there."""
        retrying(self._attempt, pause=self._pause, reached=lambda: self._offset)
        self._progress(self._descriptor, self._descriptor.size)

    def _attempt(self) -> None:
        try:
            if self._broken:
                self._recover(self._broken)
                self._broken = None
            if self._location or self._begin():
                if not self._layout.has(self._descriptor):
                    self._obtain(self._descriptor)
                self._send()
        except UnreachableError as error:
            if not self._location:
                raise
            # It has been there a moment ago, and may be about to start again.
            self._broken = DroppedError(error.message, hint=error.hint)
            raise self._broken from error
        except TransientError as error:
            self._broken = self._broken or error
            raise

    def _begin(self) -> bool:
        """Find the blob there, or mount it, or get the place to send it to; False if nothing is to be sent."""
        if self._is_there():
            return False
        self._offset = 0
        mounting = f"?mount={self._descriptor.digest}&from={quote(self._neighbour)}" if self._neighbour else ""
        answer = self._ask("POST", f"blobs/uploads/{mounting}", body=EMPTY, mount_from=self._neighbour)
        if mounting and answer.status not in {201, 202}:
            answer.close()
            self._neighbour = ""
            answer = self._ask("POST", "blobs/uploads/", body=EMPTY)
        with answer:
            if answer.status == 202:
                self._least = _number(answer.headers.get("OCI-Chunk-Min-Length", ""))
                self._follow(answer)
                return True
            if answer.status == 201:
                return False
            raise self._refusal(answer)

    def _is_there(self) -> bool:
        with self._ask("HEAD", f"blobs/{self._descriptor.digest}") as answer:
            length = answer.headers.get("Content-Length", "")
            return answer.status == 200 and length in {"", str(self._descriptor.size)}

    def _send(self) -> None:
        size = self._descriptor.size
        if not self._offset:
            self._way = self._pace.way(size)
        if self._way is Way.WHOLE:
            self._finish(self._body(0, size))
            return
        while self._offset < size:
            self._send_piece()
        self._finish(EMPTY)

    def _send_piece(self) -> None:
        start = self._offset
        end = min(self._descriptor.size, start + max(self._pace.piece, self._least))
        headers = {"Content-Range": f"{start}-{end - 1}"}
        with self._ask("PATCH", self._location, headers=headers, body=self._body(start, end)) as answer:
            if answer.status not in {*_DONE, 202}:
                self._not_taken(answer, end - start)
            self._offset = self._received(answer, end, most=end)
            self._sent = 0
            self._follow(answer)

    def _finish(self, body: Body) -> None:
        joint = "&" if urlsplit(self._location).query else "?"
        url = f"{self._location}{joint}digest={quote(self._descriptor.digest)}"
        with self._ask("PUT", url, body=body) as answer:
            if answer.status not in _DONE:
                self._not_taken(answer, body.size)

    def _not_taken(self, answer: Answer, size: int) -> None:
        """What a refusal in the middle means: LostUploadError if another try will go another way."""
        fault = answer.fault()
        error = self._refusal(answer, fault)
        if "DIGEST_INVALID" in fault:
            with self._layout.open(self._descriptor) as blob:  # StoreError if the fault is ours
                while blob.read(1 << 20):
                    pass
            error.hint = "the blob in the store is right: something between here and the registry changes bytes"
            raise error
        if answer.status == 413:
            error.hint = "a proxy before the registry may limit the size of requests (client_max_body_size)"
            self._pace.too_large(size, error)
        elif answer.status in _NO_SUCH_WAY and size:
            self._pace.refuse(self._way, error)
        elif answer.status not in {*_FORGOTTEN, 416}:
            raise error
        self._location = "" if answer.status != 416 else self._location
        raise LostUploadError(f"{self._what}: the upload ended before it was done: {fault}") from error

    def _recover(self, error: TransientError) -> None:
        """Find out what is left of an upload in which something broke."""
        before = self._offset
        if self._way is Way.WHOLE:
            self._location = ""
        if self._location:
            with self._ask("GET", self._location) as answer:
                if answer.status in {*_DONE, 202}:
                    self._offset = self._received(answer, before, most=before + self._sent)
                    if "Location" in answer.headers:
                        self._follow(answer)
                elif answer.status not in _NO_STATUS or isinstance(error, LostUploadError):
                    self._location = ""
        if not self._location:
            self._offset = 0
        if isinstance(error, DroppedError) and self._sent and self._offset <= before:
            self._pace.broke(self._sent)
        self._sent = 0

    def _received(self, answer: Answer, unsaid: int, *, most: int) -> int:
        """How many bytes the registry says it has; `unsaid` if it does not. LostUploadError if that cannot be."""
        found = _RANGE.fullmatch(answer.headers.get("Range", ""))
        if not found:
            return unsaid
        # For nothing at all the specification has no form; registries write 0-0.
        received = int(found[1]) + 1 if found[1] != "0" else min(self._offset, 1)
        if not self._offset <= received <= most:
            self._location = ""
            raise LostUploadError(f"{self._what}: the registry says that it has {received} of {most} bytes")
        return received

    def _follow(self, answer: Answer) -> None:
        location = answer.headers.get("Location", "")
        if not location:
            raise RegistryError(f"{self._what}: {answer.host} does not say where to send it")
        self._location = joined(answer, location)

    def _body(self, start: int, end: int) -> Body:
        """A stretch of the blob. It is not verified here: the registry does that, and answers for it."""

        def blocks() -> Iterator[bytes]:
            self._sent = 0
            path = self._layout.path(self._descriptor.digest)
            try:
                with open(path, "rb", buffering=0) as file:
                    file.seek(start)
                    while left := end - start - self._sent:
                        self._check()
                        if not (block := file.read(min(left, _BLOCK))):
                            raise StoreError(f"{path} is cut off", hint="build or pull the image again")
                        self._sent += len(block)  # before it goes: part of it may arrive although it breaks
                        yield block
                        if not (start + self._sent) % _PIECE:
                            self._progress(self._descriptor, start + self._sent)
            except FileNotFoundError as error:
                raise StoreError(
                    f"blob {self._descriptor.digest} is not in the store", hint="build or pull the image again"
                ) from error
            except OSError as error:
                raise explained(error, path) from error

        return Body(end - start, blocks)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        mount_from: str = "",
    ) -> Answer:
        kind = {"Content-Type": "application/octet-stream"} if body and body.size else {}
        return self._dialogue.ask(
            self._endpoint,
            method,
            path,
            headers={**kind, **(headers or {})},
            body=body,
            push=True,
            mount_from=mount_from,
            alone=self._pace.alone and bool(body and body.size),
        )

    def _refusal(self, answer: Answer, fault: str = "") -> RegistryError:
        return self._dialogue.refusal(answer, self._endpoint, self._what, push=True, fault=fault)

    @property
    def _what(self) -> str:
        return f"blob {self._descriptor.digest} to {self._endpoint}"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0
