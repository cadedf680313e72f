"""Images into registries: what is sent and in which order, what is not sent, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pushes import KIB, Push
from registries import PASSWORD, USER, FakeRegistry, Reply, basic, stored, write_config
from uploads import Habits, PushRegistry

from layers.data import replace
from layers.errors import ImageError, StoreError
from layers.oci import DOCKER_LAYER_GZIP, LAYER, Descriptor, Platform
from layers.registry.client import RegistrySettings
from layers.registry.errors import NotFoundError, RegistryError


@pytest.fixture
def fake() -> Iterator[PushRegistry]:
    """A registry that takes everything from everybody."""
    with PushRegistry() as registry:
        yield registry


@pytest.fixture
def person() -> Iterator[Push]:
    """Somebody with no settings at all."""
    with Push() as pushing:
        yield pushing


# --- the whole


def test_an_image_arrives_with_all_its_parts(fake: PushRegistry, person: Push) -> None:
    image = person.make(10 * KIB, 250 * KIB)

    person.push(fake, image, parallel=4)

    held = fake.repository("team/app")
    assert held.manifests["1"] == person.layout.read(image)
    assert held.types["1"] == image.media_type
    assert all(held.blobs[layer.digest] for layer in person.layers_of(image))


def test_what_names_something_comes_after_it(fake: PushRegistry, person: Push) -> None:
    images = [replace(person.make(10), platform=Platform("linux", name)) for name in ("amd64", "arm64")]
    index = person.index_of(*images)

    person.push(fake, index, ["team/app:1", "team/app:2"])

    put = [asked.path.rpartition("/")[2] for asked in fake.asked if "/manifests/" in asked.path]
    assert put == [*(image.digest for image in images), "1", "2"]
    assert all("/blobs/" in asked.path for asked in fake.asked[: -len(put)] if asked.path != "/v2/")


def test_an_index_of_which_a_part_is_not_here_is_refused_before_anything_is_sent(
    fake: PushRegistry, person: Push
) -> None:
    absent = Descriptor(person.make(1).media_type, person.make(2).digest, 1, Platform("linux", "s390x"))

    with pytest.raises(ImageError, match="linux/s390x, which is not in the store"):
        person.push(fake, person.index_of(absent))

    assert fake.asked == []


def test_a_layer_that_may_not_be_passed_on_is_not_sent(fake: PushRegistry, person: Push) -> None:
    foreign = replace(person.layout.put(b"windows", DOCKER_LAYER_GZIP), urls=("https://example.com/layer",))

    person.push(fake, person.image_of(foreign))

    assert foreign.digest not in fake.repository("team/app").blobs
    assert "1" in fake.repository("team/app").manifests


def test_progress_is_told_in_bytes(fake: PushRegistry, person: Push) -> None:
    image = person.make(300 * KIB)

    person.push(fake, image)

    (layer,) = person.layers_of(image)
    assert person.done[layer.digest] == sorted(person.done[layer.digest])
    assert person.done[layer.digest][-1] == layer.size


# --- what need not be sent


def test_what_is_there_is_not_sent(fake: PushRegistry, person: Push) -> None:
    image = person.make(10, 20)
    person.push(fake, image)
    fake.asked.clear()

    person.push(fake, image, ["team/app:2"])

    assert fake.methods("/blobs/") == ["HEAD", "HEAD", "HEAD"]


def test_a_blob_of_another_size_is_not_the_one(fake: PushRegistry, person: Push) -> None:
    image = person.make(10)
    (layer,) = person.layers_of(image)
    fake.repository("team/app").blobs[layer.digest] = b"half"

    person.push(fake, image)

    assert len(fake.repository("team/app").blobs[layer.digest]) == 10


def test_a_registry_that_knows_no_head_gets_everything(fake: PushRegistry, person: Push) -> None:
    image = person.make(10)
    (layer,) = person.layers_of(image)
    fake.first[f"/v2/team/app/blobs/{layer.digest}"] = [Reply(405)]

    person.push(fake, image)

    assert layer.digest in fake.repository("team/app").blobs


def test_a_layer_that_is_only_there_need_not_be_here(fake: PushRegistry, person: Push) -> None:
    image = person.make(10)
    (layer,) = person.layers_of(image)
    path = Path(person.layout.path(layer.digest))
    fake.repository("team/app").blobs[layer.digest] = path.read_bytes()
    path.unlink()

    person.push(fake, image)

    assert "1" in fake.repository("team/app").manifests


def test_a_layer_that_is_nowhere_is_an_error_of_the_store(fake: PushRegistry, person: Push) -> None:
    image = person.make(10)
    (layer,) = person.layers_of(image)
    Path(person.layout.path(layer.digest)).unlink()

    with pytest.raises(StoreError, match=f"blob {layer.digest} is not in the store"):
        person.push(fake, image)


# --- mounts


def test_a_blob_of_a_neighbour_is_mounted(fake: PushRegistry, person: Push) -> None:
    image = person.make(10)
    person.push(fake, image, ["team/base:1"])
    fake.asked.clear()

    person.push(fake, image, neighbour=lambda _host, _blob: "team/base")

    assert fake.methods("/blobs/") == ["HEAD", "POST", "HEAD", "POST"]
    assert "1" in fake.repository("team/app").manifests


def test_what_the_neighbour_does_not_have_is_sent_at_once(fake: PushRegistry, person: Push) -> None:
    image = person.make(10)

    person.push(fake, image, neighbour=lambda _host, _blob: "team/base")

    assert fake.methods("/blobs/")[:3] == ["HEAD", "POST", "PUT 10"]


@pytest.mark.parametrize("status", [400, 403, 404, 405])
def test_a_registry_that_refuses_to_mount_gets_the_bytes(person: Push, status: int) -> None:
    image = person.make(10)
    with PushRegistry(Habits(mounts=status)) as fake:
        person.push(fake, image, neighbour=lambda _host, _blob: "team/base")

        assert fake.methods("/blobs/")[:4] == ["HEAD", "POST", "POST", "PUT 10"]
        assert "1" in fake.repository("team/app").manifests


def test_a_second_repository_mounts_from_the_first(fake: PushRegistry, person: Push) -> None:
    image = person.make(10)

    person.push(fake, image, ["team/app:1", "other/app:1"])

    assert sum(len(asked.body) for asked in fake.asked if "other/app/blobs" in asked.path) == 0
    assert "1" in fake.repository("other/app").manifests


# --- refusals


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_who_has_no_login_is_told_to_log_in(person: Push, auth: str) -> None:
    with PushRegistry(auth=auth) as fake, pytest.raises(NotFoundError, match="no permission to push") as caught:
        person.push(fake, person.make(10))

    assert f"pybuild login {fake.host}" in caught.value.hint or "anonymous" in caught.value.hint


def test_a_refused_login_is_not_given_up_for_none(tmp_path: Path) -> None:
    """What is public may be pulled without a login, but a push without one is never what was meant."""
    with PushRegistry(auth="bearer", anonymous=True) as fake:
        folder = write_config(tmp_path, auths={fake.host: stored(password="old")})

        with Push(RegistrySettings(docker_config=folder)) as person, pytest.raises(NotFoundError) as caught:
            person.push(fake, person.make(10))

    assert "is refused" in caught.value.hint
    assert all(asked.authorization for asked in fake.asked if asked.path.startswith("/token"))


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_login_opens_the_way(tmp_path: Path, auth: str) -> None:
    with PushRegistry(auth=auth) as fake:
        settings = RegistrySettings(docker_config=write_config(tmp_path, auths={fake.host: stored()}))

        with Push(settings) as person:
            person.push(fake, person.make(10, 250 * KIB))

        assert "1" in fake.repository("team/app").manifests


def test_the_right_to_write_is_asked_for_once(tmp_path: Path) -> None:
    with PushRegistry(auth="bearer") as fake:
        settings = RegistrySettings(docker_config=write_config(tmp_path, auths={fake.host: stored()}))

        with Push(settings) as person:
            person.push(fake, person.make(10))

        (asked,) = [asked for asked in fake.asked if asked.path.startswith("/token")]
    assert "repository%3Ateam%2Fapp%3Apull%2Cpush" in asked.path


def test_a_mount_asks_for_the_right_to_read_the_neighbour(tmp_path: Path) -> None:
    with PushRegistry(auth="bearer") as fake:
        settings = RegistrySettings(docker_config=write_config(tmp_path, auths={fake.host: stored()}))

        with Push(settings) as person:
            person.push(fake, person.make(10), neighbour=lambda _host, _blob: "team/base")

        asked = [asked.path for asked in fake.asked if asked.path.startswith("/token")]
    first, second = "repository%3Ateam%2Fapp%3Apull%2Cpush", "repository%3Ateam%2Fbase%3Apull"
    assert any(f"scope={first}&scope={second}" in path for path in asked)


def test_a_token_that_ends_during_a_push_is_renewed(tmp_path: Path) -> None:
    with PushRegistry(auth="bearer") as fake:
        folder = write_config(tmp_path, auths={fake.host: stored()})
        fake.breaks = lambda asked: fake.tokens.clear() if asked.method == "PATCH" else None

        with Push(RegistrySettings(docker_config=folder)) as person:
            person.push(fake, person.make(350 * KIB))

        assert "1" in fake.repository("team/app").manifests
        assert len(fake.paths("/token")) == 5


def test_the_words_of_a_registry_are_handed_on(fake: PushRegistry, person: Push) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "quota is used up"}]}'
    fake.replies["/v2/team/app/manifests/1"] = Reply(403, body=body)

    with pytest.raises(NotFoundError, match=r"403 \(DENIED: quota is used up\)"):
        person.push(fake, person.make(10))


def test_a_registry_that_stores_another_manifest_is_found_out(fake: PushRegistry, person: Push) -> None:
    other = person.make(11).digest
    fake.replies["/v2/team/app/manifests/1"] = Reply(201, {"Docker-Content-Digest": other})

    with pytest.raises(RegistryError, match="wrong bytes"):
        person.push(fake, person.make(10))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_is_tried_again(fake: PushRegistry, person: Push, status: int) -> None:
    fake.first["/v2/team/app/blobs/uploads/"] = [Reply(status, {"Retry-After": "7"})]
    fake.first["/v2/team/app/manifests/1"] = [Reply(status, {"Retry-After": "8"})]

    person.push(fake, person.make(10))

    assert person.pauses == [7, 8]


def test_a_login_goes_to_no_other_host(tmp_path: Path) -> None:
    with (
        PushRegistry() as storage,
        PushRegistry(Habits(location=storage.url + "/v2/x/blobs/uploads/u0"), auth="basic") as fake,
    ):
        storage.uploads["u0"] = bytearray()
        settings = RegistrySettings(docker_config=write_config(tmp_path, auths={fake.host: stored()}))

        with Push(settings) as person, pytest.raises(RegistryError):
            person.push(fake, person.image_of())

    assert [asked.authorization for asked in storage.asked] == ["" for _ in storage.asked]
    assert basic(USER, PASSWORD) in {asked.authorization for asked in fake.asked}
    assert storage.methods() == ["PUT 28"]


def test_a_fake_is_no_registry(person: Push) -> None:
    with FakeRegistry() as fake, pytest.raises(RegistryError, match="404"):
        person.push(fake, person.image_of(person.layout.put(b"x", LAYER)))
