"""Makes the tree of a layer: a lower directory for overlayfs, from a tar that may come from anybody.

Nothing is ever written outside the root: `layers.landing` gives paths that go through no symlink, `layers.inroot`
follows none, and each name is made anew in an open folder. Where the two disagree there is an error, no damage.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import BinaryIO

from layers import inode
from layers.entry import DIRECTORY, HARDLINK, Entry, Kind
from layers.errors import ImageError, StoreError
from layers.inroot import InRoot
from layers.landing import Effect, Landing, Placed
from layers.lowers import Lowers
from layers.tar import read_tar

_BROKEN = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT}
_ENTRY = Effect.ENTRY  # for each of a hundred thousand files, as in `layers.entry`
_FULL = {errno.ENOSPC, errno.EDQUOT}


def unpack(stream: BinaryIO, root: str, *, lowers: Sequence[str] = ()) -> bool:
    """Unpack an uncompressed tar into `root`, an empty folder. Run as root, of a user namespace at least.

    Whiteouts become what overlayfs understands when mounted with `userxattr`. `lowers` are the trees of the layers
    below, lowest first. Returns whether the tree leans on them: it has a copy of a file of theirs to which the tar
    links, or a folder that the tar does not list, which then is as it is below. Such a tree is right for this stack of
    layers only.

    ImageError for a tar that is broken or hostile, StoreError for what this place does not allow; what was written
    until then stays.
    """
    path = ""
    try:
        with growing(root, lowers=lowers) as tree:
            landing = Landing()
            for entry, content in read_tar(stream):
                path = entry.path
                tree.add(landing.place(entry), content)
            tree.finish()
            return tree.leans
    except OSError as error:
        raise translated(error, path) from error


@contextmanager
def growing(root: str, *, lowers: Sequence[str] = ()) -> Iterator["Tree"]:
    """A tree for who reads the tar himself; what the kernel refuses comes as OSError, else as `unpack` says."""
    with ExitStack() as stack:
        yield Tree(stack.enter_context(InRoot(root)), Lowers(lowers, stack))


class Tree:
    """A layer's tree while it grows. Folders get owner, mode and time at the end: they would be in the way before."""

    def __init__(self, root: InRoot, lowers: Lowers) -> None:
        self._root = root
        self._lowers = lowers
        self._folders: dict[str, Entry | None] = {"": Entry("", Kind.DIRECTORY, 0o755)}
        """Every folder on disk, with what the tar says of it; None if the tar does not list it."""
        self._marks: set[str] = set()
        """Where a whiteout is on disk."""
        self._hidden: set[str] = set()
        """What is hidden of the layers below, with a whiteout on disk or with something else in its place."""
        self._opaque: set[str] = set()
        self._with_marked_files: set[str] = set()
        """Folders that have to say that whiteouts in them are files."""
        self.leans = False
        """Whether it is right above the layers below only."""
        os.chmod(root.folder(""), 0o700)  # above all without a setgid bit, which folders would inherit

    def add(self, placed: Placed, content: BinaryIO) -> None:
        """Put one entry of the tar into the tree, where a `Landing` has said; call in the order of the tar."""
        effect, entry, replaces = placed
        if effect is _ENTRY or effect is Effect.BORROW:
            self._put(entry, content, replaces, is_below=effect is not _ENTRY)
        elif effect is Effect.WHITEOUT:
            self._hide(entry.path, replaces)
        elif effect is Effect.OPAQUE:
            self._folder(entry.path)
            self._opaque.add(entry.path)

    def finish(self) -> None:
        """Give the folders what they lack, those below first: no folder is passed after it has been closed to us."""
        for path in [mark for mark in self._marks if self._is_opaque(mark.rpartition("/")[0])]:
            self._remove(path)  # hides nothing, and overlayfs lists the names of such marks
        for path in sorted(self._folders, reverse=True):
            entry = self._folders[path] or self._unlisted(path)
            folder = self._root.folder(path)
            if path in self._opaque or path in self._hidden:
                os.setxattr(folder, "user." + inode.OPAQUE, b"y")
            elif path in self._with_marked_files:
                os.setxattr(folder, "user." + inode.OPAQUE, inode.HAS_WHITEOUTS)
            inode.dress(folder, entry)

    def _put(self, entry: Entry, content: BinaryIO, replaces: Kind | None, *, is_below: bool) -> None:
        path = entry.path
        if entry.kind is DIRECTORY:
            if path not in self._folders:
                self._make_folder(path, replaced=replaces is not None)
            self._folders[path] = entry
            return
        if replaces is not None or path in self._marks:
            self._remove(path)
        if is_below:
            self._borrow(entry)
        elif entry.kind is HARDLINK:
            self._link(entry)
        else:
            above, _, name = path.rpartition("/")
            inode.make(entry, self._folder(above), name, content)

    def _hide(self, path: str, stands: Kind | None) -> None:
        """Hide a path of the layers below. What this layer has there stays: a folder is made opaque at the end."""
        self._hidden.add(path)
        above, _, name = path.rpartition("/")
        folder = self._folder(above)
        is_free = stands is None or (stands is Kind.DIRECTORY and path not in self._folders)
        if is_free and path not in self._marks:
            if not inode.make_whiteout(folder, name):
                self._with_marked_files.add(above)
            self._marks.add(path)

    def _folder(self, path: str) -> int:
        """The descriptor of a folder, valid until the next call. If the tar has not listed it, it is made."""
        if path in self._folders:
            return self._root.folder(path)
        missing = []
        above = path
        while above not in self._folders:
            missing.append(above)
            above = above.rpartition("/")[0]
        for folder in reversed(missing):
            self._make_folder(folder, replaced=False)
        return self._root.folder(path)

    def _make_folder(self, path: str, *, replaced: bool) -> None:
        if replaced or path in self._marks:
            self._remove(path)
        above, _, name = path.rpartition("/")
        os.mkdir(name, 0o700, dir_fd=self._folder(above))
        self._folders[path] = None

    def _remove(self, path: str) -> None:
        """Clear a path for what comes there. All folders are known, so nothing is searched and nothing followed."""
        self._marks.discard(path)
        if path not in self._folders:
            above, _, name = path.rpartition("/")
            with suppress(FileNotFoundError):  # a folder may have been named only on the way to the target of a link
                os.unlink(name, dir_fd=self._root.folder(above))
            return
        prefix = path + "/"
        below = [folder for folder in self._folders if folder.startswith(prefix)]
        for folder in sorted([path, *below], reverse=True):
            descriptor = self._root.folder(folder)
            for name in os.listdir(descriptor):
                os.unlink(name, dir_fd=descriptor)
            self._root.forget(folder)
            above, _, name = folder.rpartition("/")
            os.rmdir(name, dir_fd=self._root.folder(above))
            del self._folders[folder]
        for marks in (self._marks, self._hidden, self._opaque):
            marks.difference_update([mark for mark in marks if mark.startswith(prefix)])
        self._opaque.discard(path)

    def _link(self, entry: Entry) -> None:
        """Make a further name of a file of this layer."""
        above, _, name = entry.path.rpartition("/")
        folder = os.dup(self._folder(above))  # the next call may close it
        try:
            first_above, _, first = entry.target.rpartition("/")
            source = self._folder(first_above)
            os.link(first, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(folder)

    def _borrow(self, entry: Entry) -> None:
        """Make a copy of a file of the layers below, to which the tar has a hard link."""
        self.leans = True
        found = self._lowers.find(entry.target)
        copy = found.describe(entry.path) if found else None
        if found is None or copy is None or copy.kind is Kind.DIRECTORY:
            raise ImageError(f"the layer has a hard link {entry.path!r} to {entry.target!r}, which is no file")
        above, _, name = entry.path.rpartition("/")
        with found.open() if copy.kind is Kind.FILE else nullcontext() as content:
            inode.make(copy, self._folder(above), name, content)

    def _unlisted(self, path: str) -> Entry:
        """What a folder is that the tar only needs: the one of the layers below that it comes upon."""
        self.leans = True
        found = None if self._is_hidden(path) else self._lowers.find(path)
        entry = found.describe(path) if found else None
        return entry if entry and entry.kind is Kind.DIRECTORY else Entry(path, Kind.DIRECTORY, 0o755)

    def _is_hidden(self, path: str) -> bool:
        """Whether this layer hides what those below have at the path."""
        return path in self._hidden or (path != "" and self._is_opaque(path.rpartition("/")[0]))

    def _is_opaque(self, folder: str) -> bool:
        """Whether nothing that the layers below have in the folder is seen."""
        while folder and folder not in self._opaque and folder not in self._hidden:
            folder = folder.rpartition("/")[0]
        return folder in self._opaque or folder in self._hidden


def translated(error: OSError, path: str) -> ImageError | StoreError:
    """The error for what the kernel refused while an entry of a layer was put on the disk."""
    message = f"{path!r} of a layer cannot be unpacked: {error.strerror}"
    if error.errno in _BROKEN:
        return ImageError(message, hint="no honest layer has such names; build it again with another tool")
    if error.errno in _FULL:
        return StoreError(message, hint="make room on the disk of the store, then build again")
    return StoreError(message)
