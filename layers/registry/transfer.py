"""Blobs out of a registry into a store: several at once, verified as they stream, begun again when they break off."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, Protocol

from layers.errors import PybuildError
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


class BlobWriter(Protocol):
    """A blob on its way into a store; nothing of it stays without `commit`."""

    def write(self, data: bytes, /) -> object: ...

    def commit(self, expected: Descriptor, /) -> object: ...


class BlobStore(Protocol):
    """What fetching needs of a store; `layers.layout.Layout` is one."""

    def has(self, descriptor: Descriptor, /) -> bool: ...

    def writer(self) -> AbstractContextManager[BlobWriter]: ...


def fetch_layers(
    registry: Registry,
    reference: Reference,
    descriptors: Iterable[Descriptor],
    store: BlobStore,
    *,
    progress: Progress,
    inspect: Inspect | None = None,
    parallel: int = 4,
) -> None:
    """Bring the blobs that are not yet in the store; the first error ends all and leaves whole blobs only.

    `progress` hears how many bytes of a blob have come, which starts again at 0 after a broken connection. `inspect`
    may read a blob while it comes, such as to index it; what it leaves unread is fetched all the same, and what it
    raises ends the fetch. It is called once more for a blob that had to begin again. Both are called in several
    threads, for one blob always in one.
    """
    missing = {descriptor.digest: descriptor for descriptor in descriptors if not store.has(descriptor)}
    stop = threading.Event()

    def fetch(descriptor: Descriptor) -> None:
        def attempt() -> None:
            with registry.open_blob(reference, descriptor) as answer, store.writer() as writer:
                incoming = _Incoming(descriptor, answer, writer, progress, stop)
                if inspect:
                    _let_inspect(inspect, incoming)
                incoming.drain()
                writer.commit(descriptor)

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
    """Hand the stream over; if what reads it stumbles over wrong bytes, they are the error to tell."""
    try:
        with io.BufferedReader(incoming, _PIECE) as stream:
            inspect(incoming.descriptor, stream)
    except RegistryError:
        raise
    except PybuildError:
        incoming.drain()
        raise


class _Incoming(io.RawIOBase):
    """A blob as it comes: whoever reads a piece has it stored too; at its end it is the right one, or an error."""

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
        self._hash = hashlib.new(descriptor.digest.algorithm)
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """For io.BufferedReader, which makes a file of this."""
        view = memoryview(buffer)
        piece = self._next(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def drain(self) -> None:
        """Take what nobody read."""
        while self._next(_PIECE):
            pass

    def _next(self, size: int) -> bytes:
        if self._stop.is_set():
            raise RegistryError("another blob could not be fetched")
        piece = self._answer.read(size)
        if not piece:
            self._check_end()
            return piece
        self._received += len(piece)
        if self._received > self.descriptor.size:
            raise RegistryError(f"{self._what}: more than its {self.descriptor.size} bytes come")
        self._hash.update(piece)
        self._writer.write(piece)
        self._progress(self.descriptor, self._received)
        return piece

    def _check_end(self) -> None:
        if self._received < self.descriptor.size:
            raise DroppedError(f"{self._what}: it ends after {self._received} of {self.descriptor.size} bytes")
        found = f"{self.descriptor.digest.algorithm}:{self._hash.hexdigest()}"
        if found != self.descriptor.digest:
            raise RegistryError(f"{self._what}: wrong bytes come, of digest {found}")

    @property
    def _what(self) -> str:
        return f"blob {self.descriptor.digest} from {self._answer.host}"
