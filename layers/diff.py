"""What a command changed, from the upper directory of the overlay in which it ran."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from layers import inode
from layers.entry import Change, Entry, Kind, whiteout
from layers.errors import StoreError
from layers.lowers import Lowers
from layers.view import View

_SECOND = 1_000_000_000
_BLOCK = 1 << 18


def overlay_changes(upper: str, lower: View, lowers: Sequence[str]) -> Iterator[Change]:
    """The changes that an upper directory makes to the layers below, in the order of a layer's tar.

    Folders come before what is in them, names sorted by their bytes, but the whiteouts of a folder first; content is
    given as absolute paths. A changed path brings the folders above it. What is as it was below is no change, whether
    the kernel copied it up or a command made it again; files that say of themselves what they were are compared with
    those in `lowers`, the trees of the layers below, lowest first.

    On the way the upper directory loses what is no change, and sockets, for which no tar has a form, and folders that
    hide all that was below get whiteouts instead: once this has come to its end, it is the tree of the layer.
    StoreError if it cannot be read.
    """
    try:
        with ExitStack() as stack:
            yield from _changes(os.path.abspath(upper), lower, Lowers(lowers, stack))
    except OSError as error:
        raise StoreError(f"the changes in {upper} cannot be read: {error.strerror}") from error


class _Folder(NamedTuple):
    """A folder of the upper directory on the way to where the walk is."""

    place: str
    entry: Entry
    is_opaque: bool
    """Whether nothing of the layers below was seen in it, by its own mark or one above."""
    whiteouts: list[Change]
    rest: Iterator[os.DirEntry[str]]
    """What else is in it and still to come."""


def _changes(upper: str, lower: View, lowers: Lowers) -> Iterator[Change]:
    root = inode.describe(upper, os.lstat(upper), "")
    assert root is not None, "the upper directory is a folder"
    before = lower.lookup("")
    if before is None or differ(root._replace(mtime_ns=before.mtime_ns), before):
        yield Change(root)
    way = [_enter(upper, root, lower, is_opaque=inode.is_opaque(upper))]
    yield from way[0].whiteouts
    unchanged: list[Entry] = []  # folders on the way, as they were, that may turn out to have no change in them
    while way:
        parent = way[-1]
        found = next(parent.rest, None)
        if found is None:
            way.pop()
            if unchanged and unchanged[-1] is parent.entry:
                unchanged.pop()
                with inode.keeping_times(os.path.dirname(parent.place)):
                    os.rmdir(parent.place)
            continue
        path = f"{parent.entry.path}/{found.name}" if parent.entry.path else found.name
        entry = inode.describe(found.path, found.stat(follow_symlinks=False), path)
        if entry is None or _is_as_below(found.path, entry, lower, lowers):
            with inode.keeping_times(parent.place):
                os.unlink(found.path)
            continue
        if entry.kind is Kind.DIRECTORY:
            is_opaque = parent.is_opaque or inode.is_opaque(found.path)
            way.append(_enter(found.path, entry, lower, is_opaque=is_opaque))
            if not way[-1].whiteouts and not differ(entry, lower.lookup(path)):
                unchanged.append(entry)
                continue
        yield from map(Change, unchanged)
        unchanged.clear()
        yield Change(entry, found.path if entry.kind is Kind.FILE else None)
        if entry.kind is Kind.DIRECTORY:
            yield from way[-1].whiteouts


def _is_as_below(place: str, entry: Entry, lower: View, lowers: Lowers) -> bool:
    """Whether something that is no folder is as it was: the kernel copies up what is only opened for writing."""
    if entry.kind is Kind.DIRECTORY:
        return False
    before = lower.lookup(entry.path)
    if before is None or differ(entry._replace(inode=None), before._replace(inode=None)):
        return False
    if entry.kind is not Kind.FILE:
        return True
    found = lowers.find(entry.path)
    if found is None:
        return False
    with found.open() as old, open(place, "rb") as new:
        while block := new.read(_BLOCK):
            if block != old.read(_BLOCK):
                return False
    return True


def _enter(place: str, entry: Entry, lower: View, *, is_opaque: bool) -> _Folder:
    """A folder of the upper directory, before anything of it is walked."""
    with os.scandir(place) as scan:
        items = sorted(scan, key=lambda item: os.fsencode(item.name))
    marks = {item.name for item in items if inode.is_whiteout(item.stat(follow_symlinks=False))}
    kept = [item for item in items if item.name not in marks]
    prefix = f"{entry.path}/" if entry.path else ""
    if is_opaque:
        names = {item.name for item in kept}
        below = (child.path.rpartition("/")[2] for child in lower.children(entry.path))
        gone = [name for name in below if name not in names]
    else:
        gone = sorted((name for name in marks if lower.lookup(prefix + name)), key=os.fsencode)
    with inode.keeping_times(place):
        for name in marks.difference(gone):
            os.unlink(os.path.join(place, name))
        for name in set(gone).difference(marks):
            os.mknod(os.path.join(place, name), stat.S_IFCHR)
    if is_opaque:
        inode.show_below(place)
    return _Folder(place, entry, is_opaque, [whiteout(prefix + name) for name in gone], iter(kept))


def differ(entry: Entry, before: Entry | None) -> bool:
    """Whether two entries of a path differ in what a layer says of them; layers say times in whole seconds."""
    if before is None:
        return True
    mtime_ns = entry.mtime_ns if entry.mtime_ns // _SECOND != before.mtime_ns // _SECOND else before.mtime_ns
    xattrs = tuple(xattr for xattr in before.xattrs if not inode.is_private(xattr[0]))
    return entry._replace(mtime_ns=mtime_ns) != before._replace(xattrs=xattrs)
