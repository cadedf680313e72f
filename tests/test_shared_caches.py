"""Caches that machines share, in real registries, in folders and in images: who finds what, and what it costs."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import users
from images import Project
from machines import Machine
from registries import DockerRegistry, make_image, push

from layers.digest import Digest
from layers.oci import Platform

pytestmark = pytest.mark.kernel

DOCKERFILE = """\
FROM scratch AS one
COPY first /first
FROM scratch
COPY --from=one /first /copied
WORKDIR /made
COPY second .
"""
STEPS = ["COPY first /first", "COPY --from=one /first /copied", "WORKDIR /made", "COPY second ."]
OWN_STEPS = STEPS[1:]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    """The machine that builds first."""
    return Machine(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Machine:
    """The machine that has nothing but the cache."""
    return Machine(tmp_path / "there")


def project(machine: Machine, first: str = "1", second: str = "2") -> str:
    return machine.context(Dockerfile=DOCKERFILE, first=first, second=second)


def digest_at(registry: DockerRegistry, machine: Machine, name: str) -> str:
    """What a name stands for in the registry."""
    said = machine.run("pull", f"{registry.host}/{name}")
    assert said.status == 0, said.err
    return said.out.rpartition("@")[2]


def blob_file(registry: DockerRegistry, digest: Digest) -> Path:
    """Where docker-registry keeps a blob."""
    return registry.folder / "data/docker/registry/v2/blobs/sha256" / digest.hex[:2] / digest.hex / "data"


# --- registries


def test_a_second_machine_builds_the_same_image_and_downloads_no_layer(
    registry: DockerRegistry, here: Machine, there: Machine
) -> None:
    cache = f"{registry.host}/whole/cache"
    here.build(
        project(here),
        "--push",
        "-t",
        f"{registry.host}/whole/app:1",
        "--cache-to",
        f"{cache},mode=max".replace(cache, f"type=registry,ref={cache}"),
    )

    said = there.build(project(there), "--push", "-t", f"{registry.host}/whole/app:2", "--cache-from", cache)

    assert said.cached == STEPS
    assert there.blobs == 2  # manifest and configuration
    assert digest_at(registry, there, "whole/app:1") == digest_at(registry, there, "whole/app:2")


def test_an_image_for_the_store_is_fetched_and_the_next_build_asks_nobody(
    registry: DockerRegistry, here: Machine, there: Machine
) -> None:
    cache = f"type=registry,ref={registry.host}/kept/cache"
    here.build(project(here), "--cache-to", f"{cache},mode=max")

    said = there.build(project(there), "-t", "kept", "--cache-from", cache)
    again = there.build(there.context(), "-t", "kept", "--cache-from", cache)

    assert said.cached == again.cached == STEPS
    assert there.blobs == 2 + len(OWN_STEPS)
    assert "importing" in said.err
    assert "importing" not in again.err


def test_what_differs_is_built_and_what_follows_is_found_again(
    registry: DockerRegistry, here: Machine, there: Machine
) -> None:
    cache = f"type=registry,ref={registry.host}/differs/cache"
    here.build(project(here), "--cache-to", f"{cache},mode=max")

    context = there.context(
        Dockerfile=DOCKERFILE.replace("COPY first /first", "COPY first /zero\nCOPY first /first"), first="1", second="2"
    )
    said = there.build(context, "--cache-from", cache)

    assert said.cached == OWN_STEPS


def test_of_the_smaller_mode_the_layers_of_the_image_alone_go_there(
    registry: DockerRegistry, here: Machine, there: Machine
) -> None:
    cache = f"type=registry,ref={registry.host}/min/cache"
    epoch = "--source-date-epoch=1"  # else layers that are made within one second are the same
    here.build(project(here), epoch, "--cache-to", cache)

    unchanged = there.build(project(there), epoch, "-t", "min", "--cache-from", cache)
    other = there.context(Dockerfile=DOCKERFILE.replace("/copied", "/elsewhere"))
    changed = there.build(other, epoch, "-t", "min", "--cache-from", cache)

    assert unchanged.cached == STEPS
    stage, copied = 1, 1  # the stage had to be built for the second image
    assert there.blobs == 2 + len(OWN_STEPS) + stage + copied + 2
    assert "WARN" not in changed.err


def test_eight_builds_at_once_lose_nothing(registry: DockerRegistry, tmp_path: Path, there: Machine) -> None:
    cache = f"type=registry,ref={registry.host}/eight/cache"
    machines = [Machine(tmp_path / f"machine{number}") for number in range(8)]

    def build(number: int) -> None:
        machine = machines[number]
        machine.build(project(machine, f"first {number}", f"second {number}"), "--cache-to", f"{cache},mode=max")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(build, range(8)))

    for number in range(8):
        said = there.build(project(there, f"first {number}", f"second {number}"), "--cache-from", cache)
        assert said.cached == STEPS


def test_several_caches_are_asked_in_their_order(registry: DockerRegistry, here: Machine, there: Machine) -> None:
    caches = [f"{registry.host}/several/cache:{tag}" for tag in ("none", "one", "two")]
    for cache, second in zip(caches[1:], ("2", "two"), strict=True):
        here.build(project(here, second=second), "--cache-to", f"type=registry,ref={cache},mode=max")

    options = [option for cache in caches for option in ("--cache-from", cache)]

    assert there.build(project(there, second="2"), *options).cached == STEPS
    assert there.build(project(there, second="two"), *options).cached == STEPS


def test_a_build_that_fails_gives_what_succeeded(registry: DockerRegistry, here: Machine, there: Machine) -> None:
    cache = f"type=registry,ref={registry.host}/failed/cache"
    failing = here.context(Dockerfile=DOCKERFILE + "COPY --from=one /nowhere .\n", first="1", second="2")

    assert here.run("build", "--cache-to", f"{cache},mode=max", failing).status == 4

    assert there.build(project(there), "--cache-from", cache).cached == STEPS


def layers_of(machine: Machine) -> list[dict[str, str]]:
    """The layers of the one image that a machine's store has a name for."""
    layout = machine.root / "images"
    (image,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads((layout / "blobs" / image["digest"].replace(":", "/")).read_text())
    layers: list[dict[str, str]] = manifest["layers"]
    return layers


def layer_forms(machine: Machine) -> set[str]:
    """How they are compressed."""
    return {layer["mediaType"].rpartition("+")[2] for layer in layers_of(machine)}


def test_layers_of_a_cache_may_be_compressed_otherwise(registry: DockerRegistry, here: Machine, there: Machine) -> None:
    cache = f"type=registry,ref={registry.host}/zstd/cache"
    here.build(project(here), "--cache-to", f"{cache},mode=max,compression=zstd")

    said = there.build(project(there), "-t", "zstd", "--cache-from", cache)

    assert said.cached == STEPS
    assert layer_forms(there) == {"zstd"}


def test_a_cache_gets_gzip_unless_it_wants_what_the_outputs_want(
    registry: DockerRegistry, here: Machine, there: Machine
) -> None:
    cache = f"type=registry,ref={registry.host}/output/cache"
    output = f"--output=type=oci,dest={here.root}.tar,compression=zstd"
    here.build(project(here), output)

    here.build(project(here), output, "--cache-to", f"{cache},mode=max")
    there.build(project(there), "-t", "output", "--cache-from", cache)

    assert layer_forms(there) == {"gzip"}
    blobs = [path.name for path in (here.root / "images/blobs/sha256").iterdir()]
    assert {layer["digest"].removeprefix("sha256:") for layer in layers_of(there)} <= set(blobs)


# --- what cannot be trusted


def manifest_of(registry: DockerRegistry, machine: Machine, name: str) -> dict[str, list[dict[str, str]]]:
    """The manifest of an image that was pushed."""
    digest = Digest(digest_at(registry, machine, name).strip())
    document: dict[str, list[dict[str, str]]] = json.loads(blob_file(registry, digest).read_text())
    return document


@pytest.mark.parametrize("fate", ["gone", "other"])
def test_a_layer_that_is_not_there_after_all_is_made_again(
    registry: DockerRegistry, here: Machine, there: Machine, fate: str
) -> None:
    cache = f"type=registry,ref={registry.host}/{fate}/cache"
    name = f"{fate}/app:1"
    here.build(
        project(here, f"first of {fate}", fate),
        "--push",
        "-t",
        f"{registry.host}/{name}",
        "--cache-to",
        f"{cache},mode=max",
    )
    lost = Digest(manifest_of(registry, here, name)["layers"][-1]["digest"])
    file = blob_file(registry, lost)
    if fate == "gone":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)

    said = there.build(project(there, f"first of {fate}", fate), "-t", "healed", "--cache-from", cache)

    assert "is done again" in said.err
    assert there.run("save", "-o", str(there.folder / "healed.tar"), "healed").status == 0


