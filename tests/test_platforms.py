"""Builds for several platforms: what depends on them is made for each, and all else once."""

import io
from contextlib import closing
from pathlib import Path

import pytest
from builds import Bench
from registries import FakeRegistry, make_image, make_index

from builder import emulation
from builder.build import Result
from builder.cli.arguments import Parser
from builder.cli.build import add_build_options, options_of
from builder.cli.world import World
from builder.errors import DockerfileError, UsageError
from builder.export.output import Form, Output
from cache.store import Store
from layers.compress import decompressed
from layers.errors import ImageError
from layers.oci import INDEX, Descriptor, Image, Index, Platform
from layers.tar import read_tar

AMD64, ARM64, ARM = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "arm", "v7")
BOTH = (AMD64, ARM64)
HOST = Platform.host()
FOREIGN = ARM64 if HOST == AMD64 else AMD64


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def texts(bench: Bench, image: Image) -> dict[str, str]:
    """The files of an image in the store, by path."""
    with closing(Store(str(bench.folder / "root"))) as store:
        found: dict[str, str] = {}
        for layer in image.manifest.layers:
            with store.layout.open(layer) as blob:
                found |= {entry.path: stream.read().decode() for entry, stream in read_tar(decompressed(blob))}
    return found


def index_of(bench: Bench, name: str) -> tuple[Descriptor, Index]:
    """What the store has under a name, which must be an index."""
    with closing(Store(str(bench.folder / "root"))) as store:
        root = store.layout.resolve(f"docker.io/library/{name}:latest")
        assert root is not None
        assert root.media_type == INDEX
        return root, Index.parse(store.layout.read(root))


def both(bench: Bench, dockerfile: str, *files: str, **options: object) -> Result:
    """Build for two platforms, with files that hold their names."""
    context = bench.context({"Dockerfile": dockerfile, **{name: name for name in files}})
    return bench.build(context, platforms=BOTH, **options).result


# --- what comes out


def test_each_platform_gets_what_is_its_own(bench: Bench) -> None:
    result = both(bench, "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /is\n", "amd64", "arm64", tags=("app",))

    root, index = index_of(bench, "app")
    assert [texts(bench, image)["is"] for image in result.packaged.images] == ["amd64", "arm64"]
    assert [listed.platform for listed in index.manifests] == list(BOTH)
    assert [image.config.platform for image in result.packaged.images] == list(BOTH)
    assert result.image_id == root.digest


def test_one_platform_gives_a_manifest(bench: Bench) -> None:
    built = bench.build_text("FROM scratch\nLABEL a=b\n", platforms=(FOREIGN,), tags=("app",))

    assert built.result.packaged.root.digest == built.result.image.descriptor.digest
    assert built.result.image.config.platform == FOREIGN


def test_an_index_can_be_wanted_for_one_platform(tmp_path: Path) -> None:
    parser = Parser(prog="pybuild", description="")
    add_build_options(parser)
    given = parser.parse_args(["--build-arg=BUILDKIT_MULTI_PLATFORM=1", f"-o={tmp_path}", "--platform=arm64", "."])

    options = options_of(given, World({}, io.StringIO(), io.StringIO()))

    assert options.packing.index
    assert [output.split for output in options.outputs] == [True]


@pytest.mark.parametrize(
    ("arguments", "platforms"),
    [
        ([], ()),
        (["--platform=linux/amd64,linux/arm64"], BOTH),
        (["--platform=amd64", "--platform", "aarch64,linux/arm64/v8"], BOTH),
        (["--platform=local"], (HOST,)),
        (["--platform=linux/arm"], (ARM,)),
    ],
)
def test_platforms_are_lists_without_doubles(arguments: list[str], platforms: tuple[Platform, ...]) -> None:
    parser = Parser(prog="pybuild", description="")
    add_build_options(parser)

    options = options_of(parser.parse_args([*arguments, "."]), World({}, io.StringIO(), io.StringIO()))

    assert options.platforms == platforms


def test_a_platform_that_is_asked_for_goes_before_that_of_the_base(bench: Bench) -> None:
    """As BuildKit does it: FROM --platform says where files come from, --platform what the image is for."""
    with FakeRegistry() as fake:
        fake.add("team/app", "1", make_index({"linux/amd64": make_image({"a": b"amd"})}))
        dockerfile = f"FROM --platform=linux/amd64 {fake.host}/team/app:1\n"

        asked = bench.build_text(dockerfile, platforms=(ARM64,)).result
        unasked = bench.build_text(dockerfile).result

    assert (asked.image.config.platform, unasked.image.config.platform) == (ARM64, AMD64)


# --- what is done once


