"""A download on its way to becoming a blob, in a file that bears the blob's name: whoever comes after a kill goes on.

The name promises nothing. The bytes are hashed as they are read back, and the whole becomes a blob only if it is the
one of its digest.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from layers.blob import explained
from layers.errors import ImageError
from layers.oci import Descriptor

_AT_ONCE = 8 << 20
"""Bytes that are sent to the disk while others come, so that `commit` has little to wait for."""


class PartialBlob:
    """The one file for a blob that is being fetched, locked by who fetches it."""

    def __init__(self, path: str, target: str, descriptor: Descriptor, *, wait: Callable[[], object]) -> None:
        """Open or make the file `path`, whose bytes are to become `target`.

        While another process has it, `wait` is called between two looks; what it raises ends the waiting.
        """
        self._path = path
        self._target = target
        self._descriptor = descriptor
        self._hash = hashlib.new(descriptor.digest.algorithm)
        self._fd = self._open(wait)
        self.found = os.fstat(self._fd).st_size
        """Bytes that were there already; they count when they have been read back."""
        self.size = 0
        """Bytes that have been hashed."""
        self._sent = 0
        """Bytes that have been sent to the disk."""
        self._done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the file. It stays, unless nothing is in it or it was discarded."""
        try:
            if not self._done and not os.fstat(self._fd).st_size:
                self.discard()
        finally:
            # Said explicitly, since a forked process may hold a copy of the descriptor for a long time.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)

    def read_back(self, size: int) -> bytes:
        """The next bytes of those that were found; nothing when all have been read."""
        try:
            data = os.pread(self._fd, max(0, min(size, self.found - self.size)), self.size)
        except OSError as error:
            raise explained(error, self._path) from error
        self._hash.update(data)
        self.size += len(data)
        return data

    def write(self, data: bytes) -> None:
        """Append; StoreError if there is no room."""
        try:
            left = memoryview(data)
            while left:
                left = left[os.pwrite(self._fd, left, self.size + len(data) - len(left)) :]
        except OSError as error:
            raise explained(error, self._path) from error
        self._hash.update(data)
        self.size += len(data)
        if self.size - self._sent >= _AT_ONCE:
            with suppress(OSError):  # it is but a wish, by which Linux begins to write
                os.posix_fadvise(self._fd, self._sent, self.size - self._sent, os.POSIX_FADV_DONTNEED)
            self._sent = self.size

    def commit(self) -> None:
        """Make a blob of it. ImageError, and nothing is left of it, if it is not the one that was wanted."""
        wanted = self._descriptor
        if (self.size, self._hash.hexdigest()) != (wanted.size, wanted.digest.hex):
            self.discard()
            raise ImageError(
                f"the blob is {wanted.digest.algorithm}:{self._hash.hexdigest()} of {self.size} bytes, "
                f"and should be {wanted.digest} of {wanted.size}",
                hint="where it comes from is damaged: try again",
            )
        folder = os.path.dirname(self._target)
        try:
            os.ftruncate(self._fd, self.size)
            os.fsync(self._fd)
            os.makedirs(folder, exist_ok=True)
            os.rename(self._path, self._target)
            self._done = True
            _sync_folder(folder)
        except OSError as error:
            raise explained(error, self._target) from error

    def discard(self) -> None:
        """Remove it: what came is of no use."""
        self._done = True
        with suppress(OSError):
            os.unlink(self._path)

    def _open(self, wait: Callable[[], object]) -> int:
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise explained(error, self._path) from error
            try:
                if self._lock(fd):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            wait()

    def _lock(self, fd: int) -> bool:
        """Whether the file is ours now. Whoever had it before may have made a blob of it, or swept it away."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            here, there = os.fstat(fd), os.stat(self._path, follow_symlinks=False)
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError as error:
            raise explained(error, self._path) from error
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
