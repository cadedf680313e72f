"""Where the entries of a layer's tar land, and what they do there.

A tar is a list of instructions that may come from anybody. The index of a layer and its unpacked tree must agree on
what it says, so both ask here. The rules: a name never leads out of the root; a symlink of the same tar that stands in
the way is followed inside the root; a folder over a folder keeps what is in it, anything else replaces what was there.
After that no path that is handed out goes through a symlink: whoever unpacks can refuse to follow any.
"""

from enum import Enum, auto
from typing import NamedTuple

from layers.entry import CHARACTER, DIRECTORY, HARDLINK, OPAQUE_NAME, SYMLINK, WHITEOUT_PREFIX, Entry, Kind, new
from layers.errors import ImageError
from layers.paths import MOST_LINKS

_LONGEST = 4096
"""PATH_MAX of Linux: no process could name more, and a deep tree takes its depth in memory for each folder."""
_RESERVED_PREFIX = WHITEOUT_PREFIX + WHITEOUT_PREFIX
_NOBODY = 2**32 - 1
"""(uid_t) -1, which chown(2) reads as "leave it"."""


class Effect(Enum):
    """What a tar entry does to the tree."""

    ENTRY = auto()
    """It stands at its path; a HARDLINK is a further name of a file of this layer."""
    BORROW = auto()
    """It is a hard link to a file of a layer below, which no layer can share: it stands for a copy."""
    WHITEOUT = auto()
    """It hides its path of the layers below."""
    OPAQUE = auto()
    """It hides all that the layers below have in the folder at its path."""
    NOTHING = auto()
    """It says what is so already, or is a private note of another builder."""


_ENTRY = Effect.ENTRY  # for each of a hundred thousand files, as in `layers.entry`


class Placed(NamedTuple):
    """An entry with its `path`, and as a HARDLINK its `target`, as they are in the tree of the layer."""

    effect: Effect
    entry: Entry
    replaces: Kind | None
    """What stood at the path in this layer; None for nothing. HARDLINK is a link to a file of a layer below."""


