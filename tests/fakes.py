"""Stand-ins that obey the same protocols as the real things."""

from collections.abc import Mapping

from layers.digest import Digest
from layers.entry import Content, Entry, Kind
from layers.paths import resolve


class MemoryTree:
    """A tree of files given as a mapping; values are bytes, or whole entries for anything but plain files."""

    def __init__(self, files: Mapping[str, bytes | Entry]) -> None:
        self._entries: dict[str, Entry] = {"": Entry("", Kind.DIRECTORY, 0o755)}
        self._bytes: dict[str, bytes] = {}
        for path, value in files.items():
            parts = path.split("/")
            for count in range(1, len(parts)):
                folder = "/".join(parts[:count])
                self._entries.setdefault(folder, Entry(folder, Kind.DIRECTORY, 0o755))
            if isinstance(value, Entry):
                self._entries[path] = value._replace(path=path)
            else:
                self._entries[path] = Entry(path, Kind.FILE, size=len(value))
                self._bytes[path] = value

    def lookup(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        return resolve(self.lookup, path, follow_last=follow_last)

    def children(self, path: str) -> list[Entry]:
        return [entry for name, entry in sorted(self._entries.items()) if name and name.rpartition("/")[0] == path]

    def content(self, entry: Entry) -> Content:
        return self._bytes.get(entry.path, b"")

    def digest(self, entry: Entry) -> Digest:
        return Digest.of(self._bytes.get(entry.path, b""))
