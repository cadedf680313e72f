"""One blob on its way to disk or from it: hashed as its bytes pass, so that no wrong byte gets by."""

import errno
import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from layers.digest import Digest
from layers.errors import ImageError, StoreError
from layers.oci import Descriptor

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ = 1 << 20
"""Bytes that are read and hashed at a time."""

_HINTS: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: "the disk is full: free some space, or use another place with --root",
        errno.EDQUOT: "your share of the disk is used up: free some space, or use another place with --root",
        errno.EFBIG: "a limit on the size of files (ulimit -f) is in the way",
        errno.EROFS: "the file system is read-only: use another place with --root",
        errno.EACCES: "it belongs to somebody else: use another place with --root",
        errno.EPERM: "it belongs to somebody else: use another place with --root",
        errno.EIO: "the disk may be damaged: see the kernel's log",
    }
)


def explained(error: OSError, path: str) -> StoreError:
    """What a failed system call means for the store, and what to do about it."""
    return StoreError(f"{path}: {(error.strerror or str(error)).lower()}", hint=_HINTS.get(error.errno or 0, ""))


class NewFile:
    """A file without a name that anybody looks for, until it is renamed; else it is gone after the `with`.

    It is locked as long as it is written, so that who sweeps up after killed builds can tell that it is alive.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, f".part-{os.urandom(8).hex()}")
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            raise explained(error, folder) from error
        self._renamed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, and remove it if it has not been renamed."""
        os.close(self._fd)
        if not self._renamed:
            with suppress(OSError):
                os.unlink(self._path)

    def write(self, data: bytes) -> None:
        """Append all of it; StoreError if there is no room."""
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            raise explained(error, self._path) from error

    def rename(self, target: str) -> None:
        """Give the file its name, for ever: its bytes and the name are on disk when this returns."""
        self.place(target)
        sync_folder(os.path.dirname(target))

    def place(self, target: str) -> None:
        """Give the file its name once its bytes are on disk; that the name is too is for the caller to see to."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise explained(error, target) from error
        self.rename_unsynced(target)

    def rename_unsynced(self, target: str) -> None:
        """Give the file its name without waiting for the disk: after a power cut it may be there and hold less."""
        try:
            os.rename(self._path, target)
            self._renamed = True
        except OSError as error:
            raise explained(error, target) from error


def sync_folder(path: str) -> None:
    """Bring the names in a folder to the disk."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise explained(error, path) from error


class BlobWriter:
    """A blob in the making: it is hashed as it is written, and gets its name by `commit`."""

    def __init__(self, folder: str, path: Callable[[Digest], str]) -> None:
        """`folder` holds the temporary file; `path` tells where a blob belongs."""
        self._path = path
        self._hash = hashlib.sha256()
        self._size = 0
        self._file = NewFile(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; what is not committed is removed."""
        self._file.close()

    @contextmanager
    def removed_on_error(self) -> Iterator[None]:
        """A block that has to succeed for the blob to be of use; it stays open, for whoever commits it."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    @property
    def digest(self) -> Digest:
        """Of what has been written so far."""
        return Digest(f"sha256:{self._hash.hexdigest()}")

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def write(self, data: bytes) -> None:
        """Append to the blob."""
        self._hash.update(data)
        self._size += len(data)
        self._file.write(data)

    def commit(self, expected: Descriptor | None = None) -> tuple[Digest, int]:
        """Keep the blob; a blob of the same digest is replaced, which heals one that was damaged.

        ImageError, and nothing is kept, if the bytes are not those of the expected descriptor.
        """
        digest = self.digest
        if expected and (expected.size, expected.digest) != (self._size, digest):
            raise ImageError(
                f"the blob is {digest} of {self._size} bytes, and should be {expected.digest} of {expected.size}",
                hint="where it comes from is damaged, or cut it off: try again",
            )
        self._file.rename(self._path(digest))
        return digest, self._size

    def place(self) -> None:
        """As `commit`, but for the name, which is not on disk yet (`Layout.sync_names`)."""
        self._file.place(self._path(self.digest))


def open_verified(path: str, descriptor: Descriptor, *, discard: bool = False) -> BinaryIO:
    """A stream of the blob in this file, whose reading is its verifying: StoreError at the end, or on closing.

    With `discard` a damaged file is removed, so that whoever needs the blob next makes or fetches it again.
    """
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - the reader closes it
    except FileNotFoundError as error:
        raise StoreError(
            f"blob {descriptor.digest} is not in the store", hint="build or pull the image again"
        ) from error
    except OSError as error:
        raise explained(error, path) from error
    return _VerifiedReader(_VerifiedFile(file, descriptor, discard=discard), _READ)


class _VerifiedFile(io.RawIOBase):
    """A blob's bytes as they are read, and a StoreError instead of the end if they are wrong."""

    def __init__(self, file: io.FileIO, descriptor: Descriptor, *, discard: bool) -> None:
        self._file = file
        self._descriptor = descriptor
        self._discard = discard
        self._hash = hashlib.new(descriptor.digest.algorithm)
        self._left = descriptor.size
        self._at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        try:
            size = self._file.readinto(buffer) or 0
        except OSError as error:
            raise explained(error, str(self._file.name)) from error
        self._hash.update(memoryview(buffer)[:size])
        self._left -= size
        if self._left < 0 or (size == 0 and memoryview(buffer)):
            self._check()
        return size

    def finish(self) -> None:
        """Read and check what nobody has read."""
        block = bytearray(_READ)
        while not self._at_end:
            self.readinto(block)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _check(self) -> None:
        self._at_end = True
        if self._left or self._hash.hexdigest() != self._descriptor.digest.hex:
            done = "it has been removed:" if self._discard and self._remove() else f"remove {self._file.name}, then"
            raise StoreError(
                f"blob {self._descriptor.digest} in the store is damaged", hint=f"{done} build or pull the image again"
            )

    def _remove(self) -> bool:
        """Remove the file, unless another process has put a sound one in its place."""
        path = str(self._file.name)
        with suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(self._file.fileno())):
                os.unlink(path)
            return True
        return False


class _VerifiedReader(io.BufferedReader):
    """The buffer over a blob. Closing reads to the end, so that nobody has used bytes which turn out to be wrong."""

    raw: _VerifiedFile

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, ImageError):  # the bytes are not used any more
            self.raw.close()
        # Where the bytes made no sense, it may be since they are damaged: closing tells.
        self.close()

    def close(self) -> None:
        """StoreError if the blob is damaged; it is closed all the same."""
        try:
            if not self.closed:
                self.raw.finish()
        finally:
            super().close()
