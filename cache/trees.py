"""Unpacked layers: the lower directories of overlay mounts, by the diff_id of the layer.

A tree belongs to the id mapping that made it: what root unpacked is owned by 0, what a user namespace unpacked by
subordinate ids, what a namespace of a single id unpacked by that one. So each mapping has a folder of its own below
`trees/`, and none ever meets the trees of another. Ask only after the namespaces of the build have been entered.

A tree stands at its path only when it is whole: it is made elsewhere and renamed. Unlike blobs, trees are not flushed
to disk, which could cost more than making them. A note beside each new tree says in which boot of the machine it was
made; until `settle` has flushed it, a tree of an earlier boot may have lost data in a power cut and is made again.
"""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import BinaryIO

from layers.digest import Digest
from layers.errors import StoreError
from layers.index import LayerIndex
from layers.layer import Layer, read_layer, verified_tar
from layers.layout import Layout
from layers.oci import Descriptor

_FRESH = ".fresh"
_WORTH_A_PROCESS = 4_000_000
"""Bytes of a blob whose unpacking takes several times as long as the start of an interpreter."""
_MOST_PROCESSES = 4
"""That unpack at a time: as many as layers come at once."""


class Trees:
    """The unpacked layers of one store."""

    def __init__(
        self,
        root: str,
        *,
        lock: Callable[[str], AbstractContextManager[None]],
        scratch: Callable[[str], AbstractContextManager[str]],
        bring: Callable[[Sequence[Layer]], None] = lambda _: None,
    ) -> None:
        """`lock` makes all builds wait for each other; `scratch` gives a folder that is gone after the block.

        `bring` makes sure that the blobs of layers are in the store.
        """
        self._bring = bring
        self._root = root
        self._lock = lock
        self._scratch = scratch
        processors = len(os.sched_getaffinity(0))
        self._processes = min(processors, _MOST_PROCESSES) if processors > 1 else 0
        """How many processes may unpack at a time."""
        self._free = threading.BoundedSemaphore(self._processes)
        self._trusted: set[str] = set()
        """Paths of trees whose notes need not be read again: a tree that is flushed, or of this boot, stays so."""

    def path(self, diff_id: Digest) -> str:
        """Where the tree of a layer is, or would be."""
        return os.path.join(self._root, mapping(), diff_id.hex)

    def has(self, diff_id: Digest) -> bool:
        """Whether the tree is there, whole."""
        return self._is_whole(self.path(diff_id))

    def ensure(self, layer: Layer, layout: Layout, lowers: Sequence[str]) -> str:
        """The path of a layer's tree, which is unpacked from its blob if it is not there.

        `lowers` are the trees of the layers below, lowest first: hard links may lead there, and a layer that does not
        list a folder has it as it is below. The tree of such a layer is kept for this stack alone. Builds that need
        the same tree wait for the one that unpacks it. ImageError if the blob does not hold what its diff_id says.
        """
        own = self.path(layer.diff_id)
        if self._is_whole(own):
            return own
        leaning = f"{own}.{_stack_name(lowers)}"
        if self._is_whole(leaning):
            return leaning
        with self._lock(f"tree-{layer.diff_id.hex}"), self._scratch("tree") as scratch:
            for path in (own, leaning):
                if self._is_whole(path):  # made by whoever held the lock
                    return path
            folder = os.path.join(scratch, "tree")
            os.mkdir(folder, 0o755)
            path = leaning if _unpack(layer, layout, folder, lowers) else own
            self._replace(folder, path, scratch)
            return path

    def grow(self, descriptor: Descriptor, diff_id: Digest, stream: BinaryIO) -> LayerIndex:
        """As `layers.layer.read_layer`, of a blob that comes as this stream; the layer's tree is made in the same pass.

        The tree is kept if the blob is what its diff_id says. One that leans on those below, or that cannot be made, is
        left to `ensure`, which has them and tells what is wrong.
        """
        with self._scratch("tree") as scratch:
            folder, index = self._grown(descriptor, diff_id, stream, scratch)
            if folder:
                with self._lock(f"tree-{diff_id.hex}"):
                    if not self.has(diff_id):
                        self._replace(folder, self.path(diff_id), scratch)
        return index

    def stack(self, layers: Sequence[Layer], layout: Layout) -> tuple[str, ...]:
        """The trees that make up the image of these layers, lowest first; see `ensure` and `seen`.

        Blobs that are needed for it are brought.
        """
        from layers.lowers import seen

        root = os.path.join(self._root, mapping())
        folders = [f"{root}/{layer.diff_id.hex}" for layer in layers]
        whole = [self._is_whole(folder) for folder in folders]
        missing = [layer for layer, there in zip(layers, whole, strict=True) if not there]
        self._bring(missing)
        self._grow_large(missing, layout)
        for place, there in enumerate(whole):
            if not there:
                folders[place] = self.ensure(layers[place], layout, folders[:place])
        return seen(folders)

    def adopt(self, diff_id: Digest, folder: str) -> str:
        """Make a folder the tree of a layer: the upper directory of the step that made the layer.

        `folder` must be on the store's file system. It is gone afterwards, also if the layer had a tree already.
        """
        path = self.path(diff_id)
        if not os.path.lexists(path) and self._place(folder, path):
            return path
        if not self.has(diff_id):
            with self._lock(f"tree-{diff_id.hex}"), self._scratch("tree") as scratch:
                self._replace(folder, path, scratch)
        remove(folder)
        return path

    def apply(self, layer: Layer, layout: Layout, root: str) -> None:
        """Do to the whole root file system in `root`, a folder of ours on the store's file system, what a layer says.

        ImageError if the blob does not hold what its diff_id says; the folder is then good for nothing.
        """
        from layers.apply import apply  # few places have to

        with self._scratch("old") as discarded, _tar_of(layer, layout) as tar:
            apply(tar, root, discarded)

    def settle(self) -> None:
        """Flush new trees to disk, so that they outlive a power cut. Takes what the disk needs; may be skipped."""
        folder = os.path.join(self._root, mapping())
        if not os.path.isdir(folder):
            return
        notes = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(_FRESH)]
        if notes:
            _flush(folder)
        for note in notes:
            with suppress(FileNotFoundError):
                os.unlink(note)

    def _grow_large(self, layers: Sequence[Layer], layout: Layout) -> None:
        """Unpack layers that are here side by side, as far as they are large and not known to lean on others."""
        large = [layer for layer in layers if layer.descriptor.size >= _WORTH_A_PROCESS]
        if not large or not self._processes:
            return
        from concurrent.futures import ThreadPoolExecutor  # see `_unpack`

        with suppress(FileNotFoundError):
            names = os.listdir(os.path.join(self._root, mapping()))
            large = [layer for layer in large if not _leans(layer, names)]

        def grow(layer: Layer) -> None:
            with self._lock(f"tree-{layer.diff_id.hex}"), self._scratch("tree") as scratch:
                if not self.has(layer.diff_id):
                    with layout.open(layer.descriptor) as blob:
                        folder, _ = self._grown(layer.descriptor, layer.diff_id, blob, scratch)
                    if folder:
                        self._replace(folder, self.path(layer.diff_id), scratch)

        with ThreadPoolExecutor(self._processes) as pool:
            for _ in pool.map(grow, large):
                pass

    def _grown(self, descriptor: Descriptor, diff_id: Digest, stream: BinaryIO, scratch: str) -> tuple[str, LayerIndex]:
        """A tree that was made in a temporary folder, empty if it is not whole; and the layer's index."""
        from cache.growing import growing  # see `_unpack`

        folder = os.path.join(scratch, "tree")
        os.mkdir(folder, 0o755)
        apart = descriptor.size >= _WORTH_A_PROCESS and self._free.acquire(blocking=False)
        try:
            with growing(folder, apart=apart) as sapling:
                index = read_layer(descriptor, diff_id, stream, sapling.add)
                return folder if sapling.finish() else "", index
        finally:
            if apart:
                self._free.release()

    def _replace(self, folder: str, path: str, scratch: str) -> None:
        """As `_place`, after whatever stands there that cannot be trusted was moved away."""
        try:
            if os.path.lexists(path):
                os.rename(path, os.path.join(scratch, "doubtful"))
        except OSError as error:
            raise _not_kept(path, error) from error
        self._place(folder, path)

    def _place(self, folder: str, path: str) -> bool:
        """Rename a whole tree to its path, where nothing stands; False if somebody else has just done so."""
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            with open(path + _FRESH, "wb", buffering=0) as note:
                note.write(_boot())
            os.rename(folder, path)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or not self._is_whole(path):
                raise _not_kept(path, error) from error
            return False
        return True

    def _is_whole(self, path: str) -> bool:
        """Whether a tree is there that was flushed to disk, or made in this run of the kernel."""
        if not os.path.isdir(path):
            return False
        if path not in self._trusted:
            if not _is_trusted(path):
                return False
            self._trusted.add(path)
        return True


