"""Does to a whole root file system what a layer says: for commands that run in a tree, not on an overlay.

The result is what overlayfs would show of the unpacked layers, with one difference: each name has a file of its own.
With hard links, a write through one name would change the others too, while an overlay copies that one name up and
leaves the others as they were.
"""

import os
import stat
from contextlib import nullcontext
from typing import BinaryIO

from layers import inode
from layers.entry import Entry, Kind
from layers.errors import ImageError
from layers.inroot import InRoot
from layers.landing import Effect, Landing
from layers.tar import read_tar
from layers.unpack import translated


def apply(stream: BinaryIO, root: str, discarded: str) -> None:
    """Apply an uncompressed tar to the tree in `root`, which may be empty. Run as root.

    What has to go is moved to `discarded`, an empty folder on the same file system. No process may change the tree
    meanwhile. ImageError for a tar that is broken or hostile, StoreError for what this place does not allow; the tree
    is then good for nothing.
    """
    path = ""
    try:
        with InRoot(root) as folders, InRoot(discarded) as old:
            tree = _Tree(folders, old.folder(""))
            for entry, content in read_tar(stream):
                path = entry.path
                tree.add(entry, content)
            tree.finish()
    except OSError as error:
        raise translated(error, path) from error


class _Tree:
    """The tree while a layer comes over it."""

    def __init__(self, root: InRoot, discarded: int) -> None:
        self._root = root
        self._discarded = discarded
        self._count = 0
        self._landing = Landing()
        self._own: set[str] = set()
        """What this layer has put, and the folders that it names, if only on the way to something."""
        self._folders: dict[str, Entry] = {}
        """Those that are folders, with what is to be said of them in the end: putting something there changes it."""
        self._listed: set[str] = set()
        """Folders of which the tar says something itself."""
        self._hidden: set[str] = set()
        self._opaque: set[str] = set()

    def add(self, entry: Entry, content: BinaryIO) -> None:
        """Take one entry of the tar; call in its order."""
        effect, entry, _ = self._landing.place(entry)
        if effect in {Effect.ENTRY, Effect.BORROW}:
            self._put(entry, content)
        elif effect is Effect.WHITEOUT:
            self._folder(entry.path.rpartition("/")[0])
            self._hidden.add(entry.path)
        elif effect is Effect.OPAQUE:
            self._folder(entry.path)
            self._opaque.add(entry.path)

    def finish(self) -> None:
        """Take away what is hidden, which links of the tar may have led to before; then dress the folders."""
        for path in sorted(self._hidden | self._opaque, reverse=True):
            if path in self._folders:
                self._clear(path)
            elif path not in self._own:
                self._make_room(path)
        for path in sorted(self._folders, reverse=True):  # no folder is passed after it has been closed to us
            entry = self._folders[path]
            if path not in self._listed and self._is_hidden(path):
                entry = Entry(path, Kind.DIRECTORY, 0o755)
            folder = self._root.folder(path)
            _undress(folder, entry)
            inode.dress(folder, entry)

    def _put(self, entry: Entry, content: BinaryIO) -> None:
        path = entry.path
        if entry.kind is Kind.DIRECTORY:
            self._folder(path)
            self._folders[path] = entry
            self._listed.add(path)
            return
        above, _, name = path.rpartition("/")
        if entry.kind is Kind.HARDLINK:
            self._copy(entry)
        else:
            self._make_room(path)
            inode.make(entry, self._folder(above), name, content)
        self._own.add(path)

    def _copy(self, link: Entry) -> None:
        """Make a copy of the file to which the tar has a link."""
        above, _, first = link.target.rpartition("/")
        try:
            source = os.dup(self._root.folder(above))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _no_file(link) from error
        try:
            status = _lstat(source, first)
            found = inode.describe(f"/proc/self/fd/{source}/{first}", status, link.path) if status else None
            if found is None or found.kind is Kind.DIRECTORY:
                raise _no_file(link)
            with inode.opened(source, first) if found.kind is Kind.FILE else nullcontext() as content:
                self._make_room(link.path)
                above, _, name = link.path.rpartition("/")
                inode.make(found, self._folder(above), name, content)
        finally:
            os.close(source)

    def _folder(self, path: str) -> int:
        """The descriptor of a folder of this layer, valid until the next call; it is made if it is not there."""
        if path not in self._folders:
            if path:
                above, _, name = path.rpartition("/")
                status = _lstat(self._folder(above), name)
                if status is None or not stat.S_ISDIR(status.st_mode):
                    self._make_room(path)
                    os.mkdir(name, 0o700, dir_fd=self._folder(above))
                    self._folders[path] = Entry(path, Kind.DIRECTORY, 0o755)
            self._own.add(path)
        folder = self._root.folder(path)
        if path not in self._folders:
            entry = inode.describe(f"/proc/self/fd/{folder}", os.fstat(folder), path)
            assert entry is not None, "a folder is no socket"
            self._folders[path] = entry
        return folder

    def _make_room(self, path: str) -> None:
        """Clear a path for what comes there, or for nothing."""
        above, _, name = path.rpartition("/")
        folder = self._folder(above)
        if _lstat(folder, name) is None:
            return
        self._root.forget(path)
        self._count += 1
        os.rename(name, str(self._count), src_dir_fd=folder, dst_dir_fd=self._discarded)
        prefix = path + "/"
        for known in [known for known in self._own if known == path or known.startswith(prefix)]:
            self._own.discard(known)
            self._folders.pop(known, None)

    def _clear(self, path: str) -> None:
        """Take from a folder what it does not have from this layer."""
        for name in os.listdir(self._folder(path)):
            below = f"{path}/{name}" if path else name
            if below in self._folders:
                self._clear(below)
            elif below not in self._own:
                self._make_room(below)

    def _is_hidden(self, path: str) -> bool:
        """Whether this layer hides what those below had at the path."""
        if path in self._hidden:
            return True
        while path:
            path = path.rpartition("/")[0]
            if path in self._opaque or path in self._hidden:
                return True
        return False


def _lstat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _undress(folder: int, entry: Entry) -> None:
    """Take from a folder the attributes that its entry does not have."""
    wanted = {name for name, _ in entry.xattrs}
    for name in inode.xattr_names(folder):
        if name not in wanted and not inode.is_private(name):
            os.removexattr(folder, name)


def _no_file(link: Entry) -> ImageError:
    return ImageError(f"the layer has a hard link {link.path!r} to {link.target!r}, which is no file")
