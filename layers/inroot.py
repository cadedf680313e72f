"""Folders below one root, opened so that no symlink is ever followed: a way out of the root cannot be named."""

import os
from types import TracebackType
from typing import Self

from layers.errors import StoreError

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 64


class InRoot:
    """Descriptors of the folders below a root; those used last stay open, since tars go folder by folder.

    Each component is opened from the descriptor of its parent with O_NOFOLLOW. That is what openat2(2) promises with
    RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, on every kernel and behind every seccomp filter; as the parent mostly is
    open already, it is a single system call too.
    """

    def __init__(self, root: str) -> None:
        """StoreError if the root is no folder that can be opened."""
        try:
            self._open: dict[str, int] = {"": os.open(root, _OPEN)}
        except OSError as error:
            raise StoreError(f"the folder {root} cannot be opened: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def folder(self, path: str) -> int:
        """The descriptor of a folder, valid until the next call.

        FileNotFoundError if it is not there; NotADirectoryError if it, or what it is in, is a symlink or a file.
        """
        descriptor = self._open.pop(path, None)
        if descriptor is None:
            descriptor = self._walk(path)
        return self._keep(path, descriptor)

    def forget(self, path: str) -> None:
        """Close the folder at a path and all below, since they are about to go."""
        for known in [known for known in self._open if known == path or known.startswith(path + "/")]:
            os.close(self._open.pop(known))

    def _walk(self, path: str) -> int:
        """Open a folder from the nearest one above it that is open."""
        above, missing = path, []
        while above not in self._open:
            above, _, name = above.rpartition("/")
            missing.append(name)
        descriptor = self._keep(above, self._open.pop(above))
        for name in reversed(missing[1:]):
            above = f"{above}/{name}" if above else name
            descriptor = self._keep(above, os.open(name, _OPEN, dir_fd=descriptor))
        return os.open(missing[0], _OPEN, dir_fd=descriptor)

    def _keep(self, path: str, descriptor: int) -> int:
        """Note as the one used last: at the end of the dict."""
        self._open[path] = descriptor
        if len(self._open) > _MOST_OPEN:
            os.close(self._open.pop(next(known for known in self._open if known)))
        return descriptor
