"""What RUN --mount=type=cache keeps between builds: one folder for each cache, or several where steps want their own.

mounts/MAPPING/NAME/about     what the cache is, for people
mounts/MAPPING/NAME/0/data    what steps see; 0 is locked while a step does

As with trees, each mapping of ids has its own. The lock is not on `data` itself: a step may lock that for its purposes.
The kernel frees the lock of a build that dies, so no cache is ever blocked by what is not there any more.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from cache.mount_sharing import Sharing
from cache.trees import mapping
from layers.data import dataclass
from layers.digest import Digest
from layers.errors import StoreError
from layers.owners import give

_USUAL_MODE = 0o755


@dataclass(frozen=True, slots=True)
class CacheKind:
    """What makes two caches the same: steps that say the same get the same folder."""

    id: str
    seed: Digest | None = None
    """The digest of what a new folder begins with; None is nothing."""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    """What a new folder is given; None leaves it as `seed` has it, or else 0755 and root's."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return Digest.of(self.about().encode()).hex

    def about(self) -> str:
        """All of it, as text."""
        mode = None if self.mode is None else f"{self.mode:o}"
        return f"{self.id}\nmode={mode} uid={self.uid} gid={self.gid} seed={self.seed}\n"


class CacheMounts:
    """The caches of one store. Ask only after the namespaces of the build have been entered."""

    def __init__(
        self,
        root: str,
        *,
        lock: Callable[[str], AbstractContextManager[None]],
        scratch: Callable[[str], AbstractContextManager[str]],
    ) -> None:
        """`lock` makes all builds wait for each other; `scratch` gives a folder that is gone after the block."""
        self._root = root
        self._lock = lock
        self._scratch = scratch

    @contextmanager
    def lease(
        self, kind: CacheKind, sharing: Sharing, *, fill: Callable[[str], None], wait: Callable[[], None]
    ) -> Iterator[str]:
        """The folder of a cache for the length of a block.

        `fill` is given a new folder, empty, and puts there what the cache begins with. `wait` is called again and again
        while others have the cache to themselves: it should sleep a little, and may raise. StoreError if the folder
        cannot be made.
        """
        fd, path = self._acquire(kind, sharing, fill, wait)
        try:
            yield os.path.join(path, "data")
        finally:
            with suppress(OSError):
                os.utime(path)  # tells when it was used last
            os.close(fd)

    def _acquire(
        self, kind: CacheKind, sharing: Sharing, fill: Callable[[str], None], wait: Callable[[], None]
    ) -> tuple[int, str]:
        folder = os.path.join(self._root, mapping(), kind.name)
        how = fcntl.LOCK_SH if sharing is Sharing.SHARED else fcntl.LOCK_EX
        while True:
            with self._lock(f"mount-{kind.name}"):  # two builds that want a new one make one
                for number in _numbers(folder):
                    path = os.path.join(folder, str(number))
                    fd = _try_to_lock(path, how)
                    if fd is None:
                        continue
                    if os.path.isdir(os.path.join(path, "data")):
                        return fd, path
                    self._remove(path, fd)
                if sharing is Sharing.PRIVATE or not _numbers(folder):
                    self._make(kind, folder, fill)
                    continue
            wait()

    def _remove(self, path: str, fd: int) -> None:
        """Take away a folder that has nothing to show: a step had moved that to where it needed it, and was killed."""
        with self._scratch("mount") as scratch:
            os.rename(path, os.path.join(scratch, "old"))
        os.close(fd)

    def _make(self, kind: CacheKind, folder: str, fill: Callable[[str], None]) -> None:
        """Add a folder; it appears only when it is whole."""
        with self._scratch("mount") as scratch:
            new = os.path.join(scratch, "new")
            data = os.path.join(new, "data")
            try:
                os.makedirs(data)
                os.chmod(data, _USUAL_MODE)  # whatever our umask is
                fill(data)
                give(data, -1 if kind.uid is None else kind.uid, -1 if kind.gid is None else kind.gid)
                if kind.mode is not None:
                    os.chmod(data, kind.mode)
                os.makedirs(folder, 0o700, exist_ok=True)
                with open(os.path.join(folder, "about"), "w", encoding="utf-8", errors="surrogateescape") as about:
                    about.write(kind.about())
                os.rename(new, os.path.join(folder, str(max(_numbers(folder), default=-1) + 1)))
            except OSError as error:
                raise StoreError(
                    f"the folder of the cache {kind.id!r} cannot be made: {error.strerror}",
                    hint="an owner other than root needs subordinate ids" if kind.uid or kind.gid else "",
                ) from error


def _numbers(folder: str) -> list[int]:
    """The folders that a cache has, in the order in which they came to be."""
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isascii() and name.isdigit())
    except FileNotFoundError:
        return []


def _try_to_lock(path: str, how: int) -> int | None:
    """A descriptor that holds the lock; None if others hold it, or the folder is being removed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        if os.path.exists(path):
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None
