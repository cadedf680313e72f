"""`pybuild imagetools`: one index of what several builds pushed, and what a name stands for."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Bench
from images import check_schema, validate
from persons import AMD64, ARM64, NAME, Person
from registries import DockerRegistry, make_image, make_index
from registries import push as put_there

from layers.digest import Digest
from layers.oci import INDEX


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def pushed(registry: DockerRegistry, tmp_path: Path) -> tuple[str, str]:
    """The names of two images in two repositories, each pushed from a machine of its own."""
    names = (f"{registry.host}/amd/app:1", f"{registry.host}/arm/app:1")
    for platform, name in zip((AMD64, ARM64), names, strict=True):
        machine = Person(tmp_path / platform.architecture)
        machine.build_both(platform)
        machine.does("push", "app", name)
    return names


def raw(person: Person, name: str) -> dict[str, object]:
    """The index that a name stands for."""
    text = person.does("imagetools", "inspect", "--pull", "--raw", name)
    document: dict[str, object] = check_schema("index", text.encode())
    return document


def platforms(index: dict[str, object]) -> list[str]:
    manifests = index["manifests"]
    assert isinstance(manifests, list)
    return [f"{listed['platform']['os']}/{listed['platform']['architecture']}" for listed in manifests]


def layers_here(person: Person) -> int:
    """How many blobs of the store are no documents."""
    blobs = (person.folder / "root/images/blobs/sha256").iterdir()
    return sum(not blob.read_bytes().startswith(b"{") for blob in blobs)


@pytest.mark.kernel
def test_one_index_is_made_of_what_two_machines_pushed(
    person: Person, registry: DockerRegistry, pushed: tuple[str, str], tmp_path: Path
) -> None:
    """The layers are mounted from the repositories that they are in: nothing but documents comes here."""
    name = f"{registry.host}/team/app:1"

    said = person.does("imagetools", "create", "-t", name, *pushed)

    text = person.does("imagetools", "inspect", "--pull", "--raw", name)
    assert said == f"{name}@{Digest.of(text.encode())}\n"
    assert platforms(raw(person, name)) == ["linux/amd64", "linux/arm64"]
    assert layers_here(person) == 0
    other = Person(tmp_path / "other")
    other.does("pull", "--platform=arm64", name)
    assert json.loads(other.does("inspect", name))["Config"]["config"]["Labels"] == {"arch": "arm64"}


@pytest.mark.kernel
def test_images_of_another_registry_are_copied(
    person: Person, pushed: tuple[str, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with DockerRegistry(tmp_path_factory.mktemp("second")) as second:
        person.does("imagetools", "create", "-t", f"{second.host}/app:1", *pushed)

        other = Person(tmp_path / "other")
        other.does("pull", "--platform=amd64,arm64", f"{second.host}/app:1")

    assert other.does("images").count("linux/") == 2


@pytest.mark.kernel
def test_append_keeps_other_platforms_and_replaces_its_own(
    person: Person, registry: DockerRegistry, pushed: tuple[str, str]
) -> None:
    name = f"{registry.host}/grown/app:1"
    newer = make_image({"newer": b"1"}, platform="linux/amd64")
    put_there(registry.host, "newer/app", "1", newer)
    person.does("imagetools", "create", "-t", name, *pushed)

    person.does("imagetools", "create", "--append", "-t", name, f"{registry.host}/newer/app:1")

    index = raw(person, name)
    assert sorted(platforms(index)) == ["linux/amd64", "linux/arm64"]
    assert newer.digest in json.dumps(index)


@pytest.mark.kernel
def test_an_index_alone_is_copied_to_the_last_bit(person: Person, registry: DockerRegistry) -> None:
    made = make_index({"linux/amd64": make_image({"a": b"1"}), "linux/arm64": make_image({"a": b"2"})})
    put_there(registry.host, "odd/app", "1", made)

    said = person.does("imagetools", "create", "-t", f"{registry.host}/copy/app:2", f"{registry.host}/odd/app:1")

    assert said == f"{registry.host}/copy/app:2@{made.digest}\n"


@pytest.mark.kernel
def test_a_dry_run_pushes_nothing(person: Person, registry: DockerRegistry, pushed: tuple[str, str]) -> None:
    name = f"{registry.host}/dry/app:1"

    said = person.does("imagetools", "create", "--dry-run", "--annotation=a=b", "-t", name, *pushed)

    assert json.loads(said)["annotations"] == {"a": "b"}
    assert platforms(json.loads(said)) == ["linux/amd64", "linux/arm64"]
    assert person.says("imagetools", "inspect", name).status == 6


# --- of the store


def test_images_of_the_store_become_an_index_there(person: Person) -> None:
    for platform in (AMD64, ARM64):
        person.build_both(platform, name=f"app-{platform.architecture}")

    person.does("imagetools", "create", "--local", "-t", "app", "app-amd64", "app-arm64")

    assert person.root_of().media_type == INDEX
    assert [line.split()[-1] for line in person.does("images").splitlines()[1:3]] == ["linux/amd64", "linux/arm64"]


def test_one_platform_of_an_index_is_taken(person: Person) -> None:
    person.build_both()

    person.does("imagetools", "create", "--local", "-t", "arm", "--platform=arm64", "app")

    (listed,) = json.loads(person.does("imagetools", "inspect", "--raw", "arm"))["manifests"]
    assert listed["platform"] == {"os": "linux", "architecture": "arm64"}


def test_a_layout_is_a_source(person: Person, tmp_path: Path) -> None:
    other = Person(tmp_path / "other")
    other.build_both(ARM64)

    person.does("imagetools", "create", "--local", "-t", "app", f"oci-layout://{tmp_path}/other/root/images:{NAME}")

    (listed,) = json.loads(person.does("imagetools", "inspect", "--raw", "app"))["manifests"]
    assert listed["digest"] == other.root_of().digest
    assert validate(tmp_path / "root/images", NAME).config["architecture"] == "arm64"


def test_two_images_for_one_platform_are_refused(person: Person) -> None:
    person.build_both(ARM64, name="one")
    Bench(person.folder).build_text("FROM scratch\nLABEL is=other\n", platforms=(ARM64,), tags=("two",))

    said = person.says("imagetools", "create", "--local", "-t", "app", "one", "two")

    assert said.status == 2
    assert "docker.io/library/two:latest: there is an image for linux/arm64 already" in said.err


def test_annotations_of_images_are_refused(person: Person) -> None:
    person.build_both()

    said = person.says("imagetools", "create", "--dry-run", "--annotation=manifest:a=b", "app")

    assert said.status == 2
    assert "images stay as they are" in said.err


def test_inspect_lists_the_images_of_an_index(person: Person) -> None:
    person.build_both()
    root = person.root_of()

    lines = person.does("imagetools", "inspect", "app").splitlines()

    assert lines[:3] == [f"Name:      {NAME}", f"MediaType: {INDEX}", f"Digest:    {root.digest}"]
    assert [line.split()[1] for line in lines if "Platform" in line] == ["linux/amd64", "linux/arm64"]


def test_inspect_gives_json_with_configurations_by_platform(person: Person) -> None:
    person.build_both()

    whole = json.loads(person.does("imagetools", "inspect", "--format=json", "app"))
    manifest = json.loads(person.does("imagetools", "inspect", "--format={{json .Manifest}}", "app"))

    assert whole["manifest"] == manifest
    assert manifest["digest"] == person.root_of().digest
    assert whole["image"]["linux/arm64"]["config"]["Labels"] == {"arch": "arm64"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say create or inspect"),
        (["create", "app"], "there is no name"),
        (["create", "--append", "-t", "a", "-t", "b", "app"], "one name"),
        (["inspect", "--raw", "--format=json", "app"], "two forms"),
        (["inspect", "--format={{.Name}}", "app"], "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_refused(person: Person, arguments: list[str], words: str) -> None:
    said = person.says("imagetools", *arguments)

    assert said.status == 2
    assert words in said.err
