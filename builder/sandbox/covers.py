"""Things put over paths of a tree, as mounts would be, and taken away again: by renaming, where nothing can be mounted.

While a command runs its tree has them for real. What a mount point had before waits beside the tree. Nothing runs in
the tree when covers come and go, and no symlink is followed but within it.
"""

import json
import os
from contextlib import suppress

from cache.store import LENT
from layers import inode
from layers.data import dataclass
from layers.entry import Entry
from layers.paths import resolve


@dataclass(frozen=True, slots=True)
class _Cover:
    path: str
    """In the tree, without symlinks."""
    before: str
    """Where what it had waits; empty if it had nothing."""
    home: str
    """Where the thing belongs; empty if nobody wants it back."""


class Covers:
    """The covers of one command."""

    def __init__(self, root: str, store: str) -> None:
        """`root` is the tree, without symlinks; `store` an empty folder in a temporary one of its store."""
        self._root = root
        self._store = store
        self._covers: list[_Cover] = []
        self._count = 0

    def put(self, target: str, thing: str, *, lent: bool = False) -> str:
        """Move a thing to a path of the tree, and give its place on the disk; `lent` things are moved back in the end.

        Folders on the way that are missing are made.
        """
        path = resolve(self._lookup, target)
        place = f"{self._root}/{path}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with inode.keeping_times(os.path.dirname(place)):
            before = self._aside(place)
            if lent:
                self._note(place, thing)
            os.rename(thing, place)
        self._covers.append(_Cover(path, before, thing if lent else ""))
        return place

    def link(self, target: str, first: str) -> None:
        """Have a path of the tree lead to what was put at another one."""
        link = f"{self._store}/link"
        os.symlink(f"/{os.path.relpath(first, self._root)}", link)
        self.put(target, link)

    def undo(self) -> None:
        """Take all of them away, the last one first, and put back what was there.

        If the command took the folder away in which the cover was, what the cover hid went with it.
        """
        while self._covers:
            self._undo(self._covers.pop())

    def _undo(self, cover: _Cover) -> None:
        place = f"{self._root}/{cover.path}"
        above = os.path.dirname(place)
        if os.path.isdir(above) and os.path.realpath(above) == above:
            with inode.keeping_times(above):
                now = self._aside(place)
                if cover.before:
                    os.rename(cover.before, place)
        else:
            now = ""
        if cover.home and now and os.path.isdir(now) and not os.path.islink(now):
            os.rename(now, cover.home)
        elif cover.home:
            os.mkdir(cover.home)

    def _note(self, place: str, home: str) -> None:
        """Have a sweep know where the thing belongs, should we not live to bring it home."""
        with open(os.path.join(os.path.dirname(self._store), LENT), "a", encoding="utf-8") as note:
            note.write(json.dumps([place, home]) + "\n")

    def _aside(self, place: str) -> str:
        """Move what stands at a place out of the tree, and say where it is; empty for nothing."""
        if not os.path.lexists(place):
            return ""
        self._count += 1
        aside = f"{self._store}/{self._count}"
        os.rename(place, aside)
        return aside

    def _lookup(self, path: str) -> Entry | None:
        place = f"{self._root}/{path}"
        with suppress(FileNotFoundError, NotADirectoryError):
            return inode.describe(place, os.lstat(place), path)
        return None