class Landing:
    """The tree that a tar makes, as far as later entries of it depend on it: which kind stands at which path."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {"": Kind.DIRECTORY}
        self._links: dict[str, str] = {}
        self._folders: dict[str, str] = {"": ""}
        """Folders as tars name them -> the same without symlinks. Emptied when a link comes or goes on such a way."""

    def place(self, entry: Entry) -> Placed:
        """Where the entry lands; call in the order of the tar. ImageError for names that no honest tar has."""
        if entry.path == "":
            return self._place_root(entry)
        path, kind, target = entry.path, entry.kind, entry.target
        named, _, name = path.rpartition("/")
        if name in {"", ".", ".."} or "\0" in name:
            raise ImageError(f"the layer has an entry with the name {path!r}")
        folder = self._folder(named)
        if name.startswith(WHITEOUT_PREFIX):
            return self._place_mark(entry, folder, name)
        if folder != named:
            path = f"{folder}/{name}" if folder else name
            entry = entry._replace(path=path)
        if kind is CHARACTER and entry.device == (0, 0):  # overlay's own form of a whiteout, seen in tars
            return Placed(Effect.WHITEOUT, entry, self._kinds.get(path))
        if "\0" in target:
            raise ImageError(f"the layer has a link {path!r} to the name {target!r}")
        if kind is HARDLINK:
            return self._place_hard_link(entry)
        return new(Placed, (_ENTRY, _with_owner(entry), self._put(path, kind, target)))

    @staticmethod
    def _place_root(entry: Entry) -> Placed:
        if entry.kind is not Kind.DIRECTORY:
            raise ImageError("the layer has a root that is not a folder")
        return Placed(Effect.ENTRY, _with_owner(entry), Kind.DIRECTORY)

    def _place_mark(self, entry: Entry, folder: str, name: str) -> Placed:
        if name == OPAQUE_NAME:
            return Placed(Effect.OPAQUE, entry._replace(path=folder), Kind.DIRECTORY)
        if name.startswith(_RESERVED_PREFIX):  # notes of AUFS, such as .wh..wh.plnk
            return Placed(Effect.NOTHING, entry, None)
        hidden = name.removeprefix(WHITEOUT_PREFIX)
        if hidden in {"", ".", ".."}:
            raise ImageError(f"the layer has a whiteout of nothing: {entry.path!r}")
        path = f"{folder}/{hidden}" if folder else hidden
        return Placed(Effect.WHITEOUT, entry._replace(path=path), self._kinds.get(path))

    def _place_hard_link(self, entry: Entry) -> Placed:
        folder, _, name = entry.target.rpartition("/")
        if name in {"", ".", ".."} or "\0" in name:
            raise ImageError(f"the layer has a hard link {entry.path!r} to {entry.target!r}")
        folder = self._folder(folder)
        target = f"{folder}/{name}" if folder else name
        kind = self._kinds.get(target, Kind.HARDLINK)
        if kind is Kind.DIRECTORY or target.startswith(entry.path + "/"):
            raise ImageError(f"the layer has a hard link {entry.path!r} to {target!r}, which is no file")
        entry = entry._replace(target=target)
        is_here = target in self._kinds
        if is_here and target == entry.path:
            return Placed(Effect.NOTHING, entry, kind)
        replaces = self._put(entry.path, kind, self._links.get(target, ""))
        return Placed(Effect.ENTRY if is_here else Effect.BORROW, entry, replaces)

    def _put(self, path: str, kind: Kind, target: str) -> Kind | None:
        """Let `kind` stand at `path`; returns what stood there."""
        before = self._kinds.get(path)
        self._kinds[path] = kind
        if before is DIRECTORY and kind is not DIRECTORY:
            self._forget_below(path)
        if before is not None and (before is not kind or kind is SYMLINK):
            self._links.pop(path, None)
            self._folders = {"": ""}
        if kind is SYMLINK:
            self._links[path] = target
        return before

    def _forget_below(self, path: str) -> None:
        prefix = path + "/"
        for below in [other for other in self._kinds if other.startswith(prefix)]:
            del self._kinds[below]
            self._links.pop(below, None)

    def _folder(self, named: str) -> str:
        """The folder without symlinks; it and its parents exist from now on."""
        known = self._folders.get(named)
        if known is None:
            known = self._folders[named] = self._walk(named)
        return known

    def _walk(self, named: str) -> str:
        ahead = _parts(named)
        here = ""
        links = 0
        while ahead:
            name = ahead.pop()
            if name == "..":  # of a symlink's text: those of the tar are refused
                here = here.rpartition("/")[0]
                continue
            path = f"{here}/{name}" if here else name
            if len(path) > _LONGEST:
                raise ImageError(f"the layer has a path of more than {_LONGEST} bytes: {path[:40]!r}...")
            kind = self._kinds.setdefault(path, Kind.DIRECTORY)
            if kind is Kind.DIRECTORY:
                here = path
            elif kind is Kind.SYMLINK and links < MOST_LINKS:
                links += 1
                target = self._links[path]
                here = "" if target.startswith("/") else here
                ahead += _parts(target, of_link=True)
            else:
                raise ImageError(f"the layer has entries below {named!r}, which is no folder")
        return here


def _parts(path: str, *, of_link: bool = False) -> list[str]:
    """The components of a path, last one first."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not of_link and ".." in parts:
        raise ImageError(f"the layer has a name that leads elsewhere: {path!r}")
    if any(part.startswith(WHITEOUT_PREFIX) or "\0" in part for part in parts):
        raise ImageError(f"the layer has entries below a name that no folder may have: {path!r}")
    return parts[::-1]


def _with_owner(entry: Entry) -> Entry:
    """The entry with ids that chown(2) can set: those that say nothing, such as -1, are root's."""
    if 0 == entry.uid == entry.gid or (0 <= entry.uid < _NOBODY and 0 <= entry.gid < _NOBODY):
        return entry
    uid, gid = (number if 0 <= number < _NOBODY else 0 for number in (entry.uid, entry.gid))
    return entry._replace(uid=uid, gid=gid)
