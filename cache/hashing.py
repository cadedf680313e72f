"""Digests of many files at once, by as many processes as there are processors.

Most of the time that a small file takes is the interpreter's, so threads would wait for each other. A process that is
forked has all that it needs, and gives back 72 bytes for each file.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from cache.stamps import STAMP_SIZE, is_racy, size_of, stamp_of

_BLOCK = 1 << 20
_COST_OF_A_FILE = 20_000
"""Opening one takes as long as hashing so many bytes."""
_WORTH_A_PROCESS = 20_000_000
"""Bytes, with what files cost: half of it takes some ten times as long as a fork."""
_DIGEST_SIZE = hashlib.sha256().digest_size


class Hashed(NamedTuple):
    """What a file is."""

    digest: bytes
    """SHA-256 of its bytes."""
    stamp: bytes
    """As of when it was read; empty if a later change of the file might not show in its stat."""


def read(path: str, size: int, clock: Callable[[], int]) -> Hashed:
    """Hash a file that should have so many bytes, and may have others by now.

    OSError if it cannot be read, ELOOP for a symbolic link.
    """
    started = clock()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        state = hashlib.sha256()
        wanted = min(size + 1, _BLOCK)  # of most files that is all, and the reading that finds nothing is spared
        while block := os.read(fd, wanted):
            state.update(block)
            size -= len(block)
            if size == 0 and len(block) < wanted:
                break
        stamp = stamp_of(os.fstat(fd))
    finally:
        os.close(fd)
    # A change while it was read has set its times to later than the start.
    return Hashed(state.digest(), b"" if is_racy(stamp, started) else stamp)


def read_many(files: Sequence[tuple[str, bytes]], clock: Callable[[], int]) -> list[Hashed | None] | None:
    """Hash files of these paths and stamps; None for one that cannot be read.

    None for all if it is not worth more than one process, or not possible.
    """
    shares = _shares(files, len(os.sched_getaffinity(0)))
    if len(shares) < 2 or threading.active_count() > 1:  # a fork copies one thread, and what others have locked
        return None
    helpers = [_Helper(share, clock) for share in shares[1:]]
    try:
        found = [_try(path, stamp, clock) for path, stamp in shares[0]]
        for helper in helpers:
            found += helper.results()
    finally:
        for helper in helpers:
            helper.end()
    return found


class _Helper:
    """A process that hashes a share of the files."""

    def __init__(self, files: Sequence[tuple[str, bytes]], clock: Callable[[], int]) -> None:
        self._count = len(files)
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if not self._pid:
            # Nothing of this process's ends here: no handler, no buffer, no database.
            try:
                _work(files, clock, writer)
            finally:
                os._exit(0)
        os.close(writer)

    def results(self) -> list[Hashed | None]:
        """What it found; what it could not tell, since it was killed, is None."""
        with open(self._reader, "rb", closefd=False) as stream:
            data = stream.read()
        row = _DIGEST_SIZE + STAMP_SIZE
        rows = [data[start : start + row] for start in range(0, len(data) - row + 1, row)]
        found = [_unpacked(each) for each in rows]
        return found + [None] * (self._count - len(found))

    def end(self) -> None:
        """Leave nothing of it."""
        import signal  # a millisecond, which no build needs that hashes little

        os.close(self._reader)
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _work(files: Sequence[tuple[str, bytes]], clock: Callable[[], int], writer: int) -> None:
    with suppress(KeyboardInterrupt, OSError), open(writer, "wb") as stream:
        stream.writelines(_packed(_try(path, stamp, clock)) for path, stamp in files)


def _try(path: str, stamp: bytes, clock: Callable[[], int]) -> Hashed | None:
    with suppress(OSError):
        return read(path, size_of(stamp), clock)
    return None


def _packed(hashed: Hashed | None) -> bytes:
    digest, stamp = hashed or (b"", b"")
    return digest.ljust(_DIGEST_SIZE, b"\0") + stamp.ljust(STAMP_SIZE, b"\0")


def _unpacked(row: bytes) -> Hashed | None:
    digest, stamp = row[:_DIGEST_SIZE], row[_DIGEST_SIZE:]
    return Hashed(digest, stamp if any(stamp) else b"") if any(digest) else None


def _shares(files: Sequence[tuple[str, bytes]], most: int) -> list[Sequence[tuple[str, bytes]]]:
    """The files in order, cut into at most so many parts that take equally long and are worth a process."""
    costs = [size_of(stamp) + _COST_OF_A_FILE for _, stamp in files]
    parts = max(1, min(most, sum(costs) // _WORTH_A_PROCESS))
    share = sum(costs) / parts
    shares: list[Sequence[tuple[str, bytes]]] = []
    start, cost = 0, 0
    for place, each in enumerate(costs, 1):
        cost += each
        if cost >= share * (len(shares) + 1) or place == len(costs):
            shares.append(files[start:place])
            start = place
    return shares
