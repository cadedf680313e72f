"""The same inputs give the same bytes, whoever builds them where, and however old the files are."""

import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import users
from images import Project, pybuild, validate

pytestmark = pytest.mark.kernel

EPOCH = 1_500_000_000
DATE = "2017-07-14T02:40:00Z"
DOCKERFILE = """\
FROM busybox AS build
RUN mkdir /out && date > /dev/null && echo made > /out/file && touch -d @1000000000 /out/old
FROM busybox
ARG SOURCE_DATE_EPOCH
RUN echo "epoch=$SOURCE_DATE_EPOCH" > /epoch && chown www /epoch && touch -d @2000000000 /future
WORKDIR /new/folder
COPY sub /copied
COPY --from=build /out /out
RUN rm /future && ls -l /copied > /listing
LABEL a=b
"""
FILES = {"Dockerfile": DOCKERFILE, "sub/one": "1", "sub/two/three": "3"}


def age(folder: Path, seconds: int) -> None:
    """Give every file of a folder a time."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def built(project: Project, seconds: int, *options: str, umask: int = 0o022, variable: str = "") -> str:
    """Build with files of some age, and `variable` as SOURCE_DATE_EPOCH; the digest of the manifest."""
    project.write(FILES)
    age(project.context, seconds)
    before = os.umask(umask)
    try:
        project.built(*options, SOURCE_DATE_EPOCH=variable)
    finally:
        os.umask(before)
    return project.image().digest


def test_the_same_files_give_the_same_image_to_everybody(project_of: Callable[[str], Project]) -> None:
    """As root and as a user, in two stores and two folders, with files of two ages, both later than the epoch."""
    ours, theirs = project_of(users.ROOT), project_of(users.RANGES)

    digests = [
        built(ours, 1_700_000_000, variable=str(EPOCH)),
        built(theirs, 1_600_000_000, umask=0o077, variable=str(EPOCH)),
    ]

    assert digests[0] == digests[1]


def test_the_cache_makes_no_difference(project: Project) -> None:
    options = [f"--source-date-epoch={EPOCH}"]

    digests = [built(project, 1_600_000_000, *options, *more) for more in ([], [], ["--no-cache"])]

    assert len(set(digests)) == 1


def test_times_before_the_epoch_are_part_of_what_is_built_from(project: Project) -> None:
    """They stay in the layer, so a cache that did not know them would give one file's time to another."""
    options = [f"--source-date-epoch={EPOCH}"]

    built(project, 1_400_000_000, *options)
    cached = built(project, 1_300_000_000, *options)

    assert built(project, 1_300_000_000, *options, "--no-cache") == cached
    assert times_of(project, project.image().manifest["layers"])["copied/one"] == 1_300_000_000


def test_without_an_epoch_a_cached_build_gives_the_same_image(project: Project) -> None:
    assert built(project, 1_600_000_000) == built(project, 1_700_000_000)


def test_nothing_new_is_later_than_the_epoch(project: Project) -> None:
    built(project, 1_600_000_000, f"--source-date-epoch={EPOCH}")

    image = project.image()
    times = times_of(project, image.manifest["layers"][1:])
    new = [item["created"] for item in image.config["history"][1:]]
    assert image.config["created"] == DATE
    assert set(new) == {DATE}
    assert max(times.values()) == EPOCH
    assert times["out/old"] == 1_000_000_000
    assert times["copied/one"] == times["new/folder"] == times["epoch"] == EPOCH


def times_of(project: Project, layers: list[Mapping[str, str]]) -> dict[str, float]:
    """The times of the entries of layers, by path."""
    times = {}
    for layer in layers:
        with tarfile.open(project.store / "blobs" / layer["digest"].replace(":", "/")) as tar:
            times.update({member.name: member.mtime for member in tar})
    return times


def test_the_base_image_stays_as_it_is(project: Project, base: Path) -> None:
    built(project, 1_600_000_000, "--source-date-epoch=1")

    theirs, ours = validate(base), project.image()
    assert ours.manifest["layers"][0] == theirs.manifest["layers"][0]
    assert ours.config["history"][0]["created"] == "1970-01-01T00:00:01Z"


def test_an_argument_brings_the_epoch_to_commands(project: Project) -> None:
    built(project, 1_600_000_000, f"--source-date-epoch={EPOCH}")

    assert project.image().files["epoch"] == f"epoch={EPOCH}\n".encode()


@pytest.mark.parametrize("option", ["--build-arg=SOURCE_DATE_EPOCH=5", "--source-date-epoch=5"])
def test_option_and_argument_go_before_the_environment(project: Project, option: str) -> None:
    built(project, 1_600_000_000, option, variable="7")

    assert project.image().config["created"] == "1970-01-01T00:00:05Z"


