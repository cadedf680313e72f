"""One COPY or ADD on trees in memory, for tests of what lands where."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypedDict, Unpack

from fakes import MemoryTree

from builder.steps.attributes import Attributes
from builder.steps.copy import copy_changes
from builder.steps.mode import parse_mode
from builder.steps.sources import find_sources
from builder.steps.step import Copy, FromContext, InlineFile
from builder.steps.target import Target
from layers.entry import Change, Entry, Kind
from layers.indexing import IndexBuilder
from layers.view import View

NOW = 5_000_000_000
"""The time of the build, in nanoseconds."""

Files = Mapping[str, bytes | Entry]


class Flags(TypedDict, total=False):
    """What an instruction may say beside sources and destination."""

    owner: tuple[int, int] | None
    chmod: str
    unpack: bool
    parents: bool
    excludes: tuple[str, ...]
    inline: tuple[InlineFile, ...]
    warn: Callable[[str], None]


def nobody(_told: str) -> None:
    """Who is told nothing."""


def view(*entries: Entry) -> View:
    """A root file system of one layer."""
    builder = IndexBuilder()
    for entry in entries:
        builder.add(entry)
    return View([builder.finish()])


def changes_of(
    files: Files, source: str | tuple[str, ...], destination: str, *base: Entry, **flags: Unpack[Flags]
) -> Iterator[Change]:
    """The changes of one instruction, in their order."""
    chmod = flags.get("chmod", "")
    action = Copy(
        FromContext(),
        (source,) if isinstance(source, str) else source,
        destination,
        inline=flags.get("inline", ()),
        unpack=flags.get("unpack", False),
        parents=flags.get("parents", False),
        excludes=flags.get("excludes", ()),
    )
    tree = MemoryTree(files)
    attributes = Attributes(flags.get("owner"), parse_mode(chmod) if chmod else None, NOW)
    return copy_changes(
        action, find_sources(action, tree), tree, Target(view(*base)), attributes, flags.get("warn", nobody)
    )


def copied(
    files: Files, source: str | tuple[str, ...], destination: str, *base: Entry, **flags: Unpack[Flags]
) -> dict[str, Change]:
    """The same by path."""
    return {change.entry.path: change for change in changes_of(files, source, destination, *base, **flags)}


def folder(path: str, mode: int = 0o755, **attributes: int) -> Entry:
    """A directory."""
    return Entry(path, Kind.DIRECTORY, mode, **attributes)  # type: ignore[arg-type]  # numbers all


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, Kind.SYMLINK, 0o777, target=target)
