"""Tars as streams of entries: written in one deterministic form, read in all that are met (`layers.tar_header`)."""

import io
import os
from collections.abc import Callable, Iterator
from errno import ELOOP
from typing import TYPE_CHECKING, BinaryIO, cast

from layers.entry import FILE, WHITEOUT_PREFIX, Content, Entry
from layers.errors import PybuildError
from layers.tar_header import BLOCK, ZEROS, Extensions, Header, TarError, decode, encode

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["TarError", "TarWriter", "read_tar"]

CHUNK = 1 << 20
"""Bytes of content that are in memory at a time."""

# Without O_NONBLOCK, a fifo that has taken the place of a file would hold the build for ever.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class TarWriter:
    """Writes entries as a tar, in the order in which they come, by calls of `write`.

    Owners are numbers only, times whole seconds, and nothing of this machine gets in.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def add(self, entry: Entry, content: Content = None) -> None:
        """Write an entry and, for a FILE, its `size` bytes of content.

        PybuildError for a name that a layer cannot have, and for content that cannot be read or has not that size:
        what is written so far is then no tar. A name that begins with `.wh.` is taken only of a whiteout, which is
        without content altogether; a real file, however empty, comes with its path or its bytes.
        """
        _check_name(entry, content)
        header, padding = encode(entry), ZEROS[: -entry.size % BLOCK]
        if entry.kind is not FILE:
            self._write(header)
        elif isinstance(content, str) and entry.size < CHUNK:
            self._write(b"".join((header, _read_small(content, entry.size), padding)))
        else:
            self._write(header)
            for data in read_content(entry, content):
                self._write(data)
            self._write(padding)

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(ZEROS * 2)


def read_content(entry: Entry, content: Content) -> Iterator[bytes]:
    """The bytes of a FILE, in pieces of at most 1 MiB; PybuildError if they cannot be read, or are not `size` bytes."""
    if isinstance(content, str):
        return iter((_read_small(content, entry.size),)) if entry.size < CHUNK else _read_file(content, entry.size)
    if content is None or isinstance(content, bytes):
        data = content or b""
        if len(data) != entry.size:
            raise PybuildError(f"{entry.path!r} has {len(data)} bytes of content and a size of {entry.size}")
        return iter((data,))
    return _read_stream(content, entry)


def _read_small(path: str, size: int) -> bytes:
    """A file in one piece: most are small, and have to be read in as few steps as can be."""
    try:
        fd = os.open(path, _OPEN_FLAGS)
        try:
            data = os.read(fd, size + 1)  # a byte more than there should be shows a file that has grown
            while len(data) < size and (more := os.read(fd, size + 1 - len(data))):
                data += more
        finally:
            os.close(fd)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) != size:
        raise _changed(path)
    return data


def _read_file(path: str, size: int) -> Iterator[bytes]:
    try:
        fd = os.open(path, _OPEN_FLAGS)
        try:
            yield from _read_descriptor(fd, path, size)
        finally:
            os.close(fd)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> PybuildError:
    if error.errno == ELOOP:
        return _changed(path)
    return PybuildError(f"{path} cannot be read: {(error.strerror or '').lower()}")


def _read_descriptor(fd: int, path: str, size: int) -> Iterator[bytes]:
    left = size
    while True:
        wanted = min(left + 1, CHUNK)  # a byte more than there should be shows a file that has grown
        data = os.read(fd, wanted)
        left -= len(data)
        if left < 0 or (left and not data):
            raise _changed(path)
        yield data
        if left == 0 and len(data) < wanted:
            return


def _read_stream(stream: BinaryIO, entry: Entry) -> Iterator[bytes]:
    left = entry.size
    while left:
        data = stream.read(min(left, CHUNK))
        if not data:
            raise PybuildError(f"the content of {entry.path!r} ends {left} bytes before its size")
        yield data
        left -= len(data)


def _check_name(entry: Entry, content: Content) -> None:
    path = entry.path
    if path.startswith("/") or (".." in path and ".." in path.split("/")):
        raise PybuildError(f"{path!r} leads out of the layer")
    if WHITEOUT_PREFIX not in path or not path.rpartition("/")[2].startswith(WHITEOUT_PREFIX):
        return
    is_whiteout = content is None and entry.kind is FILE and entry.mode == entry.size == 0
    if not is_whiteout:
        raise PybuildError(
            f"{path!r} cannot be stored in a layer: names that begin with {WHITEOUT_PREFIX} stand for deleted files",
            hint="rename the file, remove it in the same step, or leave it out by .dockerignore",
        )


def _changed(path: str) -> PybuildError:
    return PybuildError(f"{path} changed while it was read", hint="find out what writes to it, then build again")


def read_tar(stream: BinaryIO) -> Iterator[tuple[Entry, BinaryIO]]:
    """The entries of a tar, each with its content, which can be read until the next entry is asked for.

    Paths and the targets of hard links are normalised; `..` stays in them, and it is for others to refuse it. TarError
    for anything that is no tar. Nothing is read beyond the end of the archive. The stream is read in small pieces:
    give a buffered one.
    """
    extensions = Extensions()
    while block := _read(stream, BLOCK):
        if block == ZEROS:
            break
        if len(block) < BLOCK:
            raise TarError("the tar is cut off within a header")
        header = Header.parse(block)
        if extensions.is_one(header):
            body = _Body(stream, extensions.reserve(header))
            extensions.add(header, body.read())
        else:
            entry = decode(header, extensions.take())
            body = _Body(stream, entry.size)
            yield entry, cast(BinaryIO, body)
        body.skip()
    if extensions:
        raise TarError("the tar ends where an entry should be")


def _read(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, fewer only at the end of the stream."""
    data = stream.read(size)
    if len(data) == size:
        return data
    pieces = [data]
    left = size - len(data)
    while pieces[-1] and left:
        pieces.append(stream.read(left))
        left -= len(pieces[-1])
    return b"".join(pieces)


class _Body(io.RawIOBase):
    """The content of one entry."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size
        self._padding = -size % BLOCK

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all; fewer only at the end of the content."""
        if size is None or size < 0 or size > self._left:
            size = self._left
        if size <= CHUNK:
            return self._take(size)
        # The size is only what a header claims: memory is taken as bytes really come.
        chunks = []
        while size:
            chunks.append(self._take(min(size, CHUNK)))
            size -= len(chunks[-1])
        return b"".join(chunks)

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def skip(self) -> None:
        """Move the stream to the next header. Some tars end without the padding of their last file."""
        while self._left:
            self._take(min(self._left, CHUNK))
        _read(self._stream, self._padding)

    def _take(self, size: int) -> bytes:
        data = _read(self._stream, size)
        self._left -= len(data)
        if len(data) < size:
            self._left = 0
            raise TarError("the tar is cut off within the content of a file")
        return data
