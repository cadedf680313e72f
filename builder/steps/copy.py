"""COPY and ADD: where files land, and with what owner, mode and time.

Neither a mount nor an unpacked tree is needed: sources stream from the tree they are in into the layer. The rules are
those that BuildKit shows (docs/dockerfile.md lists them), down to which directory keeps its mode.
"""

import os
from collections.abc import Callable, Generator, Iterator

from builder.errors import ContextError
from builder.steps.attributes import Attributes
from builder.steps.sources import Source
from builder.steps.step import Copy
from builder.steps.target import Target, kind_name
from builder.steps.tree import Chosen, Tree
from layers.entry import DIRECTORY, FILE, Change, Content, Entry, Kind, new


def copy_changes(
    copy: Copy,
    sources: tuple[Source, ...],
    tree: Tree,
    target: Target,
    attributes: Attributes,
    warn: Callable[[str], None],
) -> Iterator[Change]:
    """The changes that the instruction makes to the target; each path comes once, as layer.md demands.

    `warn` is told of files that overwrite each other.
    """
    copying = _Copying(copy, tree, target, attributes)
    if any(source.unpack for source in sources):
        # The bytes of an archive can be had only as it is read: which entries last is found out in a first reading.
        last = _last(_Copying(copy, tree, target.anew(), attributes).changes(sources))
        yield from _lasting(copying.changes(sources), last)
    else:
        yield from {change.entry.path: change for change in copying.changes(sources)}.values()
    if copying.overwritten:
        warn(
            f"several files become /{copying.overwritten}, and only the last of them is left: the name of a directory"
            " ends in a slash here"
        )


def _last(changes: Iterator[Change]) -> dict[str, tuple[int, Entry]]:
    """What each path is in the end, and the number of the change that makes it so."""
    last: dict[str, tuple[int, Entry]] = {}
    for number, change in enumerate(changes):
        path, kind = change.entry.path, change.entry.kind
        before = last.get(path)
        if before and before[1].kind is Kind.DIRECTORY and kind is not Kind.DIRECTORY:
            for below in [other for other in last if other.startswith(path + "/")]:
                del last[below]
        last[path] = number, change.entry
    return last


def _lasting(changes: Iterator[Change], last: dict[str, tuple[int, Entry]]) -> Iterator[Change]:
    """Of the changes of a path the last one; of a directory at the place of the first, before what is in it."""
    listed = set()
    for number, change in enumerate(changes):
        path = change.entry.path
        if path not in last:
            continue
        end, entry = last[path]
        if entry.kind is not Kind.DIRECTORY:
            if number == end:
                yield change
        elif change.entry.kind is Kind.DIRECTORY and path not in listed:
            listed.add(path)
            yield Change(entry)


