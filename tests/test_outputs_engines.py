"""Images are handed to docker or podman: to the one that is there, and no more of them than it lacks."""

import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from engines import FakeDockerd, listening

from builder.errors import UsageError
from builder.export import docker
from builder.export.engine import find_engine
from builder.export.image import Draft, package
from builder.export.oci import Named
from builder.export.output import Packing
from builder.export.sink import OutputError
from builder.report import Report
from cache.store import Store
from layers.digest import Digest
from layers.entry import Change, Entry, Kind
from layers.layer import write_layer
from layers.oci import ImageConfig, Platform


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(str(tmp_path / "store"))) as store:
        yield store


@pytest.fixture
def image(store: Store) -> Named:
    """An image with three layers."""
    layers = []
    for name in ("one", "two", "three"):
        changes = [Change(Entry(name, Kind.FILE, size=3), b"abc")]
        layers.append(write_layer(changes, store.layout)[0])
    config = ImageConfig(Platform("linux", "amd64"), diff_ids=tuple(layer.diff_id for layer in layers))
    report = Report(lambda _: None, lambda: 0.0)
    return Named(package([Draft(config, tuple(layers))], Packing(), store, report), ("docker.io/library/app:latest",))


def load(image: Named, store: Store, environment: Mapping[str, str]) -> None:
    """Load the image into what is found."""
    blobs = dict(zip(ids(image), (layer.digest for layer in image.packaged.image.manifest.layers), strict=True))

    def write(stream: BinaryIO, there: frozenset[Digest]) -> None:
        left_out = {blobs[diff_id] for diff_id in there}
        docker.write_archive([image], store.layout, stream, lambda _blob, _done: None, left_out=left_out)

    with closing(find_engine(environment)) as engine:
        engine.load(write, ids(image))


def ids(image: Named) -> tuple[Digest, ...]:
    return image.packaged.image.config.diff_ids


def sent_layers(image: Named, archive: list[str]) -> list[int]:
    """Which of the layers an archive has."""
    layers = image.packaged.image.manifest.layers
    return [number for number, layer in enumerate(layers) if f"blobs/sha256/{layer.digest.hex}" in archive]


def test_a_daemon_that_has_nothing_gets_all(image: Named, store: Store, tmp_path: Path) -> None:
    daemon = FakeDockerd()

    with listening(daemon, tmp_path) as environment:
        load(image, store, environment)

    (archive,) = daemon.archives
    assert sent_layers(image, archive) == [0, 1, 2]
    assert {"manifest.json", "index.json", "oci-layout"} <= set(archive)


def test_layers_that_an_image_of_the_daemon_begins_with_are_not_sent(
    image: Named, store: Store, tmp_path: Path
) -> None:
    daemon = FakeDockerd([ids(image)[:1], [*ids(image)[:2], "sha256:other"], ids(image)[1:]])

    with listening(daemon, tmp_path) as environment:
        load(image, store, environment)

    (archive,) = daemon.archives
    assert sent_layers(image, archive) == [2]
    assert "index.json" not in archive, "it would not be a whole layout"


def test_a_layer_counts_only_on_top_of_the_same_ones(image: Named, store: Store, tmp_path: Path) -> None:
    daemon = FakeDockerd([["sha256:other", *ids(image)[1:]]])

    with listening(daemon, tmp_path) as environment:
        load(image, store, environment)

    assert sent_layers(image, daemon.archives[0]) == [0, 1, 2]


def test_a_daemon_that_stores_in_containerd_gets_all(image: Named, store: Store, tmp_path: Path) -> None:
    daemon = FakeDockerd([ids(image)], driver="overlayfs")

    with listening(daemon, tmp_path) as environment:
        load(image, store, environment)

    assert sent_layers(image, daemon.archives[0]) == [0, 1, 2]


def test_what_has_gone_meanwhile_is_sent_after_all(image: Named, store: Store, tmp_path: Path) -> None:
    daemon = FakeDockerd([ids(image)], answers=[(500, b'{"message":"no such file"}')])

    with listening(daemon, tmp_path) as environment:
        load(image, store, environment)

    assert [sent_layers(image, archive) for archive in daemon.archives] == [[], [0, 1, 2]]


@pytest.mark.parametrize(
    "answer",
    [(500, b'{"message":"no space left"}'), (200, b'{"stream":"1"}\r\n{"errorDetail":{},"error":"no space left"}\r\n')],
)
def test_what_a_daemon_says_against_an_image_is_told(
    image: Named, store: Store, tmp_path: Path, answer: tuple[int, bytes]
) -> None:
    daemon = FakeDockerd(answers=[answer])

    with listening(daemon, tmp_path) as environment, pytest.raises(OutputError) as raised:
        load(image, store, environment)

    assert raised.value.message == "dockerd does not take the image: no space left"


@contextmanager
def podman(folder: Path, script: str) -> Iterator[Mapping[str, str]]:
    """A podman that is a shell script."""
    program = folder / "podman"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    yield {"PATH": f"{folder}:/usr/bin:/bin", "DOCKER_HOST": ""}


@pytest.fixture
def no_daemon() -> None:
    if Path("/var/run/docker.sock").exists():
        pytest.skip("a dockerd listens here, which goes before podman")


def test_podman_takes_the_image_where_there_is_no_daemon(
    image: Named, store: Store, tmp_path: Path, no_daemon: None
) -> None:
    with podman(tmp_path, f'test "$*" = "load --quiet" && cat > {tmp_path}/taken.tar') as environment:
        load(image, store, environment)

    assert (tmp_path / "taken.tar").stat().st_size > 0


def test_what_podman_says_against_an_image_is_told(image: Named, store: Store, tmp_path: Path, no_daemon: None) -> None:
    with podman(tmp_path, "echo Error: no room >&2; exit 125") as environment, pytest.raises(OutputError) as raised:
        load(image, store, environment)

    assert raised.value.message == "podman does not take the image: Error: no room"


def test_nobody_to_load_the_image_is_told_with_a_way_out(tmp_path: Path, no_daemon: None) -> None:
    with pytest.raises(UsageError, match="neither dockerd nor podman") as raised:
        find_engine({"PATH": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})

    assert "-o type=docker,dest=FILE" in raised.value.hint
