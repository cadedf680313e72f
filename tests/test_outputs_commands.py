"""pybuild save, load, export, history and diff."""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import users
from containers import docker_daemon, tool
from images import Project, Result, command, environment, pybuild, validate

pytestmark = pytest.mark.kernel

NAME = "docker.io/library/app:latest"
DOCKERFILE = """\
FROM busybox
RUN echo one > /one && mkdir /folder && touch /folder/a /folder/b
RUN rm /one && echo two > /two
ENV A=1
"""
OTHER = """\
FROM busybox
RUN echo one > /one && echo 222 > /two
RUN echo three > /three && chmod 600 /three
ENV A=2
"""


@pytest.fixture(scope="module")
def project(base: Path) -> Iterator[Project]:
    """A store with two images: app and other."""
    with users.place_of(users.ROOT) as place:
        project = Project(place, base)
        project.write({"Dockerfile": DOCKERFILE, "Other": OTHER})
        project.built()
        project.built("-t", "other:1", "-f", str(project.context / "Other"), "--label=which=other")
        project.built()
        yield project


def ask(project: Project, name: str, *arguments: str) -> Result:
    """What a command says."""
    return pybuild(name, f"--root={project.root}", *arguments, cwd=project.place)


def saved(project: Project, *arguments: str) -> bytes:
    """An archive from `pybuild save`."""
    return subprocess.run(
        command("save", f"--root={project.root}", *arguments),
        env=environment(project.place),
        capture_output=True,
        check=True,
    ).stdout


def load(root: Path, *arguments: str, archive: bytes = b"") -> Result:
    """Load into a store of its own."""
    return pybuild("load", f"--root={root}", *arguments, cwd=root.parent, stdin=archive)


# --- save and load


def test_what_was_saved_is_loaded(project: Project, tmp_path: Path) -> None:
    result = load(tmp_path / "store", archive=saved(project, "app", "other:1"))

    assert result.out == "Loaded image: app:latest\nLoaded image: other:1\n"
    assert validate(tmp_path / "store/images", NAME).digest == project.image().digest


