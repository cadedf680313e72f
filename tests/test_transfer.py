"""Downloads that break off: what has come is kept, checked, and gone on with, in this process or the next."""

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from pulls import IMAGE, Pull, blob_path, name_of
from registries import Asked, FakeRegistry, Reply, make_image

from layers.errors import ImageError, StoreError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.errors import DroppedError, RegistryError

NOISE = make_image({"noise": os.urandom(3 << 20)})


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry that knows ranges and holds an image of one layer of 3 MiB."""
    with FakeRegistry() as registry:
        registry.ranges = True
        registry.add("team/app", "1", NOISE)
        yield registry


@pytest.fixture
def pull() -> Iterator[Pull]:
    """Somebody with no settings at all."""
    with Pull() as person:
        yield person


def layer() -> Descriptor:
    return NOISE.layers[0]


def path_of(descriptor: Descriptor) -> str:
    return f"/v2/team/app/blobs/{descriptor.digest}"


def asked_from(fake: FakeRegistry) -> list[str]:
    """Where in the layer each request began."""
    return [asked.headers.get("range", "") for asked in fake.asked if "/blobs/" in asked.path]


def begun(pull: Pull, data: bytes) -> Path:
    """What an earlier process has left of the layer."""
    path = Path(pull.layout.root) / f"fetch-sha256-{layer().digest.hex}"
    path.write_bytes(data)
    return path


def whole() -> bytes:
    return NOISE.blobs[layer().digest]


# --- in one process


def test_a_download_goes_on_where_it_broke_off(fake: FakeRegistry, pull: Pull) -> None:
    fake.first[path_of(layer())] = [Reply(body=whole(), cut=1_000_000), Reply(body=whole(), cut=500_000)]

    pull.fetch(name_of(fake), [layer()])

    assert pull.stored()[layer().digest] == whole()
    assert asked_from(fake) == ["", "bytes=1000000-", "bytes=1500000-"]


def test_only_tries_that_bring_nothing_are_counted(fake: FakeRegistry, pull: Pull) -> None:
    fake.first[path_of(layer())] = [Reply(body=whole(), cut=200_000) for _ in range(12)]

    pull.fetch(name_of(fake), [layer()])

    assert len(asked_from(fake)) == 13


def test_a_reader_sees_one_stream_whatever_breaks(fake: FakeRegistry, pull: Pull) -> None:
    fake.first[path_of(layer())] = [Reply(body=whole(), cut=1_000_000)]
    seen: list[bytes] = []

    def inspect(_: Descriptor, stream: BinaryIO) -> None:
        seen.append(gzip.GzipFile(fileobj=stream).read())

    pull.fetch(name_of(fake), [layer()], inspect=inspect)

    assert [len(data) for data in seen] == [len(gzip.decompress(whole()))]


def test_progress_never_goes_back(fake: FakeRegistry, pull: Pull) -> None:
    fake.first[path_of(layer())] = [Reply(body=whole(), cut=1_000_000)]
    counts: list[int] = []

    pull.fetch(name_of(fake), [layer()], progress=lambda _, count: counts.append(count))

    assert counts == sorted(counts)
    assert counts[-1] == layer().size


def test_a_server_without_ranges_sends_all_again(fake: FakeRegistry, pull: Pull) -> None:
    fake.ranges = False
    fake.first[path_of(layer())] = [Reply(body=whole(), cut=1_000_000)]

    pull.fetch(name_of(fake), [layer()])

    assert pull.stored()[layer().digest] == whole()


def test_a_server_that_gives_another_part_is_found_out(fake: FakeRegistry, pull: Pull) -> None:
    other = Reply(206, {"Content-Range": f"bytes 0-{layer().size - 1}/{layer().size}"}, whole())
    fake.first[path_of(layer())] = [Reply(body=whole(), cut=1_000_000), other]

    with pytest.raises(RegistryError, match="asked for what follows byte 1000000"):
        pull.fetch(name_of(fake), [layer()])


def test_an_answer_again_in_the_middle_is_waited_for(fake: FakeRegistry, pull: Pull) -> None:
    again = Reply(429, {"Retry-After": "9"})
    fake.first[path_of(layer())] = [Reply(body=whole(), cut=1_000_000), again]

    pull.fetch(name_of(fake), [layer()])

    assert 9 in pull.pauses
    assert asked_from(fake) == ["", "bytes=1000000-", "bytes=1000000-"]


# --- from one process to the next


def test_what_came_before_a_failure_is_kept(fake: FakeRegistry, pull: Pull) -> None:
    fake.first[path_of(layer())] = [Reply(body=whole(), cut=1_000_000), *[Reply(0)] * 5]

    with pytest.raises(DroppedError):
        pull.fetch(name_of(fake), [layer()])
    pull.fetch(name_of(fake), [layer()])

    assert pull.stored()[layer().digest] == whole()
    assert asked_from(fake)[-1] == "bytes=1000000-"


def test_what_a_killed_process_has_left_is_gone_on_with(fake: FakeRegistry, pull: Pull) -> None:
    left = begun(pull, whole()[:2_000_000])

    pull.fetch(name_of(fake), [layer()])

    assert pull.stored()[layer().digest] == whole()
    assert asked_from(fake) == ["bytes=2000000-"]
    assert not left.exists()


def test_a_reader_sees_what_was_left_too(fake: FakeRegistry, pull: Pull) -> None:
    begun(pull, whole()[:2_000_000])
    seen: list[bytes] = []

    pull.fetch(name_of(fake), [layer()], inspect=lambda _, stream: seen.append(stream.read()))

    assert seen == [whole()]


def test_what_lacks_only_its_name_is_not_fetched(fake: FakeRegistry, pull: Pull) -> None:
    begun(pull, whole())

    pull.fetch(name_of(fake), [layer()])

    assert asked_from(fake) == []
    assert layer().digest in pull.stored()


@pytest.mark.parametrize("left", [b"\0" * 2_000_000, b"\0" * 9_000_000])
def test_what_was_left_wrong_is_fetched_anew(fake: FakeRegistry, pull: Pull, left: bytes) -> None:
    """A power cut can leave a file whose bytes never reached the disk."""
    begun(pull, left)

    pull.fetch(name_of(fake), [layer()])

    assert pull.stored()[layer().digest] == whole()
    assert asked_from(fake)[-1] == ""


def test_wrong_bytes_of_the_registry_are_not_kept(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[path_of(layer())] = Reply(body=b"\0" * layer().size)

    with pytest.raises(RegistryError, match="wrong bytes came"):
        pull.fetch(name_of(fake), [layer()])

    assert list(Path(pull.layout.root).glob("fetch-*")) == []


def test_a_blob_that_the_registry_has_cut_off_is_fetched_anew(fake: FakeRegistry, pull: Pull) -> None:
    begun(pull, whole()[:2_000_000])
    fake.first[path_of(layer())] = [Reply(416)]

    pull.fetch(name_of(fake), [layer()])

    assert asked_from(fake) == ["bytes=2000000-", ""]


def test_a_link_in_the_place_of_what_was_left_is_not_followed(fake: FakeRegistry, pull: Pull, tmp_path: Path) -> None:
    begun(pull, b"").unlink()
    (Path(pull.layout.root) / f"fetch-sha256-{layer().digest.hex}").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StoreError):
        pull.fetch(name_of(fake), [layer()])

    assert not (tmp_path / "elsewhere").exists()


def test_who_wants_the_same_blob_waits_for_it(fake: FakeRegistry, pull: Pull) -> None:
    """Two processes, or two builds of one: the second uses what the first has fetched."""
    with pull.layout.partial(layer(), wait=lambda: None) as first:
        other = threading.Thread(target=pull.fetch, args=(name_of(fake), [layer()]))
        other.start()
        time.sleep(0.1)
        first.write(whole())
        first.commit()
    other.join()

    assert asked_from(fake) == []


def test_who_waits_goes_on_when_the_first_gives_up(fake: FakeRegistry, pull: Pull) -> None:
    with pull.layout.partial(layer(), wait=lambda: None) as first:
        other = threading.Thread(target=pull.fetch, args=(name_of(fake), [layer()]))
        other.start()
        time.sleep(0.1)
        first.write(whole()[:1_000_000])
    other.join()

    assert asked_from(fake) == ["bytes=1000000-"]


def test_an_error_elsewhere_ends_the_waiting(fake: FakeRegistry, pull: Pull) -> None:
    absent = IMAGE.layers[0]

    with pull.layout.partial(layer(), wait=lambda: None), pytest.raises(ImageError, match=str(absent.digest)):
        pull.fetch(name_of(fake), [layer(), absent])

    assert blob_path(0) in fake.paths()


def test_a_process_that_is_killed_leaves_what_it_has(fake: FakeRegistry, pull: Pull) -> None:
    script = """
