"""A root file system as the indexes of its layers tell it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest
from grants import mounted
from hypothesis import given, settings
from tars import file, folder, hard_link, index_of, layers, symlink, tar_of, walk

from layers import inode
from layers.entry import Entry, Kind
from layers.errors import ImageError
from layers.index import LayerIndex
from layers.lowers import seen as visible
from layers.unpack import unpack
from layers.view import View


def view_of(*stack: Sequence[Entry]) -> View:
    return View([index_of(*entries) for entries in stack])


def everything(view: View, path: str = "") -> Iterator[Entry]:
    for entry in view.children(path):
        yield entry
        yield from everything(view, entry.path)


def names(view: View, path: str = "") -> list[str]:
    return [entry.path for entry in everything(view, path)]


def test_the_root_is_always_there() -> None:
    assert View([]).lookup("") == Entry("", Kind.DIRECTORY, 0o755)


def test_the_uppermost_entry_is_seen() -> None:
    view = view_of([file("a", 0o600)], [file("a", 0o640)], [file("b")])

    found = view.lookup("a")

    assert found is not None
    assert found.mode == 0o640
    assert view.layer_of("a") == 1


def test_what_is_nowhere_is_not_found() -> None:
    view = view_of([file("a")])

    assert view.lookup("b") is None
    assert view.lookup("a/b") is None
    assert view.layer_of("b") is None


def test_a_folder_that_no_tar_lists_is_there() -> None:
    view = view_of([file("a/b/c")])

    assert view.lookup("a/b") == Entry("a/b", Kind.DIRECTORY, 0o755)
    assert view.layer_of("a/b") is None


def test_a_folder_that_is_not_listed_is_as_it_is_below() -> None:
    view = view_of([folder("tmp", 0o1777)], [file("tmp/x")])

    assert view.lookup("tmp") == folder("tmp", 0o1777)
    assert view.layer_of("tmp") == 0


def test_a_whiteout_hides_a_path_and_all_below() -> None:
    view = view_of([folder("a"), file("a/x"), file("b")], [file(".wh.a", 0)])

    assert names(view) == ["b"]
    assert view.lookup("a/x") is None


def test_a_whiteout_spares_its_own_layer() -> None:
    view = view_of([folder("a", 0o700), file("a/old")], [file(".wh.a", 0), file("a/new")])

    assert names(view) == ["a", "a/new"]
    assert view.lookup("a") == Entry("a", Kind.DIRECTORY, 0o755)


def test_a_whiteout_is_undone_by_a_higher_layer() -> None:
    view = view_of([file("a", 0o600)], [file(".wh.a", 0)], [file("a", 0o640)])

    assert view.lookup("a") == file("a", 0o640)._replace(size=1)


def test_an_opaque_folder_shows_its_own_layer_only() -> None:
    view = view_of([folder("d", 0o700), file("d/old")], [file("d/new"), file("d/.wh..wh..opq", 0)])

    assert names(view) == ["d", "d/new"]
    assert view.lookup("d") == folder("d", 0o700)


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param([file("new"), file(".wh..wh..opq", 0)], id="marked itself"),
        pytest.param([symlink("up", "/"), file("up/.wh..wh..opq", 0), file("new")], id="through a symlink"),
    ],
)
def test_an_opaque_root_shows_its_own_layer_and_those_above(layer: list[Entry]) -> None:
    view = view_of([folder("", 0o700), folder("d"), file("d/old")], layer, [file("d/above")])

    assert [name for name in names(view) if name != "up"] == ["d", "d/above", "new"]
    assert view.lookup("") == folder("", 0o700)


def test_a_file_over_a_folder_hides_what_was_in_it_for_good() -> None:
    view = view_of([folder("a"), file("a/old")], [file("a")], [folder("a")])

    assert names(view) == ["a"]


def test_a_symlink_over_a_folder_hides_what_was_in_it() -> None:
    view = view_of([folder("a"), file("a/old"), folder("b")], [symlink("a", "b")])

    assert names(view) == ["a", "b"]
    assert view.lookup("a/old") is None


def test_a_hard_link_to_a_lower_layer_is_shown_as_the_file() -> None:
    view = view_of([file("a", 0o640, uid=7)], [hard_link("d/b", "a")])

    assert view.lookup("d/b") == file("d/b", 0o640, uid=7)._replace(size=1)
    assert view.layer_of("d/b") == 1


def test_a_hard_link_to_what_is_nowhere_is_an_error() -> None:
    view = view_of([file("a")], [hard_link("b", "c")])

    with pytest.raises(ImageError, match="'b' to 'c'"):
        view.lookup("b")


def test_children_are_sorted_by_the_bytes_of_their_names() -> None:
    listed = ["B", "a", "é", "\udcff", "\U0001f600"]

    view = view_of([file(name) for name in listed[:3]], [file(name) for name in listed[3:]])

    assert [entry.path for entry in view.children("")] == ["B", "a", "é", "\U0001f600", "\udcff"]


def test_a_file_has_no_children() -> None:
    assert view_of([file("a")]).children("a") == []
    assert view_of([file("a")]).children("b") == []


LINKS = [
    symlink("bin", "usr/bin"),
    file("usr/bin/sh"),
    symlink("usr/bin/bash", "sh"),
    symlink("abs", "/usr/bin"),
    symlink("out", "../../../usr"),
    symlink("gone", "usr/nowhere"),
    symlink("x", "/y"),
    symlink("y", "x"),
]


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("", ""),
        ("/", ""),
        ("usr/bin/sh", "usr/bin/sh"),
        ("/bin/sh", "usr/bin/sh"),
        ("bin/bash", "usr/bin/sh"),
        ("abs/bash", "usr/bin/sh"),
        ("out/bin//./sh", "usr/bin/sh"),
        ("out/../usr", "usr"),
        ("../../bin/..", "usr"),
        ("usr/bin/..", "usr"),
        ("gone", "usr/nowhere"),
        ("gone/deep/er", "usr/nowhere/deep/er"),
        ("new/../bin/new", "usr/bin/new"),
        ("bin/", "usr/bin"),
    ],
)
def test_symlinks_are_followed_inside_the_root(path: str, real: str) -> None:
    view = view_of(LINKS)

    assert view.resolve(path) == real


@pytest.mark.parametrize(("path", "real"), [("bin", "bin"), ("bin/bash", "usr/bin/bash"), ("bin/.", "usr/bin")])
def test_the_last_symlink_is_left_if_asked(path: str, real: str) -> None:
    view = view_of(LINKS)

    assert view.resolve(path, follow_last=False) == real


def test_symlinks_that_lead_in_a_circle_are_an_error() -> None:
    with pytest.raises(ImageError, match="40 symbolic links"):
        view_of(LINKS).resolve("x")


def test_a_file_is_read_through_symlinks_from_the_layer_that_has_it() -> None:
    below = [symlink("etc/os-release", "../usr/lib/os-release"), file("usr/lib/os-release")]
    view = View([index_of(*below), index_of(file("usr/lib/os-release"), contents={"usr/lib/os-release": b"new"})])

    assert view.read("etc/os-release") == b"new"


def test_a_file_is_read_through_a_hard_link_to_a_lower_layer() -> None:
    view = view_of([file("etc/passwd")], [hard_link("etc/passwd", "etc/passwd")])

    assert view.read("/etc/passwd") == b"etc/passwd"


def test_a_file_that_was_removed_is_not_read() -> None:
    view = view_of([file("etc/passwd")], [file("etc/.wh.passwd", 0)])

    assert view.read("etc/passwd") is None


def test_a_file_that_no_index_carries_is_not_read() -> None:
    assert view_of([file("etc/shadow")]).read("etc/shadow") is None


class Model:
    """The plain model: a tree to which one layer after the other is applied."""

    def __init__(self) -> None:
        self.tree: dict[str, Entry] = {}

    def apply(self, index: LayerIndex) -> None:
        below = dict(self.tree)
        for path in index.whiteouts:
            self._drop_below(path)
            self.tree.pop(path, None)
        for path in index.opaque:
            self._drop_below(path)
            if not path:
                self.tree.clear()
        for path in sorted(index.folders):
            if path and (path not in self.tree or self.tree[path].kind is not Kind.DIRECTORY):
                self.tree[path] = Entry(path, Kind.DIRECTORY, 0o755)
        for entry in index.entries.values():
            if entry.kind is not Kind.DIRECTORY:
                self._drop_below(entry.path)
            borrowed = entry.kind is Kind.HARDLINK
            self.tree[entry.path] = below[entry.target]._replace(path=entry.path) if borrowed else entry

    def _drop_below(self, path: str) -> None:
        for other in [other for other in self.tree if other.startswith(path + "/")]:
            del self.tree[other]


def readable(stack: list[list[Entry]]) -> list[LayerIndex] | None:
    """The indexes of layers; None if one of them is broken, or has a hard link that leads nowhere."""
    indexes: list[LayerIndex] = []
    try:
        for entries in stack:
            indexes.append(index_of(*entries))
            for path in indexes[-1].entries:
                View(indexes).lookup(path)
    except ImageError:
        return None
    return indexes


@pytest.mark.property
@settings(max_examples=400)
@given(layers())
def test_a_view_is_what_its_layers_make_one_upon_the_other(stack: list[list[Entry]]) -> None:
    indexes = readable(stack)
    if indexes is None:
        return

    model = Model()
    for index in indexes:
        model.apply(index)

    seen = list(everything(View(indexes)))

    assert walk(seen) == walk(model.tree.values())
    for entry in seen:
        assert View(indexes).lookup(entry.path) == entry


def on_disk(root: str) -> Iterator[Entry]:
    for place, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(place, name)
            with suppress(FileNotFoundError):  # overlayfs lists a whiteout that hides nothing
                entry = inode.describe(path, os.lstat(path), os.path.relpath(path, root))
                assert entry is not None
                yield entry


@pytest.mark.kernel
@pytest.mark.property
@settings(max_examples=60)
@given(layers())
def test_a_view_is_what_the_kernel_shows_of_the_unpacked_layers(
    tmp_path_factory: pytest.TempPathFactory, stack: list[list[Entry]]
) -> None:
    indexes = readable(stack)
    if indexes is None:
        return
    root = tmp_path_factory.mktemp("overlay")
    trees = [str(root / "0")]  # an empty one, since overlay wants two
    os.mkdir(trees[0])
    for number, entries in enumerate(stack, start=1):
        tree = str(root / str(number))
        os.mkdir(tree)
        try:
            unpack(tar_of(*entries), tree, lowers=trees)
        except ImageError:  # a hard link that leads nowhere, but is replaced later in the tar
            return
        trees.append(tree)

    merged = root / "merged"
    merged.mkdir()
    with mounted("overlay", merged, "userxattr,lowerdir=" + ":".join(reversed([trees[0], *visible(trees[1:])]))):
        seen = walk(on_disk(str(merged)))

    assert seen == walk(everything(View(indexes)))