def test_the_newest_file_of_the_context_can_be_the_epoch(project: Project) -> None:
    built(project, EPOCH, "--source-date-epoch=context")

    assert project.image().config["created"] == DATE


def test_the_commit_of_the_context_can_be_the_epoch(project: Project) -> None:
    project.write(FILES)
    environment = {"GIT_COMMITTER_DATE": f"{EPOCH} +0500", "HOME": str(project.place), "PATH": os.environ["PATH"]}
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "All"]):
        subprocess.run(["git", "-C", project.context, *arguments], env=environment, check=True)

    project.built("--source-date-epoch=git")

    assert project.image().config["created"] == DATE


def test_a_folder_that_is_no_repository_has_no_commit(project: Project) -> None:
    project.write(FILES)

    result = project.build("--source-date-epoch=git")

    assert (result.status, result.error) == (
        4,
        "git tells no time of the context: not a git repository (or any of the parent directories): .git",
    )


@pytest.mark.parametrize("text", ["yesterday", "-1", "1.5", "253402300800"])
def test_an_epoch_that_is_none_is_refused(project: Project, text: str) -> None:
    project.write(FILES)

    result = project.build(f"--source-date-epoch={text}")

    assert (result.status, result.error) == (2, f"SOURCE_DATE_EPOCH is {text!r}, and should be seconds since 1970")


def test_a_step_sees_the_times_of_the_layers_below(project: Project) -> None:
    """A tree that a RUN left once kept the real times: the next step, or one after unpacking, saw others."""
    project.write({"Dockerfile": "FROM busybox\nRUN echo x > /file\nRUN stat -c %Y /file / > /seen\n"})

    project.built(f"--source-date-epoch={EPOCH}")

    assert project.image().files["seen"].split()[0] == str(EPOCH).encode()


# --- verified


def verify(project: Project, *options: str) -> tuple[int, str]:
    """The status and the words of `pybuild verify`."""
    arguments = [f"--root={project.root}", f"--build-context=busybox=oci-layout://{project.base}", "-q", *options]
    result = pybuild("verify", *arguments, "app", str(project.context), cwd=project.place)
    assert result.err == ""
    return result.status, result.out


def test_an_image_that_is_reproducible_is_verified(project: Project) -> None:
    digest = built(project, 1_600_000_000, f"--source-date-epoch={EPOCH}")

    status, said = verify(project)

    assert (status, said) == (0, f"app is what {project.context} builds, to the last bit: {digest}\n")


def test_an_image_without_an_epoch_is_verified_but_for_times(project: Project) -> None:
    built(project, 1_600_000_000)

    status, said = verify(project)

    assert status == 0
    assert "but for times" in said


def test_verify_names_the_path_and_the_line_of_what_is_stamped(project: Project) -> None:
    project.write(
        {"Dockerfile": "FROM busybox\nRUN echo same > /same\nRUN head -c 9 /dev/urandom > /stamp\nLABEL a=b\n"}
    )
    project.built()

    status, said = verify(project)

    assert status == 1
    assert "Dockerfile:3\n" in said
    assert ">>> RUN head -c 9 /dev/urandom > /stamp" in said
    assert "\n/stamp: " in said
    assert "\n/same: " not in said
    assert "    image    " in said


def test_verify_names_the_line_of_another_stage(project: Project) -> None:
    project.write(
        {"Dockerfile": "FROM busybox AS a\nRUN head -c 9 /dev/urandom > /stamp\nFROM busybox\nCOPY --from=a /stamp /\n"}
    )
    project.built()

    status, said = verify(project)

    assert status == 1
    assert said.index("Dockerfile:4\n") < said.index("/stamp: ") < said.index("it comes from Dockerfile:2\n")


def test_verify_tells_that_an_instruction_is_another_one(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nRUN echo one > /file\n"})
    project.built()
    project.write({"Dockerfile": "FROM busybox\nRUN echo other > /file\n"})

    status, said = verify(project)

    assert status == 1
    assert "was made by another instruction: RUN /bin/sh -c echo one > /file" in said


def test_verify_tells_of_settings(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nLABEL a=1\n"})
    project.built()

    status, said = verify(project, "--label", "b=2")

    assert status == 1
    assert 'Labels b: nothing -> "2"' in said


def test_verify_leaves_the_cache_and_the_names_alone(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nRUN head -c 9 /dev/urandom > /stamp\n"})
    project.built()
    before = project.image().digest

    verify(project)

    project.built()
    assert project.image().digest == before
    assert len(json.loads((project.store / "index.json").read_text())["manifests"]) == 1
