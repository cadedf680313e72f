"""`tag` and `rm`, and what a person means by a name or an id."""

from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from test_push_registries import Machine

from cache.store import Store
from layers.data import replace
from layers.digest import Digest
from layers.layout import Layout
from layers.oci import Descriptor, Manifest


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def names(machine: Machine) -> dict[str, Descriptor]:
    with closing(Store(machine.environment["PYBUILD_ROOT"])) as store:
        return store.layout.names()


def layout(machine: Machine) -> Layout:
    return Layout(f"{machine.environment['PYBUILD_ROOT']}/images")


def image_id(machine: Machine, image: Descriptor) -> str:
    return Manifest.parse(layout(machine).read(image)).config.digest.hex


def test_an_image_gets_further_names(machine: Machine) -> None:
    image = machine.make("docker.io/library/app:1", 10)

    machine.run("tag", "app:1", "app:2", "reg.example/team/app")

    assert {name: found.digest for name, found in names(machine).items()} == {
        "docker.io/library/app:1": image.digest,
        "docker.io/library/app:2": image.digest,
        "reg.example/team/app:latest": image.digest,
    }


def test_a_name_moves(machine: Machine) -> None:
    machine.make("docker.io/library/old:latest", 10)
    image = machine.make("docker.io/library/new:latest", 11)

    machine.run("tag", "new", "old")

    assert names(machine)["docker.io/library/old:latest"].digest == image.digest


@pytest.mark.parametrize("which", ["id", "digest"])
def test_an_image_may_be_meant_by_the_beginning_of_a_digest(machine: Machine, which: str) -> None:
    image = machine.make("docker.io/library/app:1", 10)
    text = {"id": image_id(machine, image)[:8], "digest": image.digest[:20]}[which]

    machine.run("tag", text, "app:2")

    assert names(machine)["docker.io/library/app:2"].digest == image.digest


def test_a_digest_is_no_name_to_give(machine: Machine) -> None:
    image = machine.make("docker.io/library/app:1", 10)
    with pytest.raises(AssertionError, match="a digest cannot be chosen"):
        machine.run("tag", "app:1", f"app@{image.digest}")


def test_what_is_not_there_is_told(machine: Machine) -> None:
    machine.make("docker.io/library/app:1", 10)

    for command in (["tag", "none", "x"], ["rm", "none"], ["push", "none"], ["rm", "abc"]):
        assert "there is no image" in machine.fails(*command)


def test_a_name_is_taken_away_and_the_blobs_stay(machine: Machine) -> None:
    image = machine.make("docker.io/library/app:1", 10)

    assert machine.run("rm", "app:1") == "docker.io/library/app:1\n"

    assert names(machine) == {}
    assert layout(machine).has(image)


def test_an_id_with_several_names_is_removed_by_force_only(machine: Machine) -> None:
    image = machine.make("docker.io/library/app:1", 10)
    machine.run("tag", "app:1", "app:2")
    text = image_id(machine, image)[:12]

    with pytest.raises(AssertionError, match="has several names"):
        machine.run("rm", text)
    machine.run("rm", "--force", text)

    assert names(machine) == {}


def test_the_beginning_of_several_ids_means_none(machine: Machine) -> None:
    image = machine.make("docker.io/library/app:1", 10)
    store = layout(machine)
    manifest = Manifest.parse(store.read(image))
    seen: dict[str, Manifest] = {}
    for number in count():
        other = replace(manifest, annotations={"number": str(number)})
        beginning = Digest.of(other.serialise()).hex[:4]
        if beginning in seen:
            break
        seen[beginning] = other
    for name, document in (("a:1", other), ("b:1", seen[beginning])):
        store.tag(f"docker.io/library/{name}", store.put(document.serialise(), document.media_type))

    assert "the beginning of several ids" in machine.fails("tag", beginning, "x")
    assert "there is no image" in machine.fails("tag", beginning[:3], "x")
