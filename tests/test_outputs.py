"""Outputs of a build: what each holds, and that other people's tools take it."""

import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import users
from containers import tool
from images import Project, command, environment, pybuild, validate

pytestmark = pytest.mark.kernel

NAME = "docker.io/library/app:latest"
DOCKERFILE = """\
FROM busybox
RUN mkdir -p /www/empty && echo page > /www/index && ln /www/index /www/same && ln -s index /www/link \\
 && chown 33:29 /www/index && chmod 4750 /www/index && mkfifo /www/pipe && touch -d @1000000000 /www/empty
RUN rm /bin/vi && echo more > /www/more
LABEL made.by=tests
CMD ["cat", "/www/index"]
"""
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(scope="module")
def project(base: Path) -> Iterator[Project]:
    """A project that is built once; what tests ask for then comes from the cache."""
    with users.place_of(users.ROOT) as place:
        project = Project(place, base)
        project.write({"Dockerfile": DOCKERFILE})
        project.built()
        yield project


@pytest.fixture
def output(project: Project, tmp_path: Path) -> Callable[[str], Path]:
    """Builds with one output, and gives its place."""

    def make(text: str) -> Path:
        project.built("-o", text.format(tmp_path / "out"))
        return tmp_path / "out"

    return make


# --- the forms


def test_one_build_has_several_outputs(project: Project, tmp_path: Path) -> None:
    forms = {"oci": "layout.tar", "docker": "docker.tar", "tar": "root.tar", "local": "rootfs"}

    project.built(*(f"--output=type={form},dest={tmp_path}/{name}" for form, name in forms.items()))

    assert sorted(os.listdir(tmp_path)) == sorted(forms.values())
    assert validate(tmp_path / "layout.tar", NAME).digest == project.image().digest


def test_a_docker_archive_is_a_layout_as_well(output: Callable[[str], Path], project: Project) -> None:
    archive = output("type=docker,dest={}")

    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest
        (row,) = json.load(manifest)
    image = validate(archive, NAME)
    assert image.digest == project.image().digest
    assert row["RepoTags"] == ["app:latest"]
    assert row["Config"] == f"blobs/{image.id.replace(':', '/')}"
    assert row["Layers"] == [f"blobs/{layer['digest'].replace(':', '/')}" for layer in image.manifest["layers"]]


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_skopeo_copies_an_image_out_of_a_docker_archive(
    output: Callable[[str], Path], tmp_path: Path, transport: str
) -> None:
    archive = output("type=docker,dest={}")

    tool("skopeo", "copy", f"{transport}:{archive}", f"dir:{tmp_path}/copied")

    seen = json.loads(tool("skopeo", "inspect", f"dir:{tmp_path}/copied"))
    assert seen["Labels"] == {"made.by": "tests"}


def test_gnu_tar_unpacks_the_root_file_system(output: Callable[[str], Path], tmp_path: Path) -> None:
    archive, root = output("type=tar,dest={}"), tmp_path / "root"
    root.mkdir()

    tool("tar", "--extract", "--file", archive, "--directory", root)

    check_root(root)


def test_a_folder_gets_the_root_file_system(output: Callable[[str], Path]) -> None:
    check_root(output("{}"))


def check_root(root: Path) -> None:
    """What the Dockerfile says, as root sees it."""
    page, link, pipe = (os.lstat(root / "www" / name) for name in ("index", "link", "pipe"))
    assert (page.st_uid, page.st_gid, stat.S_IMODE(page.st_mode), page.st_nlink) == (33, 29, 0o4750, 2)
    assert (root / "www/same").samefile(root / "www/index")
    assert (root / "www/index").read_text() == "page\n"
    assert stat.S_ISLNK(link.st_mode)
    assert stat.S_ISFIFO(pipe.st_mode)
    assert (root / "www/empty").stat().st_mtime == 1000000000
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert not (root / "bin/vi").exists()
    assert (root / "bin/busybox").exists()
    assert not [name for _, _, names in os.walk(root) for name in names if name.startswith(".wh.")]


