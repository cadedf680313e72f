"""Writes the root file system of an image: as a tar, or into a folder. Layers are merged while they stream."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

from builder.export.sink import OutputError, unwritable
from cache import packs
from cache.store import Store
from layers import merge
from layers.entry import Change, Content, Entry, Kind
from layers.inroot import InRoot
from layers.layer import Layer
from layers.tar import TarWriter, read_content

_LATEST = 2**62
"""In ns; what utimensat(2) takes is more, what file systems keep is less."""


def changes_of(layers: Sequence[Layer], store: Store, progress: packs.Progress) -> Iterator[Change]:
    """Everything in the root file system that layers make, each content to be read before the next change."""

    @contextmanager
    def open_tar(number: int) -> Iterator[BinaryIO]:
        with packs.uncompressed(layers[number], store, progress) as tar:
            yield tar

    indexes = [store.index_of(layer.diff_id, layer.descriptor) for layer in layers]
    return merge.merged(indexes, open_tar)


def below(folder: str, changes: Iterator[Change]) -> Iterator[Change]:
    """The same file system in a folder."""
    yield Change(Entry(folder, Kind.DIRECTORY, 0o755))
    for entry, content in changes:
        target = f"{folder}/{entry.target}" if entry.kind is Kind.HARDLINK else entry.target
        yield Change(entry._replace(path=f"{folder}/{entry.path}", target=target), content)


def together(systems: Sequence[Iterator[Change]]) -> Iterator[Change]:
    """Several file systems in one; OutputError where two of them have a file at the same place."""
    seen: dict[str, Kind] = {}
    for system in systems:
        own: dict[str, Kind] = {}
        for entry, content in system:
            before = seen.get(entry.path)
            if before is not None and not (before is Kind.DIRECTORY and entry.kind is Kind.DIRECTORY):
                raise OutputError(
                    f"two platforms have /{entry.path}, which is one file here",
                    hint="leave out platform-split=false: each platform gets a folder of its own",
                )
            own[entry.path] = entry.kind
            if before is None:
                yield Change(entry, content)
        seen |= own


def write_tar(changes: Iterator[Change], stream: BinaryIO) -> None:
    """Write the file system as a tar. The same layers give the same bytes."""
    tar = TarWriter(stream.write)
    for entry, content in changes:
        tar.add(entry, content)
    tar.close()


def write_folder(changes: Iterator[Change], folder: str, warn: Callable[[str], None], *, keep_owners: bool) -> None:
    """Write the file system into a folder, which is made if it is not there; what else it holds stays.

    Without `keep_owners` all files become those of whoever runs this, and none may act as its owner (setuid, setgid).
    What this user may not make, such as device nodes, is left out, and counted in a warning. Nothing is written
    outside the folder, whatever links it has: they are replaced by what the image has there. OutputError if a folder
    is in the way of something else.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with InRoot(os.path.realpath(folder)) as root:
            target = _Folder(folder, root, keep_owners=keep_owners)
            for entry, content in changes:
                target.put(entry, content)
            target.finish()
    except OSError as error:
        raise unwritable(folder, error) from error
    for sentence in target.omissions():
        warn(f"{folder}: {sentence}")


class _Folder:
    """The folder while it is being filled."""

    def __init__(self, name: str, root: InRoot, *, keep_owners: bool) -> None:
        self._name = name
        self._root = root
        self._keep_owners = keep_owners
        self._owner = (os.geteuid(), os.getegid())
        self._folders: list[Entry] = []
        """To be given their modes and times at the end: some could not be written to, and all change until then."""
        self._devices = 0
        self._attributes = 0

    def put(self, entry: Entry, content: Content) -> None:
        """Make one entry."""
        above, _, name = entry.path.rpartition("/")
        folder = self._root.folder(above)
        if entry.kind is Kind.DIRECTORY:
            self._make_folder(entry, folder, name)
            return
        self._clear(entry.path, folder, name)
        if entry.kind is Kind.FILE:
            self._make_file(entry, folder, name, content)
        elif entry.kind is Kind.HARDLINK:
            self._link(entry, name)
        elif entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=folder)
            self._dress(f"/proc/self/fd/{folder}/{name}", entry)
        else:
            self._make_node(entry, folder, name)

    def finish(self) -> None:
        """Give the folders what they lack, those below first: no folder is entered after it may be closed to us."""
        for entry in reversed(self._folders):
            self._dress(self._root.folder(entry.path), entry)

    def omissions(self) -> Iterator[str]:
        """What could not be made, a sentence for each kind."""
        if self._devices:
            yield f"{self._devices} device nodes are left out, which only root may make"
        if self._attributes:
            yield f"{self._attributes} extended attributes are left out, which may not be set here"

    def _make_folder(self, entry: Entry, folder: int, name: str) -> None:
        self._folders.append(entry)
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.chmod(name, 0o700, dir_fd=folder)
                return
            os.unlink(name, dir_fd=folder)
        os.mkdir(name, 0o700, dir_fd=folder)

    def _clear(self, path: str, folder: int, name: str) -> None:
        """Remove what an earlier export, or anybody, has left at a path."""
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        except IsADirectoryError as error:
            raise OutputError(
                f"{self._name}/{path} is a folder, and the image has something else there",
                hint="name a folder that is empty or not there yet",
            ) from error

    def _make_file(self, entry: Entry, folder: int, name: str, content: Content) -> None:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with open(file, "wb", buffering=0) as raw:
            for block in read_content(entry, content):
                left = memoryview(block)
                while left:
                    left = left[raw.write(left) :]
            self._dress(file, entry)

    def _link(self, entry: Entry, name: str) -> None:
        above, _, first = entry.target.rpartition("/")
        source = os.dup(self._root.folder(above))
        try:
            folder = self._root.folder(entry.path.rpartition("/")[0])
            os.link(first, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    def _make_node(self, entry: Entry, folder: int, name: str) -> None:
        """Make a FIFO, or as far as that is allowed a device node."""
        kinds = {Kind.FIFO: stat.S_IFIFO, Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}
        try:
            os.mknod(name, 0o600 | kinds[entry.kind], os.makedev(*entry.device), dir_fd=folder)
        except PermissionError:
            self._devices += 1
        else:
            self._dress(f"/proc/self/fd/{folder}/{name}", entry)

    def _dress(self, file: int | str, entry: Entry) -> None:
        """Give owner, mode, attributes and time: in this order, since each may undo the next."""
        follow = isinstance(file, int)  # which is open; a name was made just now, and may be a symlink
        mode = entry.mode
        if self._keep_owners:
            os.chown(file, entry.uid, entry.gid, follow_symlinks=follow)
        else:
            mode &= 0o777 if entry.kind is not Kind.DIRECTORY else 0o1777
        if entry.kind is not Kind.SYMLINK:
            os.chmod(file, mode)
        for key, value in entry.xattrs:
            try:
                os.setxattr(file, key, value, follow_symlinks=follow)
            except OSError:
                self._attributes += 1
        time = min(max(entry.mtime_ns, -_LATEST), _LATEST)
        os.utime(file, ns=(time, time), follow_symlinks=follow)
