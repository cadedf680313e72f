"""What a command finds in its tree where nothing can be mounted: devices, names of hosts, and all that RUN attaches.

Everything is put into the tree before the command and taken away after it, so that the tree then holds what the command
changed and nothing of ours. /proc and /sys are empty folders.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from builder.errors import DockerfileError, SandboxError
from builder.sandbox import names
from builder.sandbox.attached import Access, Attached, Blank, Document, HostFile, Stack
from builder.sandbox.covers import Covers
from builder.sandbox.mount_points import NEW, MountPoints
from builder.sandbox.mounts import DEVICES
from builder.sandbox.pipes import make_pipe, served
from builder.sandbox.process import Process
from layers import inode
from layers.entry import Entry, Kind
from layers.view import View

_EVERYBODY, _SHARED = 0o666, 0o1777


@contextmanager
def furnished(
    root: str, view: View, scratch: str, process: Process, attached: Sequence[Attached], *, pipe: bool
) -> Iterator[str]:
    """Have all of it in the tree at `root` for the length of a block; gives where its /dev is.

    `scratch` is a private folder on the tree's file system. With `pipe`, /dev/stdout and /dev/stderr are a named pipe.
    DockerfileError if the image has something at a target that cannot be covered.
    """
    points = MountPoints(view)
    system = {name: points.folder(name, stays=True) for name in ("dev", "proc", "sys")}
    files = {name: points.file(f"etc/{name}") for name in ("resolv.conf", "hosts")}
    ordered = sorted(attached, key=lambda each: points.resolve(each.target))  # a folder before what is in it
    targets = [_place(each, points) for each in ordered]
    room = _Room(root, scratch)
    with ExitStack() as stack:
        _make_missing(root, [*points.upper.values(), *points.stub.values()])
        stack.callback(_remove_stubs, root, list(points.stub.values()))
        stack.callback(room.covers.undo)
        room.covers.put(files["resolv.conf"], room.file("resolv.conf", names.resolver()))
        room.covers.put(files["hosts"], room.file("hosts", names.hosts(process.hostname, process.hosts)))
        for name in ("proc", "sys"):
            room.covers.put(system[name], room.folder(name, 0o555))
        devices = room.covers.put(system["dev"], _devices(room.folder("dev", 0o755), pipe=pipe))
        for each, target in zip(ordered, targets, strict=True):
            room.put(each, target, stack)
        yield devices


class _Room:
    """Puts things that are attached into the tree."""

    def __init__(self, root: str, scratch: str) -> None:
        self._scratch = scratch
        self._count = 0
        self._places: dict[str, str] = {}
        """Where things have come that more than one target may ask for."""
        self.covers = Covers(root, self.folder("covered", 0o700))

    def put(self, attached: Attached, target: str, stack: ExitStack) -> None:
        """Put one thing at its target; `stack` ends what it needs."""
        match attached.source:
            case Stack() as shown:
                self._shown(shown, target)
            case HostFile(path=path):
                self.covers.put(target, path)
            case Blank():
                self.covers.put(target, self.folder("blank", 0o1777))
            case Document(name="") as document:
                place = self.covers.put(target, make_pipe(self._path("secret"), document))
                stack.enter_context(served(place, document, self._path("secret")))
            case Document() as document:
                folder = self.folder("script", 0o755)
                self.file(f"{os.path.basename(folder)}/{document.name}", document.data, document.mode)
                self.covers.put(target, folder)

    def folder(self, name: str, mode: int) -> str:
        """A new folder to be moved."""
        path = self._path(name)
        os.mkdir(path)
        os.chmod(path, mode)
        return path

    def file(self, name: str, data: bytes, mode: int = 0o644) -> str:
        """A new file to be moved."""
        path = f"{self._scratch}/{name}"
        with open(path, "xb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
        return path

    def _shown(self, shown: Stack, target: str) -> None:
        (folder,) = shown.lowers
        thing = f"{folder}/{shown.entry.path}" if shown.entry.path else folder
        first = self._places.get(thing)
        if first is not None:
            self.covers.link(target, first)
        else:
            self._places[thing] = self.covers.put(target, thing, lent=shown.access is Access.WRITE)

    def _path(self, name: str) -> str:
        self._count += 1
        return f"{self._scratch}/{name}-{self._count}"


def _place(attached: Attached, points: MountPoints) -> str:
    if points.is_covered(attached.target):
        return points.inside(attached.target)
    try:
        find = points.folder if attached.is_folder else points.file
        return find(attached.target.lstrip("/"))
    except SandboxError as error:  # not this machine is at fault, but what the instruction asks for
        raise DockerfileError(error.message) from error


def _devices(folder: str, *, pipe: bool) -> str:
    for name, major, minor in DEVICES:
        path = f"{folder}/{name}"
        with suppress(PermissionError):
            os.mknod(path, stat.S_IFCHR, os.makedev(major, minor))
            os.chmod(path, _EVERYBODY)
    if not os.path.lexists(f"{folder}/null"):  # at least something that can be written to
        os.close(os.open(f"{folder}/null", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
        os.chmod(f"{folder}/null", _EVERYBODY)
    os.symlink("null", f"{folder}/stdin")
    if pipe:
        os.mkfifo(f"{folder}/stdout")
        os.chmod(f"{folder}/stdout", _EVERYBODY)
        os.link(f"{folder}/stdout", f"{folder}/stderr")
    for name in ("mqueue", "shm"):
        os.mkdir(f"{folder}/{name}")
        os.chmod(f"{folder}/{name}", _SHARED)
    return folder


def _make_missing(root: str, entries: Iterable[Entry]) -> None:
    """Make what the image lacks, parents first; folders that it has keep their time."""
    for entry in entries:
        place = f"{root}/{entry.path}"
        if entry.mtime_ns != NEW or os.path.lexists(place):
            continue
        with inode.keeping_times(os.path.dirname(place)):
            if entry.kind is Kind.DIRECTORY:
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
            os.chmod(place, entry.mode)


def _remove_stubs(root: str, stubs: Sequence[Entry]) -> None:
    """Remove what was made to be covered, if nothing has come into it; BuildKit does so too (executor/stubs.go)."""
    for entry in reversed(stubs):
        place = f"{root}/{entry.path}"
        above = os.path.dirname(place)
        if entry.mtime_ns != NEW or not os.path.isdir(above) or os.path.realpath(above) != above:
            continue
        with suppress(OSError), inode.keeping_times(above):
            status = os.lstat(place)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(place)  # which fails if there is something in it
            elif stat.S_ISREG(status.st_mode) and not status.st_size:
                os.unlink(place)
