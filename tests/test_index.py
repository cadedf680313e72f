"""What the index of a layer says, and how it is kept."""

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tars import file, folder, hard_link, index_of, layers, symlink

from layers.entry import Entry, Kind
from layers.errors import ImageError
from layers.index import FORMAT, IndexFormatError, LayerIndex
from layers.indexing import LARGEST_FILE, IndexBuilder


def test_entries_keep_the_order_of_the_tar() -> None:
    index = index_of(folder("b"), file("b/x"), file("a"))

    assert list(index.entries) == ["b", "b/x", "a"]


def test_a_hard_link_is_its_first_name_under_another_path() -> None:
    index = index_of(file("a", 0o640, uid=5), hard_link("b", "a"))

    first, second = index.entries.values()
    assert first == Entry("a", Kind.FILE, 0o640, 5, size=1, inode="a")
    assert second == first._replace(path="b")


def test_a_hard_link_to_a_hard_link_names_the_first_of_all() -> None:
    index = index_of(file("a"), hard_link("b", "a"), hard_link("c", "b"))

    assert [entry.inode for entry in index.entries.values()] == ["a", "a", "a"]


def test_a_name_that_is_used_again_is_another_file_than_its_old_links() -> None:
    index = index_of(file("a"), hard_link("b", "a"), file("a", 0o600), hard_link("c", "a"))

    inodes = {path: entry.inode for path, entry in index.entries.items()}
    assert inodes["a"] == inodes["c"] != inodes["b"]


def test_a_hard_link_to_a_lower_layer_stays_one() -> None:
    index = index_of(hard_link("d/b", "d/a"))

    assert index.entries["d/b"].kind is Kind.HARDLINK
    assert index.entries["d/b"].target == "d/a"


def test_whiteouts_are_marks_and_no_entries() -> None:
    index = index_of(file("d/.wh.gone", 0), file("e/.wh..wh..opq", 0), file(".wh..wh.plnk", 0))

    assert not index.entries
    assert sorted(index.whiteouts) == ["d/gone"]
    assert sorted(index.opaque) == ["e"]


def test_overlays_own_whiteout_counts_as_one() -> None:
    index = index_of(Entry("gone", Kind.CHARACTER, 0, device=(0, 0)))

    assert not index.entries
    assert sorted(index.whiteouts) == ["gone"]


def test_the_last_of_entries_with_one_path_counts() -> None:
    index = index_of(file("a"), file("b"), symlink("a", "b"))

    assert list(index.entries) == ["b", "a"]
    assert index.entries["a"].kind is Kind.SYMLINK


def test_a_file_in_the_place_of_a_folder_drops_what_was_in_it() -> None:
    index = index_of(folder("a"), file("a/x"), file("a/.wh.y", 0), file("a"))

    assert (list(index.entries), index.whiteouts) == (["a"], frozenset())


def test_a_folder_over_a_folder_keeps_what_is_in_it() -> None:
    index = index_of(folder("a", 0o700), file("a/x"), folder("a", 0o750))

    assert list(index.entries) == ["a", "a/x"]
    assert index.entries["a"].mode == 0o750


def test_a_symlink_of_the_same_layer_is_followed_inside_the_root() -> None:
    index = index_of(symlink("lib", "../../usr/lib"), file("lib/x"))

    assert list(index.entries) == ["lib", "usr/lib/x"]


def test_what_builders_read_is_carried_along() -> None:
    passwd, release = b"root:x:0:0::/root:/bin/sh\n", b"ID=debian\n"

    index = index_of(
        file("etc/passwd"),
        symlink("etc/os-release", "../usr/lib/os-release"),
        file("usr/lib/os-release"),
        file("etc/shadow"),
        contents={"etc/passwd": passwd, "usr/lib/os-release": release},
    )

    assert index.files == {"etc/passwd": passwd, "usr/lib/os-release": release}


def test_the_file_that_passwd_is_a_link_to_is_carried_along() -> None:
    index = index_of(symlink("etc/passwd", "/opt/accounts"), file("opt/accounts"))

    assert index.files == {"opt/accounts": b"opt/accounts"}


def test_a_file_that_is_too_large_is_not_carried_along() -> None:
    builder = IndexBuilder()

    builder.add(Entry("etc/passwd", Kind.FILE, size=LARGEST_FILE + 1), io.BytesIO(bytes(LARGEST_FILE + 1)))

    assert builder.finish().files == {}


def test_folders_hold_names_that_only_others_need() -> None:
    index = index_of(file("a/b/c"), file("x/.wh.gone", 0), file("y/.wh..wh..opq", 0))

    assert index.folders == {"": {"a", "x", "y"}, "a": {"b"}, "a/b": {"c"}, "x": set(), "y": set()}


@pytest.mark.parametrize(
    "hostile",
    [
        file("../x"),
        file("a/../../x"),
        file(".."),
        file("a/.wh.."),
        file("a/.wh..."),
        file("a/.wh."),
        file(".wh.a/x"),
        hard_link("x", "../../etc/passwd"),
        hard_link("x", ""),
        file("", 0o644),
        file("/".join(["deep"] * 2000)),
    ],
    ids=lambda entry: entry.path[:20] or "root",
)
def test_names_that_no_honest_tar_has_are_refused(hostile: Entry) -> None:
    builder = IndexBuilder()

    with pytest.raises(ImageError):
        builder.add(hostile)


@pytest.mark.parametrize("link", ["a", "/a", "b/../a"])
def test_a_name_below_a_symlink_that_leads_in_a_circle_is_refused(link: str) -> None:
    with pytest.raises(ImageError, match="no folder"):
        index_of(symlink("a", link), file("a/x"))


def test_a_name_below_a_file_is_refused() -> None:
    with pytest.raises(ImageError, match="no folder"):
        index_of(file("a"), file("a/x"))


def test_ids_that_say_nothing_are_roots() -> None:
    builder = IndexBuilder()

    builder.add(Entry("a", Kind.FILE, uid=-1, gid=2**32 - 1))

    assert builder.finish().entries["a"] == Entry("a", Kind.FILE)


@pytest.mark.property
@given(layers())
def test_an_index_is_read_back_as_it_was_written(stack: list[list[Entry]]) -> None:
    for entries in stack:
        try:
            index = index_of(*entries)
        except ImageError:
            continue

        data = index.serialise()

        assert LayerIndex.parse(data) == index
        assert list(LayerIndex.parse(data).entries) == list(index.entries)
        assert LayerIndex.parse(data).serialise() == data


@pytest.mark.property
@given(st.binary(min_size=1, max_size=20), st.binary(max_size=300))
def test_any_bytes_in_names_and_attributes_survive(name: bytes, value: bytes) -> None:
    path = os.fsdecode(name.replace(b"/", b"_").replace(b"\0", b"_"))
    entry = Entry(path, Kind.CHARACTER, xattrs=(("user.x", value),), device=(4, 2**20 - 1), inode=path)
    index = LayerIndex({path: entry}, files={path: value})

    assert LayerIndex.parse(index.serialise()) == index


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"format":0}', b"null", b'{"format":1,"entries":[[]]}'])
def test_what_is_no_index_of_this_format_is_told_apart(data: bytes) -> None:
    with pytest.raises(IndexFormatError):
        LayerIndex.parse(data)


def test_an_index_of_another_format_is_told_apart() -> None:
    data = index_of(file("a")).serialise().replace(b'"format":%d' % FORMAT, b'"format":%d' % (FORMAT + 1))

    with pytest.raises(IndexFormatError, match="format"):
        LayerIndex.parse(data)