def test_what_is_no_cache_is_told_and_not_used(registry: DockerRegistry, there: Machine) -> None:
    push(registry.host, "no/cache", "latest", make_image({"file": b"text"}, platform=str(Platform.host())))

    said = there.build(project(there), "--cache-from", f"{registry.host}/no/cache")

    assert said.cached == []
    assert "there is no cache yet" in said.err


def test_a_cache_that_does_not_answer_is_told_once(there: Machine) -> None:
    said = there.build(project(there), "--cache-from", "127.0.0.1:9/cache")

    assert said.err.count("the cache 127.0.0.1:9/cache:latest is not used") == 1


def test_a_cache_that_cannot_be_written_is_an_error_unless_that_is_allowed(here: Machine) -> None:
    cache = "type=registry,ref=127.0.0.1:9/cache"

    assert here.run("build", "--cache-to", cache, project(here)).status == 6
    assert "was not written" in here.build(project(here), "--cache-to", f"{cache},ignore-error=true").err


def cache_without_layers(project: Project, dockerfile: str) -> str:
    """A cache that promises the layers of a build, and has lost them; the store has nothing."""
    folder = project.place / "cache"
    project.write({"Dockerfile": dockerfile})
    project.built("--cache-to", f"type=local,dest={folder}")
    project.root.rename(project.place / "other")
    for file in (folder / "blobs/sha256").iterdir():
        if file.read_bytes()[:2] == b"\x1f\x8b":
            file.unlink()
    return f"type=local,src={folder}"


