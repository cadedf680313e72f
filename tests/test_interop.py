"""Other people's tools take the images: they read, copy, unpack and run what pybuild wrote."""

import json
import os
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import users
from images import ImageRead, Project, validate
from processes import soon

pytestmark = pytest.mark.kernel

NAME = "docker.io/library/app:latest"
DOCKERFILE = """\
FROM busybox
RUN mkdir /www && echo "It works" > /www/index.html && ln /www/index.html /www/same.html \\
 && chown -R www:audio /www && chmod 2750 /www && rm -r /var/www && rm -r /root && mkdir /root
WORKDIR /www
USER www
ENV PORT=8080
EXPOSE $PORT
LABEL made.by=tests
CMD ["sh", "-c", "exec httpd -f -p 127.0.0.1:$PORT"]
"""


@pytest.fixture(scope="module")
def project(base: Path) -> Iterator[Project]:
    """A built project, with its image in the store, in `layout` and in `app.tar`."""
    with users.place_of(users.ROOT) as place:
        project = Project(place, base)
        project.write({"Dockerfile": DOCKERFILE})
        project.built()
        project.built("-o", f"type=oci,dest={place}/layout,tar=false", "-o", f"type=oci,dest={place}/app.tar")
        yield project


@pytest.fixture(scope="module")
def image(project: Project) -> ImageRead:
    return project.image()


def tool(*command: str | Path, **more: str) -> str:
    """What another program prints; it has to succeed."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **more}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("place", ["oci:{}/store/images:" + NAME, "oci:{}/layout:" + NAME, "oci-archive:{}/app.tar"])
def test_skopeo_inspects_the_image(project: Project, image: ImageRead, place: str) -> None:
    seen = json.loads(tool("skopeo", "inspect", place.format(project.place)))

    assert (seen["Digest"], len(seen["Layers"])) == (image.digest, len(image.layers))
    assert (seen["Labels"], seen["Os"]) == ({"made.by": "tests"}, "linux")


def test_skopeo_copies_the_image_to_a_docker_archive(project: Project, image: ImageRead, tmp_path: Path) -> None:
    tool("skopeo", "copy", f"oci:{project.place}/layout:{NAME}", f"docker-archive:{tmp_path}/docker.tar:app:latest")

    with tarfile.open(tmp_path / "docker.tar") as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest
        (entry,) = json.load(manifest)
    assert entry["RepoTags"] == [NAME]
    assert entry["Config"] == f"{image.id.removeprefix('sha256:')}.json"
    assert [path.removesuffix(".tar") for path in entry["Layers"]] == [
        digest.removeprefix("sha256:") for digest in image.config["rootfs"]["diff_ids"]
    ]


def test_skopeo_adds_its_own_image_to_a_layout_of_pybuild(project: Project, tmp_path: Path) -> None:
    project.built("-o", f"type=oci,dest={tmp_path}/layout,tar=false")

    tool("skopeo", "copy", f"oci:{project.base}", f"oci:{tmp_path}/layout:theirs")

    assert validate(tmp_path / "layout", NAME).config["config"]["User"] == "www"


# --- unpacked and run


@pytest.fixture
def bundle(project: Project, tmp_path: Path) -> Path:
    """The image as umoci unpacks it."""
    tool("umoci", "unpack", "--image", f"{project.place}/layout:{NAME}", tmp_path / "bundle")
    return tmp_path / "bundle"


def test_umoci_unpacks_the_image(bundle: Path) -> None:
    rootfs = bundle / "rootfs"

    page, folder = (rootfs / "www/index.html").stat(), (rootfs / "www").stat()
    assert (page.st_uid, page.st_gid, page.st_nlink) == (33, 29, 2)
    assert (folder.st_uid, folder.st_gid, folder.st_mode & 0o7777) == (33, 29, 0o2750)
    assert not (rootfs / "var/www").exists()
    assert os.listdir(rootfs / "root") == []


# crun refuses a machine that has cgroups of both versions. It need not manage any for this test, and sees a machine of
# version 2 in a mount namespace of its own.
CRUN = 'umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec crun --cgroup-manager=disabled "$@"'
RUNTIMES = {"runc": ["runc"], "crun": ["unshare", "--mount", "sh", "-c", CRUN, "crun"]}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_runs_the_image_and_it_answers(bundle: Path, runtime: str) -> None:
    port = free_port()
    adapt(bundle / "config.json", port)
    name = f"pybuild-tests-{os.getpid()}"
    state = bundle.parent / "state"

    with running_container([*RUNTIMES[runtime], "--root", str(state), "run", "-b", str(bundle), name]):
        page = answer(port)
        tool(runtime, "--root", state, "kill", name, "KILL")
    tool(runtime, "--root", state, "delete", "--force", name)

    assert page == "It works\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def adapt(path: Path, port: int) -> None:
    """Change a runtime's configuration: the host's network, this port, no terminal."""
    config = json.loads(path.read_text())
    config["process"]["terminal"] = False
    config["process"]["env"].append(f"PORT={port}")
    config["linux"]["namespaces"] = [space for space in config["linux"]["namespaces"] if space["type"] != "network"]
    path.write_text(json.dumps(config))


@contextmanager
def running_container(command: list[str]) -> Iterator[None]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            yield
            process.wait(10)
        finally:
            process.kill()


def answer(port: int) -> str:
    """The page that a server on this machine gives, once it listens."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 15
    while True:
        try:
            with opener.open(f"http://127.0.0.1:{port}/", timeout=5) as response:
                page: bytes = response.read()
                return page.decode()
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "nobody answers"
            time.sleep(0.05)