def test_a_stage_that_does_not_depend_on_the_platform_is_there_once(bench: Bench) -> None:
    dockerfile = """\
FROM --platform=$BUILDPLATFORM scratch AS shared
COPY file /
FROM scratch
ARG TARGETARCH
COPY --from=shared /file /$TARGETARCH
"""
    context = bench.context({"Dockerfile": dockerfile, "file": "x"})

    built = bench.build(context, platforms=BOTH, use_cache=False)

    assert [title.partition("] ")[2] for title in built.started].count("COPY file /") == 1
    assert [list(texts(bench, image)) for image in built.result.packaged.images] == [["amd64"], ["arm64"]]


def test_the_steps_before_a_platform_is_looked_at_are_done_once(bench: Bench) -> None:
    """The usual cross build: sources and dependencies first, and only then ARG TARGETARCH; also without the cache."""
    dockerfile = """\
FROM --platform=$BUILDPLATFORM scratch AS build
COPY file /
ARG TARGETARCH
COPY file /$TARGETARCH
FROM scratch
COPY --from=build / /
"""
    context = bench.context({"Dockerfile": dockerfile, "file": "x"})

    built = bench.build(context, platforms=BOTH, use_cache=False)

    once = [title for title in built.cached if title.endswith("COPY file /")]
    assert len(once) == 1
    assert len([title for title in built.started if title.endswith("COPY file /")]) == 2


def test_titles_say_the_platform_and_what_it_is_for(bench: Bench) -> None:
    dockerfile = """\
FROM --platform=linux/amd64 {name} AS build
ARG TARGETARCH
COPY file /$TARGETARCH
FROM scratch
COPY --from=build / /
"""
    with FakeRegistry() as fake:
        fake.add("team/app", "1", make_index({"linux/amd64": make_image({"a": b"amd"})}))
        text = dockerfile.format(name=f"{fake.host}/team/app:1")
        built = bench.build(bench.context({"Dockerfile": text, "file": "x"}), platforms=BOTH)

    titles = {title.partition("]")[0] for title in (*built.started, *built.cached) if "COPY" in title}
    assert titles == {
        "[linux/amd64 build 2/2",
        "[linux/amd64->arm64 build 2/2",
        "[linux/amd64 stage-1 2/2",
        "[linux/arm64 stage-1 2/2",
    }


def test_a_warning_is_told_once_for_all_platforms(bench: Bench) -> None:
    built = bench.build_text("FROM scratch\nMAINTAINER me\n", platforms=BOTH, build_args={"NOBODY": "1"})

    assert len(built.warnings) == len(set(built.warnings)) == 2


# --- bases


def test_each_platform_starts_from_its_own_image_of_an_index(bench: Bench) -> None:
    """And both are found in the store afterwards: the registry is gone for the second build."""
    amd, arm = make_image({"is": b"amd"}), make_image({"is": b"arm"}, platform="linux/arm64")
    with FakeRegistry() as fake:
        fake.add("team/app", "1", make_index({"linux/amd64": amd, "linux/arm64": arm}))
        dockerfile = f"FROM {fake.host}/team/app:1\nCOPY Dockerfile /\n"
        first = both(bench, dockerfile)

    second = both(bench, dockerfile)

    assert [texts(bench, image)["is"] for image in first.packaged.images] == ["amd", "arm"]
    assert first.packaged.root.digest == second.packaged.root.digest


def test_an_index_of_the_store_is_a_base_for_its_platforms(bench: Bench) -> None:
    both(bench, "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /is\n", "amd64", "arm64", tags=("base",))

    result = both(bench, "FROM base\nLABEL a=b\n")

    assert [texts(bench, image)["is"] for image in result.packaged.images] == ["amd64", "arm64"]


def test_a_base_without_the_platform_names_those_that_it_has(bench: Bench) -> None:
    images = {"linux/amd64": make_image(), "linux/arm64": make_image(platform="linux/arm64")}
    with FakeRegistry() as fake:
        fake.add("team/app", "1", make_index({**images, "unknown/unknown": make_image({"statement": b"{}"})}))
        with pytest.raises(ImageError) as refusal:
            bench.build_text(f"FROM {fake.host}/team/app:1\n", platforms=(Platform("linux", "s390x"),))

    assert "no image for linux/s390x; there are: linux/amd64, linux/arm64" in refusal.value.message
    assert refusal.value.location is not None
    assert refusal.value.location.first == 1


def test_a_base_that_stands_in_no_index_is_taken_whatever_it_is_for(bench: Bench) -> None:
    """As BuildKit does it: that programs of it may not start is a warning; without RUN nobody starts any."""
    with FakeRegistry() as fake:
        fake.add("team/app", "1", make_image({"a": b"foreign"}, platform=str(FOREIGN)))
        name = f"{fake.host}/team/app:1"

        built = bench.build_text(f"FROM {name}\nCOPY Dockerfile /\n")

    assert built.texts.keys() == {"a", "Dockerfile"}
    assert built.result.image.config.platform == FOREIGN
    assert built.warnings == [f"the base image {name} is for {FOREIGN}, not for {HOST}"]