def test_a_command_whose_layer_is_lost_is_run_again(project_of: Callable[[str], Project]) -> None:
    """Of an ordinary user: namespaces can be entered once only, before it is known that a layer is lost."""
    project = project_of(users.RANGES)
    cache = cache_without_layers(project, "FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n")

    result = project.built("--cache-from", cache)

    assert "is done again" in result.err
    assert {result.steps["RUN echo 1 > /one"], result.steps["RUN echo 2 > /two"]} == {"DONE"}
    assert len(project.image().layers) == 3


@pytest.mark.usefixtures("namespaces")
def test_a_command_whose_layer_is_lost_is_refused_what_cannot_be_had(project: Project) -> None:
    """It was run with the network that it does not want: nobody had been asked, since nothing was to be run."""
    cache = cache_without_layers(project, "FROM busybox\nRUN --network=none echo 1 > /one\n")

    result = project.build("--backend=chroot", "--cache-from", cache)

    assert result.status == 8
    assert result.error.startswith("--network=none cannot be had here")
    assert ">>> RUN --network=none" in result.err


def test_a_command_whose_layer_is_lost_brings_the_warning_of_its_back_end(project: Project) -> None:
    cache = cache_without_layers(project, "FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n")

    result = project.built("--backend=chroot", "--cache-from", cache)

    assert result.err.count("WARNING: RUN is not isolated") == 1


# --- folders and images


def test_a_folder_is_a_cache_that_can_be_carried_away(here: Machine, there: Machine, tmp_path: Path) -> None:
    here.build(project(here), "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max")
    (tmp_path / "cache").rename(tmp_path / "carried")

    said = there.build(project(there), "-t", "carried", "--cache-from", f"type=local,src={tmp_path}/carried")

    assert said.cached == STEPS


def test_a_damaged_layer_in_a_folder_is_made_again(here: Machine, there: Machine, tmp_path: Path) -> None:
    here.build(project(here), "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max")
    for file in (tmp_path / "cache/blobs/sha256").iterdir():
        if file.read_bytes()[:2] == b"\x1f\x8b":
            file.write_bytes(b"\x1f\x8b" + bytes(file.stat().st_size - 2))

    said = there.build(project(there), "-t", "healed", "--cache-from", f"type=local,src={tmp_path}/cache")

    assert "is done again" in said.err


def test_an_image_carries_its_own_steps(registry: DockerRegistry, here: Machine, there: Machine) -> None:
    name = f"{registry.host}/inline/app"
    here.build(project(here), "--push", "-t", name, "--cache-to", "type=inline")

    said = there.build(project(there), "-t", "mine", "--cache-from", name)

    assert said.cached == STEPS
    assert there.blobs == 2 + len(OWN_STEPS)


