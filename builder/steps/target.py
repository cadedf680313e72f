"""The root file system that a COPY, ADD or WORKDIR writes to: what is there, and what the step has put on it so far.

Nothing is unpacked or mounted for it. What exists is read from the view of the layers' indexes, and what is new becomes
changes, in the order in which they are made; together they answer where a symlink leads and what is in the way.
"""

import stat
from collections.abc import Iterator

from builder.errors import ContextError
from layers.entry import Change, Content, Entry, Kind, new
from layers.paths import resolve
from layers.view import View


class Target:
    """A view with the entries of one step on top."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._written: dict[str, Entry] = {}

    def anew(self) -> "Target":
        """The view as it was before the step."""
        return Target(self._view)

    def lookup(self, path: str) -> Entry | None:
        """What stands at the path now; a symlink is not followed."""
        return self._written.get(path) or self._view.lookup(path)

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """The path with its symlinks followed inside the root; missing components stay."""
        return resolve(self.lookup, path, follow_last=follow_last)

    def put(self, entry: Entry, content: Content = None) -> list[Change]:
        """Write an entry, and before it those parents that the layer does not list yet.

        A layer must list every parent of what it changes, with the parent's own attributes: who unpacks the layer alone
        would invent them otherwise.
        """
        path = entry.path
        change = new(Change, (entry, content))
        changes = [] if path.rpartition("/")[0] in self._written else self._parents(path)
        self._written[path] = entry
        return [*changes, change]

    def make_directories(self, path: str, template: Entry, *, owned: bool) -> Iterator[Change]:
        """Create a directory and its missing parents, all with mode, owner and time of `template`.

        `owned` says that somebody has asked for the owner. Symlinks on the way are followed, and where one leads
        nowhere its target is created. ContextError if something that is no directory is in the way.
        """
        done = ""
        for component in path.split("/") if path else ():
            done = self.resolve(f"{done}/{component}" if done else component)
            there = self.lookup(done)
            if there is None:
                yield from self._make_missing(done, template, owned=owned)
            elif there.kind is not Kind.DIRECTORY:
                raise ContextError(f"cannot create the directory /{path}: /{done} is a {kind_name(there)}")

    def make_directory(self, template: Entry, *, owned: bool) -> list[Change]:
        """Create the directory at the path of `template`.

        As for mkdir(2), one in a setgid directory is setgid, and has its group if nobody has asked for another.
        """
        above = self.lookup(template.path.rpartition("/")[0])
        if above is None or not above.mode & stat.S_ISGID:
            return self.put(template)
        gid = template.gid if owned else above.gid
        return self.put(template._replace(mode=template.mode | stat.S_ISGID, gid=gid))

    def _make_missing(self, path: str, template: Entry, *, owned: bool) -> Iterator[Change]:
        """Create `path` and what is missing above it; there are no symlinks in it."""
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            part = "/".join(parts[:count])
            there = self.lookup(part)
            if there is None:
                yield from self.make_directory(template._replace(path=part), owned=owned)
            elif there.kind is not Kind.DIRECTORY:
                raise ContextError(f"cannot create the directory /{path}: /{part} is a {kind_name(there)}")

    def _parents(self, path: str) -> list[Change]:
        folder = path.rpartition("/")[0]
        if not folder or folder in self._written:
            return []
        changes = self._parents(folder)
        parent = self._view.lookup(folder)
        if parent is not None:
            self._written[folder] = parent
            changes.append(Change(parent))
        return changes


def kind_name(entry: Entry) -> str:
    """The entry's kind as a person says it."""
    return {
        Kind.FILE: "file",
        Kind.DIRECTORY: "directory",
        Kind.SYMLINK: "symbolic link",
        Kind.FIFO: "FIFO",
        Kind.CHARACTER: "device",
        Kind.BLOCK: "device",
        Kind.HARDLINK: "hard link",
    }[entry.kind]
