"""Blobs that are brought to the disk while their makers go on."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest

from layers.blob import BlobWriter
from layers.digest import Digest
from layers.errors import StoreError
from layers.keeper import Keeper
from layers.layout import Layout
from layers.oci import LAYER, Descriptor

TEXT = Descriptor(LAYER, Digest.of(b"text"), 4)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "images"), temporary=str(tmp_path))


@pytest.fixture
def keeper(layout: Layout) -> Iterator[Keeper]:
    with closing(Keeper(layout)) as keeper:
        yield keeper


def written(layout: Layout, data: bytes = b"text") -> BlobWriter:
    blob = layout.writer()
    blob.write(data)
    return blob


def test_what_follows_a_blob_happens_when_it_has_its_name(layout: Layout, keeper: Keeper) -> None:
    found: list[bool] = []

    keeper.keep(written(layout), lambda: found.append(os.path.exists(layout.path(TEXT.digest))), nullcontext()).result()

    assert found == [True]
    assert layout.read(TEXT) == b"text"


def test_several_blobs_are_kept(layout: Layout, keeper: Keeper) -> None:
    texts = [str(number).encode() for number in range(200)]

    kept = [keeper.keep(written(layout, text), lambda: None, nullcontext()) for text in texts]
    for each in kept:
        each.result()

    assert all(layout.has(Descriptor(LAYER, Digest.of(text), len(text))) for text in texts)


def test_who_asks_for_a_blob_waits_until_it_is_kept(layout: Layout, keeper: Keeper) -> None:
    goes_on, answers = threading.Event(), list[bool]()
    keeper.keep(written(layout), goes_on.wait, nullcontext())
    asking = threading.Thread(target=lambda: answers.append(layout.has(TEXT)))
    asking.start()
    early = list(answers)

    goes_on.set()
    asking.join()

    assert early == []
    assert answers == [True]


def test_what_is_held_is_left_before_the_blob_counts_as_kept(layout: Layout, keeper: Keeper) -> None:
    order: list[str] = []

    @contextmanager
    def held() -> Iterator[None]:
        yield
        order.append("left")

    keeper.keep(written(layout), lambda: order.append("then"), held()).result()

    assert order == ["then", "left"]


def test_a_failure_afterwards_is_told_to_who_waits(layout: Layout, keeper: Keeper) -> None:
    def fail() -> None:
        raise StoreError("the cache cannot be written")

    failed = keeper.keep(written(layout), fail, nullcontext())
    other = keeper.keep(written(layout, b"other"), lambda: None, nullcontext())

    with pytest.raises(StoreError, match="the cache cannot be written"):
        failed.result()
    other.result()


def test_a_blob_that_cannot_be_kept_is_told_to_who_waits_and_leaves_nothing(
    layout: Layout, keeper: Keeper, tmp_path: Path
) -> None:
    followed: list[bool] = []
    blob = written(layout)
    shutil.rmtree(tmp_path / "images" / "blobs")

    kept = keeper.keep(blob, lambda: followed.append(True), nullcontext())

    with pytest.raises(StoreError, match="no such file"):
        kept.result()
    assert followed == []
    assert os.listdir(tmp_path) == ["images"]


def test_closing_waits_for_all_that_was_given(layout: Layout) -> None:
    keeper = Keeper(layout)
    kept = [keeper.keep(written(layout, bytes([number])), lambda: None, nullcontext()) for number in range(20)]

    keeper.close()

    assert all(each.done() for each in kept)


def test_closing_without_any_blob_is_no_error(layout: Layout) -> None:
    Keeper(layout).close()
