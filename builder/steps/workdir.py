"""WORKDIR: the directory and those above it, made for the user whose they are to be."""

from collections.abc import Iterator

from builder.steps.step import MakeDirectory
from builder.steps.target import Target
from layers.entry import Change, Entry, Kind


def directory_changes(action: MakeDirectory, target: Target, owner: tuple[int, int], now_ns: int) -> Iterator[Change]:
    """The directories that are missing; all of them belong to the owner, where there is a USER."""
    template = Entry("", Kind.DIRECTORY, 0o755, *owner, mtime_ns=now_ns)
    return target.make_directories(action.path.strip("/"), template, owned=bool(action.user))
