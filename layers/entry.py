"""What stands at one path of a file system, in one form for tars, folders, indexes and views.

Paths are relative to the root, without a leading or trailing slash; the root itself is "". Names are bytes to the
kernel: here they are str decoded with `os.fsdecode`, so that a name that is not UTF-8 survives unchanged.
"""

from collections.abc import Hashable
from enum import StrEnum
from typing import BinaryIO, NamedTuple

SECOND = 1_000_000_000
"""In nanoseconds. Layers have times in whole seconds."""


class Kind(StrEnum):
    """The type of an entry; the values are those of index files on disk."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    CHARACTER = "c"
    BLOCK = "b"
    FIFO = "p"
    HARDLINK = "h"
    """Only in a tar: a further name of `target`. Elsewhere a hard link is a FILE with an `inode`."""


# What is done for each of a hundred thousand files goes by these: to find a member in its class takes a function call,
# and so does making a tuple by the name of its class.
FILE, DIRECTORY, SYMLINK, HARDLINK, CHARACTER = Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARDLINK, Kind.CHARACTER
new = tuple.__new__
"""`new(Entry, fields)` is an Entry of all its fields."""


class Entry(NamedTuple):
    """One path and everything that a layer says of it. A tuple, since builds make hundreds of thousands."""

    path: str
    kind: Kind
    mode: int = 0o644
    """Permission bits with setuid, setgid and sticky: 0 to 0o7777."""
    uid: int = 0
    gid: int = 0
    size: int = 0
    """Bytes of content; 0 for all but files."""
    mtime_ns: int = 0
    target: str = ""
    """Text of a symlink; path of the first name of a HARDLINK."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a CHARACTER or BLOCK entry."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    """Extended attributes, sorted by name."""
    inode: Hashable = None
    """Names with the same inode, unless None, are hard links of one file."""


Content = bytes | str | BinaryIO | None
"""Where the bytes of a file are: here; in the file at this path; in this stream, `size` bytes from where it stands."""


class Change(NamedTuple):
    """One entry of a layer to be, with its bytes. Whiteouts are changes too (`layers.entry.whiteout`)."""

    entry: Entry
    content: Content = None


WHITEOUT_PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"


def whiteout(path: str) -> Change:
    """The change that hides `path` of the layers below (image-spec layer.md, "Whiteouts")."""
    folder, slash, name = path.rpartition("/")
    return Change(Entry(f"{folder}{slash}{WHITEOUT_PREFIX}{name}", Kind.FILE, mode=0))
