"""What the kernel grants here, found out by doing it: each trial in a process of its own, which ends with it.

Nothing of it lasts: namespaces and mounts die with their process, files are in one temporary folder, which is removed.
"""

import errno
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

from builder.errors import SandboxError
from builder.sandbox import idmap, syscalls
from builder.sandbox.cgroups.places import mounted, parents
from builder.sandbox.choose import entered
from builder.sandbox.probe import try_overlay
from builder.sandbox.refusal import name_of
from cache.store import Store
from layers.data import dataclass, field

_PATIENCE = 20
"""Seconds after which a trial counts as failed: a file system of the network may hang."""
_FICLONE = 0x40049409
"""ioctl_ficlonerange(2)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a trial."""

    number: int = 0
    """The errno; 0 if it worked."""
    words: str = ""
    """What else there is to say."""

    def __bool__(self) -> bool:
        """Whether it worked."""
        return self.number == 0


@dataclass(frozen=True, slots=True)
class Choice:
    """The back-end that a build gets here."""

    backend: str
    """Its name; empty if there is none."""
    words: str = ""
    """What it warns of, or why there is none."""


@dataclass(frozen=True, slots=True)
class Trials:
    """The answers."""

    choice: Choice
    way: idmap.Way
    lacks: str
    """Why there is but one id, if so."""
    namespaces: Answer
    """Users (but for real root) and mounts: everything else inside needs them."""
    inside: dict[str, Answer] = field(default_factory=dict)
    """By name: what was tried in these namespaces."""
    outside: dict[str, Answer] = field(default_factory=dict)
    """By name: what was tried without them."""
    limits: dict[str, Answer] = field(default_factory=dict)
    """By controller: whether steps can be limited; with words about what is in the way."""


def try_all(place: str, backend: str) -> Trials:
    """Try everything; `place` is a folder on the file system of the store, `backend` what builds are told to take."""
    who = idmap.identity()
    with _workshop(place) as (folder, made):
        choice = _choice(folder, backend) if made else Choice("", f"{place} cannot be written: {name_of(made.number)}")
        namespaces = tried(lambda: idmap.enter(who))
        inside = {
            name: tried(partial(_inside, who, act, folder), made if act in _ON_DISK else None)
            for name, act in _INSIDE.items()
            if namespaces
        }
        outside = {
            name: tried(partial(act, folder), made if act in _ON_DISK else None) for name, act in _OUTSIDE.items()
        }
    limits = {controller: _limit(controller) for controller in ("memory", "cpu", "pids")}
    return Trials(choice, who.way, who.lacks, namespaces, inside, outside, limits)


def _choice(folder: str, backend: str) -> Choice:
    """What a build gets, in the way that it gets it."""
    answer = tried(partial(_begin, folder, backend))
    if not answer:
        return Choice("", f"no back-end can be entered: {name_of(answer.number)}")
    name, _, words = answer.words.partition(" ")
    return Choice(name, words)


def _begin(folder: str, backend: str) -> str:
    """Begin as a build does: the name of the back-end and its warning, or no name and what is in the way."""
    with closing(Store(f"{folder}/store")) as store:
        try:
            entry = entered(backend, store)
        except SandboxError as refusal:
            return f" {refusal.message}"
        entry.close()
        return f"{entry.name} {entry.warning}"


def tried(act: Callable[[], str | None], unless: Answer | None = None) -> Answer:
    """Do something in a process of its own, which may have something to say; `unless` is why it cannot be tried."""
    if unless is not None and not unless:
        return unless
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _try(act, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        number, _, words = pipe.read().partition(b" ")
    os.waitpid(pid, 0)
    return Answer(int(number or errno.ETIMEDOUT), words.decode())


def _try(act: Callable[[], str | None], writer: int) -> None:
    """In the child: act, tell, end."""
    signal.alarm(_PATIENCE)
    number, words = 0, ""
    try:
        words = act() or ""
    except OSError as error:
        number = error.errno or errno.EIO
    except SandboxError as error:
        cause = error.__cause__
        number = getattr(cause, "errno", None) or errno.EPERM
        words = error.hint
    finally:
        os.write(writer, f"{number} {words}".encode())
        os._exit(0)


@contextmanager
def _workshop(place: str) -> Iterator[tuple[str, Answer]]:
    """A temporary folder, and whether it could be made."""
    try:
        folder = tempfile.mkdtemp(prefix=".pybuild-doctor-", dir=place)
    except OSError as error:
        yield "", Answer(error.errno or errno.EIO)
        return
    try:
        yield folder, Answer()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _inside(who: idmap.Identity, act: Callable[[str], None], folder: str) -> None:
    idmap.enter(who)
    act(folder)


def _new_processes(_: str) -> None:
    """The table of the processes of a namespace of its own."""
    pid = syscalls.clone(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS)
    if pid == 0:
        os._exit(_errno_of(lambda: syscalls.mount("proc", "/proc", "proc")))
    _raise(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _any_processes(_: str) -> None:
    syscalls.unshare(syscalls.CLONE_NEWPID)


def _no_network(_: str) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)


def _chroot(folder: str) -> None:
    os.chroot(folder or "/")


def _own(folder: str) -> None:
    """Files of other users."""
    os.mkdir(f"{folder}/owned")
    os.chown(f"{folder}/owned", 1, 1)


def _reflink(folder: str) -> None:
    with open(f"{folder}/from", "wb+") as source, open(f"{folder}/to", "wb") as target:
        source.write(b"x" * 4096)
        source.flush()
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())


def _filter(_: str) -> None:
    _raise(0 if syscalls.can_filter() else errno.ENOSYS)


def _notify(_: str) -> None:
    _raise(0 if syscalls.can_notify() else errno.ENOSYS)


_INSIDE: dict[str, Callable[[str], None]] = {
    "processes": _any_processes,
    "proc": _new_processes,
    "overlay": try_overlay,
    "network": _no_network,
}
_OUTSIDE: dict[str, Callable[[str], None]] = {
    "chroot": _chroot,
    "owners": _own,
    "filter": _filter,
    "notify": _notify,
    "reflink": _reflink,
}
_ON_DISK = frozenset({try_overlay, _own, _reflink})


def _limit(controller: str) -> Answer:
    try:
        parents([controller], mounted())
    except SandboxError as error:
        return Answer(errno.EPERM, error.hint)
    return Answer()


def _errno_of(act: Callable[[], object]) -> int:
    try:
        act()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _raise(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))
