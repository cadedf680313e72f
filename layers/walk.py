"""What a command changed in a tree: found by comparing what lstat(2) says of every path before and after it.

A path is as it was if its inode, its mode and its ctime are. The kernel sets the ctime at every change of content or
attributes, and no program can set it. So nothing need be read or hashed, and no write is missed that puts the size and
the time of a file back. Kernels before 6.13 count time in ticks of some milliseconds, and a change could come in the
same tick as the look before it: `wait_for_tick` waits until the clock of the file system has gone on.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from layers import inode
from layers.data import dataclass
from layers.diff import differ
from layers.entry import Change, Entry, Kind, whiteout
from layers.errors import StoreError
from layers.view import View

_LONGEST_TICK = 2.1
"""Seconds; FAT has ticks of two, and nothing that can hold a tree has longer ones."""
_SHORT = 0.0005


class Seen(NamedTuple):
    """What tells whether a path was changed."""

    number: int
    """Of the inode."""
    mode: int
    ctime_ns: int


Walk = dict[str, Seen]
"""Everything in a tree, by path; the root is ""."""

_UNKNOWN = Seen(0, 0, 0)
"""Of a path that has to be compared in any case."""


def walk(root: str) -> Walk:
    """Look at everything in a tree. StoreError if it cannot be read."""
    seen = {"": _look(os.lstat(root))}
    folders = [""]
    try:
        while folders:
            path = folders.pop()
            prefix = path + "/" if path else ""
            with os.scandir(f"{root}/{path}") as items:
                for item in items:
                    status = item.stat(follow_symlinks=False)
                    seen[prefix + item.name] = _look(status)
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(prefix + item.name)
    except OSError as error:
        raise StoreError(f"the tree {root} cannot be read: {error.strerror}") from error
    return seen


def look_again(root: str, paths: Iterable[str], seen: Walk) -> None:
    """Note what some paths are like now."""
    for path in paths:
        try:
            seen[path] = _look(os.lstat(f"{root}/{path}"))
        except FileNotFoundError:
            seen.pop(path, None)


def wait_for_tick(probe: str, seen: Walk) -> None:
    """Wait until a change would get a later ctime than all that were seen; `probe` is a file on that file system.

    Where time does not go on, as after a clock was set back, those that look as new as the newest are noted as unknown:
    they are compared in any case.
    """
    latest = max(each.ctime_ns for each in seen.values())
    deadline = time.monotonic() + _LONGEST_TICK
    while time.monotonic() < deadline:
        os.utime(probe)
        now = os.stat(probe).st_ctime_ns
        if now > latest:
            return
        time.sleep(_SHORT)
    for path, each in seen.items():
        if each.ctime_ns >= now:
            seen[path] = _UNKNOWN


def tree_changes(
    root: str, before: Mapping[str, Seen], after: Walk, view: View, is_same: Callable[[Iterable[Entry]], set[str]]
) -> Iterator[Change]:
    """The changes to a tree, in the form and order of `diff.overlay_changes`.

    `view` is what the tree held before, when it was walked. `is_same` is given files that look like those of before and
    tells the paths of those that have the same content too.

    On the way the tree loses sockets, for which no tar has a form. StoreError if it cannot be read.
    """
    try:
        yield from _ordered(root, _changed(root, before, after, view, is_same))
    except OSError as error:
        raise StoreError(f"the changes in {root} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of a comparison."""

    entries: Mapping[str, Entry]
    """What is new or another than before."""
    gone: Iterable[str]
    """What is not there any more, the uppermost of it alone."""


def _changed(
    root: str, before: Mapping[str, Seen], after: Walk, view: View, is_same: Callable[[Iterable[Entry]], set[str]]
) -> _Found:
    entries: dict[str, Entry] = {}
    alike: dict[str, Entry] = {}
    for path in [path for path, seen in after.items() if before.get(path) != seen]:
        place = f"{root}/{path}" if path else root
        entry = inode.describe(place, os.lstat(place), path)
        if entry is None:
            _remove(place, path, after, root)
        elif _is_another(entry, view):
            entries[path] = entry
        elif entry.kind is Kind.FILE:
            alike[path] = entry
    same = is_same(alike.values()) if alike else set()
    entries |= {path: entry for path, entry in alike.items() if path not in same}
    gone = [
        path
        for path in before
        if path not in after and _is_folder(after.get(path.rpartition("/")[0])) and view.lookup(path)
    ]
    return _Found(entries, gone)


def _is_another(entry: Entry, view: View) -> bool:
    """Whether an entry says something else than before. Of the root's time no layer tells."""
    before = view.lookup(entry.path)
    if before is None:
        return True
    if not entry.path:
        entry = entry._replace(mtime_ns=before.mtime_ns)
    return differ(entry._replace(inode=None), before._replace(inode=None))


def _remove(place: str, path: str, after: Walk, root: str) -> None:
    """Take a socket out of the tree, as if it had never been; the folder keeps its time."""
    with inode.keeping_times(os.path.dirname(place)):
        os.unlink(place)
    look_again(root, (path, path.rpartition("/")[0]), after)


def _is_folder(seen: Seen | None) -> bool:
    return seen is not None and stat.S_ISDIR(seen.mode)


def _ordered(root: str, found: _Found) -> Iterator[Change]:
    """Folders before what is in them, whiteouts before the rest of their folder, names by their bytes."""
    marks = {path: (*_key(path)[:-1], (0, _key(path)[-1][1])) for path in found.gone}
    keys = {path: _key(path) for path in found.entries}
    told = {""}
    if "" in found.entries:
        yield Change(found.entries[""])
    for path in sorted(keys.keys() | marks.keys(), key=lambda path: marks.get(path) or keys[path]):
        for above in folders_above(path):
            if above not in told:
                told.add(above)
                yield Change(found.entries.get(above) or _folder(root, above))
        if path in marks:
            yield whiteout(path)
        elif path not in told:
            told.add(path)
            entry = found.entries[path]
            yield Change(entry, f"{root}/{path}" if entry.kind is Kind.FILE else None)


def _key(path: str) -> tuple[tuple[int, bytes], ...]:
    return tuple((1, name) for name in os.fsencode(path).split(b"/"))


def folders_above(path: str) -> Iterator[str]:
    """The folders on the way to a path, the uppermost first."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _folder(root: str, path: str) -> Entry:
    entry = inode.describe(f"{root}/{path}", os.lstat(f"{root}/{path}"), path)
    assert entry is not None, "something stands in it"
    return entry


def _look(status: os.stat_result) -> Seen:
    return Seen(status.st_ino, status.st_mode, status.st_ctime_ns)
