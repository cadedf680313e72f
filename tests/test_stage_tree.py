"""A stage as a tree to copy from: its files are read from unpacked trees, or else out of the layers' blobs."""

import gzip
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tars import file, folder, hard_link, layers, symlink, tar_of

from builder.steps.stage_tree import StageTree
from builder.steps.tree import Chosen, digest_of, walk
from cache.store import Store
from layers.digest import Digest
from layers.entry import Entry, Kind
from layers.errors import ImageError, StoreError
from layers.layer import Layer
from layers.layout import Layout
from layers.oci import LAYER_GZIP, Descriptor
from layers.tar import read_content


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(str(tmp_path / "root"))) as opened:
        yield opened


def layer_of(layout: Layout, *entries: Entry, **contents: bytes) -> Layer:
    """A layer with the tar of these entries; a file without contents has its own path as content."""
    tar = tar_of(*entries, contents=contents).read()
    data = gzip.compress(tar, 1)
    with layout.writer() as blob:
        blob.write(data)
        digest, size = blob.commit()
    return Layer(Digest.of(tar), Descriptor(LAYER_GZIP, digest, size), len(tar))


def read(tree: StageTree, path: str) -> bytes:
    """The bytes of a file, fetched first."""
    entry = tree.lookup(path)
    assert entry is not None
    tree.fetch([entry])
    return bytes_of(tree, entry)


def bytes_of(tree: StageTree, entry: Entry) -> bytes:
    """The bytes of a file that was fetched."""
    data = b"".join(read_content(entry, tree.content(entry)))
    assert tree.digest(entry) == Digest.of(data)
    return data


def test_bytes_come_out_of_the_blob_where_there_is_no_tree(store: Store) -> None:
    tree = StageTree((layer_of(store.layout, folder("d"), file("d/a"), file("d/b")),), store)

    assert read(tree, "d/b") == b"d/b"


@pytest.mark.kernel
def test_bytes_come_from_the_tree_where_there_is_one(store: Store) -> None:
    layer = layer_of(store.layout, file("a"))
    place = store.trees.ensure(layer, store.layout, ())
    tree = StageTree((layer,), store)

    assert read(tree, "a") == b"a"
    entry = tree.lookup("a")
    assert entry is not None
    assert tree.content(entry) == f"{place}/a"


def test_the_uppermost_layer_has_the_bytes(store: Store) -> None:
    lower = layer_of(store.layout, file("a"), file("b"))
    upper = layer_of(store.layout, file("a"), a=b"new")

    tree = StageTree((lower, upper), store)

    assert (read(tree, "a"), read(tree, "b")) == (b"new", b"b")


def test_only_what_was_asked_for_is_written_to_disk(store: Store, tmp_path: Path) -> None:
    tree = StageTree((layer_of(store.layout, *(file(f"f{number}") for number in range(20))),), store)

    read(tree, "f7")

    assert [path.read_bytes() for path in (tmp_path / "root" / "tmp").rglob("*") if path.is_file()] == [b"f7"]


def test_what_was_fetched_is_not_fetched_again(store: Store, tmp_path: Path) -> None:
    layer = layer_of(store.layout, file("a"))
    tree = StageTree((layer,), store)
    read(tree, "a")
    Path(store.layout.path(layer.descriptor.digest)).unlink()

    assert read(tree, "a") == b"a"


def test_a_damaged_blob_is_an_error(store: Store) -> None:
    layer = layer_of(store.layout, file("a"), file("b"))
    tree = StageTree((layer,), store)
    assert tree.lookup("a") is not None
    place = Path(store.layout.path(layer.descriptor.digest))
    place.chmod(0o600)
    place.write_bytes(place.read_bytes()[:-9] + b"\0" * 9)

    with pytest.raises(StoreError, match="is damaged"):
        read(tree, "a")


# --- hard links


def test_a_further_name_has_the_bytes_of_the_first(store: Store) -> None:
    tree = StageTree((layer_of(store.layout, file("a"), hard_link("b", "a")),), store)

    assert read(tree, "b") == b"a"


def test_a_link_to_a_link_has_the_bytes_of_the_first(store: Store) -> None:
    """The name in between was not asked for, and so was not known."""
    tree = StageTree((layer_of(store.layout, file("a"), hard_link("b", "a"), hard_link("c", "b")),), store)

    assert read(tree, "c") == b"a"


