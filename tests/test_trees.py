"""Unpacked layers: made once, whole or not at all."""

import os
import stat
import threading
from pathlib import Path

import pytest
from grants import USER_NAMESPACES, demand

from cache.store import Store
from layers.compress import decompressed
from layers.digest import Digest
from layers.entry import Change, Entry, Kind
from layers.errors import ImageError, PybuildError
from layers.index import LayerIndex
from layers.layer import Layer, write_layer
from layers.unpack import unpack

DIFF_ID = Digest.of(b"diff")


def write(store: Store, **files: bytes) -> Layer:
    changes = [Change(Entry(name, Kind.FILE, size=len(data)), data) for name, data in sorted(files.items())]
    layer, _ = write_layer(changes, store.layout)
    return layer


def upper(store: Store, text: str = "x") -> str:
    """The upper directory of a step that has just run."""
    folder = os.path.join(store.temporary("run"), "upper")
    os.mkdir(folder)
    Path(folder, "file").write_text(text)
    return folder


def tree_of(root: str) -> dict[str, tuple[int, int, int, bytes]]:
    """What is in a folder: mode, number of links, time, and content, by path."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = Path(path).read_bytes() if stat.S_ISREG(status.st_mode) else b""
            links = 1 if os.path.isdir(path) else status.st_nlink
            found[os.path.relpath(path, root)] = (status.st_mode, links, status.st_mtime_ns, content)
    return found


def leftovers(store: Store) -> list[str]:
    return os.listdir(os.path.join(store.root, "tmp"))


def test_upper_directory_becomes_a_tree(store: Store) -> None:
    folder = upper(store)

    path = store.trees.adopt(DIFF_ID, folder)

    assert path == store.trees.path(DIFF_ID)
    assert store.trees.has(DIFF_ID)
    assert Path(path, "file").read_text() == "x"
    assert not os.path.exists(folder)


def test_second_tree_of_a_layer_is_dropped(store: Store) -> None:
    path = store.trees.adopt(DIFF_ID, upper(store, "first"))
    folder = upper(store, "second")

    store.trees.adopt(DIFF_ID, folder)

    assert Path(path, "file").read_text() == "first"
    assert not os.path.exists(folder)


@pytest.mark.kernel
def test_layer_is_unpacked_once(store: Store) -> None:
    layer = write(store, a=b"text")
    path = store.trees.ensure(layer, store.layout, ())
    before = os.stat(path).st_ino

    again = store.trees.ensure(layer, store.layout, ())

    assert (again, os.stat(again).st_ino) == (path, before)
    assert Path(path, "a").read_bytes() == b"text"
    assert leftovers(store) == []


@pytest.mark.kernel
def test_builds_that_need_the_same_tree_wait_for_one_another(store: Store) -> None:
    layer = write(store, a=b"text")
    inodes = []

    def work() -> None:
        inodes.append(os.stat(store.trees.ensure(layer, store.layout, ())).st_ino)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(inodes) == 4
    assert len(set(inodes)) == 1


@pytest.mark.kernel
def test_layer_that_is_not_what_the_image_says_gives_no_tree(store: Store) -> None:
    layer = write(store, a=b"text")
    forged = Layer(DIFF_ID, layer.descriptor, layer.size)

    with pytest.raises(ImageError, match="unpacks to"):
        store.trees.ensure(forged, store.layout, ())

    assert not store.trees.has(DIFF_ID)
    assert leftovers(store) == []


@pytest.mark.kernel
def test_a_tree_that_leans_on_those_below_is_kept_for_this_stack_alone(store: Store) -> None:
    below = Change(Entry("tmp", Kind.DIRECTORY, 0o1777))
    open_tmp, _ = write_layer([below], store.layout)
    closed_tmp, _ = write_layer([Change(below.entry._replace(mode=0o700))], store.layout)
    leaning, _ = write_layer([Change(Entry("tmp/x", Kind.FILE), b"")], store.layout)

    modes = []
    for base in (open_tmp, closed_tmp):
        lower = store.trees.ensure(base, store.layout, ())
        tree = store.trees.ensure(leaning, store.layout, [lower])
        modes.append(os.stat(os.path.join(tree, "tmp")).st_mode & 0o7777)

    assert modes == [0o1777, 0o700]


def read_growing(store: Store, layer: Layer) -> LayerIndex:
    """Read a layer as it is when it comes from a registry, with its tree growing beside."""
    with store.layout.open(layer.descriptor) as blob:
        return store.trees.grow(layer.descriptor, layer.diff_id, blob)


@pytest.mark.kernel
def test_a_tree_grows_in_the_pass_that_reads_a_layer(store: Store) -> None:
    changes = [
        Change(Entry("etc", Kind.DIRECTORY, 0o711)),
        Change(Entry("etc/passwd", Kind.FILE, 0o640, size=4), b"root"),
        Change(Entry("etc/shadow", Kind.FILE, 0o4600, size=2, inode=1), b"no"),
        Change(Entry("etc/shadow-", Kind.FILE, 0o4600, size=2, inode=1), b"no"),
        Change(Entry("link", Kind.SYMLINK, 0o777, target="etc")),
    ]
    layer, _ = write_layer(changes, store.layout)

    read_growing(store, layer)

    assert store.trees.has(layer.diff_id)
    grown, folder = tree_of(store.trees.path(layer.diff_id)), store.temporary("other")
    with decompressed(store.layout.open(layer.descriptor)) as tar:
        unpack(tar, folder)
    assert grown == tree_of(folder)
    assert leftovers(store) == [os.path.basename(folder)]


@pytest.mark.kernel
@pytest.mark.parametrize(
    "change",
    [
        Change(Entry("folder/file", Kind.FILE, size=1), b"1"),
        Change(Entry("name", Kind.HARDLINK, target="file/of/a/layer/below")),
    ],
    ids=["a folder that is not listed", "a link to another layer"],
)
def test_a_tree_that_would_lean_does_not_grow_alone(store: Store, change: Change) -> None:
    layer, _ = write_layer([change, Change(Entry("z", Kind.FILE, size=1), b"1")], store.layout)

    read_growing(store, layer)

    assert not store.trees.has(layer.diff_id)
    assert leftovers(store) == []


@pytest.mark.kernel
def test_a_layer_that_is_not_what_it_should_be_leaves_no_tree(store: Store) -> None:
    layer = write(store, a=b"text")

    with pytest.raises(ImageError, match="unpacks to"):
        read_growing(store, Layer(DIFF_ID, layer.descriptor, layer.size))

    assert not store.trees.has(DIFF_ID)
    assert leftovers(store) == []


@pytest.mark.kernel
def test_a_tree_that_cannot_be_made_ends_no_download(store: Store) -> None:
    """What is wrong is told when the tree is needed, by who knows for what."""
    layer = write(store, **{"a" * 200: b"1", "b": b"2"})
    long, _ = write_layer([Change(Entry("a" * 256, Kind.FILE, size=1), b"1")], store.layout)

    read_growing(store, long)
    read_growing(store, layer)

    assert (store.trees.has(long.diff_id), store.trees.has(layer.diff_id)) == (False, True)
    with pytest.raises(ImageError, match="cannot be unpacked"):
        store.trees.ensure(long, store.layout, ())


@pytest.mark.kernel
def test_damaged_blob_gives_no_tree(store: Store) -> None:
    layer = write(store, a=b"text")
    blob = Path(store.layout.path(layer.descriptor.digest))
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 0xFF
    blob.chmod(0o600)
    blob.write_bytes(data)

    with pytest.raises(PybuildError):
        store.trees.ensure(layer, store.layout, ())

    assert not store.trees.has(layer.diff_id)


@pytest.mark.kernel
def test_tree_of_an_earlier_boot_that_was_never_flushed_is_made_again(store: Store) -> None:
    layer = write(store, a=b"text")
    path = store.trees.ensure(layer, store.layout, ())
    Path(path + ".fresh").write_text("an earlier boot")
    Path(path, "a").write_bytes(b"")

    assert not store.trees.has(layer.diff_id)
    store.trees.ensure(layer, store.layout, ())

    assert Path(path, "a").read_bytes() == b"text"


def test_tree_that_was_flushed_outlives_the_boot(store: Store) -> None:
    path = store.trees.adopt(DIFF_ID, upper(store))

    store.trees.settle()

    assert not os.path.exists(path + ".fresh")
    assert store.trees.has(DIFF_ID)


def test_settling_without_any_tree_is_no_error(store: Store) -> None:
    store.trees.settle()


@pytest.mark.kernel
def test_trees_of_another_id_mapping_are_not_seen(store: Store) -> None:
    """What root unpacked has owners that mean other users in a user namespace."""
    demand(USER_NAMESPACES)
    store.trees.adopt(DIFF_ID, upper(store))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            import ctypes

            assert ctypes.CDLL(None).unshare(0x10000000) == 0
            os.write(writer, b"seen" if store.trees.has(DIFF_ID) else b"not seen")
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    answer = os.read(reader, 100)

    assert answer == b"not seen"
    assert store.trees.has(DIFF_ID)
    os.close(reader)
    os.close(writer)


def test_a_layer_whose_root_is_opaque_hides_the_trees_below_it(store: Store) -> None:
    below, above = write(store, below=b"1"), write(store, above=b"3")
    hiding, _ = write_layer([Change(Entry(".wh..wh..opq", Kind.FILE, 0), None)], store.layout)

    stack = store.trees.stack([below, hiding, above], store.layout)

    assert stack == (store.trees.path(hiding.diff_id), store.trees.path(above.diff_id))
