"""What differs between two images: configuration, layers and files, and which layer brought each difference.

The indexes of the layers tell nearly all of it. Bytes are read only of files that might differ, those of one size in
layers that are not the same, and each layer in one pass.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from builder.side import Side
from layers.data import dataclass
from layers.digest import Digest
from layers.entry import Entry, Kind
from layers.index import LayerIndex

_NAMES = {
    Kind.FILE: "file",
    Kind.DIRECTORY: "directory",
    Kind.SYMLINK: "symbolic link",
    Kind.CHARACTER: "device",
    Kind.BLOCK: "device",
    Kind.FIFO: "FIFO",
    Kind.HARDLINK: "hard link",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not the same."""

    path: str
    what: tuple[str, ...]
    """In words, such as `mode 0644 -> 0755`; empty if one of the images does not have the path."""
    first: int | None
    """The layer that the path comes from, in each of the images; None if it is not there, or no layer lists it."""
    second: int | None
    is_in_first: bool = True
    is_in_second: bool = True
    below: int = 0
    """How many paths below are there in one image only, as this one is."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that the configurations say differently; None: not at all."""

    name: str
    first: object
    second: object


Look = Callable[[str], tuple[Entry | None, int | None]]
"""What an image has at a path, and in which layer."""


class Comparison:
    """Compares one image with another. With `times` false, two files may be of any age."""

    def __init__(self, first: Side, second: Side, *, times: bool) -> None:
        self._first = first
        self._second = second
        self._times = times

    def settings(self) -> Iterator[Setting]:
        """The differences of the configurations, but for the layers and, unless `times` count, when they were made."""
        first, second = (_flat(side.config, times=self._times) for side in (self._first, self._second))
        for name in sorted(first.keys() | second.keys()):
            if first.get(name) != second.get(name):
                yield Setting(name, first.get(name), second.get(name))

    def files(self) -> list[Difference]:
        """The differences of the root file systems, sorted by path."""
        paths = {path for side in (self._first, self._second) for index in side.indexes for path in _paths(index)}
        return self._compare(paths, _in_view(self._first), _in_view(self._second))

    def layer(self, number: int) -> list[Difference]:
        """The differences of the layers at one place, sorted by path; what they hide is shown as `.wh.` files."""
        first, second = self._first.indexes[number], self._second.indexes[number]
        paths = set(first.entries).union(second.entries)
        found = self._compare(paths, _in_layer(first, number), _in_layer(second, number))
        for path in sorted((first.whiteouts ^ second.whiteouts) - {item.path for item in found}, key=os.fsencode):
            is_first = path in first.whiteouts
            found.append(Difference(path, ("removed",), number, number, is_first, not is_first))
        return found

    def _compare(self, paths: Iterable[str], first: Look, second: Look) -> list[Difference]:
        found: dict[str, Difference] = {}
        doubtful: dict[str, tuple[int, int]] = {}
        tops: dict[str, str] = {}
        for path in sorted(paths, key=os.fsencode):
            (one, layer), (other, other_layer) = first(path), second(path)
            if one is None and other is None:
                continue
            if one is None or other is None:
                top = tops[path] = tops.get(path.rpartition("/")[0], path)
                below = found[top].below + 1 if top in found else 0
                entry = one or other
                assert entry is not None
                found[top] = Difference(top, (), layer, other_layer, one is not None, other is not None, below)
                continue
            what = self._attributes(one, other)
            if what:
                found[path] = Difference(path, what, layer, other_layer)
            if layer is not None and other_layer is not None and _may_differ(one, other):
                doubtful[path] = (layer, other_layer)
        for path in self._other_bytes(doubtful):
            layer, other_layer = doubtful[path]
            before = found[path].what if path in found else ()
            found[path] = Difference(path, (*before, "content"), layer, other_layer)
        return sorted(found.values(), key=lambda item: os.fsencode(item.path))

    def _attributes(self, one: Entry, other: Entry) -> tuple[str, ...]:
        """In which attributes two entries differ, in words."""
        if one.kind is not other.kind:
            return (f"{_NAMES[one.kind]} -> {_NAMES[other.kind]}",)
        pairs = {
            "mode": (f"{one.mode:04o}", f"{other.mode:04o}"),
            "owner": (f"{one.uid}:{one.gid}", f"{other.uid}:{other.gid}"),
            "size": (one.size, other.size),
            "target": (one.target, other.target),
            "device": (one.device, other.device),
            "attributes": (_names(one), _names(other)) if one.xattrs != other.xattrs else ("", ""),
            "time": (_time(one), _time(other)) if self._times else (0, 0),
        }
        return tuple(f"{name} {before} -> {after}" for name, (before, after) in pairs.items() if before != after)

    def _other_bytes(self, doubtful: dict[str, tuple[int, int]]) -> list[str]:
        """Those of the paths whose files do not have the same bytes."""
        ids = self._first.image.config.diff_ids, self._second.image.config.diff_ids
        paths = [path for path, (one, other) in doubtful.items() if ids[0][one] != ids[1][other]]
        first = _digests(self._first, {path: doubtful[path][0] for path in paths})
        second = _digests(self._second, {path: doubtful[path][1] for path in paths})
        return [path for path in paths if first.get(path) != second.get(path)]


def _may_differ(one: Entry, other: Entry) -> bool:
    """Whether two files may have other bytes, though nothing says so."""
    return one.kind is other.kind is Kind.FILE and one.size == other.size > 0


def _digests(side: Side, layers: dict[str, int]) -> dict[str, Digest]:
    """The digests of files of an image, by path; `layers` says which layer each is in."""
    found: dict[str, Digest] = {}
    for layer in sorted(set(layers.values())):
        found.update(side.digests(layer, [path for path, where in layers.items() if where == layer]))
    return found


def _paths(index: LayerIndex) -> Iterator[str]:
    yield from index.entries
    yield from index.folders


def _in_view(side: Side) -> Look:
    return lambda path: (side.view.lookup(path), side.view.layer_of(path))


def _in_layer(index: LayerIndex, number: int) -> Look:
    return lambda path: (index.entries.get(path), number)


def _names(entry: Entry) -> str:
    return ",".join(name for name, _ in entry.xattrs) or "none"


def _time(entry: Entry) -> int:
    return entry.mtime_ns // 1_000_000_000


def _flat(config: Mapping[str, Any], *, times: bool) -> dict[str, object]:
    """A configuration as single settings: `Env PATH`, `Labels version`, `Cmd`."""
    flat: dict[str, object] = {}
    for name, value in config.items():
        if name == "config":
            for key, part in value.items():
                flat.update(_parts(key, part))
        elif name not in {"rootfs", "history"} and (times or name != "created"):
            flat[name] = value
    items = config.get("history", [])
    flat["history"] = items if times else [{**item, "created": ""} for item in items]
    return flat


def _parts(key: str, value: Any) -> dict[str, object]:  # noqa: ANN401 - JSON is any
    if key == "Env":
        return {f"Env {name}": text for name, _, text in (line.partition("=") for line in value)}
    if isinstance(value, dict) and key in {"Labels", "ExposedPorts", "Volumes"}:
        return {f"{key} {name}": text for name, text in value.items()}
    return {key: value}
