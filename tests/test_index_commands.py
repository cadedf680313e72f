"""Commands on names that stand for the images of several platforms."""

import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from builds import Bench
from images import validate
from persons import Person
from registries import DockerRegistry, FakeRegistry, make_image, make_index

from cache.store import Store
from layers.oci import Index, Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@pytest.fixture
def owner(person: Person) -> Person:
    """Somebody whose store has an index with two images."""
    person.build_both()
    return person


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def test_images_lists_each_platform(owner: Person) -> None:
    rows = [line.split() for line in owner.does("images").splitlines()]

    assert rows[0][-1] == "PLATFORM"
    assert [(row[0], row[-1]) for row in rows[1:]] == [("app", "linux/amd64"), ("app", "linux/arm64")]


def test_inspect_shows_this_machine_s_image_or_the_one_that_is_chosen(owner: Person) -> None:
    here = json.loads(owner.does("inspect", "app"))["Config"]["architecture"]
    arm = json.loads(owner.does("inspect", "--platform=linux/arm64", "app"))["Config"]["architecture"]

    assert (here, arm) == (Platform.host().architecture, "arm64")


def test_an_id_of_one_of_the_images_means_that_one(owner: Person) -> None:
    arm = json.loads(owner.does("inspect", "--platform=arm64", "app"))

    by_id = json.loads(owner.does("inspect", arm["Id"][:19]))

    assert by_id["Digest"] == arm["Digest"]


def test_a_platform_that_is_not_there_names_those_that_are(owner: Person) -> None:
    said = owner.says("history", "--platform=linux/s390x", "app")

    assert said.status == 6
    assert "for linux/s390x; there is linux/amd64, linux/arm64" in said.err


def test_the_only_image_of_another_platform_needs_no_choice(person: Person) -> None:
    bench = Bench(person.folder)
    bench.build_text("FROM scratch\nLABEL a=b\n", platforms=(Platform("linux", "s390x"),), tags=("app",))

    assert json.loads(person.does("inspect", "app"))["Config"]["architecture"] == "s390x"
    assert person.does("history", "app").count("LABEL") == 1


def test_an_index_is_saved_and_loaded_whole(owner: Person, tmp_path: Path) -> None:
    owner.does("save", "--format=oci", "-o", f"{tmp_path}/app.tar", "app")
    other = Person(tmp_path / "other")

    other.does("load", "-i", f"{tmp_path}/app.tar")

    assert other.root_of().digest == owner.root_of().digest
    assert [line.split()[-1] for line in other.does("images").splitlines()[1:]] == ["linux/amd64", "linux/arm64"]


def test_one_platform_is_saved_for_docker(owner: Person, tmp_path: Path) -> None:
    owner.does("save", "--platform=linux/arm64", "-o", f"{tmp_path}/app.tar", "app")

    assert validate(tmp_path / "app.tar").config["architecture"] == "arm64"


def test_a_layer_that_an_archive_lacks_is_missed_for_any_platform(owner: Person, tmp_path: Path) -> None:
    owner.does("save", "--format=oci", "-o", f"{tmp_path}/app.tar", "app")
    arm = json.loads(owner.does("inspect", "--platform=arm64", "app"))["Manifest"]["layers"][0]["digest"]
    with tarfile.open(tmp_path / "app.tar") as whole, tarfile.open(tmp_path / "less.tar", "w") as less:
        for member in whole:
            if not member.name.endswith(arm.removeprefix("sha256:")):
                less.addfile(member, whole.extractfile(member) if member.isfile() else None)

    said = Person(tmp_path / "other").says("load", "-i", f"{tmp_path}/less.tar")

    assert said.status == 6
    assert f"layer {arm}" in said.err


@pytest.mark.kernel
def test_an_index_is_pushed_with_all_its_images(owner: Person, registry: DockerRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/team/app:1"

    pushed = owner.does("push", "app", name)
    other = Person(tmp_path / "other")
    other.does("pull", "--platform=linux/amd64,linux/arm64", name)

    assert pushed == f"{name}@{owner.root_of().digest}\n"
    assert other.root_of(name).digest == owner.root_of().digest
    assert json.loads(other.does("inspect", "--platform=arm64", name))["Config"]["config"]["Labels"]["arch"] == "arm64"


@pytest.mark.kernel
def test_one_platform_is_pushed_alone(owner: Person, registry: DockerRegistry) -> None:
    arm = json.loads(owner.does("inspect", "--platform=arm64", "app"))["Digest"]

    pushed = owner.does("push", "--platform=arm64", "app", f"{registry.host}/team/arm:1")

    assert pushed.endswith(f"@{arm}\n")


@pytest.mark.kernel
def test_of_an_index_that_is_not_all_there_the_image_is_pushed(
    person: Person, registry: DockerRegistry, tmp_path: Path
) -> None:
    """Who pulls has the image of one platform, and the index that it came from."""
    images = {"linux/amd64": make_image({"a": b"1"}), "linux/arm64": make_image({"a": b"2"}, platform="linux/arm64")}
    with FakeRegistry() as fake:
        fake.add("team/app", "1", make_index(images))
        person.does("pull", "--platform=linux/arm64", f"{fake.host}/team/app:1")

        said = person.says("push", f"{fake.host}/team/app:1", f"{registry.host}/team/part:1")

    assert said.out == f"{registry.host}/team/part:1@{images['linux/arm64'].digest}\n"
    assert "one image is pushed, and not the index" in said.err
    root = person.root_of(f"{fake.host}/team/app:1")
    with closing(Store(str(tmp_path / "root"))) as store:
        assert len(Index.parse(store.layout.read(root)).manifests) == 2
