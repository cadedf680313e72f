"""Blobs on their way from a registry: verified, tried again, redirected, and read while they come."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from pulls import BIG, IMAGE, MANIFEST_PATH, Pull, blob_path, name_of
from registries import (
    FakeRegistry,
    Reply,
    make_certificate,
    stored,
    write_config,
)

from layers.digest import Digest
from layers.errors import ImageError, StoreError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.partial import PartialBlob
from layers.registry.client import RegistrySettings
from layers.registry.errors import BusyError, NotFoundError, RegistryError
from layers.registry.retry import retry_after


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry without access control that holds `team/app:1`."""
    with FakeRegistry() as registry:
        registry.add("team/app", "1", IMAGE)
        yield registry


@pytest.fixture
def pull() -> Iterator[Pull]:
    """Somebody with no settings at all."""
    with Pull() as person:
        yield person


# --- blobs


def test_layers_are_fetched_into_the_store(fake: FakeRegistry, pull: Pull) -> None:
    done: dict[Digest, list[int]] = {}

    pull.fetch(name_of(fake), progress=lambda blob, count: done.setdefault(blob.digest, []).append(count))

    assert all(pull.stored()[layer.digest] == IMAGE.blobs[layer.digest] for layer in IMAGE.layers)
    assert {digest: counts[-1] for digest, counts in done.items()} == {
        layer.digest: layer.size for layer in IMAGE.layers
    }


def test_a_blob_that_is_there_is_not_fetched(fake: FakeRegistry, pull: Pull) -> None:
    pull.layout.put(IMAGE.blobs[IMAGE.layers[0].digest], "")

    pull.fetch(name_of(fake))

    assert sorted(fake.paths("/blobs/")) == sorted([blob_path(1), blob_path(2)])


def test_a_blob_that_is_named_twice_is_fetched_once(fake: FakeRegistry, pull: Pull) -> None:
    pull.fetch(name_of(fake), [IMAGE.layers[0], IMAGE.layers[0]])

    assert fake.paths("/blobs/") == [blob_path(0)]


def test_a_blob_is_never_decompressed_on_its_way(fake: FakeRegistry, pull: Pull) -> None:
    """Some servers call a layer's own compression the encoding of the transfer."""
    fake.replies[blob_path()] = Reply(headers={"Content-Encoding": "gzip"}, body=IMAGE.blobs[IMAGE.layers[1].digest])

    pull.fetch(name_of(fake))

    assert pull.stored()[IMAGE.layers[1].digest] == IMAGE.blobs[IMAGE.layers[1].digest]
    assert {asked.headers["accept-encoding"] for asked in fake.asked} == {"identity"}


def test_a_reader_sees_the_bytes_while_they_come(fake: FakeRegistry, pull: Pull) -> None:
    seen: dict[Digest, bytes] = {}

    def inspect(descriptor: Descriptor, stream: BinaryIO) -> None:
        seen[descriptor.digest] = gzip.GzipFile(fileobj=stream).read()

    pull.fetch(name_of(fake), inspect=inspect)

    assert BIG in seen[IMAGE.layers[1].digest]
    assert all(layer.digest in pull.stored() for layer in IMAGE.layers)


def test_a_reader_need_not_read_to_the_end(fake: FakeRegistry, pull: Pull) -> None:
    pull.fetch(name_of(fake), inspect=lambda _, stream: stream.read(1))

    assert all(layer.digest in pull.stored() for layer in IMAGE.layers)


def test_what_a_reader_does_not_accept_ends_all(fake: FakeRegistry, pull: Pull) -> None:
    def inspect(descriptor: Descriptor, stream: BinaryIO) -> None:
        raise ImageError("this is no tar")

    with pytest.raises(ImageError, match="this is no tar"):
        pull.fetch(name_of(fake), inspect=inspect)


