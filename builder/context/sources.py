"""Where a build's files come from: the Dockerfile, the context folder, and the contexts with a name."""

import os
import sys

from builder.context.ignore import find_ignore_file
from builder.context.local import LocalTree
from builder.dockerfile.reader import Source, read
from builder.errors import ContextError, DockerfileError
from builder.options import BuildOptions
from cache.store import Store


def read_dockerfile(options: BuildOptions) -> Source:
    """The Dockerfile that the options name, read into statements."""
    if options.dockerfile == "-":
        return read(sys.stdin.buffer.read(), "Dockerfile")
    path = options.dockerfile or os.path.join(options.context, "Dockerfile")
    try:
        with open(path, "rb") as file:
            return read(file.read(), os.path.basename(path))
    except OSError as error:
        raise DockerfileError(
            f"the Dockerfile {path} cannot be read: {error.strerror}", hint="-f FILE names another one"
        ) from error


def dockerfile_path(options: BuildOptions) -> str | None:
    """Where the Dockerfile is; None for standard input. -f is relative to the current folder, as for docker."""
    if options.dockerfile == "-":
        return None
    return options.dockerfile or os.path.join(options.context, "Dockerfile")


class Contexts:
    """Opens the folder that COPY and ADD read; each opening sees it as it is then, and remembers digests of files."""

    def __init__(self, options: BuildOptions, store: Store) -> None:
        self._options = options
        self._store = store
        self._opened: list[LocalTree] = []
        self._looked: LocalTree | None = None

    def is_ignored(self, path: str) -> bool:
        """Whether the ignore file leaves out a path of the build context, and all below it; False without a context."""
        if self._looked is None:
            try:
                self._looked = self.open()
            except ContextError:
                return False
        return self._looked.is_ignored(path)

    def open(self, name: str = "") -> LocalTree:  # noqa: ARG002 - named folders are about to come
        """A fresh look at the build context; ContextError if there is none."""
        ignore = find_ignore_file(self._options.context, dockerfile_path(self._options))
        tree = LocalTree(self._options.context, self._store.files, ignore)
        self._opened.append(tree)
        return tree

    def save(self) -> None:
        """Keep what was found out about files, for the next look or the next build."""
        for tree in self._opened:
            tree.save()
