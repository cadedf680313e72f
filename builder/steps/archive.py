"""ADD of an archive: its entries, put where the destination is.

The destination is the root of all names and links in the archive, as if it were unpacked in there with chroot(2). What
stands in the way of an entry goes; a symbolic link that leads out, or nowhere, is an error, as it is for BuildKit.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from itertools import chain
from typing import BinaryIO

from builder.errors import ContextError
from builder.steps.attributes import Attributes
from builder.steps.target import Target, kind_name
from layers.compress import decompressed
from layers.entry import Change, Content, Entry, Kind
from layers.errors import PybuildError
from layers.paths import resolve
from layers.tar import read_tar

Members = Iterator[tuple[Entry, BinaryIO]]


def unpacked(
    name: str, content: Content, destination: str, target: Target, attributes: Attributes
) -> Iterator[Change] | None:
    """The entries of the archive `name` as changes below `destination`, or None if the content is no archive.

    What counts is the content, not the name: plain or compressed, the first tar header must be sound. The entries keep
    the owners of the archive unless --chown says otherwise; --chmod does not touch them, as in BuildKit.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(_open(content))
        members = read_tar(decompressed(stream))
        try:
            first = next(members, None)
        except PybuildError:
            first = None
        if first is None:
            return None
        return _changes(stack.pop_all(), name, chain([first], members), _Unpacking(destination, target, attributes))


def _changes(stack: ExitStack, name: str, members: Members, unpacking: "_Unpacking") -> Iterator[Change]:
    with stack, _named(name):
        yield from unpacking.begin()
        for entry, stream in members:
            yield from unpacking.member(entry, stream)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors say which archive is at fault."""
    try:
        yield
    except PybuildError as error:
        hint = error.hint or "ADD --unpack=false copies the archive as it is"
        raise ContextError(f"the archive {name} cannot be unpacked: {error.message}", hint=hint) from error


class _Unpacking:
    """Puts the entries of one archive onto a target."""

    def __init__(self, destination: str, target: Target, attributes: Attributes) -> None:
        self._destination = destination.strip("/")
        self._target = target
        self._attributes = attributes
        self._top = ""
        self._replaced: set[str] = set()
        """Directories that gave way to something else."""

    def begin(self) -> Iterator[Change]:
        """Make the destination; call it first."""
        template, owned = self._attributes.directory_of_archive(), self._attributes.owner is not None
        yield from self._target.make_directories(self._destination, template, owned=owned)
        self._top = self._target.resolve(self._destination)

    def member(self, entry: Entry, stream: BinaryIO) -> Iterator[Change]:
        """The changes of one entry."""
        inside = _inside(entry.path)
        if not inside:
            return  # the destination is not part of what is unpacked
        path = yield from self._place(inside)
        placed = self._attributes.owned(entry._replace(path=path))
        if entry.kind is Kind.HARDLINK:
            placed = placed._replace(target=self._linked(entry))
        self._check_kind(placed)
        yield from self._target.put(placed, stream if entry.kind is Kind.FILE else None)

    def _place(self, inside: str) -> Generator[Change, None, str]:
        """Where an entry lands; directories that are missing above it are made, 0755 and root's."""
        folder, _, name = inside.rpartition("/")
        real = ""
        for component in folder.split("/") if folder else ():
            real = self._follow(f"{real}/{component}".lstrip("/"))
            there = self._target.lookup(self._whole(real))
            if there is None:
                template = Entry(self._whole(real), Kind.DIRECTORY, 0o755, mtime_ns=self._attributes.now_ns)
                yield from self._target.make_directory(template, owned=True)
            elif there.kind is not Kind.DIRECTORY:
                raise ContextError(f"{inside} cannot be written: /{there.path} is a {kind_name(there)}")
        return self._whole(f"{real}/{name}".lstrip("/"))

    def _follow(self, path: str) -> str:
        """The directory that a path within the destination leads to; only its last component may be a link."""
        there = self._target.lookup(self._whole(path))
        if there is None or there.kind is not Kind.SYMLINK:
            return path
        real = resolve(lambda inside: self._target.lookup(self._whole(inside)), path)
        if self._target.lookup(self._whole(real)) is None:
            raise ContextError(
                f"the link /{there.path} -> {there.target} leads nowhere below /{self._top}",
                hint="a link is followed as if the destination were the root directory",
            )
        return real

    def _linked(self, entry: Entry) -> str:
        """The path of the file that a hard link is a further name of."""
        inside = _inside(entry.target)
        folder, _, name = inside.rpartition("/")
        real = resolve(lambda path: self._target.lookup(self._whole(path)), folder)
        path = self._whole(f"{real}/{name}".lstrip("/"))
        there = self._target.lookup(path)
        if there is None or there.kind is Kind.DIRECTORY:
            raise ContextError(f"{entry.path} is a hard link to {entry.target}, which is no file")
        return path

    def _check_kind(self, placed: Entry) -> None:
        """A layer cannot say that a directory went and came back empty without naming all that was in it."""
        path = placed.path
        there = self._target.lookup(path)
        if placed.kind is not Kind.DIRECTORY:
            if there is not None and there.kind is Kind.DIRECTORY:
                self._replaced.add(path)
        elif path in self._replaced:
            raise ContextError(f"/{path} is a directory, then something else, then a directory again")

    def _whole(self, inside: str) -> str:
        """A path within the destination as a path of the root file system."""
        return f"{self._top}/{inside}".strip("/")


def _inside(path: str) -> str:
    """A name of the archive without `.` and `..`: above the destination there is nothing."""
    return os.path.normpath("/" + path).lstrip("/")


def _open(content: Content) -> BinaryIO:
    """The content as a stream that can be closed."""
    if isinstance(content, str):
        return open(content, "rb")
    return content if content is not None and not isinstance(content, bytes) else BytesIO(content or b"")