def test_wrong_bytes_are_told_before_what_a_reader_thinks_of_them(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[blob_path()] = Reply(body=b"x" * IMAGE.layers[1].size)

    def inspect(descriptor: Descriptor, stream: BinaryIO) -> None:
        if not stream.read(2) == b"\x1f\x8b":
            raise ImageError("this is no tar")

    with pytest.raises(RegistryError, match="wrong bytes came"):
        pull.fetch(name_of(fake), inspect=inspect)


def test_a_blob_of_another_digest_is_refused_and_not_stored(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[blob_path()] = Reply(body=b"x" * IMAGE.layers[1].size)

    with pytest.raises(RegistryError, match=f"blob {IMAGE.layers[1].digest} from .*: wrong bytes came"):
        pull.fetch(name_of(fake))

    assert IMAGE.layers[1].digest not in pull.stored()


def test_a_blob_that_does_not_end_is_cut_off(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[blob_path()] = Reply(body=IMAGE.blobs[IMAGE.layers[1].digest] + b"x" * 1_000_000)

    with pytest.raises(RegistryError, match=f"more than its {IMAGE.layers[1].size} bytes"):
        pull.fetch(name_of(fake))


def test_a_broken_connection_is_tried_again(fake: FakeRegistry, pull: Pull) -> None:
    whole = fake.replies[blob_path()]
    fake.first[blob_path()] = [Reply(body=whole.body, cut=1000), Reply(body=whole.body, cut=0)]

    pull.fetch(name_of(fake))

    assert pull.stored()[IMAGE.layers[1].digest] == whole.body
    assert fake.paths().count(blob_path()) == 3


def test_a_reader_does_not_notice_a_broken_connection(fake: FakeRegistry, pull: Pull) -> None:
    fake.first[blob_path()] = [Reply(body=fake.replies[blob_path()].body, cut=1000)]
    seen: list[bytes] = []

    pull.fetch(name_of(fake), [IMAGE.layers[1]], inspect=lambda _, stream: seen.append(stream.read()))

    assert seen == [fake.replies[blob_path()].body]


def test_a_blob_that_is_always_truncated_is_an_error(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[blob_path()] = Reply(body=fake.replies[blob_path()].body[:-1])

    with pytest.raises(RegistryError, match=f"ends after {IMAGE.layers[1].size - 1} of {IMAGE.layers[1].size} bytes"):
        pull.fetch(name_of(fake))

    assert len(pull.pauses) == 4


def test_a_manifest_that_breaks_off_is_tried_again(fake: FakeRegistry, pull: Pull) -> None:
    fake.first[MANIFEST_PATH] = [Reply(body=IMAGE.document, cut=10)]

    assert pull.resolve(name_of(fake)).descriptor.digest == IMAGE.digest


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_registry_is_tried_again(fake: FakeRegistry, pull: Pull, status: int) -> None:
    fake.first[MANIFEST_PATH] = [Reply(status), Reply(status, {"Retry-After": "7"})]

    pull.resolve(name_of(fake))

    assert 0.2 < pull.pauses[0] < 0.8
    assert pull.pauses[1] == 7


def test_a_registry_that_stays_busy_is_told_with_its_words(fake: FakeRegistry, pull: Pull) -> None:
    body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}'
    fake.replies[MANIFEST_PATH] = Reply(429, body=body)

    with pytest.raises(BusyError, match=r"answers 429 \(TOOMANYREQUESTS: slow down\)") as caught:
        pull.resolve(name_of(fake))

    assert "log in" in caught.value.hint
    assert len(pull.pauses) == 4


def test_a_busy_blob_is_not_tried_more_often_than_a_manifest(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[blob_path()] = Reply(503)

    with pytest.raises(BusyError):
        pull.fetch(name_of(fake), [IMAGE.layers[1]])

    assert fake.paths("/blobs/") == [blob_path()] * 5


def test_nobody_waits_an_hour(fake: FakeRegistry, pull: Pull) -> None:
    fake.replies[MANIFEST_PATH] = Reply(429, {"Retry-After": "3600"})

    with pytest.raises(BusyError):
        pull.resolve(name_of(fake))

    assert pull.pauses == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "12"}, 12),
        ({"Retry-After": "-1"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT", "Date": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:30", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_retry_after_is_seconds_or_a_moment(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


def test_the_first_error_ends_all(fake: FakeRegistry, pull: Pull) -> None:
    del fake.replies[blob_path(0)]

    with pytest.raises(NotFoundError, match=f"blob {IMAGE.layers[0].digest}"):
        pull.fetch(name_of(fake))


@pytest.mark.parametrize("inspect", [None, lambda _, stream: stream.read()])
def test_a_full_disk_is_an_error_of_the_store(
    fake: FakeRegistry, pull: Pull, inspect: Callable[[Descriptor, BinaryIO], object] | None
) -> None:
    pull.layout = Layout(pull.layout.root, temporary="/dev/full")

    with pytest.raises(StoreError, match="/dev/full"):
        pull.fetch(name_of(fake), inspect=inspect)


def test_an_error_of_writing_is_not_forgotten(fake: FakeRegistry, pull: Pull) -> None:
    """A disk that was full for a moment would leave a hole in a blob whose digest seems right."""

    class Leaky(PartialBlob):
        failed = False

        def write(self, data: bytes) -> None:
            if not self.failed:
                self.failed = True
                raise StoreError("no space left")
            super().write(data)

    class LeakyLayout(Layout):
        def partial(self, descriptor: Descriptor, *, wait: Callable[[], object]) -> PartialBlob:
            super().partial(descriptor, wait=wait).__exit__(None, None, None)
            return Leaky(f"{self.root}/part", self.path(descriptor.digest), descriptor, wait=wait)

    pull.layout = LeakyLayout(pull.layout.root)

    with pytest.raises(StoreError, match="no space left"):
        pull.fetch(name_of(fake), inspect=lambda _, stream: stream.read())

    assert pull.stored() == {}


# --- redirects


def test_a_redirected_blob_is_fetched_without_the_login(tmp_path: Path) -> None:
    with FakeRegistry() as storage, FakeRegistry(auth="basic") as fake:
        fake.add("team/app", "1", IMAGE)
        for layer in IMAGE.layers:
            storage.replies[f"/{layer.digest.hex}"] = Reply(body=IMAGE.blobs[layer.digest])
            location = f"http://{storage.host}/{layer.digest.hex}?signature=secret"
            fake.replies[f"/v2/team/app/blobs/{layer.digest}"] = Reply(307, {"Location": location})
        settings = RegistrySettings(docker_config=write_config(tmp_path, auths={fake.host: stored()}))

        with Pull(settings) as pull:
            pull.fetch(name_of(fake))
            assert {layer.digest for layer in IMAGE.layers} == pull.stored().keys()

    assert len(storage.asked) == 3
    assert not any(asked.authorization for asked in storage.asked)


def test_a_redirect_on_the_same_host_keeps_the_login(tmp_path: Path) -> None:
    with FakeRegistry(auth="basic") as fake:
        fake.add("team/app", "1", IMAGE)
        fake.replies["/v2/other"] = fake.replies[blob_path()]
        fake.replies[blob_path()] = Reply(302, {"Location": "/v2/other"})
        settings = RegistrySettings(docker_config=write_config(tmp_path, auths={fake.host: stored()}))

        with Pull(settings) as pull:
            pull.fetch(name_of(fake))
            assert IMAGE.layers[1].digest in pull.stored()


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "redirects to nowhere"),
        ({"Location": ""}, "redirects to nowhere"),
        ({"Location": "file:///etc/passwd"}, "not a URL of http"),
        ({"Location": "http://[bad"}, "not a URL"),
        ({"Location": "http://host:port/"}, "not a URL"),
        ({"Location": "//"}, "redirects without end|not a URL|redirects to nowhere"),
        ({"Location": MANIFEST_PATH}, "redirects without end"),
    ],
)
def test_an_odd_redirect_is_one_clear_error(
    fake: FakeRegistry, pull: Pull, headers: dict[str, str], words: str
) -> None:
    fake.replies[MANIFEST_PATH] = Reply(307, headers)

    with pytest.raises(RegistryError, match=words):
        pull.resolve(name_of(fake))


@pytest.mark.kernel
def test_a_redirect_out_of_tls_is_refused(tmp_path: Path, fake: FakeRegistry) -> None:
    certificate = make_certificate(tmp_path)
    with FakeRegistry(certificate=certificate) as outer, Pull(RegistrySettings(ca_file=certificate[0])) as pull:
        outer.replies[MANIFEST_PATH] = Reply(307, {"Location": f"{fake.url}{MANIFEST_PATH}"})

        with pytest.raises(RegistryError, match="redirects from https to http"):
            pull.resolve(name_of(outer))

    assert fake.asked == []
