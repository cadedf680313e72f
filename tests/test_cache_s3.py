"""Caches in a bucket, as moto's server speaks S3: what is found, continued and told."""

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from machines import Machine
from moto.server import ThreadedMotoServer
from registries import free_port

from cache.shared.s3 import BucketShelf
from layers.digest import Digest
from layers.errors import ImageError
from layers.layout import Layout
from layers.oci import LAYER, Descriptor

LOGIN = "access_key_id=ann,secret_access_key=s3cret"
DOCKERFILE = "FROM scratch AS one\nCOPY Dockerfile /file\nFROM scratch\nCOPY --from=one /file /copied\n"
STEPS = ["COPY Dockerfile /file", "COPY --from=one /file /copied"]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server with the bucket `builds`."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port)
    server.start()
    url = f"http://127.0.0.1:{port}"
    keys = {"aws_access_key_id": "ann", "aws_secret_access_key": "s3cret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket="builds")
    yield url
    server.stop()


@pytest.fixture
def spec(endpoint: str, request: pytest.FixtureRequest) -> str:
    """A cache of this test's own."""
    return f"type=s3,region=us-east-1,bucket=builds,prefix={request.node.name}/,endpoint_url={endpoint},{LOGIN}"


@pytest.fixture
def shelf(endpoint: str, request: pytest.FixtureRequest) -> Iterator[BucketShelf]:
    settings = {"region": "us-east-1", "bucket": "builds", "prefix": f"{request.node.name}/", "endpoint_url": endpoint}
    opened = BucketShelf(settings | {"access_key_id": "ann", "secret_access_key": "s3cret"})
    yield opened
    opened.close()


def nothing(*_: object) -> None:
    """Whoever is not listened to."""


def test_a_second_machine_finds_all_steps(spec: str, tmp_path: Path) -> None:
    here, there = Machine(tmp_path / "here"), Machine(tmp_path / "there")
    here.build(here.context(Dockerfile=DOCKERFILE), "--cache-to", f"{spec},mode=max")

    said = there.build(there.context(Dockerfile=DOCKERFILE), "-t", "found", "--cache-from", spec)

    assert said.cached == STEPS
    assert there.blobs == 3


def test_there_may_be_no_cache_yet(spec: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    said = machine.build(machine.context(Dockerfile=DOCKERFILE), "--cache-from", spec)

    assert "there is no cache yet" in said.err


def test_a_bucket_that_is_not_there_is_told_without_the_login(spec: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    context = machine.context(Dockerfile=DOCKERFILE)

    said = machine.run("build", "--cache-to", spec.replace("bucket=builds", "bucket=other"), context)

    assert said.status == 6
    assert "NoSuchBucket" in said.err
    assert "s3cret" not in said.err


def test_an_error_of_the_option_does_not_repeat_the_login(tmp_path: Path) -> None:
    said = Machine(tmp_path).run("build", "--cache-from", f"type=s3,{LOGIN}", ".")

    assert (said.status, "bucket= is missing" in said.err, "s3cret" in said.err) == (2, True, False)


def test_a_blob_comes_as_it_was_sent(shelf: BucketShelf, tmp_path: Path) -> None:
    here, there = Layout(str(tmp_path / "here")), Layout(str(tmp_path / "there"))
    blob = here.put(os.urandom(9 << 20), LAYER)  # more than one part of an upload
    shelf.put([blob], here, nothing, nothing)
    done: list[int] = []

    shelf.fetch([blob], there, nothing, lambda _, count: done.append(count))

    assert there.read(blob) == here.read(blob)
    assert done[-1] == blob.size
    assert shelf.lacking([blob]) == []


def test_wrong_bytes_are_not_kept(shelf: BucketShelf, tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    other = layout.put(b"other", LAYER)
    wanted = Descriptor(LAYER, Digest.of(b"right"), 5)
    os.rename(layout.path(other.digest), layout.path(wanted.digest))
    shelf.put([wanted], layout, nothing, nothing)
    os.unlink(layout.path(wanted.digest))

    with pytest.raises(ImageError, match="should be"):
        shelf.fetch([wanted], layout, nothing, nothing)

    assert not layout.has(wanted)


def test_what_is_not_there_is_said_to_lack(shelf: BucketShelf, tmp_path: Path) -> None:
    absent = Descriptor(LAYER, Digest.of(b"absent"), 6)

    assert shelf.lacking([absent]) == [absent]
    with pytest.raises(ImageError, match="has no sha256:"):
        shelf.fetch([absent], Layout(str(tmp_path)), nothing, nothing)
