"""What COPY and ADD read from: the build context, a stage or an image, all seen alike."""

import hashlib
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from layers.digest import Digest
from layers.entry import DIRECTORY, FILE, Content, Entry

_ROWS_AT_ONCE = 4096
"""Rows that are hashed in one call."""


class Tree(Protocol):
    """A file system to copy from. Paths are relative to its root, which is ""."""

    def lookup(self, path: str) -> Entry | None:
        """What stands at the path itself; a symlink is not followed. None: nothing, or nothing that may be seen."""

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """The path with its symlinks followed inside the tree; components that are missing stay as they are."""

    def children(self, path: str) -> list[Entry]:
        """What stands in a directory, sorted by name."""

    def content(self, entry: Entry) -> Content:
        """Where the bytes of a file are. A copy asks for all before it reads any: a stream must hold nothing open."""

    def digest(self, entry: Entry) -> Digest:
        """The digest of a file's bytes."""


class Chosen(NamedTuple):
    """One thing that a copy takes."""

    entry: Entry
    implied: bool = False
    """It was not chosen itself: a folder that something chosen is in."""


def walk(tree: Tree, top: Entry) -> Iterator[Entry]:
    """The entry and everything below it, parents first, names sorted within each directory."""
    waiting = [top]
    while waiting:
        entry = waiting.pop()
        yield entry
        if entry.kind is DIRECTORY:
            waiting.extend(reversed(tree.children(entry.path)))


def fingerprint(tree: Tree, top: Entry, *, owners: bool) -> Digest:
    """Digest of an entry and all below it, as `digest_of` makes it."""
    return digest_of(tree, top, map(Chosen, walk(tree, top)), owners=owners)


def digest_of(tree: Tree, top: Entry, chosen: Iterable[Chosen], *, owners: bool) -> Digest:
    """Digest of all that a copy takes over of things at and below `top`: what a cache key says of a source.

    Names relative to `top`, types, modes, link targets and bytes; with `owners` also owners and extended attributes,
    which only copies from a stage or an image keep. Not the times, which no step can rely on (a clone of a repository
    sets them anew), and not the order in which the file system lists names.
    """
    hasher = hashlib.sha256()
    cut = len(top.path) + 1 if top.path else 0
    for rows in _batches(_rows(tree, cut, chosen, owners=owners)):
        hasher.update(rows.encode("utf-8", "surrogateescape"))
    return Digest("sha256:" + hasher.hexdigest())


def _rows(tree: Tree, cut: int, chosen: Iterable[Chosen], *, owners: bool) -> Iterator[str]:
    """A row for each entry: fields that end in NUL, which none of them can hold, and always as many of them.

    So no two lists of entries give the same text. Plain text, since contexts have tens of thousands of files: it takes
    a fifth of the time of JSON.
    """
    first_names: dict[Hashable, str] = {}
    digest = tree.digest
    for entry, implied in chosen:
        path, kind, mode, uid, gid, _, _, target, device, xattrs, inode = entry
        name = path[cut:]
        if kind is not FILE:
            row = f"{name}\0{kind.value}{'+' if implied else ''}\0{mode}\0{target}\0{device[0]}:{device[1]}\0"
        elif inode is None or (first := first_names.setdefault(inode, name)) == name:
            row = f"{name}\0f\0{mode}\0{digest(entry)}\0\0"
        else:
            row = f"{name}\0f\0{mode}\0\0{first}\0"
        if owners:
            row += f"{uid}\0{gid}\0{len(xattrs)}\0" + "".join(f"{key}\0{value.hex()}\0" for key, value in xattrs)
        yield row


def _batches(rows: Iterator[str]) -> Iterator[str]:
    while batch := "".join(islice(rows, _ROWS_AT_ONCE)):
        yield batch
