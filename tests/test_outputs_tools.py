"""Every output is taken by the programs that people use: the table of docs/outputs.md, command by command."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import users
from containers import RUNTIMES, docker_daemon, tool
from grants import NAMESPACES, demand
from images import Project

pytestmark = pytest.mark.kernel

NAME = "docker.io/library/app:latest"
DOCKERFILE = 'FROM busybox\nRUN echo works > /file && chown 33:29 /file\nLABEL a=b\nCMD ["cat", "/file"]\n'


@pytest.fixture(scope="module")
def place(base: Path) -> Iterator[Path]:
    """A folder with every output of one build."""
    with users.place_of(users.ROOT) as place:
        project = Project(place, base)
        project.write({"Dockerfile": DOCKERFILE})
        project.built(
            f"--output=type=oci,tar=false,dest={place}/layout",
            f"--output=type=oci,dest={place}/oci.tar",
            f"--output=type=oci,dest={place}/zstd.tar,compression=zstd,force-compression=true",
            f"--output=type=oci,dest={place}/stargz.tar,compression=estargz,force-compression=true",
            f"--output=type=docker,dest={place}/docker.tar",
            f"--output=type=tar,dest={place}/root.tar",
            f"--output=type=local,dest={place}/rootfs",
            f"--output=type=oci,tar=false,dest={place}/squashed,squash=all",
        )
        yield place


ARCHIVES = [
    "oci:{}/layout:" + NAME,
    "oci-archive:{}/oci.tar",
    "oci-archive:{}/zstd.tar",
    "oci-archive:{}/stargz.tar",
    "docker-archive:{}/docker.tar",
]


@pytest.mark.parametrize("source", [*ARCHIVES, "oci:{}/squashed:" + NAME])
def test_skopeo_copies(place: Path, tmp_path: Path, source: str) -> None:
    tool("skopeo", "copy", source.format(place), f"dir:{tmp_path}/copied")

    assert json.loads(tool("skopeo", "inspect", f"dir:{tmp_path}/copied"))["Labels"] == {"a": "b"}


@pytest.mark.parametrize("layout", ["layout", "squashed"])
def test_umoci_unpacks(place: Path, tmp_path: Path, layout: str) -> None:
    tool("umoci", "unpack", "--image", f"{place}/{layout}:{NAME}", tmp_path / "bundle")

    assert (tmp_path / "bundle/rootfs/file").stat().st_gid == 29


@pytest.mark.parametrize("source", ARCHIVES)
def test_buildah_starts_from(place: Path, tmp_path: Path, source: str) -> None:
    demand(NAMESPACES)
    storage = ["--root", f"{tmp_path}/root", "--runroot", f"{tmp_path}/run", "--storage-driver", "vfs"]

    container = tool("buildah", *storage, "from", source.format(place)).strip()

    folder = tool("buildah", *storage, "mount", container).strip()
    owner = os.stat(f"{folder}/file").st_uid
    tool("buildah", *storage, "rm", container)
    assert owner == 33


@pytest.mark.parametrize("archive", ["docker.tar", "oci.tar", "zstd.tar", "stargz.tar"])
def test_podman_loads(place: Path, archive: str) -> None:
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    demand(NAMESPACES)
    # podman takes no name of more than 50 characters here.
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as folder:
        storage = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]

        said = tool("podman", *storage, "--cgroup-manager", "cgroupfs", "load", "-i", place / archive)

    assert said.strip() == f"Loaded image: {NAME}"


def test_docker_loads_and_imports(place: Path, tmp_path: Path) -> None:
    with docker_daemon(tmp_path) as docker:
        loaded = docker("load", "-i", str(place / "docker.tar"))
        output = docker("run", "--rm", "--network=none", "app")
        docker("import", str(place / "root.tar"), "imported")
        imported = docker("run", "--rm", "--network=none", "imported", "cat", "/file")

    assert loaded == "Loaded image: app:latest\n"
    assert (output, imported) == ("works\n", "works\n")


def test_gnu_tar_lists(place: Path) -> None:
    rows = tool("tar", "--list", "--verbose", "--numeric-owner", "--file", place / "root.tar").splitlines()

    assert [row.split()[1] for row in rows if row.endswith(" file")] == ["33/29"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_runs_the_folder(place: Path, tmp_path: Path, runtime: str) -> None:
    demand(NAMESPACES)
    shutil.copytree(place / "rootfs", tmp_path / "rootfs", symlinks=True)
    tool(runtime, "spec", "--bundle", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["cat", "/file"]}
    (tmp_path / "config.json").write_text(json.dumps(config))

    command = [*RUNTIMES[runtime], "--root", str(tmp_path / "state"), "run", "-b", str(tmp_path), f"out-{os.getpid()}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    assert (done.stdout, done.returncode) == ("works\n", 0), done.stderr
