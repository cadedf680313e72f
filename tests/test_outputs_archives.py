"""Archives of images are read in all their forms; broken and hostile ones leave errors that say so, and no name."""

import io
import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import file, symlink, tar_of

from builder.export import docker
from builder.export.image import Draft, package
from builder.export.oci import Named
from builder.export.output import Packing
from builder.export.unarchive import load_archive
from builder.report import Report
from cache.store import Store
from layers.entry import Change, Entry, Kind
from layers.errors import ImageError, PybuildError
from layers.layer import write_layer
from layers.oci import History, ImageConfig, Platform
from layers.tar import read_tar

HERE = Platform("linux", "amd64")
NAME = "docker.io/library/app:latest"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image with one layer, as `pybuild save` writes it."""
    with closing(Store(str(tmp_path_factory.mktemp("store")))) as store:
        layer, _ = write_layer([Change(Entry("file", Kind.FILE, size=3), b"abc")], store.layout)
        config = ImageConfig(HERE, diff_ids=(layer.diff_id,), history=(History(created_by="made"),))
        report = Report(lambda _: None, lambda: 0.0)
        image = Named(package([Draft(config, (layer,))], Packing(), store, report), (NAME,))
        stream = io.BytesIO()
        docker.write_archive([image], store.layout, stream, lambda _blob, _done: None)
    return stream.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(str(tmp_path / "store"))) as store:
        yield store


def files_of(archive: bytes) -> dict[str, bytes]:
    return {entry.path: stream.read() for entry, stream in read_tar(io.BytesIO(archive)) if entry.kind is Kind.FILE}


def packed(files: dict[str, bytes], *more: Entry) -> io.BytesIO:
    return tar_of(*map(file, files), *more, contents=files)


def old_form(archive: bytes) -> dict[str, bytes]:
    """The archive as docker wrote it before it knew of OCI."""
    files = files_of(archive)
    (row,) = json.loads(files["manifest.json"])
    row_now = {"Config": "config.json", "RepoTags": ["app:latest"], "Layers": ["one/layer.tar"]}
    return {
        "one/layer.tar": files[row["Layers"][0]],
        "config.json": files[row["Config"]],
        "manifest.json": json.dumps([row_now]).encode(),
    }


def test_an_archive_is_read_in_any_order(archive: bytes, store: Store) -> None:
    files = files_of(archive)
    names = sorted(files, reverse=True)

    loaded = load_archive(packed({name: files[name] for name in names}), store)

    assert [name for name, _ in loaded] == [NAME]
    assert store.layout.resolve(NAME) is not None


def test_the_form_before_oci_is_read(archive: bytes, store: Store) -> None:
    ((name, image),) = load_archive(packed(old_form(archive)), store)

    assert name == NAME
    assert image.config.history[0].created_by == "made"


def test_a_layer_may_be_a_link_to_another(archive: bytes, store: Store) -> None:
    files = old_form(archive)
    files["two/layer.tar"] = files.pop("one/layer.tar")

    loaded = load_archive(packed(files, symlink("one/layer.tar", "../two/layer.tar")), store)

    assert [name for name, _ in loaded] == [NAME]


def test_links_in_a_circle_are_refused(archive: bytes, store: Store) -> None:
    files = old_form(archive)
    del files["one/layer.tar"]
    circle = [symlink("one/layer.tar", "../two/layer.tar"), symlink("two/layer.tar", "../one/layer.tar")]

    with pytest.raises(ImageError, match=r"no layer 'one/layer.tar'"):
        load_archive(packed(files, *circle), store)


def drop_layer(files: dict[str, bytes]) -> None:
    (row,) = json.loads(files["manifest.json"])
    del files[row["Layers"][0]]


def other_layer(files: dict[str, bytes]) -> None:
    files["one/layer.tar"] = tar_of(file("other")).getvalue()


def set_manifest(value: object) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({"manifest.json": json.dumps(value).encode()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("one/layer.tar"), "no layer 'one/layer.tar'"),
        (lambda files: files.pop("config.json"), "no 'config.json'"),
        (lambda files: files.pop("manifest.json"), "neither index.json nor manifest.json"),
        (other_layer, "and its image says"),
        (set_manifest([{"Config": [], "Layers": []}]), "something else where there should be names"),
        (set_manifest([{"Config": "config.json"}]), "manifest.json cannot be read"),
        (set_manifest(5), "manifest.json cannot be read"),
        (set_manifest([{"Config": "config.json", "Layers": [], "RepoTags": ["../../Up"]}]), "not an image name"),
        (set_manifest([{"Config": "config.json", "Layers": []}]), "names 0 layers"),
    ],
)
def test_what_is_wrong_with_an_archive_is_said(
    archive: bytes, store: Store, change: Callable[[dict[str, bytes]], object], message: str
) -> None:
    files = old_form(archive)
    change(files)

    with pytest.raises(ImageError, match=message):
        load_archive(packed(files), store)
    assert store.layout.names() == {}


def test_a_layout_that_lacks_a_layer_gives_no_name(archive: bytes, store: Store) -> None:
    files = files_of(archive)
    drop_layer(files)

    with pytest.raises(ImageError, match="is missing"):
        load_archive(packed(files), store)
    assert store.layout.names() == {}


@pytest.mark.property
@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_damage_never_leaves_anything_but_an_error(
    archive: bytes, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    chance = random.Random(seed)
    damaged = bytearray(archive)
    for _ in range(chance.randint(1, 20)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)

    with closing(Store(str(tmp_path_factory.mktemp("store")))) as store, suppress(PybuildError):
        load_archive(io.BytesIO(bytes(damaged[: chance.randint(0, 2 * len(damaged))])), store)
