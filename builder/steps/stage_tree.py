"""A stage or an image as a tree to copy from."""

import hashlib
import io
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from cache.files import hash_file
from cache.store import Store
from layers.compress import decompressed
from layers.digest import Digest
from layers.entry import Entry, Kind
from layers.landing import Effect, Landing
from layers.layer import Layer
from layers.tar import read_tar

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 1 << 20


class Home(NamedTuple):
    """Where the bytes of a file are."""

    layer: int
    path: str
    """As it is in the layer; not always the name that the file has in the whole."""


class Spooled(NamedTuple):
    """Bytes of a file that are part of a temporary one."""

    place: str
    start: int
    size: int
    digest: Digest


class Piece(io.RawIOBase):
    """Spooled bytes as a stream. It holds nothing open, so that there can be tens of thousands."""

    def __init__(self, spooled: Spooled) -> None:
        self._place = spooled.place
        self._at = spooled.start
        self._end = spooled.start + spooled.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")[: self._end - self._at]
        fd = os.open(self._place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            count = os.preadv(fd, [view], self._at)
        finally:
            os.close(fd)
        self._at += count
        return count


class StageTree:
    """Answers from the indexes of the layers; reads bytes from unpacked trees, or else from the layers' blobs.

    `fetch` must have been called for a file before its bytes are asked for. Bytes that come from blobs are put into a
    temporary file first, since a compressed tar can only be read from its beginning: one pass over each layer, and one
    file, whatever the number of files in it.
    """

    def __init__(self, layers: tuple[Layer, ...], store: Store) -> None:
        self._layers = layers
        self._store = store
        self._view = store.view(layers)
        self._children: dict[str, list[Entry]] = {}
        self._homes: dict[str, Home] = {}
        self._spooled: dict[Home, Spooled] = {}

    def lookup(self, path: str) -> Entry | None:
        entry = self._view.lookup(path)
        return self._distinct(entry) if entry else None

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        return self._view.resolve(path, follow_last=follow_last)

    def children(self, path: str) -> list[Entry]:
        children = self._children.get(path)
        if children is None:
            children = self._children[path] = [self._distinct(entry) for entry in self._view.children(path)]
        return children

    def content(self, entry: Entry) -> str | BinaryIO:
        home = self._home(entry)
        spooled = self._spooled.get(home)
        return cast(BinaryIO, Piece(spooled)) if spooled else self._in_tree(home)

    def digest(self, entry: Entry) -> Digest:
        home = self._home(entry)
        spooled = self._spooled.get(home)
        return spooled.digest if spooled else hash_file(self._in_tree(home))

    def fetch(self, entries: Iterable[Entry]) -> None:
        """Make the bytes of those of the entries that are files readable."""
        wanted: dict[int, set[str]] = {}
        for entry in entries:
            if entry.kind is Kind.FILE:
                home = self._home(entry)
                if home not in self._spooled:
                    wanted.setdefault(home.layer, set()).add(home.path)
        # Trees belong to root, or to the root of a user namespace: nobody else can read all of them.
        spooled = {
            layer: paths
            for layer, paths in wanted.items()
            if os.geteuid() or not self._store.trees.has(self._layers[layer].diff_id)
        }
        self._store.bring([self._layers[layer] for layer in spooled])
        for layer, paths in spooled.items():
            self._spool(layer, paths)

    def _distinct(self, entry: Entry) -> Entry:
        """The entry with an inode that is not that of another layer's file of the same name."""
        if entry.inode is None:
            return entry
        return entry._replace(inode=(self._view.layer_of(entry.path), entry.inode))

    def _in_tree(self, home: Home) -> str:
        """The path on disk of a file. It leads through no symlink: names in indexes are as they landed in the tree."""
        return os.path.join(self._store.trees.path(self._layers[home.layer].diff_id), home.path)

    def _home(self, entry: Entry) -> Home:
        home = self._homes.get(entry.path)
        if home is None:
            home = self._homes[entry.path] = self._find_home(entry.path)
        return home

    def _find_home(self, path: str) -> Home:
        """Where the bytes of a file are: a hard link may lead to a file of a layer below, and that again."""
        layers, view = self._layers, self._view
        while True:
            number = view.layer_of(path)
            assert number is not None, path
            layer = layers[number]
            entry = self._store.index_of(layer.diff_id, layer.descriptor).entries[path]
            if entry.kind is not Kind.HARDLINK:
                return Home(number, path)
            layers, path = layers[:number], entry.target
            view = self._store.view(layers)

    def _spool(self, layer: int, wanted: set[str]) -> None:
        """Write files of a layer's blob to a temporary one."""
        place = os.path.join(self._store.temporary("spool"), "files")
        needed = wanted | self._first_names(layer, wanted)
        written: dict[str, Spooled] = {}
        landing = Landing()
        with self._store.layout.open(self._layers[layer].descriptor) as blob, open(place, "xb") as spool:
            for raw, stream in read_tar(decompressed(blob)):
                effect, entry, _ = landing.place(raw)
                if effect is Effect.ENTRY and entry.kind is Kind.FILE and entry.path in needed:
                    written[entry.path] = _append(spool, place, stream)
                elif effect is Effect.ENTRY and entry.kind is Kind.HARDLINK and entry.target in written:
                    written[entry.path] = written[entry.target]
        for path in wanted:
            self._spooled[Home(layer, path)] = written[path]

    def _first_names(self, layer: int, paths: set[str]) -> set[str]:
        """The names that bytes stand at in the tar, for those of the paths that are further names of a file."""
        index = self._store.index_of(self._layers[layer].diff_id, self._layers[layer].descriptor)
        inodes = (index.entries[path].inode for path in paths)
        # Slashes tell files apart that had the same first name, one after the other.
        return {inode.rstrip("/") for inode in inodes if isinstance(inode, str)}


def _append(spool: BinaryIO, place: str, stream: BinaryIO) -> Spooled:
    """Write bytes to the end of a file, and hash them in passing."""
    hasher = hashlib.sha256()
    start = spool.tell()
    while block := stream.read(_BLOCK):
        spool.write(block)
        hasher.update(block)
    return Spooled(place, start, spool.tell() - start, Digest("sha256:" + hasher.hexdigest()))
