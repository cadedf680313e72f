"""The way of a layer's bytes to disk, in one pass: sha256, compressor, sha256 of the result, blob.

A small layer goes there at once; a larger one by threads, one for each part of the way, since what they do releases
the interpreter's lock. How many there are changes nothing in the bytes (`layers.compress`).
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layers.blob import BlobWriter
from layers.compress import Compressor
from layers.digest import Digest

if TYPE_CHECKING:
    from concurrent.futures import Future

MOST_PACKERS = 4
"""Threads that compress. So many keep pace with one that hashes at 1.6 GB/s."""


class Pipeline:
    """Writes one uncompressed stream. To be used by `with`: an error anywhere ends all threads before it leaves."""

    def __init__(self, blob: BlobWriter, compressor: Compressor, *, packers: int | None = None) -> None:
        """`packers` is the number of threads that compress, else the machine decides."""
        self._blob = blob
        self._compressor = compressor
        self._packers = packers or min(MOST_PACKERS, len(os.sched_getaffinity(0)))
        self._hash = hashlib.sha256()
        self._size = 0
        self._pieces: list[bytes] = []
        self._held = 0
        self._crew: _Crew | None = None
        blob.write(compressor.start())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._crew:
            self._crew.dismiss()

    def write(self, data: bytes) -> None:
        """Append to the stream. An error of a thread is raised here, some blocks later."""
        self._pieces.append(data)
        self._held += len(data)
        if self._held >= self._compressor.block_size:
            self._send_blocks()

    def finish(self) -> tuple[Digest, int]:
        """The stream is complete: everything is in the blob when this returns its digest and size."""
        rest = b"".join(self._pieces)
        job = self._compressor.job(rest)
        if self._crew:
            self._crew.send(rest, job)
            self._crew.wait()
        else:
            self._hash.update(rest)
            self._blob.write(job())
        self._blob.write(self._compressor.finish())
        return Digest(f"sha256:{self._hash.hexdigest()}"), self._size + len(rest)

    def _send_blocks(self) -> None:
        """Send as many whole blocks as there are."""
        if self._crew is None:
            self._crew = _Crew(self._hash.update, self._blob.write, self._packers)
        data = b"".join(self._pieces)
        block_size = self._compressor.block_size
        end = len(data) - len(data) % block_size
        for start in range(0, end, block_size):
            block = data[start : start + block_size]
            self._crew.send(block, self._compressor.job(block))
        self._pieces = [data[end:]]
        self._held = len(data) - end
        self._size += end


class _Crew:
    """The threads. Hashing and writing have one each, so that both see the blocks in order."""

    def __init__(self, add_to_hash: Callable[[bytes], None], write: Callable[[bytes], None], packers: int) -> None:
        # Not at the top: it takes 10 ms, and small layers do without.
        from concurrent.futures import ThreadPoolExecutor

        self._add_to_hash = add_to_hash
        self._write = write
        self._packing = ThreadPoolExecutor(packers)
        self._hashing = ThreadPoolExecutor(1)
        self._writing = ThreadPoolExecutor(1)
        self._under_way: deque[Future[None]] = deque()
        self._most_under_way = 2 * (packers + 2)  # two futures a block: one block for each thread, and two that wait

    def send(self, block: bytes, job: Callable[[], bytes]) -> None:
        """Hand over a block; waits while too many are under way, so that memory stays bounded."""
        packed = self._packing.submit(job)
        self._under_way.append(self._hashing.submit(self._add_to_hash, block))
        self._under_way.append(self._writing.submit(self._write_result, packed))
        self.wait(self._most_under_way)

    def wait(self, most: int = 0) -> None:
        """Wait until no more than so many futures are left; raises what went wrong in those that are done."""
        while len(self._under_way) > most:
            self._under_way.popleft().result()

    def dismiss(self) -> None:
        """End all threads; what they have not begun is dropped."""
        for pool in (self._packing, self._hashing, self._writing):
            pool.shutdown(wait=True, cancel_futures=True)

    def _write_result(self, packed: "Future[bytes]") -> None:
        self._write(packed.result())
