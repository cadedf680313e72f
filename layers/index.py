"""The index of a layer: its entries, what it hides of the layers below, and the few files that a builder reads.

It is made in the pass in which a layer is written or verified (`layers.indexing`), and kept, so that questions about an
image need neither its blobs nor an unpacked tree.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, Self

from layers.data import dataclass, field
from layers.digest import canonical_json
from layers.entry import Entry, Kind
from layers.errors import StoreError

FORMAT = 1
"""Raise it when the bytes of an index, or what they mean, change: old ones are then made anew."""

_COLUMNS = ("path", "kind", "mode", "uid", "gid", "size", "mtime_ns", "target")
_KINDS = {kind.value: kind for kind in Kind}


class IndexFormatError(StoreError):
    """Bytes that should be an index are none, or one of another format: make it anew."""


@dataclass(frozen=True)  # without slots, for `folders`
class LayerIndex:
    """What one layer says. Paths are as they land in its tree (`layers.landing`), without any symlink on the way."""

    entries: Mapping[str, Entry]
    """By path, in the order of the tar. A hard link is an entry like its first name, and both have as `inode` the path
    of that first name; a link to a file of a layer below stays a HARDLINK with its target."""
    whiteouts: frozenset[str] = frozenset()
    """Paths of the layers below that are hidden. An entry of this layer may stand at the same path."""
    opaque: frozenset[str] = frozenset()
    """Folders of which nothing that the layers below have in them is seen."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The bytes of /etc/passwd, /etc/group and os-release, as far as they are in this layer, by path."""

    @cached_property
    def folders(self) -> Mapping[str, set[str]]:
        """The names in each folder of this layer. A folder that the tar does not list, but needs, is among them.

        Kept here so that all views over this layer share it.
        """
        folders: dict[str, set[str]] = {"": set()}
        for entry in self.entries.values():
            if entry.kind is Kind.DIRECTORY:
                _open_folder(folders, entry.path)
            else:
                folder, _, name = entry.path.rpartition("/")
                _open_folder(folders, folder).add(name)
        for path in self.whiteouts:
            _open_folder(folders, path.rpartition("/")[0])
        for path in self.opaque:
            _open_folder(folders, path)
        return folders

    def serialise(self) -> bytes:
        """The same index always gives the same bytes."""
        entries = list(self.entries.values())
        return canonical_json(
            {
                "format": FORMAT,
                "entries": [list(map(itemgetter(column), entries)) for column in range(len(_COLUMNS))],
                "device": [[row, *entry.device] for row, entry in enumerate(entries) if entry.device != (0, 0)],
                "xattrs": [
                    [row, [[name, value.decode("latin-1")] for name, value in entry.xattrs]]
                    for row, entry in enumerate(entries)
                    if entry.xattrs
                ],
                "inode": [[row, entry.inode] for row, entry in enumerate(entries) if entry.inode is not None],
                "whiteouts": sorted(self.whiteouts),
                "opaque": sorted(self.opaque),
                "files": {path: data.decode("latin-1") for path, data in self.files.items()},
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The index of these bytes; IndexFormatError if they are none of this format."""
        try:
            value = json.loads(data)
            if value["format"] != FORMAT:
                raise IndexFormatError(f"a layer's index has format {value['format']!r}, not {FORMAT}")
            return cls(
                {entry.path: entry for entry in _rows(value)},
                frozenset(value["whiteouts"]),
                frozenset(value["opaque"]),
                {path: text.encode("latin-1") for path, text in value["files"].items()},
            )
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise IndexFormatError("a layer's index cannot be read") from error


def _open_folder(folders: dict[str, set[str]], path: str) -> set[str]:
    """The names in a folder, which from now on is one, as are all above it."""
    names = folders.get(path)
    if names is not None:
        return names
    names = folders[path] = set()
    while path:
        path, _, name = path.rpartition("/")
        known = path in folders
        folders.setdefault(path, set()).add(name)
        if known:
            break
    return names


def _rows(value: Mapping[str, Any]) -> Sequence[Entry]:
    """The entries of a parsed document: columns of what all have, pairs with the row's number for what few have."""
    columns = value["entries"]
    if len(columns) != len(_COLUMNS) or len(set(map(len, columns))) != 1:
        raise IndexFormatError("a layer's index has columns of several lengths")
    path, kind, *others = columns
    entries = list(map(Entry, path, map(_KINDS.__getitem__, kind), *others))
    for row, major, minor in value["device"]:
        entries[row] = entries[row]._replace(device=(major, minor))
    for row, pairs in value["xattrs"]:
        xattrs = tuple((name, text.encode("latin-1")) for name, text in pairs)
        entries[row] = entries[row]._replace(xattrs=xattrs)
    for row, inode in value["inode"]:
        entries[row] = entries[row]._replace(inode=inode)
    return entries
