"""What a build reads from elsewhere: a URL or a repository is asked once in a build, whoever needs it."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from builder.context.once import Once
from builder.credentials import Secret
from builder.errors import ContextError
from builder.report import Report
from cache.store import Store
from layers.registry.downloaded import Downloaded
from layers.registry.settings import RegistrySettings

# What speaks HTTP or runs git is imported where it is used: most builds read nothing from elsewhere.
if TYPE_CHECKING:
    from builder.context.git import Commit, Git
    from builder.context.repository import Repository
    from layers.registry.connection import Connection


class Remotes:
    """URLs and repositories of one build; any thread may ask. ContextError for what does not come."""

    def __init__(
        self,
        store: Store,
        settings: RegistrySettings,
        environment: Mapping[str, str],
        report: Report,
        secrets: Mapping[str, Secret],
    ) -> None:
        """`environment` is what git may see a part of; some of the `secrets` are logins (`builder.logins`)."""
        self._secrets = secrets
        self.check_cancelled: Callable[[], object] = lambda: None
        """Called now and then while something is fetched; it ends that by raising an error."""
        self._store = store
        self._settings = settings
        self._environment = environment
        self._report = report
        self._stack = ExitStack()
        self._connections: Once[Connection] = Once()
        self._gits: Once[Git] = Once()
        self._files: Once[Downloaded] = Once()
        self._commits: Once[Commit] = Once()
        self._checkouts: Once[str] = Once()

    def close(self) -> None:
        """Close the connections."""
        self._stack.close()

    def file(self, url: str) -> Downloaded:
        """The content of a URL as a blob of the store; it is fetched only if it is not what came the last time."""
        url = url.partition("#")[0]
        return self._files.get(url, lambda: self._fetch(url))

    def path(self, downloaded: Downloaded) -> str:
        """The file with the content of a URL, verified; StoreError if it was damaged since it came."""
        with self._store.layout.open(downloaded.descriptor) as blob:
            while blob.read(1 << 20):
                pass
        return self._store.layout.path(downloaded.descriptor.digest)

    def commit(self, repository: "Repository") -> "Commit":
        """What the ref of a repository is now."""

        def ask() -> "Commit":
            if repository.is_pinned:
                return self._git().commit(repository)
            with self._report.running(f"[internal] look up {repository}"):
                return self._git().commit(repository)

        return self._commits.get(repository, ask)

    def checkout(self, repository: "Repository", *, keep_git_dir: bool) -> str:
        """A temporary folder with the files of a repository's folder."""
        return self._checkouts.get((repository, keep_git_dir), lambda: self._check_out(repository, keep=keep_git_dir))

    def _fetch(self, url: str) -> Downloaded:
        from builder.logins import of_url
        from layers.registry.download import download, place_of
        from layers.registry.errors import BusyError, RegistryError, UnreachableError

        def progress(done: int, total: int) -> None:
            self.check_cancelled()
            self._report.progress(job, place, done, total)

        place = place_of(url)
        known = self._store.downloads.find(url)
        with self._report.running(f"[internal] fetch {place}") as job:
            try:
                found = download(
                    self._connection(),
                    url,
                    self._store.layout,
                    known=known.validator if known else None,
                    progress=progress,
                    authorization=of_url(url, self._secrets),
                )
            except RegistryError as error:
                general = isinstance(error, BusyError | UnreachableError)
                hint = "check the URL, and the network" if general else error.hint
                raise ContextError(error.message, hint=hint) from error
        if found is None:
            assert known is not None
            return known
        self._store.downloads.add(url, found)
        return found

    def _check_out(self, repository: "Repository", *, keep: bool) -> str:
        from builder.context.local import LocalTree
        from layers.entry import Kind

        commit = self.commit(repository)
        folder = self._store.temporary("git")
        with self._report.running(f"[internal] check out {repository}"):
            self._git().checkout(repository, commit, folder, keep_git_dir=keep)
        tree = LocalTree(folder, self._store.files)
        subdir = tree.resolve(repository.subdir)
        entry = tree.lookup(subdir)
        if entry is None or entry.kind is not Kind.DIRECTORY:
            raise ContextError(f"{repository}: commit {commit.hash} has no folder {repository.subdir!r}")
        return os.path.join(folder, subdir) if subdir else folder

    def _connection(self) -> "Connection":
        from layers.registry.connection import Connection

        def connect() -> Connection:
            connection = Connection(self._settings)
            self._stack.callback(connection.close)
            return connection

        return self._connections.get((), connect)

    def _git(self) -> "Git":
        from builder.context.git import Git
        from builder.logins import of_repository

        def make() -> Git:
            return Git(
                self._environment,
                ca_file=self._settings.ca_file or "",
                check_cancelled=self._check,
                login=lambda url: of_repository(url, self._secrets),
            )

        return self._gits.get((), make)

    def _check(self) -> None:
        self.check_cancelled()  # whatever it is by now


def file_name(url: str) -> str:
    """What the path of a URL calls its content; "" if it has no name for it."""
    from urllib.parse import unquote, urlsplit  # as above

    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    return "" if name in {"", ".", ".."} or "\0" in name else name
