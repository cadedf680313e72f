"""A folder of this machine as a tree to copy from: read in place, without what .dockerignore leaves out."""

import os
import stat
from collections.abc import Iterable, Iterator
from operator import attrgetter

from builder.context.ignore import Ignored, IgnoreFile, Verdict
from builder.errors import ContextError
from cache.files import FileTable
from cache.receipts import Receipt
from cache.stamps import ABSENT, any_is_racy, look_of, stamp_of
from layers.digest import Digest
from layers.entry import FILE, SECOND, Entry, Kind, new

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
"""Sockets are missing: no archive has a form for them."""

_NO_DEVICE = (0, 0)

_NAME = attrgetter("name")

_MOST_LINKS = 40
"""As many as Linux follows in one path (path_resolution(7))."""


class LocalTree:
    """What a build may see of a folder. Owners are 0:0 and extended attributes none, whatever the disk says.

    What was seen once is not looked at again: the tree is as it was at the first question. A path that the ignore file
    excludes is not there; a folder that is excluded is there as far as something below it was brought back.
    """

    def __init__(self, root: str, files: FileTable, ignore: IgnoreFile | None = None) -> None:
        """ContextError if the root is no folder, or the ignore file is broken."""
        if not os.path.isdir(root):
            raise ContextError(f"the build context {root} is not a folder")
        self._root = os.path.realpath(root)
        self._table = files.folder(self._root)
        self._opened_ns = self._table.now()
        self._ignored = Ignored(ignore, self._table.verdicts(ignore.digest)) if ignore else None
        self._entries: dict[str, Entry | None] = {}
        self._listings: dict[str, list[Entry]] = {}
        self._stamps: dict[str, bytes] = {}
        """Of all that was looked at."""
        self._alone: set[str] = set()
        """What was looked at by itself, and not with all that is in its folder."""
        self._left_out: dict[str, list[str]] = {}
        """Names in a folder that were not looked at."""
        self._digests: dict[str, Digest] = {}
        self._brought_back: dict[str, bool] = {}
        self._sockets: set[str] = set()

    def lookup(self, path: str) -> Entry | None:
        """What stands at the path itself; no symlink on the way is followed."""
        entry = self._find(path)
        return entry if entry is not None and self._is_seen(entry) else None

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """The path with its symlinks followed, none of them out of the context; ContextError for a loop.

        An absolute target begins at the root of the context, and `..` stops there. Missing components stay.
        """
        waiting = [name for name in reversed(path.split("/")) if name]
        done: list[str] = []
        links = 0
        while waiting:
            name = waiting.pop()
            if name == "..":
                del done[-1:]
            elif name not in {"", "."}:
                done.append(name)
                entry = self.lookup("/".join(done)) if waiting or follow_last else None
                if entry is not None and entry.kind is Kind.SYMLINK:
                    links += 1
                    if links > _MOST_LINKS:
                        raise ContextError(f"{path} in the build context leads through too many symbolic links")
                    del done[0 if entry.target.startswith("/") else -1 :]
                    waiting.extend(reversed(entry.target.split("/")))
        return "/".join(done)

    def children(self, path: str) -> list[Entry]:
        """What stands in a folder, sorted by the bytes of the names; nothing for what is no folder."""
        entry = self.lookup(path)
        if entry is None or entry.kind is not Kind.DIRECTORY:
            return []
        entries = self._listing(path)
        return [child for child in entries if self._is_seen(child)] if self._ignored else list(entries)

    def content(self, entry: Entry) -> str | bytes:
        """The path on disk of a file. No component of it was a symlink when it was looked at."""
        return b"" if entry.path in self._sockets else self._on_disk(entry.path)

    def digest(self, entry: Entry) -> Digest:
        """The digest of a file's bytes; the file is read only if the cache does not know it."""
        path = entry.path
        digest = self._digests.get(path)
        if digest is None:
            try:
                digest = self._digests[path] = self._table.digest(path, self._stamps[path])
            except OSError as error:
                raise _unreadable(path, error) from error
        return digest

    def fetch(self, entries: Iterable[Entry]) -> None:
        """Find out the digests of those that are files: somebody is going to ask for them."""
        files = [entry.path for entry in entries if entry.kind is FILE and entry.path not in self._digests]
        self._digests.update(self._table.digests([(path, self._stamps[path]) for path in files]))

    def is_ignored(self, path: str) -> bool:
        """Whether the ignore file excludes the path with all below it, be it on disk or not."""
        return self._ignored is not None and self._ignored.verdict(path) == Verdict.EXCLUDED

    def excluded(self, path: str) -> bool:
        """Whether the path is on disk and it is the ignore file that hides it."""
        return self._ignored is not None and os.path.lexists(self._on_disk(path)) and self.lookup(path) is None

    def save(self) -> None:
        """Keep what was found out about files for the next build. Call it once, when the build needs no more."""
        self._table.save()
        if self._ignored and self._ignored.is_new:
            self._table.save_verdicts(self._ignored.digest, self._ignored.verdicts)

    @property
    def root(self) -> str:
        """The folder, without symbolic links on the way to it."""
        return self._root

    def seen(self) -> tuple[dict[str, dict[str, bytes]], dict[str, bytes]]:
        """What was looked at, as a receipt has it: folders with all that is in them, and single paths."""
        folders: dict[str, dict[str, bytes]] = {}
        places: dict[str, bytes] = {}
        stamps = self._stamps
        for folder, listing in self._listings.items():
            cut = len(folder) + 1 if folder else 0
            names = folders[self._on_disk(folder)] = {entry.path[cut:]: stamps[entry.path] for entry in listing}
            names.update(dict.fromkeys(self._left_out.get(folder, ()), b""))
        for path in self._alone:
            above, _, name = path.rpartition("/")
            if path and above in self._listings:
                folders[self._on_disk(above)][name] = stamps[path]
            else:
                places[self._on_disk(path)] = stamps[path]
        for path in [path for path, entry in self._entries.items() if entry is None and path not in stamps]:
            parent = self._entries.get(path.rpartition("/")[0])
            # Below what is no folder nothing was looked at.
            if parent is not None and parent.kind is Kind.DIRECTORY:
                places[self._on_disk(path)] = ABSENT
        return folders, places

    def is_as_seen(self) -> bool:
        """Whether all that was looked at is as it was; False, too, for what may have changed within a clock tick."""
        if any_is_racy(self._stamps.values(), self._opened_ns):
            return False
        return Receipt({}, {}, {}, {}, *self.seen()).holds({})

    def _is_seen(self, entry: Entry) -> bool:
        if self._ignored is None or not entry.path:
            return True
        verdict = self._ignored.verdict(entry.path)
        if verdict != Verdict.EXCLUDED_ALONE or entry.kind is not Kind.DIRECTORY:
            return verdict == Verdict.INCLUDED
        # Remembered, or every folder on the way down would look for it again.
        seen = self._brought_back.get(entry.path)
        if seen is None:
            seen = self._brought_back[entry.path] = any(map(self._is_seen, self._listing(entry.path)))
        return seen

    def _find(self, path: str) -> Entry | None:
        """What is on disk at a path, seen or not, if all above it are folders."""
        if path not in self._entries:
            self._entries[path] = self._stat(path)
        return self._entries[path]

    def _stat(self, path: str) -> Entry | None:
        if path:
            parent = self._find(path.rpartition("/")[0])
            if parent is None or parent.kind is not Kind.DIRECTORY:
                return None
        try:
            entry = self._entry(path, os.lstat(self._on_disk(path)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        self._alone.add(path)
        return entry

    def _listing(self, path: str) -> list[Entry]:
        """All in a folder but what the ignore file excludes with all below it."""
        listing = self._listings.get(path)
        if listing is None:
            try:
                listing = self._listings[path] = list(self._scan(path))
            except OSError as error:
                raise _unreadable(path, error) from error
            self._entries.update(zip([entry.path for entry in listing], listing, strict=True))
        return listing

    def _scan(self, folder: str) -> Iterator[Entry]:
        prefix = folder + "/" if folder else ""
        with os.scandir(self._on_disk(folder)) as found:
            for item in _by_bytes(list(found)):
                path = prefix + item.name
                if self._ignored is not None and self._ignored.verdict(path) == Verdict.EXCLUDED:
                    self._left_out.setdefault(folder, []).append(item.name)
                    continue
                yield self._entry(path, item.stat(follow_symlinks=False))

    def _entry(self, path: str, status: os.stat_result) -> Entry:
        mode = status.st_mode
        kind = _KINDS.get(stat.S_IFMT(mode))
        time = status.st_mtime_ns // SECOND * SECOND  # layers know no parts of seconds
        if kind is FILE:
            self._stamps[path] = stamp_of(status)
            inode = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
            return new(Entry, (path, kind, mode & 0o7777, 0, 0, status.st_size, time, "", _NO_DEVICE, (), inode))
        self._stamps[path] = look_of(status)
        if kind is None:
            return self._socket(path, status)
        entry = Entry(path, kind, mode & 0o7777, mtime_ns=time)
        if kind is Kind.SYMLINK:
            return entry._replace(target=os.readlink(self._on_disk(path)))
        if kind in {Kind.CHARACTER, Kind.BLOCK}:
            return entry._replace(device=(os.major(status.st_rdev), os.minor(status.st_rdev)))
        return entry

    def _socket(self, path: str, status: os.stat_result) -> Entry:
        """As for BuildKit, a socket in a context is a file with nothing in it."""
        self._sockets.add(path)
        self._digests[path] = Digest.of(b"")
        return Entry(path, Kind.FILE, status.st_mode & 0o7777, mtime_ns=status.st_mtime_ns // SECOND * SECOND)

    def _on_disk(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root


def _by_bytes(items: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    """Sorted by the bytes of the names. Code points are in the order of their UTF-8, but for bytes that are none."""
    names = "".join([item.name for item in items])
    return sorted(items, key=_NAME if names.isascii() else lambda item: os.fsencode(item.name))


def _unreadable(path: str, error: OSError | ValueError) -> ContextError:
    reason = getattr(error, "strerror", None) or str(error)
    return ContextError(
        f"{path or 'the folder'} in the build context cannot be read: {reason.lower()}",
        hint="if the build does not need it, list it in .dockerignore",
    )
