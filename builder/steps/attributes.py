"""Owner, mode and time that the flags of COPY and ADD give to what they copy."""

from builder.steps.mode import Mode
from layers.data import dataclass
from layers.entry import Entry, Kind


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the flags and the origin make of owner and mode."""

    owner: tuple[int, int] | None
    """From --chown; None: as in the source."""
    mode: Mode | None
    """From --chmod; None: as in the source."""
    now_ns: int
    """The time of what the copy has to invent: directories, here-documents."""

    def of(self, entry: Entry) -> Entry:
        """The entry with them."""
        return entry if self.owner is None is self.mode else self._chmod(self.owned(entry))

    def owned(self, entry: Entry) -> Entry:
        """The entry with the owner alone: --chmod does not touch what comes out of an archive."""
        return entry if self.owner is None else entry._replace(uid=self.owner[0], gid=self.owner[1])

    def directory(self) -> Entry:
        """The form of a directory that no source gave: 0755 or the octal --chmod, owned by root or the --chown owner.

        A symbolic mode changes what is there, and here is nothing.
        """
        folder = self._plain_directory()
        return folder._replace(mode=self.mode) if isinstance(self.mode, int) else folder

    def directory_of_archive(self) -> Entry:
        """The form of the directories that lead to the destination of an archive: --chmod does not count for them."""
        return self._plain_directory()

    def _plain_directory(self) -> Entry:
        return self.owned(Entry("", Kind.DIRECTORY, 0o755, mtime_ns=self.now_ns))

    def _chmod(self, entry: Entry) -> Entry:
        if self.mode is None or entry.kind is Kind.SYMLINK:
            return entry
        if isinstance(self.mode, int):
            return entry._replace(mode=self.mode)
        return entry._replace(mode=self.mode.applied(entry.mode, is_folder=entry.kind is Kind.DIRECTORY))
