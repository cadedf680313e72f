"""What this place allows a sandbox: each mechanism is really tried, in processes that are thrown away.

Settings of the kernel do not tell: a security module may allow a namespace and then refuse its first mount, a seccomp
filter may refuse anything, and a file system may carry an overlay or not. What was refused is told with its errno.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn

from builder.sandbox import idmap, syscalls
from builder.sandbox.mounts import Overlay
from builder.sandbox.refusal import name_of, remedy_of
from cache.trees import remove
from layers.data import dataclass
from layers.errors import PybuildError

_Try = tuple[str, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A mechanism that was tried, and is not to be had."""

    mechanism: str
    """In words, such as `user namespace (subordinate ids)`."""
    errno: int
    """What the kernel refused it with."""
    remedy: str
    """What an administrator can change; empty if nobody knows."""

    def __str__(self) -> str:
        return f"{self.mechanism}: {name_of(self.errno)}"


def probe_entering() -> Refusal | None:
    """Try whether one gets into the namespaces that an overlay needs; what was refused, if anything."""
    who = idmap.identity()
    return _tried((f"user namespace ({who.way})", partial(idmap.enter, who)))


def probe_chroot(folder: str) -> Refusal | None:
    """Go through what a step in a changed root does, below `folder`; what was refused, if anything."""
    return _tried(("chroot", partial(os.chroot, folder)), ("files of other owners", partial(_try_owner, "/")))


def try_overlay(folder: str) -> None:
    """Mount an overlay with its upper folder below `folder`, and replace a folder in it; OSError if that fails.

    In a mount namespace of our own. Replacing makes the kernel note that the new folder is opaque, which it cannot
    everywhere where it mounts.
    """
    with _place_in(folder) as place:
        for name in ("lower/d", "upper", "work", "merged"):
            os.makedirs(f"{place}/{name}")
        overlay = Overlay((f"{place}/lower",), f"{place}/merged", f"{place}/upper", f"{place}/work")
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            overlay.apply(-1)  # which changes the working directory
        finally:
            os.fchdir(here)
            os.close(here)
        try:
            os.rmdir(f"{place}/merged/d")
            os.mkdir(f"{place}/merged/d")
        finally:
            syscalls.umount(f"{place}/merged", syscalls.MNT_DETACH)


@contextmanager
def _place_in(folder: str) -> Iterator[str]:
    place = os.path.join(os.path.realpath(folder), f"probe-{os.urandom(6).hex()}")
    os.mkdir(place, 0o700)
    try:
        yield place
    finally:
        remove(place)


def _try_owner(folder: str) -> None:
    path = os.path.join(folder, f"probe-{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
    try:
        os.chown(path, 1, 1)
    finally:
        os.unlink(path)


def _tried(*tries: _Try) -> Refusal | None:
    """Try one after the other in a child process; the first refusal."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try(tries, writer)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return Refusal(**json.loads(text)) if text else None


def _try(tries: Iterable[_Try], writer: int) -> NoReturn:
    try:
        with os.fdopen(writer, "w") as pipe:
            refusals = (_refusal(mechanism, act) for mechanism, act in tries)
            if refusal := next(filter(None, refusals), None):
                json.dump(refusal, pipe)
    finally:
        os._exit(0)


def _refusal(mechanism: str, act: Callable[[], object]) -> dict[str, str | int]:
    """The fields of a `Refusal`; none if it works."""
    try:
        act()
    except (OSError, PybuildError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        return {"mechanism": mechanism, "errno": cause.errno or -1, "remedy": remedy_of(mechanism, cause)}
    return {}