def test_a_layout_without_an_index_is_a_base_whatever_it_is_for(bench: Bench) -> None:
    bench.build_text("FROM scratch\nCOPY Dockerfile /f\n", platforms=(FOREIGN,), tags=("one",))
    contexts = {"alias": f"oci-layout://{(bench.folder / 'root/images').rename(bench.folder / 'layout')}"}

    built = bench.build_text("FROM alias\nLABEL a=b\n", contexts=contexts)

    assert list(built.entries) == ["f"]
    assert built.warnings == [f"the base image alias is for {FOREIGN}, not for {HOST}"]


def test_files_are_copied_from_an_image_whatever_it_is_for(bench: Bench) -> None:
    """Nobody starts programs of it, so there is nothing to warn of."""
    with FakeRegistry() as fake:
        fake.add("team/app", "1", make_image({"a": b"foreign"}, platform=str(FOREIGN)))

        built = bench.build_text(f"FROM scratch\nCOPY --from={fake.host}/team/app:1 /a /\n")

    assert built.texts == {"a": "foreign"}
    assert built.warnings == []


def test_a_base_for_another_platform_refuses_run_at_its_line_without_an_emulator(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "_is_executed", lambda _program: False)
    emulation.can_run.cache_clear()
    with FakeRegistry() as fake:
        fake.add("team/app", "1", make_image({"a": b"foreign"}, platform=str(FOREIGN)))
        with pytest.raises(DockerfileError) as refusal:
            bench.build_text(f"FROM {fake.host}/team/app:1\nCOPY Dockerfile /\nRUN true\n")

    emulation.can_run.cache_clear()
    assert refusal.value.message.startswith(f"RUN for {FOREIGN}: this machine ({HOST}) has no emulator")
    assert refusal.value.location is not None
    assert refusal.value.location.first == 3


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/386", "linux/amd64"], "linux/amd64"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/amd64", ["linux/386", "unknown/unknown"], "linux/386"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], "linux/arm/v6"),
        ("linux/arm64", ["linux/arm/v7", "linux/arm/v6"], "linux/arm/v7"),
        ("linux/arm64/v9", ["linux/arm/v7", "linux/arm64"], "linux/arm64"),
    ],
)
def test_the_nearest_platform_of_an_index_is_chosen(wanted: str, offered: list[str], chosen: str) -> None:
    images = {platform: make_image({platform.replace("/", "-"): b""}, platform=platform) for platform in offered}

    found = Index.parse(make_index(images).document).choose(Platform.parse(wanted))

    assert found.digest == images[chosen].digest


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [("linux/amd64", "linux/amd64/v2"), ("linux/arm/v6", "linux/arm/v7"), ("linux/amd64", "windows/amd64")],
)
def test_what_a_platform_does_not_run_is_not_chosen(wanted: str, offered: str) -> None:
    index = Index.parse(make_index({offered: make_image(platform=offered)}).document)

    with pytest.raises(ImageError):
        index.choose(Platform.parse(wanted))


def test_images_for_windows_are_no_base(bench: Bench) -> None:
    with FakeRegistry() as fake:
        fake.add("team/app", "1", make_index({"windows/amd64": make_image(platform="windows/amd64")}))
        with pytest.raises(DockerfileError, match="an image for windows"):
            bench.build_text(f"FROM {fake.host}/team/app:1\n", platforms=(Platform("windows", "amd64"),))


# --- where it cannot be


def test_docker_is_refused_before_anything_is_built(bench: Bench) -> None:
    with pytest.raises(UsageError, match="no place for several platforms"):
        bench.build_text("FROM scratch\nCOPY nothing /\n", platforms=BOTH, outputs=(Output(Form.DOCKER, "a.tar"),))


def test_a_run_without_an_emulator_is_refused_before_anything_is_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing may be registered on the machine of the test, or everything: so the kernel's answer is given here."""
    monkeypatch.setattr(emulation, "_is_executed", lambda _program: False)
    emulation.can_run.cache_clear()
    context = bench.context({"Dockerfile": 'FROM scratch\nCOPY Dockerfile /\nRUN ["/x"]\n'})

    with pytest.raises(DockerfileError) as refusal:
        bench.build(context, platforms=(FOREIGN,))

    emulation.can_run.cache_clear()
    assert refusal.value.message.startswith(f"RUN for {FOREIGN}: this machine ({HOST}) has no emulator")
    assert "qemu-user-static" in refusal.value.hint
    assert refusal.value.location is not None
    assert refusal.value.location.first == 3


def test_what_no_handler_is_registered_for_is_known_by_asking_the_kernel() -> None:
    """An executable of this machine's kind with nothing in it is refused, as one of a kind that nobody knows is."""
    empty = emulation._header(emulation._MACHINES[HOST.architecture])

    assert not emulation._is_executed(empty)
    assert emulation._is_executed(Path("/bin/true").read_bytes())
