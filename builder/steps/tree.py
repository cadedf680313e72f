"""What COPY and ADD read from: the build context, a stage or an image, all seen alike."""

import hashlib
from collections.abc import Iterator
from typing import Protocol

from layers.digest import Digest, canonical_json
from layers.entry import Content, Entry, Kind


class Tree(Protocol):
    """A file system to copy from. Paths are relative to its root, which is ""."""

    def lookup(self, path: str) -> Entry | None:
        """What stands at the path itself; a symlink is not followed. None: nothing, or nothing that may be seen."""

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """The path with its symlinks followed inside the tree; components that are missing stay as they are."""

    def children(self, path: str) -> list[Entry]:
        """What stands in a directory, sorted by name."""

    def content(self, entry: Entry) -> Content:
        """Where the bytes of a file are."""

    def digest(self, entry: Entry) -> Digest:
        """The digest of a file's bytes."""


def walk(tree: Tree, top: Entry) -> Iterator[Entry]:
    """The entry and everything below it, parents first, names sorted within each directory."""
    waiting = [top]
    while waiting:
        entry = waiting.pop()
        yield entry
        if entry.kind is Kind.DIRECTORY:
            waiting.extend(reversed(tree.children(entry.path)))


def fingerprint(tree: Tree, top: Entry, *, owners: bool) -> Digest:
    """Digest of all that a copy takes over from `top`: what a cache key says of a source.

    Names relative to `top`, types, modes, link targets and bytes; with `owners` also owners and extended attributes,
    which only copies from a stage or an image keep. Not the times, which no step can rely on (a clone of a repository
    sets them anew), and not the order in which the file system lists names.
    """
    hasher = hashlib.sha256()
    first_names: dict[object, str] = {}
    for entry in walk(tree, top):
        name = entry.path[len(top.path) :].lstrip("/")
        row = _row(tree, entry, name, first_names)
        if owners:
            row += [entry.uid, entry.gid, [[key, value.hex()] for key, value in entry.xattrs]]
        hasher.update(canonical_json(row))
    return Digest("sha256:" + hasher.hexdigest())


def _row(tree: Tree, entry: Entry, name: str, first_names: dict[object, str]) -> list[object]:
    if entry.kind is not Kind.FILE:
        return [name, entry.kind, entry.mode, entry.target, list(entry.device)]
    first = first_names.setdefault(entry.inode, name) if entry.inode is not None else name
    return [name, entry.kind, entry.mode, tree.digest(entry) if first == name else "", first]
