"""One cgroup of ours: made, joined, asked, removed; and the removal of those whose makers are gone.

Each is locked as long as its maker lives: a lock belongs to an open file, and ends with it, however that comes about.
"""

import contextlib
import errno
import fcntl
import os
import time
from typing import Self

_PREFIX = "pybuild-"
_PATIENCE = 1.0
"""Seconds in which the kernel should have forgotten processes that have ended."""


class Group:
    """A cgroup that belongs to this process."""

    def __init__(self, folder: str, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    @classmethod
    def make(cls, parent: str) -> Self:
        """A new one; OSError if that is refused."""
        while True:
            folder = f"{parent}/{_PREFIX}{os.urandom(6).hex()}"
            os.mkdir(folder)
            lock = _locked(folder)
            if lock is not None:
                return cls(folder, lock)
            # Somebody sweeps, and was faster.

    @property
    def procs(self) -> str:
        """Who writes 0 there is in it."""
        return f"{self.folder}/cgroup.procs"

    def join(self) -> None:
        """Move this process into it."""
        self.write("cgroup.procs", "0")

    def write(self, name: str, text: str) -> None:
        """Write one of its files; OSError, ENOENT if there is no such file."""
        with open(f"{self.folder}/{name}", "r+b", buffering=0) as file:
            file.write(text.encode())

    def read(self, name: str) -> str:
        """What one of its files says; nothing if there is no such file."""
        try:
            with open(f"{self.folder}/{name}", encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""

    def count(self, name: str, key: str) -> int:
        """A number in a file of keys and numbers; 0 if it is not there."""
        rows = dict(line.split(" ", 1) for line in self.read(name).splitlines() if " " in line)
        return int(rows.get(key, 0))

    def remove(self) -> None:
        """Remove it once its processes are gone. Should it not go, it is swept later."""
        deadline = time.monotonic() + _PATIENCE
        while not _removed(self.folder) and time.monotonic() < deadline:
            time.sleep(0.002)
        os.close(self._lock)


def sweep(parent: str) -> None:
    """Remove the cgroups of builds that were killed."""
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            folder = f"{parent}/{name}"
            lock = _locked(folder) if name.startswith(_PREFIX) else None
            if lock is not None:
                _removed(folder)
                os.close(lock)


def _locked(folder: str) -> int | None:
    """A descriptor that holds the lock of a cgroup; None if another process has it, or removed the cgroup."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _removed(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except OSError as error:
        return error.errno not in {errno.EBUSY, errno.EINTR}
    return True