# --- other builders and engines


def test_buildah_builds_on_the_image(project: Project, tmp_path: Path) -> None:
    storage = ["--root", f"{tmp_path}/root", "--runroot", f"{tmp_path}/run", "--storage-driver", "vfs"]
    container = tool("buildah", *storage, "from", f"oci:{project.place}/layout:{NAME}").strip()

    folder = Path(tool("buildah", *storage, "mount", container).strip(), "www")
    owner = folder.stat().st_uid, folder.stat().st_gid
    user = tool("buildah", *storage, "inspect", "--format", "{{.OCIv1.Config.User}}", container)
    tool("buildah", *storage, "rm", container)

    assert (owner, user.strip()) == ((33, 29), "www")


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A Docker daemon of our own, without a network; gives its command line. What it mounts ends with it."""
    socket_path = f"unix://{tmp_path}/docker.sock"
    command = [
        "unshare",
        "--mount",
        "dockerd",
        f"--data-root={tmp_path}/data",
        f"--exec-root={tmp_path}/exec",
        f"--host={socket_path}",
    ]
    command += [f"--pidfile={tmp_path}/pid", "--bridge=none", "--iptables=false", "--ip6tables=false"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def ask(*arguments: str) -> str:
        return tool("docker", "--host", socket_path, *arguments)

    def answers() -> bool:
        done = subprocess.run(["docker", "--host", socket_path, "version"], capture_output=True, check=False)
        return done.returncode == 0 or daemon.poll() is not None

    with (
        open(tmp_path / "log", "wb") as log,
        subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as daemon,
    ):
        try:
            assert soon(answers), (tmp_path / "log").read_text()
            yield ask
        finally:
            daemon.terminate()


def test_docker_loads_the_image_and_runs_it(
    project: Project, image: ImageRead, docker: Callable[..., str], tmp_path: Path
) -> None:
    """By way of a docker-archive: daemons older than 25 load no OCI archives."""
    tool("skopeo", "copy", f"oci-archive:{project.place}/app.tar", f"docker-archive:{tmp_path}/docker.tar:app:latest")

    docker("load", "-i", f"{tmp_path}/docker.tar")
    seen: list[Mapping[str, Any]] = json.loads(docker("image", "inspect", "app"))
    output = docker("run", "--rm", "--network=host", "app", "sh", "-c", "id; cat index.html")

    assert (seen[0]["Id"], seen[0]["RootFS"]["Layers"]) == (image.id, image.config["rootfs"]["diff_ids"])
    assert output == "uid=33(www) gid=33(www) groups=29(audio),33(www),1500(extra)\nIt works\n"
