"""A root file system as the indexes of its layers tell it: without blobs, unpacked trees or any right."""

import os
from collections.abc import Sequence

from layers import paths
from layers.entry import Entry, Kind
from layers.errors import ImageError
from layers.index import LayerIndex


class View:
    """The layers one upon the other, lowest first. Nothing is merged before somebody asks for it.

    Paths are relative to the root, without `.`, `..` or a slash at either end, and "" is the root; only `resolve` and
    `read` take any path.
    """

    def __init__(self, indexes: Sequence[LayerIndex]) -> None:
        self._indexes = tuple(indexes)
        self._layers: dict[str, tuple[int, ...]] = {}
        """Folder -> the layers that have something in it which is seen, uppermost first."""
        self._resolved: dict[str, str] = {}
        """Folder as it was named -> without symlinks."""

    def lookup(self, path: str) -> Entry | None:
        """What stands at the path, no symlink followed.

        The root is always there, and so is a folder that no tar lists but that others are in: 0755, owner 0:0.
        A hard link to a file of a lower layer is shown as that file. ImageError if there is no such file.
        """
        layer, entry = self._find(path)
        if entry is None or layer is None or entry.kind is not Kind.HARDLINK:
            return entry
        first = View(self._indexes[:layer]).lookup(entry.target)
        if first is None or first.kind is Kind.DIRECTORY:
            raise ImageError(f"the image has a hard link {path!r} to {entry.target!r}, which is no file")
        return first._replace(path=path, inode=None)

    def layer_of(self, path: str) -> int | None:
        """Which of the layers holds the entry at the path; None if none lists it."""
        return self._find(path)[0]

    def children(self, path: str) -> list[Entry]:
        """What is in a folder, sorted by the bytes of the names; nothing for what is no folder."""
        names: set[str] = set()
        for layer in self._layers_of(path):
            names |= self._indexes[layer].folders[path]
        prefix = path + "/" if path else ""
        found = (self.lookup(prefix + name) for name in sorted(names, key=os.fsencode))
        return [entry for entry in found if entry is not None]

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """The path without symlinks, as a process whose root this is would walk it.

        `..` stays within the root; components that are not there stay as they are. ImageError after 40 symlinks.
        """
        folder, _, name = path.rpartition("/")
        real = self._resolved.get(folder)
        if real is None:
            real = self._resolved[folder] = paths.resolve(self.lookup, folder)
        path = f"{real}/{name}" if real else name
        if name not in {"", ".", ".."}:
            entry = self.lookup(path) if follow_last else None
            if entry is None or entry.kind is not Kind.SYMLINK:
                return path
        return paths.resolve(self.lookup, path, follow_last=follow_last)

    def read(self, path: str) -> bytes | None:
        """The bytes of a file that the indexes carry, such as /etc/passwd; symlinks are followed."""
        path = self.resolve(path)
        layer, entry = self._find(path)
        if entry is None or layer is None:
            return None
        if entry.kind is Kind.HARDLINK:
            return View(self._indexes[:layer]).read(entry.target)
        return self._indexes[layer].files.get(path)

    def _find(self, path: str) -> tuple[int | None, Entry | None]:
        """The uppermost entry at the path that is seen, and its layer."""
        implied = path == ""
        for layer in self._layers_of(path.rpartition("/")[0]) if path else reversed(range(len(self._indexes))):
            index = self._indexes[layer]
            entry = index.entries.get(path)
            if entry is not None:
                if implied and entry.kind is not Kind.DIRECTORY:
                    break
                return layer, entry
            implied = implied or path in index.folders
            if path in index.whiteouts:
                break
        return None, Entry(path, Kind.DIRECTORY, 0o755) if implied else None

    def _layers_of(self, folder: str) -> tuple[int, ...]:
        known = self._layers.get(folder)
        if known is not None:
            return known
        if not folder:
            known = self._layers[""] = self._seen_at("", range(len(self._indexes))[::-1])
            return known
        layers, path = self._layers_of(""), ""
        for name in folder.split("/"):
            path = f"{path}/{name}" if path else name
            known = self._layers.get(path)
            layers = self._layers[path] = self._seen_at(path, layers) if known is None else known
        return layers

    def _seen_at(self, folder: str, above: Sequence[int]) -> tuple[int, ...]:
        """Those of the layers seen in the folder above that are still seen in this one."""
        seen = []
        for layer in above:
            index = self._indexes[layer]
            if folder in index.folders:
                seen.append(layer)
            elif folder in index.entries:  # no folder here: it hides all folders below
                break
            if folder in index.whiteouts or folder in index.opaque:
                break
        return tuple(seen)
