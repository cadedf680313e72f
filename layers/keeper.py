"""Brings blobs to the disk while their makers go on.

To wait for a disk takes longer than to make a small layer. So a thread does it, for all blobs at once that it was given
meanwhile. Whoever asks the layout for such a blob waits until then.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from queue import SimpleQueue

from layers.blob import BlobWriter
from layers.data import dataclass
from layers.layout import Layout
from layers.outcome import Outcome

MOST_WAITING = 64
"""Blobs that are given and not on disk yet: each is an open file."""


@dataclass(frozen=True, slots=True)
class _Given:
    blob: BlobWriter
    then: Callable[[], object]
    held: AbstractContextManager[object]
    kept: Outcome[None]

    def end(self, failure: Exception | None) -> None:
        """Do the rest, when the blob is on disk or cannot be."""
        self.blob.close()
        with self.held:
            failure = failure or _failure(self.then)
        if failure:
            self.kept.set_exception(failure)
        else:
            self.kept.set_result(None)


class Keeper:
    """The thread, from the first blob to `close`. Any thread may give blobs to it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._given: SimpleQueue[_Given | None] = SimpleQueue()
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, blob: BlobWriter, then: Callable[[], object], held: AbstractContextManager[object]) -> Outcome[None]:
        """Take over a complete blob. When it is on disk `then` is called, and when that returns the outcome is set.

        What goes wrong before is its exception. In either case `held` is left just before.
        """
        self._room.acquire()
        given = _Given(blob, then, held, Outcome())
        self._layout.await_blob(blob.digest, given.kept)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="keeper")
                self._thread.start()
        self._given.put(given)
        return given.kept

    def close(self) -> None:
        """Wait until everything is on disk, and end the thread."""
        if self._thread:
            self._given.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        ended = False
        while not ended:
            batch = [self._given.get()]
            while not self._given.empty():
                batch.append(self._given.get())
            ended = None in batch
            self._keep([given for given in batch if given])

    def _keep(self, batch: Sequence[_Given]) -> None:
        failures = [_failure(given.blob.place) for given in batch]
        if None in failures:
            unsynced = _failure(self._layout.sync_names)
            failures = [failure or unsynced for failure in failures]
        for given, failure in zip(batch, failures, strict=True):
            given.end(failure)
            self._room.release()


def _failure(act: Callable[[], object]) -> Exception | None:
    """What goes wrong with something: for whoever waits for it."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - it is raised again where it is awaited
        return error
    return None
