"""The processes of a step, as the recorder reaches them: their memory, the names they use, and who they are.

The recorder stands with its root in the root of the step, and with its working directory in a /proc that has the
processes as it numbers them. So a name of a process becomes one that the kernel resolves for us just as for it: an
absolute one stays as it is, and a relative one begins with `PID/cwd`.
"""

import errno
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from builder.sandbox import syscalls
from builder.sandbox.recorder.identity import Identity
from builder.sandbox.recorder.program import RLIMIT_LOCKS

AT_FDCWD = -100

_MEMORIES = 64
"""How many memories are open at a time."""
_PAGE = 4096
_FIRST_READ = 256
"""Few names are longer."""
_LABEL = 0x7079_6275 << 32
"""The first of the values by which a limit says who a process is."""
_CAP_MKNOD = 27
_CAP_SYS_PTRACE = 1 << 19

_OWN_FOLDERS = {b"/proc/self/": b"", b"/proc/thread-self/": b"", b"/dev/fd/": b"fd/"}
_OWN_FILE = {b"/dev/stdin": b"%d/fd/0", b"/dev/stdout": b"%d/fd/1", b"/dev/stderr": b"%d/fd/2"}
"""What each process has of its own; in the step's /proc we have nothing."""


class Status(NamedTuple):
    """What proc(5) tells of a process that no other place does."""

    umask: int
    capabilities: int
    """The effective ones."""
    gains_nothing: bool
    """no_new_privs is set."""

    @property
    def may_make_devices(self) -> bool:
        """Whether it has CAP_MKNOD."""
        return bool(self.capabilities >> _CAP_MKNOD & 1)


class Tasks:
    """The processes that run in one step. Who a process is, it inherits from its parent, and keeps through execve(2).

    The kernel does that for us, since it is written where it inherits too: in a resource limit that has no meaning.
    """

    def __init__(self, first: Identity) -> None:
        """`first` is who the first process is."""
        self._identities = [first]
        self._labels = {first: 0}
        self._memories: dict[int, int] = {}
        self._guarded: set[int] = set()
        """Those of which we have the memory, but only by the right to trace others."""
        self._base = -1
        self._root: tuple[int, int] | None = None

    def identity(self, pid: int) -> Identity:
        """Who a process is."""
        label = resource.prlimit(pid, RLIMIT_LOCKS)[0] - _LABEL
        return self._identities[label if 0 <= label < len(self._identities) else 0]

    def become(self, pid: int, identity: Identity) -> None:
        """Let a process be somebody else."""
        label = self._labels.setdefault(identity, len(self._identities))
        if label == len(self._identities):
            self._identities.append(identity)
        _, hard = resource.prlimit(pid, RLIMIT_LOCKS)
        resource.prlimit(pid, RLIMIT_LOCKS, (_LABEL + label, hard))

    def status(self, pid: int) -> Status:
        """Read what proc(5) has of it."""
        with open(b"%d/status" % pid, encoding="utf-8", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file)
        return Status(int(fields["Umask"], 8), int(fields["CapEff"], 16), fields["NoNewPrivs"].strip() == "1")

    @contextmanager
    def umask_of(self, pid: int) -> Iterator[Status]:
        """Make files as the process would."""
        status = self.status(pid)
        before = os.umask(status.umask)
        try:
            yield status
        finally:
            os.umask(before)

    # Names

    def name(self, pid: int, folder: int, path: bytes) -> bytes:
        """A path of a process as ours, for this call only; `folder` is a descriptor of its, or AT_FDCWD.

        An empty path is the folder.
        """
        if self._root is not None:
            self._share_root(pid)
        if path[:1] == b"/":
            start, path = _own(pid, path)
            if not start:
                return path
        else:
            start = b"%d/cwd" % pid if folder == AT_FDCWD else b"%d/fd/%d" % (pid, folder)
        start = self._reach(pid, start)
        return b"%b/%b" % (start, path) if path else start

    def _reach(self, pid: int, link: bytes) -> bytes:
        """A link of /proc/PID, or a descriptor of where it leads.

        The kernel lets us follow it if we could trace the process: it must have no more rights than we, and not be
        closed to others, as sudo is. The right to trace anybody opens all, but it would open what a name leads to
        after the link as well.
        """
        self._memory(pid)
        if pid not in self._guarded:
            return link
        if self._base >= 0:
            os.close(self._base)
            self._base = -1
        with _tracing():
            self._base = os.open(link, os.O_PATH | os.O_CLOEXEC)
        return b"self/fd/%d" % self._base

    def expect_roots(self) -> None:
        """From now on processes may have different roots."""
        if self._root is None:
            self._root = _identify(b"/")

    def _share_root(self, pid: int) -> None:
        root = self._reach(pid, b"%d/root" % pid)
        found = _identify(root)
        if found != self._root:
            os.chroot(root)  # which leaves the working directory where it is
            self._root = found

    # Memory

    def read(self, pid: int, address: int, size: int) -> bytes:
        """So many bytes of its memory; OSError EFAULT if they are not there."""
        data = self._peek(pid, address, size)
        if len(data) < size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return data

    def text(self, pid: int, address: int) -> bytes:
        """The bytes from an address to the first that is 0; OSError as the kernel would have it."""
        text = b""
        while len(text) < _PAGE:  # PATH_MAX
            left_of_page = _PAGE - (address + len(text)) % _PAGE
            piece = self._peek(pid, address + len(text), min(left_of_page, _FIRST_READ))
            end = piece.find(b"\0")
            if end >= 0:
                return text + piece[:end]
            text += piece
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    def write(self, pid: int, address: int, data: bytes) -> None:
        """Write to its memory; OSError EFAULT if that is impossible."""
        try:
            os.pwrite(self._memory(pid), data, address)
        except (OSError, OverflowError) as error:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from error

    def forget_memories(self) -> None:
        """Close them all: a process is about to get another one."""
        for descriptor in self._memories.values():
            os.close(descriptor)
        self._memories.clear()
        self._guarded.clear()

    def _peek(self, pid: int, address: int, size: int) -> bytes:
        """Some bytes, at least one."""
        try:
            data = os.pread(self._memory(pid), size, address)
            if not data:  # of a process that was there before
                os.close(self._memories.pop(pid))
                data = os.pread(self._memory(pid), size, address)
        except (OSError, OverflowError):
            data = b""
        if not data:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return data

    def _memory(self, pid: int) -> int:
        descriptor = self._memories.get(pid)
        if descriptor is None:
            if len(self._memories) == _MEMORIES:
                self.forget_memories()
            self._guarded.discard(pid)
            try:
                descriptor = os.open(b"%d/mem" % pid, os.O_RDWR | os.O_CLOEXEC)
            except PermissionError:  # also where Yama lets only parents do this
                with _tracing():
                    descriptor = os.open(b"%d/mem" % pid, os.O_RDWR | os.O_CLOEXEC)
                self._guarded.add(pid)
            self._memories[pid] = descriptor
        return descriptor