def test_a_further_name_outlives_the_first(store: Store) -> None:
    entries = (file("a"), hard_link("b", "a"), file("a", 0o600), hard_link("c", "a"))

    tree = StageTree((layer_of(store.layout, *entries),), store)

    assert tree.lookup("b") != tree.lookup("c")
    assert read(tree, "b") == b"a"


def test_names_of_one_file_share_an_inode_that_no_other_layer_has(store: Store) -> None:
    lower = layer_of(store.layout, file("a"), hard_link("b", "a"))
    upper = layer_of(store.layout, file("c"), hard_link("d", "c"), file("x"))

    found = {entry.path: entry.inode for entry in walk_all(StageTree((lower, upper), store))}

    assert found["a"] == found["b"] != found["c"] == found["d"]
    assert found["x"] is None


def test_a_link_to_a_file_of_a_layer_below_is_a_copy_of_it(store: Store) -> None:
    """Other builders make such layers; it was refused once."""
    lower = layer_of(store.layout, file("a"))
    upper = layer_of(store.layout, hard_link("b", "a"))

    assert read(StageTree((lower, upper), store), "b") == b"a"


def test_links_may_lead_down_layer_by_layer(store: Store) -> None:
    bottom = layer_of(store.layout, file("a"), hard_link("z", "a"))
    middle = layer_of(store.layout, hard_link("b", "z"))
    top = layer_of(store.layout, hard_link("c", "b"), file("a"), a=b"new")

    assert read(StageTree((bottom, middle, top), store), "c") == b"a"


# --- odd tars


def test_a_file_that_comes_twice_has_the_later_bytes(store: Store) -> None:
    tree = StageTree((layer_of(store.layout, file("a"), file("./a"), **{"./a": b"later"}),), store)

    assert read(tree, "a") == b"later"


def test_folders_that_no_tar_lists_are_there(store: Store) -> None:
    tree = StageTree((layer_of(store.layout, file("deep/er/a")),), store)

    assert [entry.path for entry in walk_all(tree)] == ["", "deep", "deep/er", "deep/er/a"]
    assert read(tree, "deep/er/a") == b"deep/er/a"


def test_names_with_a_dot_or_a_slash_in_front_are_the_same_names(store: Store) -> None:
    tree = StageTree((layer_of(store.layout, file("./a"), file("/b")),), store)

    assert (read(tree, "a"), read(tree, "b")) == (b"./a", b"/b")


def test_a_file_behind_a_link_of_the_same_tar_is_where_the_link_leads(store: Store) -> None:
    tree = StageTree((layer_of(store.layout, folder("real"), symlink("ln", "real"), file("ln/a")),), store)

    assert read(tree, "real/a") == b"ln/a"


def test_a_name_that_is_no_text_is_found_and_read(store: Store) -> None:
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")

    assert read(StageTree((layer_of(store.layout, file(name)),), store), name) == b"\xff\xfe"


def test_a_whiteout_hides_what_is_below(store: Store) -> None:
    lower = layer_of(store.layout, file("d/a"), file("d/b"))
    upper = layer_of(store.layout, file("d/.wh.a", 0))

    tree = StageTree((lower, upper), store)

    assert [entry.path for entry in tree.children("d")] == ["d/b"]


def walk_all(tree: StageTree) -> list[Entry]:
    top = tree.lookup("")
    assert top is not None
    return list(walk(tree, top))


@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(layers(), st.data())
def test_any_layers_are_readable_or_refused(store: Store, stack: list[list[Entry]], data: st.DataObject) -> None:
    """Whatever tars say, all files can be read, in one go or one by one, or the image is an error."""
    try:
        made = tuple(layer_of(store.layout, *entries) for entries in stack)
        files = [entry for entry in walk_all(StageTree(made, store)) if entry.kind is Kind.FILE]
    except ImageError:
        return
    alone, together = StageTree(made, store), StageTree(made, store)
    together.fetch(files)

    for entry in files:
        assert bytes_of(together, entry) == read(alone, entry.path)
    chosen = data.draw(st.permutations(files))
    assert digest_of(together, Entry("", Kind.DIRECTORY), map(Chosen, chosen), owners=True)
