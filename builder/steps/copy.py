"""COPY and ADD: which files, where they land, and with what owner, mode and time.

Neither a mount nor an unpacked tree is needed: sources stream from the tree they are in into the layer. The rules are
those that BuildKit shows (docs/dockerfile.md lists them), down to which directory keeps its mode.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from builder.errors import ContextError
from builder.steps.attributes import Attributes
from builder.steps.step import Copy
from builder.steps.target import Target, kind_name
from builder.steps.tree import Tree
from builder.steps.wildcard import has_wildcard, matches
from layers.entry import Change, Entry, Kind


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to copy: the entry, and the path that named it (another one where a symlink was followed)."""

    named: str
    entry: Entry
    unpack: bool = False
    """An archive gives what is in it: ADD of a local one, and --unpack."""
    tree: Tree | None = None
    """Where the entry is, if that is not the tree of the instruction: a URL, or a repository."""


def find_sources(copy: Copy, tree: Tree) -> tuple[Source, ...]:
    """What the sources of an instruction name, in order. A pattern may match nothing; a plain name must be there.

    A link that is named, or matched, is followed inside the tree.
    """
    found = []
    for text in copy.sources:
        path = os.path.normpath("/" + text).lstrip("/")
        matched = matches(tree, path) if has_wildcard(path) else None
        for name in [path] if matched is None else [entry.path for entry in matched]:
            entry = tree.lookup(tree.resolve(name))
            if entry is None:
                raise ContextError(f"{text!r} is not there: nothing to copy")
            found.append(Source(name, entry, copy.unpack))
    return tuple(found)


def copy_changes(
    copy: Copy, sources: tuple[Source, ...], tree: Tree, target: Target, attributes: Attributes
) -> Iterator[Change]:
    """The changes that the instruction makes to the target; each path comes once, as layer.md demands."""
    if any(source.unpack for source in sources):
        # The bytes of an archive can be had only as it is read: which entries last is found out in a first reading.
        first = _changes(copy, sources, tree, target.anew(), attributes)
        last = {change.entry.path: (number, change.entry) for number, change in enumerate(first)}
        yield from _lasting(_changes(copy, sources, tree, target, attributes), last)
    else:
        yield from {change.entry.path: change for change in _changes(copy, sources, tree, target, attributes)}.values()


def _lasting(changes: Iterator[Change], last: dict[str, tuple[int, Entry]]) -> Iterator[Change]:
    """Of the changes of a path the last one; of a directory at the place of the first, before what is in it."""
    listed = set()
    for number, change in enumerate(changes):
        path = change.entry.path
        end, entry = last[path]
        if entry.kind is not Kind.DIRECTORY:
            if number == end:
                yield change
        elif change.entry.kind is Kind.DIRECTORY and path not in listed:
            listed.add(path)
            yield Change(entry)


def _changes(
    copy: Copy, sources: tuple[Source, ...], tree: Tree, target: Target, attributes: Attributes
) -> Iterator[Change]:
    for number, source in enumerate(sources):
        own = source.tree or tree
        if source.unpack and source.entry.kind is Kind.FILE:
            from builder.steps.archive import unpacked  # only ADD needs tar and compressors

            changes = unpacked(own.content(source.entry), copy.destination, target, attributes)
            if changes is not None:
                yield from changes
                continue
        yield from _copy_one(source, copy.destination, own, target, attributes, number)


def _copy_one(
    source: Source, destination: str, tree: Tree, target: Target, attributes: Attributes, number: int
) -> Iterator[Change]:
    wanted = destination.lstrip("/")
    folder, _, name = wanted.rpartition("/")
    if name in {"", ".", ".."}:
        folder, wanted = wanted, wanted.rstrip("/")
    yield from target.make_directories(_clean(folder), attributes.directory())
    top = target.resolve(_clean(wanted))
    there = target.lookup(top)
    if source.entry.kind is not Kind.DIRECTORY:
        if there is not None and there.kind is Kind.DIRECTORY:
            top = target.resolve(os.path.join(top, os.path.basename(source.named)), follow_last=False)
        yield from _put_other(source.entry, top, tree, target, attributes, number)
        return
    yield from _copy_directory(source.entry, top, tree, target, attributes, number)


def _copy_directory(
    source: Entry, top: str, tree: Tree, target: Target, attributes: Attributes, number: int
) -> Iterator[Change]:
    """The contents of a directory. `top` itself keeps its mode if it is there, and is 0755 if the copy makes it."""
    there = target.lookup(top)
    if there is None:
        yield from target.make_directories(top, attributes.directory()._replace(mtime_ns=source.mtime_ns))
    elif there.kind is not Kind.DIRECTORY:
        raise ContextError(f"cannot copy to non-directory: /{top} is a {kind_name(there)}")
    elif top:
        kept = attributes.of(there._replace(uid=source.uid, gid=source.gid, mtime_ns=source.mtime_ns))
        yield from target.put(kept._replace(mode=there.mode if attributes.mode is None else attributes.mode))
    cut = len(source.path) + 1 if source.path else 0
    below = list(reversed(tree.children(source.path)))
    while below:
        entry = below.pop()
        path = f"{top}/{entry.path[cut:]}" if top else entry.path[cut:]
        if entry.kind is Kind.DIRECTORY:
            blocking = target.lookup(path)
            if blocking is not None and blocking.kind is not Kind.DIRECTORY:
                raise ContextError(f"cannot copy to non-directory: /{path} is a {kind_name(blocking)}")
            yield from target.put(attributes.of(entry._replace(path=path)))
            below.extend(reversed(tree.children(entry.path)))
        else:
            yield from _put_other(entry, path, tree, target, attributes, number)


def _put_other(
    entry: Entry, path: str, tree: Tree, target: Target, attributes: Attributes, number: int
) -> Iterator[Change]:
    """Anything but a directory. It replaces what is there, unless that is a directory."""
    there = target.lookup(path)
    if there is not None and there.kind is Kind.DIRECTORY:
        raise ContextError(f"cannot replace the directory /{path} with a {kind_name(entry)}")
    # Hard links hold within what one source names, as in BuildKit: two sources of one inode are two files.
    inode = None if entry.inode is None else (number, entry.inode)
    content = tree.content(entry) if entry.kind is Kind.FILE else None
    try:
        yield from target.put(attributes.of(entry._replace(path=path, inode=inode)), content)
    finally:
        if content is not None and not isinstance(content, str | bytes):
            content.close()


def _clean(path: str) -> str:
    return os.path.normpath("/" + path).lstrip("/")