def remove(path: str) -> None:
    """Remove a file, or a folder with all that is below it, whatever the modes of its folders.

    Folders are lifted out one by one and emptied beside `path`, so that no depth is too deep for names or stack.
    StoreError if something belongs to an id that this process is not; what could be removed is gone then.
    """
    try:
        if not os.path.isdir(path) or os.path.islink(path):
            os.unlink(path)
            return
        lifted = [path]
        count = 0
        while lifted:
            folder = lifted.pop()
            os.chmod(folder, 0o700)
            with os.scandir(folder) as entries:
                for entry in list(entries):
                    if entry.is_dir(follow_symlinks=False):
                        count += 1
                        os.chmod(entry.path, 0o700)  # a folder that moves must be writable: its ".." changes
                        os.rename(entry.path, f"{path}.{count}")
                        lifted.append(f"{path}.{count}")
                    else:
                        os.unlink(entry.path)
            os.rmdir(folder)
    except FileNotFoundError:
        return  # another process removes it as well
    except OSError as error:
        raise StoreError(
            f"{path} cannot be removed: {error.strerror}",
            hint="files of subordinate ids can be removed only inside their user namespace",
        ) from error


def _not_kept(path: str, error: OSError) -> StoreError:
    return StoreError(f"the tree {path} cannot be kept: {error.strerror}")


