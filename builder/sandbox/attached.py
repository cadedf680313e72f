"""What a step sees beside its image: folders and files of the host, of other layers, or in memory.

Each is a value. `mounts_of` says what has to be mounted for it, in two parts: what is made ready while the process
still sees the host, in folders below the step's scratch folder, and what then appears in the step.
"""

from collections.abc import Sequence
from enum import Enum, auto

from builder.errors import DockerfileError, SandboxError
from builder.sandbox.mount_points import MountPoints
from builder.sandbox.mounts import OVERLAY_LIMIT, Bind, Memory, MemoryFile, Mount, MountPoint, Overlay, Tmpfs
from builder.sandbox.syscalls import MS_NOSUID, MS_RDONLY
from layers.data import dataclass, field
from layers.entry import Entry, Kind


class Access(Enum):
    """What a step may do with what it sees."""

    READ = auto()
    WRITE = auto()
    WRITE_AND_FORGET = auto()
    """It may write, and all that it wrote is gone after it."""


@dataclass(frozen=True, slots=True)
class Stack:
    """What stacked folders of the host have at one path."""

    lowers: tuple[str, ...]
    """Absolute, the lowest first; none at all is an empty folder."""
    entry: Entry
    """What stands there: its path, which no symlink is part of, and whether it is a folder."""
    access: Access = Access.READ


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file, socket or other thing of the host that is no folder."""

    path: str


@dataclass(frozen=True, slots=True)
class Document:
    """A file that exists in memory only, and for this step only; it can be read, not written."""

    data: bytes = field(repr=False)
    mode: int = 0o400
    uid: int = 0
    gid: int = 0
    name: str = ""
    """Not empty: the target is a folder, and the file of this name the only thing in it."""


@dataclass(frozen=True, slots=True)
class Blank:
    """An empty folder in memory."""

    size: int | None = None
    """Most bytes that it holds; None is as the kernel likes it, half of the memory."""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Attached:
    """One thing that a step sees at a place of its own."""

    target: str
    """An absolute path in the step."""
    source: Stack | HostFile | Document | Blank

    @property
    def is_folder(self) -> bool:
        if isinstance(self.source, Stack):
            return self.source.entry.kind is Kind.DIRECTORY
        return isinstance(self.source, Blank) or (isinstance(self.source, Document) and bool(self.source.name))


@dataclass(frozen=True, slots=True)
class Attachments:
    """All that has to be done for what a step sees beside its image."""

    folders: tuple[tuple[str, tuple[Entry, ...]], ...]
    """To be made on the host, each an absolute path with what has to stand in it."""
    before: tuple[Mount, ...]
    """While the process sees the host."""
    mounts: tuple[Mount, ...]
    """In the root of the step."""


def attach(attached: Sequence[Attached], points: MountPoints, scratch: str) -> Attachments:
    """Plan them all, a folder before what is mounted below it, whatever the order in which they come.

    DockerfileError if the image has something at a target that cannot be covered.
    """
    plan = _Planner(points, f"{scratch}/attached")
    for each in sorted(attached, key=lambda each: points.resolve(each.target)):
        plan.add(each)
    return plan.result()


class _Planner:
    def __init__(self, points: MountPoints, scratch: str) -> None:
        self._points = points
        self._scratch = scratch
        self._folders: list[tuple[str, tuple[Entry, ...]]] = [(scratch, ())]
        self._before: list[Mount] = []
        self._documents: list[MemoryFile] = []
        self._mounts: list[Mount] = []

    def result(self) -> Attachments:
        if not self._mounts:
            return Attachments((), (), ())
        if self._documents:
            self._folders.append((self._memory, ()))
            self._before.append(Memory(self._memory, tuple(self._documents)))
        return Attachments(tuple(self._folders), tuple(self._before), tuple(self._mounts))

    def add(self, attached: Attached) -> None:
        target = self._place(attached)
        match attached.source:
            case Stack() as stack:
                read_only = stack.access is Access.READ
                self._mounts.append(Bind(self._stacked(stack), target, read_only=read_only))
            case HostFile(path=path):
                self._mounts.append(Bind(path, target))
            case Document() as document:
                inert = not document.mode & 0o111
                self._mounts.append(Bind(self._kept(document), target, read_only=True, inert=inert))
            case Blank(size=size, read_only=read_only):
                flags = MS_NOSUID | (MS_RDONLY if read_only else 0)
                self._mounts.append(Tmpfs(target, size=size, flags=flags))

    def _place(self, attached: Attached) -> str:
        """The mount point; if it is not the image that has to have it, it is made when its time comes."""
        if self._points.is_covered(attached.target):
            target = self._points.inside(attached.target)
            self._mounts.append(MountPoint(target, is_folder=attached.is_folder))
            return target
        try:
            find = self._points.folder if attached.is_folder else self._points.file
            return find(attached.target.lstrip("/"))
        except SandboxError as error:
            # Not this machine is at fault, but what the instruction asks for.
            raise DockerfileError(error.message) from error

    @property
    def _memory(self) -> str:
        return f"{self._scratch}/memory"

    def _kept(self, document: Document) -> str:
        """Where on the host a document in memory will stand, or the folder that it is in."""
        folder = f"{self._memory}/{len(self._documents)}"
        name = document.name or "file"
        path = f"{len(self._documents)}/{name}"
        self._documents.append(MemoryFile(path, document.data, document.mode, document.uid, document.gid))
        return folder if document.name else f"{folder}/{name}"

    def _stacked(self, stack: Stack) -> str:
        """Where on the host the stack's path will be seen; an overlay is mounted if one folder does not do."""
        folder = f"{self._scratch}/{len(self._mounts)}"
        lowers, path = stack.lowers, stack.entry.path
        forgets = stack.access is Access.WRITE_AND_FORGET
        if len(lowers) == 1 and not forgets:
            return f"{lowers[0]}/{path}" if path else lowers[0]
        if not path:
            # The root of an overlay looks like that of its uppermost folder.
            self._folders.append((f"{folder}-top", (stack.entry,)))
            lowers = (*lowers, f"{folder}-top")
        if len(lowers) > OVERLAY_LIMIT:
            raise SandboxError(
                f"an image of {len(stack.lowers)} layers cannot be mounted: {OVERLAY_LIMIT} are the most"
            )
        merged, upper, work = f"{folder}-merged", f"{folder}-upper" * forgets, f"{folder}-work" * forgets
        self._folders += [(each, ()) for each in (merged, work) if each]
        if upper:
            self._folders.append((upper, () if path else (stack.entry,)))
        self._before.append(Overlay(lowers, merged, upper, work))
        return f"{merged}/{path}" if path else merged
