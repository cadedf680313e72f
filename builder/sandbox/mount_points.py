"""Places to mount on: where they are in an image, and what has to be made for those that it lacks.

Nothing of it may lead out of the image: a place is found on the view, symlinks followed inside the root.
"""

from collections.abc import Iterator
from typing import Protocol

from builder.errors import SandboxError
from layers.entry import Entry, Kind

NEW = -1
"""As `mtime_ns`: the image has no such path; the file system decides."""


class RootView(Protocol):
    """The two questions that `layers.view.View` answers here."""

    def lookup(self, path: str) -> Entry | None: ...

    def resolve(self, path: str, *, follow_last: bool = True) -> str: ...


class MountPoints:
    """The mount points of one step, and the entries to be made for them, parents first."""

    def __init__(self, view: RootView) -> None:
        self._view = view
        self._taken: list[str] = []
        self.stub: dict[str, Entry] = {}
        """By path, for a lower folder above the image: none of it becomes part of the layer."""
        self.upper: dict[str, Entry] = {"": view.lookup("") or Entry("", Kind.DIRECTORY, 0o755)}
        """By path, for the folder of changes. It begins with the root's own attributes."""

    def folder(self, name: str, *, stays: bool = False) -> str:
        """Where a folder is to be mounted, as an absolute path; `stays` makes a missing one part of the layer.

        SandboxError if the image has something else there.
        """
        path = self._view.resolve(name)
        entry = self._view.lookup(path)
        if entry is not None and (entry.kind is not Kind.DIRECTORY or not path):
            raise SandboxError(f"/{name} of the image is no folder, so nothing can be mounted there")
        if entry is None:
            self._make(Entry(path, Kind.DIRECTORY, 0o755, mtime_ns=NEW), self.upper if stays else self.stub)
        self._taken.append(path)
        return f"/{path}"

    def file(self, name: str) -> str:
        """Where a file is to be mounted, as an absolute path; SandboxError if the image has a folder there."""
        path = self._view.resolve(name)
        entry = self._view.lookup(path)
        if entry is not None and entry.kind is Kind.DIRECTORY:
            raise SandboxError(f"/{name} of the image is a folder, so no file can be mounted there")
        if entry is None:
            self._make(Entry(path, Kind.FILE, 0o644, mtime_ns=NEW), self.stub)
        self._taken.append(path)
        return f"/{path}"

    def resolve(self, name: str) -> str:
        """The path with the symlinks of the image followed."""
        return self._view.resolve(name)

    def is_covered(self, name: str) -> bool:
        """Whether something is to be mounted there, or above: then the image does not say what stands at the place."""
        path = self._view.resolve(name)
        return any(path == taken or path.startswith(f"{taken}/") for taken in self._taken)

    def inside(self, name: str) -> str:
        """A place that is covered, as an absolute path; nothing is made for it."""
        path = self._view.resolve(name)
        self._taken.append(path)
        return f"/{path}"

    def _make(self, entry: Entry, made: dict[str, Entry]) -> None:
        made.update((parent.path, parent) for parent in self._parents(entry.path))
        made[entry.path] = entry

    def _parents(self, path: str) -> Iterator[Entry]:
        """The folders above a path, the highest first, with the attributes they have in the image."""
        names = path.split("/")
        for depth in range(1, len(names)):
            parent = "/".join(names[:depth])
            entry = self._view.lookup(parent) or Entry(parent, Kind.DIRECTORY, 0o755, mtime_ns=NEW)
            if entry.kind is not Kind.DIRECTORY:
                raise SandboxError(f"/{parent} of the image is no folder, so nothing can be mounted on /{path}")
            yield entry
