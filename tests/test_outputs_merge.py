"""Layers merged into one stream: all that is seen of them, once, in an order that a tar can have."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import content_of, file, folder, hard_link, index_of, layers, symlink, tar_of, walk

from layers.entry import Change, Entry, Kind
from layers.errors import ImageError
from layers.index import LayerIndex
from layers.indexing import IndexBuilder
from layers.landing import Effect, Landing
from layers.merge import merged, squashed
from layers.tar import TarWriter, read_tar
from layers.view import View

Stack = Sequence[Sequence[Entry]]


def written(changes: Iterator[Change]) -> bytes:
    """The changes as a tar."""
    tar = io.BytesIO()
    writer = TarWriter(tar.write)
    for entry, content in changes:
        writer.add(entry, content)
    writer.close()
    return tar.getvalue()


def indexes_of(stack: Stack) -> list[LayerIndex]:
    return [index_of(*entries) for entries in stack]


def merge(*stack: Sequence[Entry], opened: list[int] | None = None) -> bytes:
    """The tar of what stacked layers add up to; `opened` gets the layers whose tar was read."""

    @contextmanager
    def open_tar(number: int) -> Iterator[BinaryIO]:
        if opened is not None:
            opened.append(number)
        yield tar_of(*stack[number])

    return written(merged(indexes_of(stack), open_tar))


def squash(below: Stack, above: Stack) -> bytes:
    """The tar of one layer that does what those `above` do."""

    @contextmanager
    def open_tar(number: int) -> Iterator[BinaryIO]:
        yield tar_of(*above[number])

    return written(squashed(indexes_of(below), indexes_of(above), open_tar))


def listing(tar: bytes) -> list[str]:
    """The paths of a tar in its order, links with their targets."""
    return [
        f"{entry.path} -> {entry.target}" if entry.kind is Kind.HARDLINK else entry.path
        for entry, _ in read_tar(io.BytesIO(tar))
    ]


def index(tar: bytes) -> LayerIndex:
    builder = IndexBuilder()
    for entry, stream in read_tar(io.BytesIO(tar)):
        builder.add(entry, stream)
    return builder.finish()


def contents(tars: Sequence[BinaryIO]) -> dict[str, bytes]:
    """The bytes of every file that is seen of stacked layers, by a plain model: layer by layer, name by name."""
    view, stack = View([]), list[LayerIndex]()
    seen: list[dict[str, bytes]] = []
    for tar in tars:
        landing, builder, files = Landing(), IndexBuilder(), dict[str, bytes]()
        for raw, stream in read_tar(tar):
            effect, entry, _ = landing.place(raw)
            data = stream.read()
            builder.add(raw, io.BytesIO(data))
            if effect is Effect.ENTRY and entry.kind is Kind.FILE:
                files[entry.path] = data
            elif effect is Effect.ENTRY and entry.kind is Kind.HARDLINK and entry.target in files:
                files[entry.path] = files[entry.target]
            elif effect is Effect.BORROW:
                files[entry.path] = _bytes_at(view, seen, entry.target)
        seen.append(files)
        stack.append(builder.finish())
        view = View(stack)
    listed = [view.lookup(path) for path in {path for layer in stack for path in layer.entries}]
    files_seen = [entry.path for entry in listed if entry is not None and entry.kind is Kind.FILE]
    return {path: _bytes_at(view, seen, path) for path in files_seen}


def _bytes_at(view: View, seen: Sequence[Mapping[str, bytes]], path: str) -> bytes:
    layer = view.layer_of(path)
    return b"" if layer is None else seen[layer].get(path, b"")


def everything(view: View, path: str = "") -> Iterator[Entry]:
    for entry in view.children(path):
        yield entry
        yield from everything(view, entry.path)


# --- a whole file system


def test_folders_come_first_and_files_layer_by_layer() -> None:
    tar = merge([folder("b"), file("b/one")], [folder("a"), file("a/two"), folder("b"), file("b/three")])

    assert listing(tar) == ["a", "b", "b/one", "a/two", "b/three"]


def test_what_an_upper_layer_hides_does_not_come() -> None:
    tar = merge([folder("a"), file("a/one"), file("two")], [file(".wh.two", 0), folder("a"), file("a/.wh..wh..opq", 0)])

    assert listing(tar) == ["a"]


def test_a_layer_of_which_nothing_is_read_is_not_opened() -> None:
    opened: list[int] = []

    merge([file("a")], [symlink("b", "a"), folder("c")], [file("a")], opened=opened)

    assert opened == [2]


def test_a_hard_link_follows_its_file() -> None:
    assert listing(merge([file("z"), hard_link("a", "z"), hard_link("b", "a")])) == ["z", "a -> z", "b -> a"]


def test_a_file_whose_first_name_is_hidden_comes_under_the_next() -> None:
    tar = merge([file("a"), hard_link("b", "a"), hard_link("c", "a")], [file(".wh.a", 0)])

    assert listing(tar) == ["b", "c -> b"]
    assert contents([io.BytesIO(tar)]) == {"b": b"a", "c": b"a"}


def test_a_link_to_a_file_of_a_lower_layer_shares_its_bytes() -> None:
    tar = merge([file("a")], [hard_link("b", "a")])

    assert listing(tar) == ["a", "b -> a"]


def test_a_link_to_a_file_that_is_hidden_since_brings_the_bytes() -> None:
    tar = merge([file("a")], [hard_link("b", "a")], [file(".wh.a", 0)])

    assert listing(tar) == ["b"]
    assert contents([io.BytesIO(tar)]) == {"b": b"a"}


def test_the_same_layers_give_the_same_tar() -> None:
    stack = [folder("a"), file("a/b"), hard_link("a/c", "a/b")], [symlink("d", "a"), file("e")]

    assert merge(*stack) == merge(*stack)


# --- one layer of several


def test_a_squashed_layer_has_no_trace_of_what_came_and_went() -> None:
    tar = squash([[file("base")]], [[file("temporary")], [file(".wh.temporary", 0), file("kept")]])

    assert listing(tar) == ["kept"]


def test_what_is_gone_from_below_is_whited_out_after_its_folder() -> None:
    tar = squash([[folder("a"), file("a/old")]], [[folder("a"), file("a/.wh.old", 0)], [folder("a"), file("a/new")]])

    assert listing(tar) == ["a", "a/.wh.old", "a/new"]


def test_an_opaque_folder_becomes_a_whiteout_for_each_name() -> None:
    below = [[folder("a"), file("a/x"), file("a/y")]]

    tar = squash(below, [[folder("a"), file("a/.wh..wh..opq", 0), file("a/x")], [file("b")]])

    assert listing(tar) == ["a", "a/.wh.y", "a/x", "b"]


def test_a_folder_that_became_a_file_and_a_folder_again_hides_what_was_in_it() -> None:
    below = [[folder("a"), file("a/x")]]

    tar = squash(below, [[file("a")], [folder("a"), file("a/y")]])

    assert listing(tar) == ["a", "a/.wh.x", "a/y"]


def test_a_folder_that_became_a_file_and_then_stands_where_something_else_is_is_listed() -> None:
    tar = squash([[folder("a", 0o700)]], [[file("a")], [file("a/x")]])

    assert listing(tar) == ["a", "a/x"]
    assert next(read_tar(io.BytesIO(tar)))[0].mode == 0o755


def test_what_was_never_below_is_not_whited_out() -> None:
    assert listing(squash([[file("a")]], [[file("b")], [file(".wh.b", 0)]])) == []


# --- against a plain model


def readable(stack: Stack) -> list[LayerIndex] | None:
    """The indexes of layers; None for those that no honest builder makes: broken, or with a path that comes twice."""
    indexes: list[LayerIndex] = []
    try:
        for entries in stack:
            landing = Landing()
            placed = [landing.place(entry) for entry in entries]
            paths = [entry.path for effect, entry, _ in placed if effect in {Effect.ENTRY, Effect.BORROW}]
            if len(set(paths)) < len(paths):
                return None
            indexes.append(index_of(*entries))
            for path in indexes[-1].entries:
                View(indexes).lookup(path)
    except ImageError:
        return None
    return indexes


@pytest.mark.property
@settings(max_examples=600)
@given(layers())
def test_the_merged_tar_holds_what_a_view_shows(stack: list[list[Entry]]) -> None:
    indexes = readable(stack)
    if indexes is None:
        return

    tar = merge(*stack)

    assert walk(everything(View([index(tar)]))) == walk(everything(View(indexes)))
    assert contents([io.BytesIO(tar)]) == contents([tar_of(*entries) for entries in stack])


@pytest.mark.property
@settings(max_examples=600)
@given(layers(), st.integers(0, 3))
def test_a_squashed_layer_does_what_its_layers_do(stack: list[list[Entry]], cut: int) -> None:
    indexes = readable(stack)
    if indexes is None:
        return
    below, above = stack[:cut], stack[cut:]

    tar = squash(below, above)

    lower = [tar_of(*entries) for entries in below]
    assert walk(everything(View([*indexes[:cut], index(tar)]))) == walk(everything(View(indexes)))
    assert contents([*lower, io.BytesIO(tar)]) == contents([tar_of(*entries) for entries in stack])
    names = [entry.path for entry, _ in read_tar(io.BytesIO(tar))]
    assert len(set(names)) == len(names)


def test_the_model_knows_whose_bytes_a_link_has() -> None:
    tars = [tar_of(file("a"), hard_link("b", "a")), tar_of(file("a"))]

    assert contents(tars) == {"a": content_of(file("a")), "b": b"a"}