def _own(pid: int, path: bytes) -> tuple[bytes, bytes]:
    """Where a process has something of its own, and the path from there; or nothing, and the absolute path.

    A path that goes up again could lead to the processes of others, in our /proc instead of its.
    """
    if path[:5] in {b"/proc", b"/dev/"} and b".." not in path:
        if path in _OWN_FILE:
            return _OWN_FILE[path] % pid, b""
        for start, below in _OWN_FOLDERS.items():
            if path.startswith(start):
                return _own_link(pid, below + path[len(start) :])
    return b"", path


def _own_link(pid: int, path: bytes) -> tuple[bytes, bytes]:
    """The same, for a path below /proc/PID: only what is there for following is followed."""
    name, _, rest = path.partition(b"/")
    if name in {b"cwd", b"root"}:
        return b"%d/%b" % (pid, name), rest
    number, _, rest = rest.partition(b"/")
    if name == b"fd" and number.isdigit():
        return b"%d/fd/%b" % (pid, number), rest
    return b"", b"/proc/self/" + path


def _identify(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


@contextmanager
def _tracing() -> Iterator[None]:
    """With the right to trace others."""
    effective, permitted = syscalls.capabilities()
    syscalls.set_capabilities(effective | (permitted & _CAP_SYS_PTRACE), permitted)
    try:
        yield
    finally:
        syscalls.set_capabilities(effective, permitted)


def unpack_ids(data: bytes, *, narrow: bool) -> tuple[int, ...]:
    """An array of ids, of 16 bits each or of 32."""
    return struct.unpack(f"={len(data) // (2 if narrow else 4)}{'H' if narrow else 'I'}", data)


def pack_ids(ids: tuple[int, ...], *, narrow: bool) -> bytes:
    """The reverse; what does not fit into 16 bits is 65534, as in the kernel."""
    if narrow:
        return struct.pack(f"={len(ids)}H", *(each if each < 1 << 16 else 65534 for each in ids))
    return struct.pack(f"={len(ids)}I", *ids)
