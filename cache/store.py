"""The state folder: everything that pybuild keeps on this machine, and the locks that let many builds share it.

images/    an OCI image layout; names in its index.json
trees/     unpacked layers, as overlay lower directories
indexes/   what is in each layer, by diff_id
locks/     empty files to lock, by what they stand for; they may stay for ever
mounts/    what RUN --mount=type=cache keeps
receipts/  what builds saw, so that the same ones need not be done again
tmp/       what is being written; swept when its owner is gone
cache.db   records, file digests
"""

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from cache.db import Database
from cache.files import FileTable
from cache.records import Records
from layers.blob import NewFile, explained
from layers.digest import Digest
from layers.errors import StoreError
from layers.index import IndexFormatError, LayerIndex
from layers.layer import Layer
from layers.layout import Layout
from layers.oci import Descriptor
from layers.view import View

if TYPE_CHECKING:
    from cache.downloads import Downloads
    from cache.mounts import CacheMounts
    from cache.trees import Trees

_FOLDERS = ("images", "trees", "indexes", "locks", "mounts", "tmp")
LENT = "lent"
"""In a temporary folder: what was moved out of the store for a step. Lines of JSON: where it is, where it belongs."""
_LONG_UNWRITTEN = 3600.0
"""Seconds after which a file in tmp/ that nobody holds is left over. Earlier, its writer may be about to lock it."""

_LOOK_AGAIN = 0.02
"""Seconds between two looks at a lock that one may give up to wait for: flock(2) itself can only wait for ever."""

Supply = Callable[[Sequence[Layer]], None]


class Store:
    """An open state folder. Opening costs a few system calls; what is expensive happens when it is asked for."""

    def __init__(self, root: str) -> None:
        """Open the folder, or create it for this user; StoreError if it cannot be written or is another user's."""
        self.root = os.path.abspath(root)
        _create(self.root)
        self.database = Database(self._path("cache.db"))
        self.layout = Layout(self._path("images"), temporary=self._path("tmp"), heals=True)
        self.records = Records(self.database, self.layout)
        self.files = FileTable(self.database)
        self.supply: Supply = _nothing
        """Brings layers that are not here, and that somebody needs; StoreError if nobody has them."""
        self._held: dict[str, int] = {}
        self._indexes: dict[Digest, LayerIndex] = {}

    # What few builds need is imported when it is asked for.

    @cached_property
    def trees(self) -> "Trees":
        """Unpacked layers."""
        from cache.trees import Trees

        return Trees(self._path("trees"), lock=self.lock, scratch=self.scratch, bring=self.bring)

    @cached_property
    def mounts(self) -> "CacheMounts":
        """What RUN --mount=type=cache keeps."""
        from cache.mounts import CacheMounts

        return CacheMounts(self._path("mounts"), lock=self.lock, scratch=self.scratch)

    @cached_property
    def downloads(self) -> "Downloads":
        """What was fetched by its URL."""
        from cache.downloads import Downloads

        return Downloads(self.database, self.layout)

    @property
    def note(self) -> str:
        """One sentence for the person if the cache had to start empty; else empty."""
        return self.database.note

    def close(self) -> None:
        """Remove the temporary folders of this process and let go of the database."""
        for path in list(self._held):
            self.release(path)
        self.database.close()

    @contextmanager
    def lock(self, name: str, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Only one holder of this name at a time, of all threads and builds; others wait.

        The kernel frees the lock of a process that dies. A lock that is taken while it is held by the same thread
        waits for ever. `waiting` is called now and then while another holds the lock, and gives up by raising.
        """
        path = self._path("locks", name.replace("/", "_"))
        with _explained(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while waiting and not _try_lock(fd):
                waiting()
                time.sleep(_LOOK_AGAIN)
            if not waiting:
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            _unlock(fd)

    def temporary(self, prefix: str) -> str:
        """A new private folder, on the same file system as all else here. It lives until this process ends."""
        while True:
            path = self._path("tmp", f"{prefix}-{os.urandom(6).hex()}")
            with _explained(path):
                os.mkdir(path, 0o700)
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.isdir(path):
                self._held[path] = fd
                return path
            os.close(fd)  # a sweep of another process came between mkdir and flock

    def release(self, path: str) -> None:
        """Remove a temporary folder that `temporary` gave; what cannot be removed now is left to a later sweep."""
        from cache.trees import remove

        with suppress(StoreError):
            remove(path)
        _unlock(self._held.pop(path))

    @contextmanager
    def scratch(self, prefix: str) -> Iterator[str]:
        """A temporary folder for the length of a block."""
        path = self.temporary(prefix)
        try:
            yield path
        finally:
            self.release(path)

    def sweep(self) -> None:
        """Remove what builds that are no longer alive have left in tmp/.

        What this process may not remove (files of subordinate ids, outside of their namespace) stays for one that may.
        """
        with os.scandir(self._path("tmp")) as entries:
            leftovers = [entry.path for entry in entries]
        # First those that know what has to be saved from the others.
        for path in sorted(leftovers, key=lambda path: not os.path.exists(os.path.join(path, LENT))):
            with suppress(StoreError, OSError):
                _remove_if_abandoned(path)

    def bring(self, layers: Sequence[Layer]) -> None:
        """Make sure that the blobs of layers are here, several at a time; they come from the `supply`."""
        missing = tuple(layer for layer in layers if not self.layout.has(layer.descriptor))
        if missing:
            self.supply(missing)

    def view(self, layers: Sequence[Layer]) -> View:
        """The root file system that layers make, lowest first. Of a layer whose index is here no more is needed."""
        self.bring([layer for layer in layers if not self.has_index(layer.diff_id)])
        return View([self.index_of(layer.diff_id, layer.descriptor) for layer in layers])

    def has_index(self, diff_id: Digest) -> bool:
        """Whether it is known what a layer holds."""
        return diff_id in self._indexes or os.path.exists(self._path("indexes", diff_id.hex))

    def index_of(self, diff_id: Digest, descriptor: Descriptor) -> LayerIndex:
        """What a layer holds: as it was kept, else read from the layer's blob. The same object for the same layer."""
        index = self._indexes.get(diff_id)
        if index is None:
            index = self._indexes[diff_id] = self._load_index(diff_id, descriptor)
        return index

    def _load_index(self, diff_id: Digest, descriptor: Descriptor) -> LayerIndex:
        path = self._path("indexes", diff_id.hex)
        with suppress(FileNotFoundError, IndexFormatError), open(path, "rb") as file:
            return LayerIndex.parse(file.read())
        # Not at the top: a build that is answered by the cache reads no layer.
        from layers.layer import read_layer

        self.bring([Layer(diff_id, descriptor, 0)])
        if diff_id in self._indexes:  # made when the layer came
            return self._indexes[diff_id]
        with self.layout.open(descriptor) as blob:
            index = read_layer(descriptor, diff_id, blob)
        self.keep_index(diff_id, index)
        return index

    def learn_index(self, diff_id: Digest, index: LayerIndex) -> None:
        """Know what a layer holds, as long as this store is open."""
        self._indexes[diff_id] = index

    def keep_index(self, diff_id: Digest, index: LayerIndex) -> None:
        """Keep what a layer holds, which was found out when the layer was written or fetched.

        It can be found out again, and one that a power cut has left cut off is no JSON: so no disk is waited for.
        """
        self._indexes[diff_id] = index
        with NewFile(self._path("tmp")) as file:
            file.write(index.serialise())
            file.rename_unsynced(self._path("indexes", diff_id.hex))

    def _path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)


