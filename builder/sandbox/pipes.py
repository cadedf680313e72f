"""Secrets for commands where nothing can be mounted: named pipes, since a file would be on the disk.

A command that opens the path and reads to the end gets the content, as often as it likes. What it cannot do is ask for
the size, or read anywhere but from the beginning. What it writes is refused or lost.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from builder.sandbox.attached import Document
from layers import inode

_PATIENCE = 1.0
"""In seconds: for how long a command may wait for what will not come by itself."""


def make_pipe(path: str, document: Document) -> str:
    """Make a pipe with the owner and mode of a document; gives its path."""
    os.mkfifo(path, 0o600)
    os.chown(path, document.uid, document.gid)
    os.chmod(path, document.mode)
    return path


@contextmanager
def served(place: str, document: Document, spare: str) -> Iterator[None]:
    """Give those who read the pipe at `place` the document, for the length of a block.

    `spare` is a free path on the same file system, out of the command's reach.
    """
    server = _Server(place, document, spare)
    threads = [threading.Thread(target=work, name="secret") for work in (server.serve, server.look_after)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        server.end(threads)


class _Server:
    def __init__(self, place: str, document: Document, spare: str) -> None:
        self._document = document
        self._spare = spare
        self._name = os.path.basename(place)
        self._folder = os.open(os.path.dirname(place), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pipe = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._awaited: int | None = None
        """The one that `serve` waits at."""
        self._replaced: list[int] = []
        """Those that had the name until lately."""
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def serve(self) -> None:
        """Until another thread calls `end`."""
        while True:
            with self._lock:
                if self._ended.is_set():
                    return
                pipe = self._awaited = self._pipe
            writer = _opened(pipe, os.O_WRONLY)  # returns when there is a reader
            with self._lock:
                self._awaited = None
                if pipe == self._pipe:
                    self._renew()
            self._give(writer)

    def look_after(self) -> None:
        """Until another thread calls `end`: let nobody wait for ever to whom `serve` does not come."""
        while not self._ended.wait(_PATIENCE):
            with self._lock:
                left = [pipe for pipe in self._replaced if pipe != self._awaited]
                self._replaced = [pipe for pipe in self._replaced if pipe == self._awaited]
                # First, so that nobody reads there what the one has written who is let go then.
                self._renew()
                if self._awaited is not None:
                    _refuse_writers(self._awaited)
            for pipe in left:
                # Somebody may have opened it between the one who was served and its loss of the name.
                with suppress(OSError):  # ENXIO: nobody wants to read
                    self._give(_opened(pipe, os.O_WRONLY | os.O_NONBLOCK))
                _refuse_writers(pipe)
                os.close(pipe)

    def end(self, threads: Sequence[threading.Thread]) -> None:
        """Let the threads return that run in this. The command has ended, so there are no other readers."""
        with self._lock:
            self._ended.set()
            reader = _opened(self._pipe if self._awaited is None else self._awaited, os.O_RDONLY | os.O_NONBLOCK)
        for thread in threads:
            thread.join()
        for descriptor in (reader, self._pipe, self._folder, *self._replaced):
            os.close(descriptor)

    def _give(self, writer: int) -> None:
        os.set_blocking(writer, True)
        with os.fdopen(writer, "wb", buffering=0) as stream, suppress(BrokenPipeError):
            if not self._ended.is_set():  # else the reader is ours, and lets the pipe fill up
                stream.write(self._document.data)

    def _renew(self) -> None:
        """Put another pipe in the place of one that has a reader: two readers of one would share what is written."""
        with suppress(FileNotFoundError):
            os.unlink(self._spare)
        pipe = os.open(make_pipe(self._spare, self._document), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        # The command took the name or its folder away, if that fails.
        with suppress(OSError), inode.keeping_times(f"/proc/self/fd/{self._folder}"):
            os.rename(self._spare, self._name, dst_dir_fd=self._folder)
        self._replaced.append(self._pipe)
        self._pipe = pipe


def _refuse_writers(pipe: int) -> None:
    """Who opens a pipe to write waits for a reader. This one is gone at once, so that writing fails with EPIPE."""
    os.close(_opened(pipe, os.O_RDONLY | os.O_NONBLOCK))


def _opened(pipe: int, flags: int) -> int:
    """By the descriptor, whatever the command has done to the name."""
    return os.open(f"/proc/self/fd/{pipe}", flags | os.O_CLOEXEC)
