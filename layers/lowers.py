"""What the unpacked layers below have at a path, by the rules of overlayfs: for tars that lean on lower layers."""

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from typing import BinaryIO, NamedTuple

from layers import inode
from layers.entry import Entry
from layers.inroot import InRoot


class Found(NamedTuple):
    """Something in a tree below; to be used before the next question, which may close its folder."""

    folder: int
    """A descriptor."""
    name: str
    status: os.stat_result
    """Its lstat."""

    @property
    def place(self) -> str:
        """Where the kernel finds it."""
        return f"/proc/self/fd/{self.folder}/{self.name}"

    def describe(self, path: str) -> Entry | None:
        """The same as the entry at `path`; None for a socket."""
        return inode.describe(self.place, self.status, path)

    def open(self) -> BinaryIO:
        """The content of a file; the caller closes it."""
        return inode.opened(self.folder, self.name)


class Lowers:
    """The trees below a layer, lowest first, opened when first asked."""

    def __init__(self, trees: Sequence[str], stack: ExitStack) -> None:
        """The stack closes what is opened here."""
        self._trees = trees
        self._stack = stack
        self._roots: tuple[InRoot, ...] | None = None

    def find(self, path: str) -> Found | None:
        """What the merged trees have at a path; None for nothing."""
        if self._roots is None:
            self._roots = tuple(self._stack.enter_context(InRoot(tree)) for tree in reversed(self._trees))
        for root in self._roots:
            found, hides = _look(root, path)
            if found or hides:
                return found
        return None


def seen(trees: Sequence[str]) -> tuple[str, ...]:
    """Those of the trees, lowest first, that may be mounted one upon the other.

    A layer whose root is opaque hides all below it, which overlayfs does not do for the root of a lower layer
    (`ovl_get_root` in the kernel's fs/overlayfs/super.c).
    """
    first = max((place for place, tree in enumerate(trees) if _is_opaque(tree)), default=0)
    return tuple(trees[first:])


@cache  # each step asks of all trees below it, and none ever changes
def _is_opaque(tree: str) -> bool:
    return inode.is_opaque(tree)


def _look(root: InRoot, path: str) -> tuple[Found | None, bool]:
    """What one tree has at a path, and whether it hides there what the trees below it have."""
    folder, opaque = "", inode.is_opaque(root.folder(""))
    *above, last = path.split("/")
    for name in above:
        status = _lstat(root, folder, name)
        if status is None:
            return None, opaque
        if not stat.S_ISDIR(status.st_mode):
            return None, True
        folder = f"{folder}/{name}" if folder else name
        opaque = opaque or inode.is_opaque(root.folder(folder))
    status = _lstat(root, folder, last)
    if status is None:
        return None, opaque
    found = Found(root.folder(folder), last, status)
    if inode.is_whiteout(status) or inode.is_marked_as_whiteout(found.place, status):
        return None, True
    return found, True


def _lstat(root: InRoot, folder: str, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=root.folder(folder), follow_symlinks=False)
    except FileNotFoundError:
        return None
