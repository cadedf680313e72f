"""Secrets for commands where nothing can be mounted: named pipes, since a file would be on the disk.

A command that opens the path and reads to the end gets the content, as often as it likes. What it cannot do is ask for
the size, or read anywhere but from the beginning.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builder.sandbox.attached import Document
from layers import inode


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
    thread = threading.Thread(target=server.serve, name="secret")
    thread.start()
    try:
        yield
    finally:
        server.end(thread)


class _Server:
    def __init__(self, place: str, document: Document, spare: str) -> None:
        self._document = document
        self._spare = spare
        self._name = os.path.basename(place)
        self._folder = os.open(os.path.dirname(place), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pipe = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._ended = False

    def serve(self) -> None:
        """Until another thread calls `end`."""
        while True:
            # By the descriptor, whatever the command has done to the name. Returns when there is a reader.
            writer = os.open(f"/proc/self/fd/{self._pipe}", os.O_WRONLY | os.O_CLOEXEC)
            with os.fdopen(writer, "wb", buffering=0) as stream, suppress(BrokenPipeError):
                with self._lock:
                    if self._ended:
                        return
                    self._renew()
                stream.write(self._document.data)

    def end(self, thread: threading.Thread) -> None:
        """Let `serve` return, which runs in this thread. The command has ended, so there are no other readers."""
        with self._lock:
            self._ended = True
            reader = os.open(f"/proc/self/fd/{self._pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        thread.join()
        for descriptor in (reader, self._pipe, self._folder):
            os.close(descriptor)

    def _renew(self) -> None:
        """Put another pipe in the place of one that has a reader: two readers of one would share what is written."""
        with suppress(FileNotFoundError):
            os.unlink(self._spare)
        pipe = os.open(make_pipe(self._spare, self._document), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        # The command took the name or its folder away, if that fails.
        with suppress(OSError), inode.keeping_times(f"/proc/self/fd/{self._folder}"):
            os.rename(self._spare, self._name, dst_dir_fd=self._folder)
        os.close(self._pipe)
        self._pipe = pipe
