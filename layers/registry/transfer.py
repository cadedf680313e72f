"""Blobs out of a registry into a store: several at once, verified as they stream, begun again when they break off."""

import io
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, BinaryIO

from layers.blob import BlobWriter
from layers.errors import ImageError, PybuildError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.client import Registry
from layers.registry.connection import Answer
from layers.registry.errors import DroppedError, RegistryError
from layers.registry.reference import Reference
from layers.registry.retry import retrying

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE = 128 * 1024
"""Bytes between two reports of progress: a second of a slow line, a millisecond of a fast one."""

Progress = Callable[[Descriptor, int], object]
Inspect = Callable[[Descriptor, BinaryIO], object]


def fetch_layers(
    registry: Registry,
    reference: Reference,
    descriptors: Iterable[Descriptor],
    layout: Layout,
    *,
    progress: Progress,
    inspect: Inspect | None = None,
    parallel: int = 4,
) -> None:
    """Bring the blobs that are not yet in the layout; the first error ends all and leaves whole blobs only.

    `progress` hears how many bytes of a blob have come, which starts again at 0 after a broken connection. `inspect`
    may read a blob while it comes, such as to index it; what it leaves unread is fetched all the same, and what it
    raises ends the fetch. It is called once more for a blob that had to begin again. Both are called in several
    threads, for one blob always in one.
    """
    missing = {descriptor.digest: descriptor for descriptor in descriptors if not layout.has(descriptor)}
    stop = threading.Event()

    def fetch(descriptor: Descriptor) -> None:
        def attempt() -> None:
            with registry.open_blob(reference, descriptor) as answer, layout.writer() as writer:
                incoming = _Incoming(descriptor, answer, writer, progress, stop)
                if inspect:
                    _let_inspect(inspect, incoming)
                incoming.keep()

        retrying(attempt, pause=registry.pause)

    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="fetch") as pool:
        futures = [pool.submit(fetch, descriptor) for descriptor in missing.values()]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _let_inspect(inspect: Inspect, incoming: "_Incoming") -> None:
    """Hand the stream over; what is wrong with its bytes comes before what its reader says of them."""
    try:
        with io.BufferedReader(incoming, _PIECE) as stream:
            inspect(incoming.descriptor, stream)
    except PybuildError:
        incoming.keep()
        raise


class _Incoming(io.RawIOBase):
    """A blob as it comes: what somebody reads of it is written on its way. After an error there is only that error."""

    def __init__(
        self,
        descriptor: Descriptor,
        answer: Answer,
        writer: BlobWriter,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        super().__init__()
        self.descriptor = descriptor
        self._answer = answer
        self._writer = writer
        self._progress = progress
        self._stop = stop
        self._received = 0
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
        """Take what nobody has read, and commit the blob; RegistryError if it is not the right one."""
        while self._next(_PIECE):
            pass
        try:
            self._writer.commit(self.descriptor)
        except ImageError as error:
            raise RegistryError(f"{self._what}: wrong bytes came: {error.message}", hint=error.hint) from error

    def _next(self, size: int) -> bytes:
        if self._error:
            raise self._error
        try:
            return self._receive(size)
        except PybuildError as error:
            self._error = error
            raise

    def _receive(self, size: int) -> bytes:
        if self._stop.is_set():
            raise RegistryError("another blob could not be fetched")
        piece = self._answer.read(size)
        self._received += len(piece)
        if self._received > self.descriptor.size:
            raise RegistryError(f"{self._what}: more than its {self.descriptor.size} bytes come")
        if not piece and self._received < self.descriptor.size:
            raise DroppedError(f"{self._what}: it ends after {self._received} of {self.descriptor.size} bytes")
        if piece:
            self._writer.write(piece)
            self._progress(self.descriptor, self._received)
        return piece

    @property
    def _what(self) -> str:
        return f"blob {self.descriptor.digest} from {self._answer.host}"