def test_the_file_system_can_go_to_standard_output(project: Project) -> None:
    arguments = command(*project.arguments("-o", "-", "-q"))

    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment(project.place)) as process:
        assert process.stdout
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            names = {member.name for member in tar}

    assert process.returncode == 0
    assert "www/index" in names


def test_a_device_takes_an_archive_and_stays_a_device(project: Project) -> None:
    """An output to /dev/null once would have put a file in its place, for the whole machine."""
    project.built("-o", "type=oci,dest=/dev/null")

    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


# --- what is told of it


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("type=image,name=other:1", "docker.io/library/other:1"),
        ("type=oci,dest={}", NAME),
        ("type=oci,tar=false,dest={}", NAME),
        ("type=docker,dest={}", NAME),
        ("type=oci,dest={},annotation-index.a=b", NAME),
        ("type=oci,dest={},compression=estargz", NAME),
        ("type=tar,dest={}", None),
        ("type=local,dest={}", None),
        ("type=cacheonly", None),
        ("", NAME),
    ],
)
def test_files_tell_which_image_it_is(project: Project, tmp_path: Path, text: str, names: str | None) -> None:
    """The image of an output, and of a file system the one that it is of."""
    place = tmp_path / "out"
    output = ["-o", text.format(place)] if text else []

    project.built(*output, f"--metadata-file={tmp_path}/metadata", f"--iidfile={tmp_path}/iid")

    told = json.loads((tmp_path / "metadata").read_text())
    image = validate(place, NAME) if place.exists() and names else project.image()
    assert told["containerimage.config.digest"] == (tmp_path / "iid").read_text() == image.id
    assert told.get("image.name") == names
    descriptor = told["containerimage.descriptor"]
    assert descriptor["digest"] == told["containerimage.digest"]
    assert (descriptor["digest"] == image.digest) is (image.index is None)
    assert descriptor["annotations"]["config.digest"] == image.id


# --- into a folder


def test_a_second_export_replaces_what_the_first_left(output: Callable[[str], Path]) -> None:
    root = output("{}")
    (root / "www/index").unlink()
    (root / "www/index").symlink_to("/etc/passwd")
    (root / "mine").write_text("kept")

    output("{}")

    check_root(root)
    assert (root / "mine").read_text() == "kept"


