"""Other people's tools take the images: they read, copy, unpack and run what pybuild wrote."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import users
from containers import RUNTIMES, docker_daemon, page_of, tool, unpacked
from grants import NAMESPACES, demand
from images import ImageRead, Project, validate

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
    return unpacked(project.place / "layout", NAME, tmp_path / "bundle")


def test_umoci_unpacks_the_image(bundle: Path) -> None:
    rootfs = bundle / "rootfs"

    page, folder = (rootfs / "www/index.html").stat(), (rootfs / "www").stat()
    assert (page.st_uid, page.st_gid, page.st_nlink) == (33, 29, 2)
    assert (folder.st_uid, folder.st_gid, folder.st_mode & 0o7777) == (33, 29, 0o2750)
    assert not (rootfs / "var/www").exists()
    assert os.listdir(rootfs / "root") == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_runs_the_image_and_it_answers(bundle: Path, runtime: str) -> None:
    assert page_of(bundle, runtime) == "It works\n"


# --- other builders and engines


def test_buildah_builds_on_the_image(project: Project, tmp_path: Path) -> None:
    demand(NAMESPACES)
    storage = ["--root", f"{tmp_path}/root", "--runroot", f"{tmp_path}/run", "--storage-driver", "vfs"]
    container = tool("buildah", *storage, "from", f"oci:{project.place}/layout:{NAME}").strip()

    folder = Path(tool("buildah", *storage, "mount", container).strip(), "www")
    owner = folder.stat().st_uid, folder.stat().st_gid
    user = tool("buildah", *storage, "inspect", "--format", "{{.OCIv1.Config.User}}", container)
    tool("buildah", *storage, "rm", container)

    assert (owner, user.strip()) == ((33, 29), "www")


def test_docker_loads_the_image_and_runs_it(project: Project, image: ImageRead, tmp_path: Path) -> None:
    """By way of a docker-archive: daemons older than 25 load no OCI archives."""
    tool("skopeo", "copy", f"oci-archive:{project.place}/app.tar", f"docker-archive:{tmp_path}/docker.tar:app:latest")

    with docker_daemon(tmp_path) as docker:
        docker("load", "-i", f"{tmp_path}/docker.tar")
        seen = json.loads(docker("image", "inspect", "app"))
        output = docker("run", "--rm", "--network=host", "app", "sh", "-c", "id; cat index.html")

    assert (seen[0]["Id"], seen[0]["RootFS"]["Layers"]) == (image.id, image.config["rootfs"]["diff_ids"])
    assert output == "uid=33(www) gid=33(www) groups=29(audio),33(www),1500(extra)\nIt works\n"