import sys, time
from layers.digest import Digest
from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.client import Registry, RegistrySettings
from layers.registry.reference import Reference
from layers.registry.transfer import fetch_layers

root, name, digest, size = sys.argv[1:]
def progress(blob, count):
    if count > 1_000_000:
        print(count, flush=True)
        time.sleep(60)
fetch_layers(
    Registry(RegistrySettings()), Reference.parse(name), [Descriptor("", Digest(digest), int(size))], Layout(root),
    progress=progress,
)
"""
    arguments = [pull.layout.root, name_of(fake), layer().digest, str(layer().size)]
    with subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout
        count = int(process.stdout.readline())
        process.kill()
    fake.asked.clear()

    pull.fetch(name_of(fake), [layer()])

    assert asked_from(fake) == [f"bytes={count}-"]
    assert pull.stored()[layer().digest] == whole()


def test_a_layout_with_a_partial_blob_is_a_layout(pull: Pull) -> None:
    begun(pull, b"x")

    assert Layout(pull.layout.root).names() == {}


def test_an_error_is_not_kept_waiting_by_a_silent_server(fake: FakeRegistry, pull: Pull) -> None:
    silent = threading.Event()
    usual = fake.answer

    def answer(asked: Asked) -> Reply:
        if layer().digest in asked.path:
            silent.wait(120)
        return usual(asked)

    fake.answer = answer  # type: ignore[method-assign]  # a server that says nothing
    began = time.monotonic()

    with pytest.raises(ImageError, match=str(IMAGE.layers[0].digest)):
        pull.fetch(name_of(fake), [layer(), IMAGE.layers[0]])

    assert time.monotonic() - began < 60
    silent.set()