def test_an_export_goes_through_no_link_in_its_folder(output: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/www").symlink_to(tmp_path / "elsewhere")

    root = output("{}")

    assert os.listdir(tmp_path / "elsewhere") == []
    check_root(root)


def test_an_export_removes_no_folder(project: Project, tmp_path: Path) -> None:
    (tmp_path / "www/index/precious").mkdir(parents=True)

    result = project.build("-o", str(tmp_path))

    assert result.status == 1
    assert result.error == f"{tmp_path}/www/index is a folder, and the image has something else there"


@pytest.mark.parametrize("cached", [False, True])
def test_a_users_export_is_the_users(project_of: Callable[[str], Project], cached: bool) -> None:  # noqa: FBT001 - pytest's
    """Also if the build has entered a namespace, in which this process would be allowed more."""
    project = project_of(users.RANGES)
    project.write({"Dockerfile": DOCKERFILE})
    if cached:
        project.built()
    root = project.place / "rootfs"

    project.built("-o", str(root))

    owner = project.context.stat().st_uid
    assert {path.lstat().st_uid for path in root.rglob("*")} == {owner}
    assert stat.S_IMODE((root / "www/index").stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777


# --- packing


@pytest.mark.parametrize(("kind", "media_type"), [("gzip", GZIP), ("zstd", ZSTD), ("uncompressed", PLAIN)])
def test_new_layers_are_compressed_and_those_of_the_base_stay(
    output: Callable[[str], Path], kind: str, media_type: str
) -> None:
    image = validate(output(f"type=oci,dest={{}},compression={kind}"))

    assert [layer["mediaType"] for layer in image.manifest["layers"]] == [GZIP, media_type, media_type]


def test_all_layers_are_compressed_by_force(output: Callable[[str], Path], project: Project) -> None:
    image = validate(output("type=oci,dest={},compression=zstd,force-compression=true"))

    assert {layer["mediaType"] for layer in image.manifest["layers"]} == {ZSTD}
    assert image.id == project.image().id


def test_estargz_layers_say_where_their_tables_are(output: Callable[[str], Path], project: Project) -> None:
    image = validate(output("type=oci,dest={},compression=estargz"))

    base, *made = image.manifest["layers"]
    assert base == project.image().manifest["layers"][0]
    assert [layer["mediaType"] for layer in made] == [GZIP, GZIP]
    assert all("containerd.io/snapshot/stargz/toc.digest" in layer["annotations"] for layer in made)
    assert image.files["www/more"] == b"more\n"
    assert image.config["config"] == project.image().config["config"]


def test_estargz_needs_ocis_manifests(project: Project) -> None:
    result = project.build("-o", "type=oci,dest=/dev/null,oci-mediatypes=false,compression=estargz")

    assert (result.status, "estargz needs annotations of layers" in result.error) == (2, True)


def test_a_layer_is_compressed_once(project: Project, tmp_path: Path) -> None:
    packed = f"type=oci,tar=false,dest={tmp_path}/out,compression=zstd,compression-level=7"
    result = project.built("-o", packed)
    digest = validate(tmp_path / "out").manifest["layers"][-1]["digest"]
    blob = project.store / "blobs" / digest.replace(":", "/")
    made = blob.stat().st_ino

    project.built("-o", packed)

    assert blob.stat().st_ino == made
    assert result.steps["compressing 2 of 3 layers by zstd"] == "DONE"


@pytest.fixture
def copying(project_of: Callable[[str], Project]) -> Callable[[], Project]:
    """Makes projects, with a store of their own each, whose one layer is larger than what is compressed at a time."""

    def make() -> Project:
        project = project_of(users.ROOT)
        project.write(
            {"Dockerfile": "FROM scratch\nCOPY large .\n", "large": b"".join(map(b"%d\n".__mod__, range(700_000)))}
        )
        return project

    return make


def layer_of(project: Project, kind: str) -> tuple[str, str]:
    """Media type and digest of the layer that an output has; "" does not say which it wants."""
    wanted = f",compression={kind}" if kind else ""
    project.built("-o", f"type=oci,dest={project.place}/out{wanted}", SOURCE_DATE_EPOCH="1")
    (layer,) = validate(project.place / "out").manifest["layers"]
    return layer["mediaType"], layer["digest"]


def test_a_layer_is_written_once_as_all_outputs_want_it(copying: Callable[[], Project]) -> None:
    project = copying()

    _, digest = layer_of(project, "zstd")

    large = [path.name for path in (project.store / "blobs/sha256").iterdir() if path.stat().st_size > 100_000]
    assert large == [digest.removeprefix("sha256:")]
    assert layer_of(project, "zstd") == (ZSTD, digest)


@pytest.mark.parametrize("first", ["gzip", "zstd"])
def test_what_was_built_before_says_nothing_of_the_bytes_of_a_layer(copying: Callable[[], Project], first: str) -> None:
    project = copying()
    layer_of(project, first)

    layers = {kind: layer_of(project, kind) for kind in ("gzip", "zstd", "")}

    assert layers == {kind: layer_of(copying(), kind) for kind in layers}
    assert layers[""] == layers["gzip"]


def test_an_image_goes_into_the_store_with_gzip_if_nothing_else_is_said(copying: Callable[[], Project]) -> None:
    project = copying()
    layer_of(project, "zstd")

    project.built()
    kept = project.image().manifest["layers"]
    project.built("-o", "type=image,compression=zstd")

    assert [layer["mediaType"] for layer in kept] == [GZIP]
    assert [layer["mediaType"] for layer in project.image().manifest["layers"]] == [ZSTD]


def test_a_level_changes_the_bytes_and_nothing_else(output: Callable[[str], Path], project: Project) -> None:
    image = validate(output("type=oci,dest={},compression-level=9,force-compression=true"))

    assert image.id == project.image().id
    assert image.digest != project.image().digest


def test_dockers_own_media_types_are_written_on_request(output: Callable[[str], Path], tmp_path: Path) -> None:
    archive = output("type=oci,dest={},oci-mediatypes=false")

    tool("skopeo", "copy", f"oci-archive:{archive}", f"dir:{tmp_path}/copied")

    manifest = json.loads((tmp_path / "copied/manifest.json").read_text())
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}


def test_zstd_is_refused_where_docker_has_no_name_for_it(project: Project) -> None:
    result = project.build("-o", "type=oci,dest=/dev/null,oci-mediatypes=false,compression=zstd")

    assert result.status == 6
    assert "zstd, which manifests of Docker's own kind do not have" in result.error


def test_annotations_stand_where_they_should(output: Callable[[str], Path], project: Project, tmp_path: Path) -> None:
    fields = "annotation.a=1,annotation-index.b=2,annotation-manifest-descriptor.c=3,annotation-index-descriptor.d=4"

    image = validate(output(f"type=oci,tar=false,dest={{}},{fields}"), NAME)

    (listed,) = json.loads((tmp_path / "out/index.json").read_text())["manifests"]
    assert image.index is not None
    assert image.manifest["annotations"] == {"a": "1"}
    assert image.index["annotations"] == {"b": "2"}
    assert image.index["manifests"][0]["annotations"] == {"c": "3"}
    assert listed["annotations"]["d"] == "4"


def test_an_image_in_an_index_is_an_image_of_the_store(project_of: Callable[[str], Project]) -> None:
    project = project_of(users.ROOT)
    project.write({"Dockerfile": "FROM busybox\nLABEL a=b\n"})

    project.built("--annotation", "index:a=b")

    image = project.image()
    assert image.index is not None
    inspected = pybuild("inspect", f"--root={project.root}", "app", cwd=project.place)
    assert json.loads(inspected.out)["Digest"] == image.digest
    assert "app" in pybuild("images", f"--root={project.root}", cwd=project.place).out


# --- squashed


def test_new_layers_become_one(output: Callable[[str], Path], project: Project) -> None:
    plain = project.image()

    image = validate(output("type=oci,dest={},squash=new"))

    assert image.config["rootfs"]["diff_ids"][0] == plain.config["rootfs"]["diff_ids"][0]
    assert len(image.layers) == 2
    assert "bin/.wh.vi" in [item.path for item in image.layers[1]]
    assert len(image.config["history"]) == len(plain.config["history"]) + 1


def test_all_layers_become_one(output: Callable[[str], Path], tmp_path: Path) -> None:
    image = validate(output("type=oci,dest={},squash=all"))

    assert len(image.layers) == 1
    assert not [item.path for item in image.layers[0] if ".wh." in item.path]


def test_a_squashed_image_has_the_same_files(project: Project, tmp_path: Path) -> None:
    project.built("--squash=all", "-o", f"type=oci,tar=false,dest={tmp_path}/layout")
    project.built("-o", f"type=tar,dest={tmp_path}/plain.tar")

    tool("umoci", "unpack", "--image", f"{tmp_path}/layout:{NAME}", tmp_path / "bundle")

    check_root(tmp_path / "bundle/rootfs")


def test_squashing_again_gives_the_same_bytes(output: Callable[[str], Path]) -> None:
    first = output("type=oci,dest={},squash=new").read_bytes()

    assert output("type=oci,dest={},squash=new").read_bytes() == first


# --- configuration


def test_what_the_base_image_brings_can_be_left_out(project_of: Callable[[str], Project]) -> None:
    project = project_of(users.ROOT)
    project.write({"Dockerfile": "FROM busybox\nENV A=1 B=2\nLABEL c=3 d=4\n"})

    project.built("--unsetenv=A", "--unsetenv=PATH", "--unsetlabel=c")

    config = project.image().config["config"]
    assert config["Env"] == ["B=2"]
    assert config["Labels"] == {"d": "4"}


# --- names


def test_an_output_may_have_names_of_its_own(project: Project, tmp_path: Path) -> None:
    project.built("-o", f"type=oci,dest={tmp_path}/layout,tar=false,name=other:1")

    assert validate(tmp_path / "layout", "docker.io/library/other:1").digest == project.image().digest