def _nothing(layers: Sequence[Layer]) -> None:
    lost = ", ".join(layer.descriptor.digest for layer in layers)
    raise StoreError(f"the store has lost layers: {lost}", hint="build or pull the image again")


def _create(root: str) -> None:
    """Make the folders that are missing; StoreError if that is not allowed or the store is another user's."""
    with _explained(root):
        os.makedirs(root, 0o700, exist_ok=True)
        for name in _FOLDERS:
            with suppress(FileExistsError):
                os.mkdir(os.path.join(root, name), 0o700)
        owner = os.stat(os.path.join(root, "tmp")).st_uid
    if owner != os.geteuid():
        # Two users in one store would leave files that the other can neither change nor remove.
        raise StoreError(
            f"the store {root} belongs to user {owner}, and this is user {os.geteuid()}",
            hint="every user has a store of their own: name another folder with --root or PYBUILD_ROOT",
        )


def _remove_if_abandoned(path: str) -> None:
    from cache.trees import remove

    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _bring_home(os.path.join(path, LENT))
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode) or status.st_mtime < time.time() - _LONG_UNWRITTEN:
            remove(path)
    except BlockingIOError:
        pass  # its builder is alive
    finally:
        os.close(fd)


def _bring_home(note: str) -> None:
    """Move back what a step had borrowed that was killed. Nothing is followed that the step may have put in the way."""
    with suppress(OSError), open(note, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            place, home = json.loads(line)
            above = os.path.dirname(place)
            if os.path.realpath(above) == above and stat.S_ISDIR(os.lstat(place).st_mode) and not os.path.exists(home):
                os.rename(place, home)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(fd: int) -> None:
    # Said explicitly, since a forked process may hold a copy of the descriptor for a long time.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        failure = explained(error, path)
        failure.hint = failure.hint or "the store must be a folder of yours: name another one with --root"
        raise failure from error
