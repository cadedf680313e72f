"""Sources of ADD that are not in the context: URLs and repositories as trees to copy from."""

import hashlib

from builder.context.local import LocalTree
from builder.context.remote import Remotes
from builder.errors import ContextError
from builder.steps.remote import Remote, RemoteFile, RemoteRepository
from builder.steps.sources import Source
from cache.files import FileTable
from layers.digest import Digest
from layers.entry import Entry, Kind
from layers.paths import resolve
from layers.registry.downloaded import Downloaded

_UNNAMED = "content"
"""The one file of a tree, if its URL has no name for it."""

Row = list[str]
"""What of a source shows in the result: a part of the key."""


class Elsewhere:
    """Gives what remote sources name. A repository is checked out only when its files are read."""

    def __init__(self, remotes: Remotes, files: FileTable) -> None:
        self._remotes = remotes
        self._files = files

    def source(self, remote: Remote, excludes: tuple[str, ...]) -> tuple[Row, Source]:
        """The source, with its part of the key: the content of a URL, the commit of a repository."""
        if isinstance(remote, RemoteFile):
            return self._file(remote)
        return self._repository(remote, excludes)

    def _file(self, remote: RemoteFile) -> tuple[Row, Source]:
        content = self._remotes.file(remote.text)
        if remote.checksum:
            self._check(remote, remote.checksum, content)
        tree = FileTree(remote.name or _UNNAMED, content, self._remotes)
        row = ["url", remote.name, content.descriptor.digest, str(remote.unpack)]
        return row, Source(remote.name, tree.entry, remote.unpack, tree)

    def _check(self, remote: RemoteFile, checksum: Digest, content: Downloaded) -> None:
        found = content.descriptor.digest
        if checksum.algorithm != found.algorithm:
            with open(self._remotes.path(content), "rb") as file:
                found = Digest(f"{checksum.algorithm}:{hashlib.file_digest(file, checksum.algorithm).hexdigest()}")
        if found != checksum:
            raise ContextError(
                f"digest mismatch: {remote.text} has {found}, and --checksum wants {checksum}",
                hint="look at what has changed there before you change the checksum",
            )

    def _repository(self, remote: RemoteRepository, excludes: tuple[str, ...]) -> tuple[Row, Source]:
        repository, keep = remote.repository, remote.keep_git_dir
        commit = self._remotes.commit(repository)
        shown = [str(keep), commit.ref if keep else "", str(repository.submodules)]
        wanted = None
        if excludes:
            from builder.steps.filter import Filter  # few instructions need patterns, which bring pathspec

            wanted = Filter(excludes=excludes)
        tree = RepositoryTree(remote, self._remotes, self._files)
        return ["git", commit.hash, repository.subdir, *shown, *excludes], Source(
            "", tree.top, tree=tree, wanted=wanted
        )


class FileTree:
    """A tree of one file: what a URL gave."""

    def __init__(self, name: str, content: Downloaded, remotes: Remotes) -> None:
        size = content.descriptor.size
        self.entry = Entry(name, Kind.FILE, 0o600, size=size, mtime_ns=content.modified * 1_000_000_000)
        self._content = content
        self._remotes = remotes

    def lookup(self, path: str) -> Entry | None:
        return self.entry if path == self.entry.path else None

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        return resolve(self.lookup, path, follow_last=follow_last)

    def children(self, path: str) -> list[Entry]:
        return [] if path else [self.entry]

    def content(self, entry: Entry) -> str:  # noqa: ARG002 - there is but one
        return self._remotes.path(self._content)

    def digest(self, entry: Entry) -> Digest:  # noqa: ARG002 - there is but one
        return self._content.descriptor.digest


class RepositoryTree:
    """The files of a repository, checked out at the first question. No ignore file applies to them."""

    top = Entry("", Kind.DIRECTORY, 0o755)

    def __init__(self, remote: RemoteRepository, remotes: Remotes, files: FileTable) -> None:
        self._remote = remote
        self._remotes = remotes
        self._files = files
        self._tree: LocalTree | None = None

    def lookup(self, path: str) -> Entry | None:
        return self._checked_out().lookup(path)

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        return self._checked_out().resolve(path, follow_last=follow_last)

    def children(self, path: str) -> list[Entry]:
        return self._checked_out().children(path)

    def content(self, entry: Entry) -> str | bytes:
        return self._checked_out().content(entry)

    def digest(self, entry: Entry) -> Digest:
        return self._checked_out().digest(entry)

    def _checked_out(self) -> LocalTree:
        if self._tree is None:
            folder = self._remotes.checkout(self._remote.repository, keep_git_dir=self._remote.keep_git_dir)
            self._tree = LocalTree(folder, self._files)
        return self._tree