def test_the_images_of_several_platforms_carry_their_steps(
    registry: DockerRegistry, here: Machine, there: Machine
) -> None:
    name, platforms = f"{registry.host}/inline/both", "--platform=linux/amd64,linux/arm64"
    files = {"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY first /$TARGETARCH\n", "first": "1"}
    here.build(here.context(**files), "--push", "-t", name, "--cache-to", "type=inline", platforms)

    said = there.build(there.context(**files), "-t", "mine", "--cache-from", name, platforms)

    assert said.cached == ["COPY first /$TARGETARCH"] * 2


def test_an_image_that_carries_its_steps_is_the_same_each_time(here: Machine) -> None:
    outputs = [
        here.build(project(here), "-q", "-t", "inline", "--build-arg", "BUILDKIT_INLINE_CACHE=1").out for _ in range(2)
    ]

    listed = json.loads((here.root / "images/index.json").read_text())["manifests"]
    assert outputs[0] == outputs[1]
    assert len(list(here.root.glob("images/blobs/sha256/*"))) == 2 + len(OWN_STEPS) + 1
    assert len(listed) == 1


# --- bases that stay where they are


@pytest.fixture(scope="module")
def distant(registry: DockerRegistry) -> str:
    """An image in the registry with two layers."""
    image = make_image({"etc/passwd": b"ann:x:7:8::/:/bin/sh\n"}, {"file": b"x" * 1000}, platform=str(Platform.host()))
    push(registry.host, "bases/base", "1", image)
    return f"{registry.host}/bases/base:1"


@pytest.mark.parametrize("steps", ["LABEL a=b\nENV c=d", "COPY --link first /deep/er/"])
def test_a_base_that_nobody_looks_into_is_not_downloaded(
    registry: DockerRegistry, here: Machine, distant: str, steps: str
) -> None:
    context = here.context(Dockerfile=f"FROM {distant}\n{steps}\n", first="1")

    here.build(context, "--push", "-t", f"{registry.host}/lazy/app:1")

    held = {file.read_bytes()[:2] for file in here.root.glob("images/blobs/sha256/*")}
    own = 1 if "COPY" in steps else 0
    assert here.blobs == 4 + own  # two manifests, two configurations
    assert (b"\x1f\x8b" in held) == bool(own)
    assert len(manifest_of(registry, Machine(here.folder / "other"), "lazy/app:1")["layers"]) == 2 + own


def test_another_registry_gets_the_layers_of_a_base_that_is_not_read(
    registry: DockerRegistry, here: Machine, there: Machine, distant: str, tmp_path: Path
) -> None:
    with DockerRegistry(tmp_path / "other") as other:
        name = f"{other.host}/moved/app:1"
        here.build(here.context(Dockerfile=f"FROM {distant}\nLABEL a=b\n"), "--push", "-t", name)

        assert there.run("pull", name).status == 0


def test_without_a_cache_none_is_asked_and_what_was_made_is_given(registry: DockerRegistry, here: Machine) -> None:
    cache = f"type=registry,ref={registry.host}/anew/cache"
    here.build(project(here), "--cache-to", f"{cache},mode=max")

    said = here.build(project(here), "--no-cache", "--cache-from", cache, "--cache-to", f"{cache},mode=max")

    assert said.cached == []
    assert "importing" not in said.err
    assert "exporting" in said.err


def test_a_dockerfile_that_is_wrong_is_all_that_is_told(here: Machine) -> None:
    said = here.run("build", "--cache-to", "type=registry,ref=127.0.0.1:9/cache", here.context(Dockerfile="FRM x\n"))

    assert said.status == 3
    assert "cache" not in said.err


def test_a_copy_looks_into_its_base_once(registry: DockerRegistry, here: Machine, distant: str) -> None:
    text = f"FROM {distant}\nCOPY --chown=ann first /file2\n"
    name = f"{registry.host}/looks/app:1"
    here.build(here.context(Dockerfile=text, first="1"), "--push", "-t", name)
    looked = here.blobs
    for file in here.root.glob("images/blobs/sha256/*"):
        file.unlink()

    here.build(here.context(Dockerfile=text, first="2"), "--push", "-t", name)

    assert looked == 2 + 2 + 3
    assert here.blobs == 2 + 2 + 1


def test_a_base_is_downloaded_when_the_image_stays_here(here: Machine, distant: str) -> None:
    here.build(here.context(Dockerfile=f"FROM {distant}\nLABEL a=b\n"), "-t", "here")

    assert here.blobs == 4 + 2
