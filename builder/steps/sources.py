"""What the sources of COPY and ADD name, and which files that is in the end."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.errors import ContextError
from builder.steps.step import Copy
from builder.steps.tree import Chosen, Tree, walk
from builder.steps.wildcard import has_wildcard, matches
from layers.data import dataclass
from layers.entry import Entry, Kind, new

if TYPE_CHECKING:
    from builder.steps.filter import Filter

_PIVOT = "/./"
"""What --parents keeps of a path begins after it."""


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to copy: the entry, and the path that named it (another one where a symlink was followed)."""

    named: str
    entry: Entry
    unpack: bool = False
    """An archive gives what is in it: ADD of a local one, and --unpack."""
    tree: Tree | None = None
    """Where the entry is, if that is not the tree of the instruction: a URL, or a repository."""
    wanted: "Filter | None" = None
    """What of a folder's contents is copied; None: all."""

    @property
    def is_folder(self) -> bool:
        """A folder gives its contents; it is not copied itself."""
        return self.entry.kind is Kind.DIRECTORY

    def chosen(self, tree: Tree) -> Iterator[Chosen]:
        """All that is copied, in an order in which it can be written: a file itself, of a folder what is in it.

        `tree` is that of the instruction.
        """
        tree = self.tree or tree
        if self.wanted is not None and self.is_folder:
            from builder.steps.filter import filtered  # as in `find_sources`

            return filtered(tree, self.entry, self.wanted)
        entries = walk(tree, self.entry)
        if self.is_folder:
            next(entries)
        return (new(Chosen, (entry, False)) for entry in entries)


def find_sources(copy: Copy, tree: Tree) -> tuple[Source, ...]:
    """What the sources of an instruction name, in order. A pattern may match nothing; a plain name must be there.

    A link that is named, or matched, is followed inside the tree; of --parents only as far as the pivot.
    """
    found: list[Source] = []
    for text in copy.sources:
        if copy.parents:
            found += _with_parents(copy, text, tree)
        else:
            found += _named(copy, text, _clean(text), "", tree)
    return tuple(found)


def _with_parents(copy: Copy, text: str, tree: Tree) -> list[Source]:
    """The sources of --parents: the root, or what stands before the pivot, with the rest as a pattern of what to take.

    Nothing after the pivot means everything. ContextError if a plain name leads nowhere.
    """
    root, pivot, rest = text.partition(_PIVOT)
    if not pivot:
        root, rest = "", text
    only = _clean(rest)
    sources = _named(copy, text, _clean(root), only, tree)
    if not has_wildcard(root) and not has_wildcard(only):
        for source in sources:
            _check_is_there(text, f"{source.entry.path}/{only}".strip("/"), tree)
    return sources


def _check_is_there(text: str, path: str, tree: Tree) -> None:
    """--parents walks the tree as it is: through a symlink it would find nothing, and say nothing."""
    if tree.lookup(path) is not None:
        return
    if tree.lookup(tree.resolve(path)) is None:
        raise _missing(text)
    raise ContextError(
        f"{text!r} leads through a symbolic link, which --parents does not follow",
        hint="name the folder that the link leads to, or put /./ after the link",
    )


def _named(copy: Copy, text: str, path: str, only: str, tree: Tree) -> list[Source]:
    wanted = None
    if only or copy.excludes:
        from builder.steps.filter import Filter  # few instructions need patterns, which bring pathspec

        wanted = Filter(only=only, excludes=copy.excludes)
    matched = matches(tree, path) if has_wildcard(path) else None
    found = []
    for name in [path] if matched is None else [entry.path for entry in matched]:
        entry = tree.lookup(tree.resolve(name))
        # Nothing can follow a pivot after a file.
        fits = entry is not None and (not only or entry.kind is Kind.DIRECTORY)
        if entry is not None and fits:
            found.append(Source(name, entry, copy.unpack, wanted=wanted))
        elif entry is None or matched is None:
            raise _missing(text)
    return found


def _missing(text: str) -> ContextError:
    return ContextError(f"{text!r} is not there: nothing to copy", span=text)


def _clean(path: str) -> str:
    """The path within the tree: `..` stops at its root."""
    return os.path.normpath("/" + path).lstrip("/")
