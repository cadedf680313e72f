"""A tar as a context: told apart from other files by its first bytes, and unpacked without trust."""

import io
import os
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import ContextError
from layers import inode
from layers.compress import decompressed
from layers.entry import Entry, Kind
from layers.errors import ImageError
from layers.inroot import InRoot
from layers.landing import Effect, Landing
from layers.tar import read_tar
from layers.tar_header import BLOCK, ZEROS, Header, TarError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""Of gzip, bzip2, xz and zstd."""


class Peeked(io.RawIOBase):
    """A stream whose beginning has been looked at."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self.head = b""
        """As much as a tar's first header takes, less only if there is no more."""
        while len(self.head) < BLOCK and (piece := stream.read(BLOCK - len(self.head))):
            self.head += piece
        self._left = self.head

    @property
    def is_archive(self) -> bool:
        """Whether this is a tar, or compressed, which no Dockerfile is."""
        if self.head.startswith(_MAGIC) or self.head == ZEROS:
            return True
        try:
            return len(self.head) == BLOCK and bool(Header.parse(self.head))
        except TarError:
            return False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        data = self._left[: len(view)] or self._stream.read(len(view))
        self._left = self._left[len(view) :]
        view[: len(data)] = data
        return len(data)


def unpack_context(stream: BinaryIO, folder: str) -> None:
    """Unpack a tar, compressed or not, into an empty folder; ContextError for one that is broken or hostile.

    Owners and extended attributes are left out, as a context has none.
    """
    path = ""
    try:
        with InRoot(folder) as root:
            tree = _Tree(root)
            for entry, content in read_tar(decompressed(stream)):
                path = entry.path
                tree.add(_inside(entry), content)
            tree.finish()
    except ImageError as error:
        raise ContextError(f"the archive of the context is refused: {error.message}") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ContextError(f"{path!r} of the context's archive cannot be unpacked: {reason}") from error


def _inside(entry: Entry) -> Entry:
    """The entry by names without `..`: above the context there is nothing."""
    if ".." not in entry.path and not (entry.kind is Kind.HARDLINK and ".." in entry.target):
        return entry
    target = _clean(entry.target) if entry.kind is Kind.HARDLINK else entry.target
    return entry._replace(path=_clean(entry.path), target=target)


def _clean(path: str) -> str:
    return os.path.normpath("/" + path).lstrip("/")


class _Tree:
    """The folder while it fills. Folders get their modes and times in the end: they would be in the way before."""

    def __init__(self, root: InRoot) -> None:
        self._root = root
        self._landing = Landing()
        self._folders: dict[str, Entry | None] = {"": None}
        """Every folder on disk, with what the tar says of it."""

    def add(self, entry: Entry, content: BinaryIO) -> None:
        """Put one entry of the tar into the folder; call in the order of the tar."""
        effect, entry, replaces = self._landing.place(entry)
        if effect is Effect.NOTHING:
            return
        if effect is not Effect.ENTRY:
            raise ImageError(f"{entry.path!r} is a mark of deleted files, which belongs into a layer")
        above, _, name = entry.path.rpartition("/")
        folder = self._folder(above)
        if replaces is not None and replaces is not Kind.DIRECTORY:
            os.unlink(name, dir_fd=folder)
        elif replaces is Kind.DIRECTORY and entry.kind is not Kind.DIRECTORY:
            raise ImageError(f"{entry.path!r} is a folder and something else")
        if entry.kind is Kind.DIRECTORY:
            self._folder(entry.path)
            self._folders[entry.path] = entry
        elif entry.kind is Kind.HARDLINK:
            self._link(entry)
        else:
            inode.make(_as_ours(entry), folder, name, content)

    def finish(self) -> None:
        """Give the folders what the tar says of them, those below first."""
        for path in sorted(self._folders, reverse=True):
            entry = self._folders[path]
            folder = self._root.folder(path)
            if entry is None:
                os.chmod(folder, 0o755)  # noqa: S103 - what a folder is that nobody describes
            else:
                inode.dress(folder, _as_ours(entry))

    def _folder(self, path: str) -> int:
        """The descriptor of a folder, valid until the next call. It is made if it is not there."""
        if path not in self._folders:
            above, _, name = path.rpartition("/")
            os.mkdir(name, dir_fd=self._folder(above))
            self._folders[path] = None
        return self._root.folder(path)

    def _link(self, entry: Entry) -> None:
        above, _, name = entry.path.rpartition("/")
        folder = os.dup(self._folder(above))  # the next call may close it
        try:
            first_above, _, first = entry.target.rpartition("/")
            source = self._folder(first_above)
            os.link(first, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(folder)


def _as_ours(entry: Entry) -> Entry:
    """The entry as this user may make it, and read it again."""
    readable = 0o700 if entry.kind is Kind.DIRECTORY else 0o400
    return entry._replace(uid=os.geteuid(), gid=os.getegid(), mode=entry.mode | readable, xattrs=())