def _leans(layer: Layer, names: Sequence[str]) -> bool:
    """Whether one of the names of trees is that of a layer above certain others."""
    own = f"{layer.diff_id.hex}."
    return any(name.startswith(own) and name != own[:-1] + _FRESH for name in names)


def _stack_name(lowers: Sequence[str]) -> str:
    """A short name for the trees below one that is right only above them."""
    return hashlib.sha256("\n".join(map(os.path.basename, lowers)).encode()).hexdigest()[:16]


def _unpack(layer: Layer, layout: Layout, folder: str, lowers: Sequence[str]) -> bool:
    """Unpack a layer, and say whether the tree leans on those below."""
    from layers.unpack import unpack  # a build that is answered by the cache unpacks nothing

    with _tar_of(layer, layout) as tar:
        return unpack(tar, folder, lowers=lowers)


@contextmanager
def _tar_of(layer: Layer, layout: Layout) -> Iterator[BinaryIO]:
    """The tar of a layer; at the end of the block, ImageError if it is not what its diff_id says."""
    with layout.open(layer.descriptor) as blob, verified_tar(layer.descriptor, layer.diff_id, blob) as tar:
        yield tar


def mapping() -> str:
    """A short name of how ids are mapped for this process (user_namespaces(7), "uid_map")."""
    try:
        return _mapping(os.stat("/proc/self/ns/user").st_ino)
    except OSError:  # without /proc nothing is known of it
        return _mapping(0)


@cache
def _mapping(_namespace: int) -> str:
    """The same for a user namespace, whose maps are written once. It must have them by now."""
    text = ""
    for kind in ("uid", "gid"):
        with suppress(OSError), open(f"/proc/self/{kind}_map", encoding="utf-8") as file:
            text += " ".join(file.read().split()) + "\n"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _boot() -> bytes:
    """The id of this run of the kernel (random(4)); empty where /proc does not say it."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().strip()
    return b""


def _is_trusted(path: str) -> bool:
    """Whether a tree that stands there was flushed to disk, or made in this run of the kernel."""
    try:
        with open(path + _FRESH, "rb") as note:
            return note.read() == _boot()
    except FileNotFoundError:
        return True


def _flush(folder: str) -> None:
    # Not at the top: only real builds need it. syncfs(2) spares the other file systems, which os.sync would wait for.
    import ctypes

    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ctypes.CDLL(None).syncfs(fd)
    finally:
        os.close(fd)
