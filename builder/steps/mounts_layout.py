"""Writes what a tree holds into a folder of our own: contexts as commands see them, and what caches begin with.

A context is never mounted where it is. A command must see what the key speaks of: no ignored file, nothing that changes
while it runs, and all of it owned by root, as in BuildKit; the person's files have other owners, and must keep them.
Where the file system can share bytes between files (Btrfs, XFS), the copy costs none; else it costs their copying once
in a build, however many commands see them.
"""

import errno
import fcntl
import os
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

from builder.errors import ContextError
from builder.steps.tree import Tree
from layers import inode
from layers.entry import Entry, Kind

ALONE = "content"
"""The name of a file that is laid out alone, whatever it was called."""

_FICLONE = 0x40049409
"""The ioctl that lets a file share the bytes of another (ioctl_ficlone(2))."""
_CANNOT_CLONE = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM})
_BLOCK = 1 << 20


def lay_out(tree: Tree, entries: Iterable[Entry], top: Entry, folder: str) -> None:
    """Write `top` and the entries below it, parents first, into a folder that is there and empty.

    A folder becomes like `top`; anything else stands in it as `ALONE`. ContextError if a file is not as long as the
    tree says.
    """
    cut = len(top.path) + 1 if top.path else 0
    folders: list[tuple[str, Entry]] = []
    first_names: dict[Hashable, str] = {}
    for entry in entries:
        name = entry.path[cut:] if top.kind is Kind.DIRECTORY else ALONE
        path = f"{folder}/{name}" if name else folder
        first = first_names.setdefault(entry.inode, path) if entry.inode is not None else path
        if entry.kind is Kind.DIRECTORY:
            if path != folder:
                os.mkdir(path, 0o700)
            folders.append((path, entry))
        elif first != path:
            os.link(first, path, follow_symlinks=False)
        else:
            _make(tree, entry, path)
    for path, entry in reversed(folders):  # what is made in a folder changes its time
        with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as file:
            inode.dress(file, entry)


def _make(tree: Tree, entry: Entry, path: str) -> None:
    content = tree.content(entry) if entry.kind is Kind.FILE else None
    if isinstance(content, str):
        _copy(content, path, entry)
        return
    above, name = os.path.split(path)
    with _opened(above, os.O_RDONLY | os.O_DIRECTORY) as folder:
        if isinstance(content, bytes):
            import io  # for trees that keep bytes in memory: none of the usual ones

            content = io.BytesIO(content)
        try:
            inode.make(entry, folder, name, content)
        finally:
            if content is not None:
                content.close()


def _copy(source: str, path: str, entry: Entry) -> None:
    """Copy a file, sharing its bytes where the file system can."""
    with (
        _opened(source, os.O_RDONLY | os.O_NOFOLLOW) as old,
        _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as new,
    ):
        if not _cloned(old, new):
            _copy_bytes(old, new)
        if os.fstat(new).st_size != entry.size:
            raise ContextError(f"{entry.path} changed while it was read")
        inode.dress(new, entry)


def _cloned(old: int, new: int) -> bool:
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError as error:
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    return True


def _copy_bytes(old: int, new: int) -> None:
    """Let the kernel copy; where it cannot, between some file systems, do it by hand."""
    try:
        while os.copy_file_range(old, new, 1 << 30):
            pass
    except OSError as error:
        if error.errno not in _CANNOT_CLONE:
            raise
    while block := os.read(old, _BLOCK):  # all that is left
        while block:
            block = block[os.write(new, block) :]


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