def test_an_archive_may_be_compressed(project: Project, tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(saved(project, "app"))
    tool("gzip", tmp_path / "app.tar")

    assert load(tmp_path / "store", "-i", str(tmp_path / "app.tar.gz")).out == "Loaded image: app:latest\n"


def test_a_layout_folder_is_loaded(project: Project, tmp_path: Path) -> None:
    project.built("-o", f"type=oci,tar=false,dest={tmp_path}/layout,annotation-index.a=b")

    load(tmp_path / "store", "-i", str(tmp_path / "layout"))

    assert validate(tmp_path / "store/images", NAME).index is not None


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_skopeo_wrote_is_loaded(project: Project, tmp_path: Path, form: str) -> None:
    tool("skopeo", "copy", f"oci:{project.store}:{NAME}", f"{form}:{tmp_path}/theirs.tar:app:latest")

    result = load(tmp_path / "store", "-i", str(tmp_path / "theirs.tar"))

    assert result.out == "Loaded image: app:latest\n"
    assert validate(tmp_path / "store/images", NAME).id == project.image().id


def test_an_image_is_saved_in_another_compression(project: Project, tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(saved(project, "--format=oci", "--compression=zstd", "app"))

    image = validate(tmp_path / "app.tar", NAME)
    assert {layer["mediaType"] for layer in image.manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+zstd"}


def test_an_image_that_is_not_there_cannot_be_saved(project: Project) -> None:
    result = ask(project, "save", "-o", "/dev/null", "nowhere")

    assert (result.status, result.error) == (6, "there is no image 'nowhere' in the store")


def rewritten(archive: bytes, change: Callable[[tarfile.TarInfo, bytes], bytes]) -> bytes:
    """An archive with other bytes in its files."""
    result = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=result, mode="w") as new:
        for member in old:
            stream = old.extractfile(member)
            data = change(member, stream.read()) if stream else b""
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return result.getvalue()


def test_a_blob_that_is_not_what_its_name_says_is_refused(project: Project, tmp_path: Path) -> None:
    archive = rewritten(saved(project, "app"), lambda member, data: data + b"x" if "blobs" in member.name else data)

    result = load(tmp_path / "store", archive=archive)

    assert result.status == 6
    assert "and should be" in result.error
    assert not (tmp_path / "store/images/index.json").exists() or NAME not in (
        tmp_path / "store/images/index.json"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("archive", [b"", b"nothing like a tar", b"x" * 2000])
def test_what_is_no_archive_is_refused(tmp_path: Path, archive: bytes) -> None:
    result = load(tmp_path / "store", archive=archive)

    assert result.status == 6
    assert result.error.startswith("this is no archive of images")


# --- export


def test_the_files_of_an_image_are_exported(project: Project) -> None:
    done = subprocess.run(
        command("export", f"--root={project.root}", "app"),
        env=environment(project.place),
        capture_output=True,
        check=True,
    )

    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        names = tar.getnames()
    assert "two" in names
    assert "one" not in names


def test_an_image_of_a_layout_is_exported_to_a_folder(project: Project, tmp_path: Path) -> None:
    ask(project, "export", "-C", str(tmp_path / "root"), f"oci-layout://{project.base}")

    assert (tmp_path / "root/bin/busybox").exists()


# --- history


def test_the_history_tells_what_each_instruction_added(project: Project) -> None:
    rows = [json.loads(line) for line in ask(project, "history", "--json", "app").out.splitlines()]

    assert [(row["created_by"].split()[0], row["size"]) for row in rows[:3]] == [("ENV", 0), ("RUN", 4), ("RUN", 4)]
    assert [row["layer"] is None for row in rows] == [True, False, False, False]


def test_the_history_is_a_table(project: Project) -> None:
    lines = ask(project, "history", "app").out.splitlines()

    assert lines[0].split() == ["CREATED", "CREATED", "BY", "SIZE", "LAYER"]
    assert "ENV A=1" in lines[1]
    assert "RUN /bin/sh -c rm /one" in lines[2]
    assert "4B" in lines[2]


# --- diff


def test_an_image_does_not_differ_from_itself(project: Project) -> None:
    result = ask(project, "diff", "--times", "app", "app")

    assert (result.status, result.out) == (0, "")


def test_a_difference_names_the_instruction_that_made_it(project: Project) -> None:
    result = ask(project, "diff", "app", "other:1")

    lines = result.out.splitlines()
    assert result.status == 1
    assert 'config  Env A: "1" -> "2"' in lines
    assert 'config  Labels which: nothing -> "other"' in lines
    assert "layers  the lowest 1 are the same" in lines
    first = "RUN /bin/sh -c echo one > /one && echo 222 > /two"
    second = "RUN /bin/sh -c echo three > /three && chmod 600 /three"
    files = [line for line in lines if line[0] in "+-~"]
    made = "RUN /bin/sh -c echo one > /one && mkdir /folder && touch /folder/a /folder/b"
    assert files == [
        f"- /folder (and 2 below it)   [{made}]",
        f"+ /one   [{first}]",
        f"+ /three   [{second}]",
        f"~ /two: content   [{first}]",
    ]


def test_a_difference_can_be_read_by_programs(project: Project) -> None:
    document = json.loads(ask(project, "diff", "--json", "app", "other:1").out)

    assert [(item["path"], item["what"]) for item in document["files"]] == [
        ("folder", ["removed"]),
        ("one", ["added"]),
        ("three", ["added"]),
        ("two", ["content"]),
    ]


def test_times_count_if_they_are_asked_for(project: Project) -> None:
    for number in ("1", "2"):
        project.built("-t", f"dated:{number}", f"--source-date-epoch={number}")

    without, with_times = (ask(project, "diff", *options, "dated:1", "dated:2") for options in ([], ["--times"]))

    assert (without.status, without.out) == (0, "")
    assert with_times.status == 1
    assert "~ /two: time 1 -> 2   [RUN /bin/sh -c rm /one && echo two > /two]" in with_times.out


# --- engines


def test_docker_takes_an_image_and_then_only_what_it_lacks(project: Project, tmp_path: Path) -> None:
    with docker_daemon(tmp_path) as docker:
        host = f"unix://{tmp_path}/docker.sock"
        project.built("--load", DOCKER_HOST=host)
        docker("tag", "app", "kept")
        project.built("--label=more=1", "-o", "type=docker", DOCKER_HOST=host)
        seen = json.loads(docker("image", "inspect", "app"))
        output = docker("run", "--rm", "--network=none", "app", "cat", "/two")

    assert seen[0]["Config"]["Labels"] == {"more": "1"}
    assert output == "two\n"


def test_docker_loads_what_was_saved(project: Project, tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(saved(project, "app", "other:1"))

    with docker_daemon(tmp_path) as docker:
        said = docker("load", "-i", str(tmp_path / "app.tar"))
        docker("save", "-o", str(tmp_path / "theirs.tar"), "app")

    assert said == "Loaded image: app:latest\nLoaded image: other:1\n"
    loaded = load(tmp_path / "store", "-i", str(tmp_path / "theirs.tar"))
    assert loaded.out == "Loaded image: app:latest\n"
    assert validate(tmp_path / "store/images", NAME).config["rootfs"] == project.image().config["rootfs"]


def test_without_an_engine_nothing_is_built(project: Project) -> None:
    result = project.build("--load", DOCKER_HOST="unix:///nowhere/docker.sock")

    assert (result.status, result.steps) == (2, {})
    assert result.error == "no dockerd answers at unix:///nowhere/docker.sock, where DOCKER_HOST says it is"
