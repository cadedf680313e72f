"""Which part of a source a copy takes: all but what --exclude names, and of --parents what its pattern names.

Patterns are those of .dockerignore, relative to the source, read and judged by the same code.
"""

from collections.abc import Iterator, Sequence
from enum import Enum, auto

from builder.context.ignore import IgnoreFile, Judge, Verdict
from builder.errors import ContextError
from builder.steps.tree import Chosen, Tree
from layers.entry import Entry, Kind

_UNSURE = frozenset("[\\")
"""Characters that may make a slash part of a component: what a folder is worth cannot be told from its own name."""


class Choice(Enum):
    """What a filter says of a path."""

    TAKE = auto()
    LOOK_BELOW = auto()
    """Not the path itself, but perhaps something below it."""
    LEAVE = auto()
    """Neither the path nor anything below it."""


class Filter:
    """The patterns of one source."""

    def __init__(self, *, only: str = "", excludes: Sequence[str] = ()) -> None:
        """`only` is the pattern of --parents, "" takes all; ContextError for a broken one."""
        self._only = _judge("--parents", (only,)) if only else None
        self._leading = [_judge("--parents", (beginning,)) for beginning in _beginnings(only)]
        self._is_deep = "**" in only or not _UNSURE.isdisjoint(only)
        self._excludes = _judge("--exclude", excludes) if excludes else None

    def choose(self, path: str) -> Choice:
        """What becomes of a path below the source. What is above it must not have been left."""
        verdict = self._excludes.judge(path) if self._excludes else Verdict.INCLUDED
        if verdict is Verdict.EXCLUDED:
            return Choice.LEAVE
        if self._only is None or self._only.judge(path) is not Verdict.INCLUDED:
            return Choice.TAKE if verdict is Verdict.INCLUDED else Choice.LOOK_BELOW
        return Choice.LOOK_BELOW if self._leads_on(path) else Choice.LEAVE

    def _leads_on(self, path: str) -> bool:
        """Whether the pattern might match something below a path that it does not match."""
        depth = path.count("/")
        if depth >= len(self._leading):
            return self._is_deep
        return self._leading[depth].judge(path) is not Verdict.INCLUDED


def _beginnings(pattern: str) -> Iterator[str]:
    """The pattern of each folder that something that matches must be in, uppermost first."""
    components = pattern.split("/")
    for count, component in enumerate(components[:-1], 1):
        if "**" in component or not _UNSURE.isdisjoint(component):
            return
        yield "/".join(components[:count])


def _judge(flag: str, patterns: Sequence[str]) -> Judge:
    # Of an ignore file, lines that begin with # are comments; a pattern that does so is meant.
    lines = "\n".join(f"\\{pattern}" if pattern.startswith("#") else pattern for pattern in patterns)
    try:
        return Judge(IgnoreFile(flag, lines.encode("utf-8", "surrogateescape")))
    except ContextError as error:
        # What it names as its place is no file that anybody could look into.
        raise ContextError(error.message, hint=error.hint) from error


def filtered(tree: Tree, top: Entry, wanted: Filter) -> Iterator[Chosen]:
    """What a filter takes of what is below a folder, parents first, names sorted within each folder.

    A folder that is not taken itself comes, marked as implied, before the first thing below it that is.
    """
    cut = len(top.path) + 1 if top.path else 0
    held: dict[str, Entry] = {}
    waiting = tree.children(top.path)[::-1]
    while waiting:
        entry = waiting.pop()
        choice = wanted.choose(entry.path[cut:])
        if choice is Choice.LEAVE:
            continue
        if choice is Choice.TAKE:
            yield from _released(held, entry.path)
            yield Chosen(entry)
        if entry.kind is Kind.DIRECTORY:
            if choice is Choice.LOOK_BELOW:
                held[entry.path] = entry
            waiting.extend(reversed(tree.children(entry.path)))


def _released(held: dict[str, Entry], path: str) -> list[Chosen]:
    """The folders above a path that were held back until now, uppermost first."""
    released = []
    folder = path.rpartition("/")[0]
    while folder in held:
        released.append(Chosen(held.pop(folder), implied=True))
        folder = folder.rpartition("/")[0]
    return released[::-1]