class _Copying:
    """One instruction at work. Its sources are written one after the other, each over what is there then."""

    def __init__(self, copy: Copy, tree: Tree, target: Target, attributes: Attributes) -> None:
        self._copy = copy
        self._tree = tree
        self._target = target
        self._attributes = attributes
        self._alone: set[str] = set()
        """Files that sources became under the very name of the destination."""
        self.overwritten = ""
        """One of these that a later source has become as well."""

    def changes(self, sources: tuple[Source, ...]) -> Iterator[Change]:
        """All changes; a path may come more than once."""
        for number, source in enumerate(sources):
            changes = self._unpacked(source) if source.unpack else None
            yield from self._source(source, number) if changes is None else changes
        for file in self._copy.inline:
            entry = Entry(file.name, Kind.FILE, size=len(file.data), mtime_ns=self._attributes.now_ns)
            top = yield from self._top()
            yield from self._beneath_or_as(top, file.name, entry, file.data)

    def _unpacked(self, source: Source) -> Iterator[Change] | None:
        """What is in an archive; None for anything else."""
        if source.entry.kind is not Kind.FILE:
            return None
        from builder.steps.archive import unpacked  # only ADD needs tar and compressors

        content = self._content(source, source.entry)
        return unpacked(source.named, content, self._copy.destination, self._target, self._attributes)

    def _source(self, source: Source, number: int) -> Iterator[Change]:
        top = yield from self._top()
        if source.is_folder:
            yield from self._contents(source, top, number)
        else:
            entry = _numbered(source.entry, number)
            yield from self._beneath_or_as(top, source.named, entry, self._content(source, source.entry))

    def _top(self) -> Generator[Change, None, str]:
        """Make what leads to the destination; where the destination is, all symlinks followed."""
        wanted = self._copy.destination.lstrip("/")
        folder = wanted.rpartition("/")[0]
        yield from self._made(folder, self._attributes.directory())
        return self._target.resolve(wanted.rstrip("/"))

    def _made(self, path: str, template: Entry) -> Iterator[Change]:
        return self._target.make_directories(path, template, owned=self._attributes.owner is not None)

    def _beneath_or_as(self, top: str, named: str, entry: Entry, content: Content) -> Iterator[Change]:
        """A file goes into a directory under its own name, or else becomes what the destination names."""
        there = self._target.lookup(top)
        if there is not None and there.kind is Kind.DIRECTORY:
            name = os.path.basename(named)
            if not name:
                raise ContextError(
                    f"/{top} is a directory, and the URL has no name for a file", hint="give the destination a name"
                )
            path = os.path.join(top, name)
        else:
            path = top
            self.overwritten = top if top in self._alone else self.overwritten
            self._alone.add(top)
            yield from self._made(os.path.dirname(top), self._attributes.directory())
        yield from self._put(entry._replace(path=path), content)

    def _contents(self, source: Source, top: str, number: int) -> Iterator[Change]:
        """The contents of a directory. `top` itself keeps mode and owner if it is there, and is 0755 if it is made."""
        there = self._target.lookup(top)
        # The root of a context has no time of its own: it is made anew for each build.
        time = source.entry.mtime_ns if source.entry.path else self._attributes.now_ns
        if there is None:
            yield from self._made(top, self._attributes.directory()._replace(mtime_ns=time))
        elif there.kind is not Kind.DIRECTORY:
            raise ContextError(f"cannot copy to non-directory: /{top} is a {kind_name(there)}")
        elif top:
            yield from self._target.put(there._replace(mtime_ns=time))
        cut = len(source.entry.path) + 1 if source.entry.path else 0
        prefix = f"{top}/" if top else ""
        for chosen in source.chosen(self._tree):
            entry = chosen.entry
            path = prefix + entry.path[cut:]
            if entry.kind is DIRECTORY:
                yield from self._directory(chosen, path)
            else:
                placed = new(Entry, (path, *_numbered(entry, number)[1:]))
                yield from self._put(placed, self._content(source, entry))

    def _directory(self, chosen: Chosen, path: str) -> list[Change]:
        """A directory over a directory takes everything; one that is only implied gives no more than its mode."""
        there = self._target.lookup(path)
        if there is not None and there.kind is not Kind.DIRECTORY:
            raise ContextError(f"cannot copy to non-directory: /{path} is a {kind_name(there)}")
        entry = self._attributes.of(chosen.entry._replace(path=path))
        if chosen.implied:
            entry = entry if there is None else there._replace(mode=chosen.entry.mode)
            entry = entry._replace(mtime_ns=self._attributes.now_ns)
        return self._target.put(entry)

    def _put(self, entry: Entry, content: Content) -> list[Change]:
        """Anything but a directory. It replaces what is there, unless that is a directory."""
        there = self._target.lookup(entry.path)
        if there is not None and there.kind is DIRECTORY:
            raise ContextError(f"cannot replace the directory /{entry.path} with a {kind_name(entry)}")
        return self._target.put(self._attributes.of(entry), content)

    def _content(self, source: Source, entry: Entry) -> Content:
        return (source.tree or self._tree).content(entry) if entry.kind is FILE else None


def _numbered(entry: Entry, number: int) -> Entry:
    """Hard links hold within what one source names, as in BuildKit: two sources of one inode are two files."""
    return entry if entry.inode is None else entry._replace(inode=(number, entry.inode))
