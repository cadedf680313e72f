"""Owner, mode and time that the flags of COPY and ADD give to what they copy."""

from dataclasses import dataclass

from layers.entry import Entry, Kind


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the flags and the origin make of owner and mode."""

    owner: tuple[int, int] | None
    """From --chown; None: as in the source."""
    mode: int | None
    """From --chmod; None: as in the source."""
    now_ns: int
    """The time of directories that the copy has to invent."""

    def of(self, entry: Entry) -> Entry:
        """The entry with them."""
        if self.owner is not None:
            entry = entry._replace(uid=self.owner[0], gid=self.owner[1])
        if self.mode is not None and entry.kind is not Kind.SYMLINK:
            entry = entry._replace(mode=self.mode)
        return entry

    def directory(self) -> Entry:
        """The form of a directory that no source gave: 0755, owned by root or the --chown owner."""
        return self.of(Entry("", Kind.DIRECTORY, 0o755, mtime_ns=self.now_ns))
