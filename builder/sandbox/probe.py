"""What this place allows a sandbox: each mechanism is really tried, in processes that are thrown away.

Settings of the kernel do not tell: a security module may allow a namespace and then refuse its first mount, a seccomp
filter may refuse anything, and a file system may carry an overlay or not. So the exact sequence of a step is gone
through, and what was refused is told with its errno.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn

from builder.sandbox import idmap, syscalls
from builder.sandbox.mounts import Masks, Overlay, Proc
from builder.sandbox.refusal import name_of, remedy_of
from cache.trees import remove
from layers.data import dataclass
from layers.errors import PybuildError

_NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
_Try = tuple[str, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One mechanism, tried here."""

    mechanism: str
    """In words, such as `user namespace (subordinate ids)`."""
    errno: int = 0
    """What the kernel refused it with; 0 if it works."""
    detail: str = ""
    """Which call was refused, as far as that is known."""
    remedy: str = ""
    """What an administrator can change; empty if it works, or nobody knows."""

    @property
    def works(self) -> bool:
        return not self.errno

    def __str__(self) -> str:
        return f"{self.mechanism}: {'works' if self.works else name_of(self.errno)}"


@dataclass(frozen=True, slots=True)
class Probe:
    """One back-end, tried here."""

    backend: str
    """As `--backend` names it."""
    findings: tuple[Finding, ...]
    """In the order in which a step needs them. What comes after a refusal was not tried."""

    @property
    def works(self) -> bool:
        return all(finding.works for finding in self.findings)

    @property
    def refusal(self) -> Finding | None:
        """What was refused; None if the back-end works."""
        return next((finding for finding in self.findings if not finding.works), None)


def probe_overlay(folder: str) -> Probe:
    """Go through what a step on an overlay does. `folder` is one of the store, and may be written."""
    who = idmap.identity()
    first = "mount namespace" if who.way is idmap.Way.ROOT else f"user namespace ({who.way})"

    def tries() -> Iterator[_Try]:
        yield first, partial(idmap.enter, who)
        yield "overlay on the store", partial(try_overlay, folder)
        yield "process namespace with /proc and a root of its own", partial(_try_namespaces, folder)

    return Probe("overlay", _tried(tries))


def probe_entering() -> Finding | None:
    """Try only whether one gets into the namespaces that an overlay needs; what was refused, if anything."""
    who = idmap.identity()
    findings = _tried(lambda: iter([(f"user namespace ({who.way})", partial(idmap.enter, who))]))
    return Probe("overlay", findings).refusal


def probe_chroot(folder: str) -> Probe:
    """Go through what a step in a changed root does."""

    def tries() -> Iterator[_Try]:
        yield "chroot", partial(os.chroot, folder)
        yield "files of other owners", partial(_try_owner, "/")

    return Probe("chroot", _tried(tries))


def probe_all(folder: str) -> tuple[Probe, ...]:
    """All back-ends that run commands, the best first."""
    return probe_overlay(folder), probe_chroot(folder)


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


def _try_namespaces(folder: str) -> None:
    """As the first process of new namespaces: a /proc, and a new root."""
    with _place_in(folder) as root:
        os.mkdir(f"{root}/proc")
        reader, writer = os.pipe()
        pid = syscalls.clone(_NAMESPACES)
        if pid == 0:
            _first_process(root, writer)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        if text:
            raise OSError(int(text), os.strerror(int(text)))


def _first_process(root: str, writer: int) -> NoReturn:
    try:
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount(root, root, None, syscalls.MS_BIND)
        host = os.open("/", os.O_PATH | os.O_DIRECTORY)
        Proc(f"{root}/proc", Masks()).apply(host)
        os.chdir(root)
        syscalls.pivot_root(".", ".")
        syscalls.umount(".", syscalls.MNT_DETACH)
    except OSError as error:
        os.write(writer, str(error.errno).encode())
    finally:
        os._exit(0)


def _try_owner(folder: str) -> None:
    path = os.path.join(folder, f"probe-{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
    try:
        os.chown(path, 1, 1)
    finally:
        os.unlink(path)


def _tried(tries: Callable[[], Iterator[_Try]]) -> tuple[Finding, ...]:
    """Try in a child process, up to the first refusal."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try(tries, writer)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        findings = tuple(Finding(**json.loads(line)) for line in pipe)
    os.waitpid(pid, 0)
    return findings


def _try(tries: Callable[[], Iterator[_Try]], writer: int) -> NoReturn:
    try:
        with os.fdopen(writer, "w") as pipe:
            for mechanism, act in tries():
                finding = _finding(mechanism, act)
                pipe.write(json.dumps(finding) + "\n")
                pipe.flush()
                if "errno" in finding:
                    break
    finally:
        os._exit(0)


def _finding(mechanism: str, act: Callable[[], object]) -> dict[str, str | int]:
    try:
        act()
    except (OSError, PybuildError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        return {
            "mechanism": mechanism,
            "errno": cause.errno or -1,
            "detail": str(cause),
            "remedy": remedy_of(mechanism, cause),
        }
    return {"mechanism": mechanism}
