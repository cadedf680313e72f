"""SBOM and provenance beside an image: what they say, and that everybody still takes the image."""

import argparse
import base64
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import users
from builds import Bench
from containers import docker_daemon, tool
from images import Project, Result, pybuild, statements, validate
from registries import DockerRegistry, FakeRegistry, Reply
from repositories import Upstream

from builder.attest.package import image_purl
from builder.cli.attest import add_attest_options, attestations_of
from builder.errors import UsageError
from builder.export.output import Attestations, Form, Output, Packing, Provenance
from layers.oci import Platform

NAME = "docker.io/library/app:latest"
SPDX, V1, V02 = "https://spdx.dev/Document", "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"
SECRET = "the secret that nobody is told"
DOCKERFILE = """\
FROM busybox AS make
ARG COLOUR=red
RUN mkdir -p /venv/snake.dist-info && printf 'Name: snake\\nVersion: 1.0\\n' > /venv/snake.dist-info/METADATA
FROM busybox
RUN --mount=type=secret,id=token,required=true mkdir -p /var/lib/dpkg /etc \\
 && printf 'ID=debian\\nVERSION_ID=12\\n' > /etc/os-release \\
 && printf 'Package: tar\\nStatus: install ok installed\\nVersion: 1.34\\nArchitecture: amd64\\n' > /var/lib/dpkg/status
COPY --from=make /venv /opt/venv
LABEL a=b
CMD ["cat", "/opt/venv/snake.dist-info/METADATA"]
"""


# --- the command line


def asked(*arguments: str) -> Attestations:
    parser = argparse.ArgumentParser()
    add_attest_options(parser)
    return attestations_of(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Attestations()),
        (["--sbom=true"], Attestations(sbom=True)),
        (["--sbom", "false"], Attestations()),
        (["--attest", "type=sbom"], Attestations(sbom=True)),
        (["--attest=type=sbom", "--sbom=false"], Attestations()),
        (["--provenance=true"], Attestations(provenance=Provenance())),
        (["--provenance=false"], Attestations()),
        (["--provenance=mode=min"], Attestations(provenance=Provenance())),
        (["--provenance=mode=max,version=v0.2"], Attestations(provenance=Provenance(everything=True, version="v0.2"))),
        (["--attest=type=provenance,mode=max"], Attestations(provenance=Provenance(everything=True))),
        (["--attest=type=provenance,disabled=true"], Attestations()),
        (
            ["--provenance=builder-id=https://ci.example/1,reproducible=true,inline-only=true"],
            Attestations(provenance=Provenance(builder_id="https://ci.example/1", reproducible=True)),
        ),
    ],
)
def test_options_say_what_is_attested(arguments: list[str], expected: Attestations) -> None:
    assert asked(*arguments) == expected


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--sbom=yes", "not written KEY=VALUE"),
        ("--sbom=generator=scanner", "there are no generators"),
        ("--provenance=mode=all", "the mode is min or max"),
        ("--provenance=version=2", "the version is v1 or v0.2"),
        ("--provenance=inline-only=false", "can only be true"),
        ("--provenance=filename=x", "there is no filename"),
        ("--attest=type=vex", "the type is sbom or provenance"),
        ("--attest=sbom", "not written KEY=VALUE"),
        ("--attest=type=sbom,disabled=maybe", "disabled is true or false"),
    ],
)
def test_what_there_is_not_is_refused(argument: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        asked(argument)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("type=tar,dest=/dev/null", "a root file system has no place for them"),
        ("type=oci,dest=/dev/null,oci-mediatypes=false", "attestations need OCI's media types"),
    ],
)
def test_outputs_without_a_place_for_attestations_refuse_them(tmp_path: Path, output: str, message: str) -> None:
    result = pybuild("build", f"--root={tmp_path}/root", "--sbom=true", "-o", output, ".", cwd=tmp_path)

    assert (result.status, message in result.error) == (2, True)


@pytest.mark.parametrize(
    ("name", "purl"),
    [
        ("app", "pkg:docker/app@latest?platform=linux%2Famd64"),
        ("docker.io/team/app:1", "pkg:docker/team/app@1?platform=linux%2Famd64"),
        ("registry.example/a/b/c:2", "pkg:docker/registry.example/a/b/c@2?platform=linux%2Famd64"),
        ("Not a name", "pkg:docker/Not%20a%20name@latest?platform=linux%2Famd64"),
    ],
)
def test_images_have_package_urls(name: str, purl: str) -> None:
    assert image_purl(name, Platform("linux", "amd64")) == purl


# --- what went in


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def web() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        yield server


def told(bench: Bench, context: str, **options: object) -> Mapping[str, Any]:
    """The provenance of a build without RUN, mode max."""
    packing = Packing(attestations=Attestations(provenance=Provenance(everything=True)))
    place = bench.folder / "layout"
    output = Output(Form.OCI, str(place), tar=False, names=(NAME,), packing=packing)
    bench.build(context, outputs=(output,), environment=os.environ, **options)
    predicate: Mapping[str, Any] = statements(place)[V1]
    return predicate


def test_urls_and_repositories_are_told_with_their_digests(bench: Bench, web: FakeRegistry, tmp_path: Path) -> None:
    upstream = Upstream.make(tmp_path / "upstream")
    commit = upstream.commit({"a": "1"})
    web.replies |= {f"/x.git/{path}": Reply(body=data) for path, data in upstream.served().items()}
    web.replies["/page"] = Reply(body=b"page")
    dockerfile = f"FROM scratch\nADD {web.url}/page /page\nADD {web.url}/x.git /x\n"

    predicate = told(bench, bench.context({"Dockerfile": dockerfile}))

    assert predicate["buildDefinition"]["resolvedDependencies"] == [
        {
            "uri": f"{web.url}/page",
            "digest": {"sha256": "3660315a9af3df255d8f19ab077e4797822b41488a0e2a04bc6af71213c23274"},
        },
        {"uri": f"{web.url}/x.git#refs/heads/main", "digest": {"sha1": commit}},
    ]
    assert predicate["runDetails"]["metadata"]["buildkit_hermetic"] is True
    assert predicate["runDetails"]["metadata"]["buildkit_completeness"]["resolvedDependencies"] is False


def test_a_context_that_is_a_repository_is_where_the_build_began(
    bench: Bench, web: FakeRegistry, tmp_path: Path
) -> None:
    upstream = Upstream.make(tmp_path / "upstream")
    commit = upstream.commit({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "1"})
    web.replies |= {f"/x.git/{path}": Reply(body=data) for path, data in upstream.served().items()}
    url = web.url.replace("://", "://ann:password@")

    definition = told(bench, f"{url}/x.git#main")["buildDefinition"]

    source = {"uri": f"{web.url}/x.git#main", "digest": {"sha1": commit}}
    assert definition["externalParameters"]["configSource"] == {**source, "path": "Dockerfile"}
    assert definition["resolvedDependencies"] == [source]
    assert "locals" not in definition["externalParameters"]["request"]
    assert "password" not in json.dumps(definition)


def test_arguments_are_told_but_proxies(bench: Bench) -> None:
    context = bench.context({"Dockerfile": "ARG A\nFROM scratch AS x\nARG A\nCOPY Dockerfile /\n"})

    arguments = {"A": "1", "http_proxy": "http://ann:password@proxy:1"}
    predicate = told(bench, context, target="x", labels={"l": "m"}, build_args=arguments)

    request = predicate["buildDefinition"]["externalParameters"]["request"]
    assert request["args"] == {"build-arg:A": "1", "label:l": "m", "target": "x"}


def test_each_platform_is_told_of_on_its_own(bench: Bench) -> None:
    platforms = (Platform("linux", "amd64"), Platform("linux", "arm64"))
    packing = Packing(attestations=Attestations(sbom=True, provenance=Provenance(everything=True)))
    place = bench.folder / "layout"
    output = Output(Form.OCI, str(place), tar=False, names=(NAME,), packing=packing)
    context = bench.context(
        {"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n", "amd64": "", "arm64": ""}
    )
    metadata = bench.folder / "metadata"

    bench.build(context, outputs=(output,), platforms=platforms, metadata_file=str(metadata))

    def read(descriptor: Mapping[str, Any]) -> Any:
        return json.loads((place / "blobs" / descriptor["digest"].replace(":", "/")).read_text())

    (listed,) = json.loads((place / "index.json").read_text())["manifests"]
    *images, first, second = read(listed)["manifests"]
    assert [image["platform"]["architecture"] for image in images] == ["amd64", "arm64"]
    for image, attested in zip(images, (first, second), strict=True):
        assert attested["platform"] == {"architecture": "unknown", "os": "unknown"}
        assert attested["annotations"]["vnd.docker.reference.digest"] == image["digest"]
        provenance = read(read(attested)["layers"][1])
        architecture = image["platform"]["architecture"]
        assert provenance["subject"][0]["name"] == f"pkg:docker/app@latest?platform=linux%2F{architecture}"
        steps = provenance["predicate"]["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"]
        assert [step["op"]["Op"]["file"]["actions"][0]["Action"]["copy"]["src"] for step in steps] == [architecture]
    keys = [key for key in json.loads(metadata.read_text()) if key.startswith("buildx")]
    assert keys == ["buildx.build.provenance/linux/amd64", "buildx.build.provenance/linux/arm64"]


# --- a build with all of it


@pytest.fixture(scope="module")
def project(base: Path) -> Iterator[Project]:
    with users.place_of(users.ROOT) as place:
        project = Project(place, base)
        project.write({"Dockerfile": DOCKERFILE})
        (place / "token").write_text(SECRET)
        attested(project, "--sbom=true", "--provenance=mode=max", f"--output=type=oci,tar=false,dest={place}/layout")
        yield project


def attested(project: Project, *options: str) -> Result:
    secret = f"--secret=id=token,src={project.place}/token"
    return project.built(secret, "--build-arg=COLOUR=blue", *options)


@pytest.fixture(scope="module")
def layout(project: Project) -> Path:
    return project.place / "layout"


kernel = pytest.mark.kernel


@kernel
def test_an_index_has_the_image_and_what_is_said_of_it(layout: Path) -> None:
    image = validate(layout, NAME)

    assert image.index is not None
    assert len(image.index["manifests"]) == 2
    assert set(statements(layout)) == {SPDX, V1}


@kernel
def test_the_sbom_tells_what_brought_each_package(layout: Path) -> None:
    document = statements(layout)[SPDX]

    packages = {package["name"]: package for package in document["packages"] if "externalRefs" in package}
    diff_ids = validate(layout, NAME).config["rootfs"]["diff_ids"]
    assert {name: package["externalRefs"][0]["referenceLocator"] for name, package in packages.items()} == {
        "tar": "pkg:deb/debian/tar@1.34?arch=amd64&distro=debian-12",
        "snake": "pkg:pypi/snake@1.0",
    }
    assert packages["tar"]["comment"].startswith(f"layer {diff_ids[1]}; Dockerfile:5 RUN --mount=type=secret,id=token")
    assert packages["snake"]["comment"].startswith(
        f"layer {diff_ids[2]}; Dockerfile:8 COPY --from=make /venv /opt/venv; made by Dockerfile:3 RUN mkdir -p /venv"
    )


@kernel
def test_provenance_tells_how_it_was_made(layout: Path, project: Project) -> None:
    predicate = statements(layout)[V1]

    definition, metadata = predicate["buildDefinition"], predicate["runDetails"]["metadata"]
    request = definition["externalParameters"]["request"]
    assert request["secrets"] == [{"id": "token", "optional": False}]
    assert request["args"] == {"build-arg:COLOUR": "blue", "context:busybox": "local:busybox"}
    assert [material["uri"] for material in definition["resolvedDependencies"]] == [
        "pkg:oci/busybox@latest?platform=linux%2Famd64"
    ]
    (information,) = metadata["buildkit_metadata"]["source"]["infos"]
    assert base64.b64decode(information["data"]).decode() == DOCKERFILE
    steps = definition["internalParameters"]["buildConfig"]["llbDefinition"]
    assert [step["id"] for step in steps] == ["step0", "step1", "step2", "step3"]
    assert steps[3]["inputs"] == ["step2:0", "step1:0"]
    layers = metadata["buildkit_metadata"]["layers"]["step3:0"][0]
    assert [layer["digest"] for layer in layers] == [
        layer["digest"] for layer in validate(layout, NAME).manifest["layers"]
    ]
    assert metadata["buildkit_hermetic"] is False
    assert metadata["buildkit_completeness"] == {"request": True, "resolvedDependencies": False}


@kernel
def test_secrets_and_places_of_this_machine_are_not_told(layout: Path, project: Project) -> None:
    for blob in (layout / "blobs/sha256").iterdir():
        data = blob.read_bytes()
        assert SECRET.encode() not in data
        assert str(project.place).encode() not in data


@kernel
def test_little_is_told_by_mode_min(project: Project, tmp_path: Path) -> None:
    attested(project, "--provenance=true", f"--output=type=oci,tar=false,dest={tmp_path}/layout")

    (kind, predicate) = statements(tmp_path / "layout").popitem()
    text = json.dumps(predicate)
    assert kind == V1
    assert "blue" not in text
    assert "token" not in text
    assert predicate["runDetails"]["metadata"]["buildkit_metadata"] == {}
    assert predicate["buildDefinition"]["externalParameters"]["request"]["frontend"] == "dockerfile.v0"


@kernel
def test_the_older_predicate_has_the_same_facts(project: Project, tmp_path: Path) -> None:
    attested(
        project,
        "--provenance=mode=max,version=v0.2,builder-id=https://ci.example/7",
        f"--output=type=oci,tar=false,dest={tmp_path}/layout",
        f"--metadata-file={tmp_path}/metadata",
    )

    predicate = statements(tmp_path / "layout")[V02]
    metadata = json.loads((tmp_path / "metadata").read_text())
    assert predicate["builder"] == {"id": "https://ci.example/7"}
    assert predicate["buildType"] == "https://mobyproject.org/buildkit@v1"
    assert predicate["invocation"]["parameters"]["args"]["build-arg:COLOUR"] == "blue"
    assert len(predicate["materials"]) == 1
    assert metadata["buildx.build.provenance"] == predicate
    assert metadata["containerimage.descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json"


@kernel
def test_nothing_is_attested_of_itself(project: Project, tmp_path: Path) -> None:
    attested(project, f"--output=type=oci,tar=false,dest={tmp_path}/layout")

    assert validate(tmp_path / "layout", NAME).index is None


@kernel
def test_with_an_epoch_all_of_it_is_the_same_again(project: Project, project_of: Callable[[str], Project]) -> None:
    """As another user, in another folder, without the cache."""
    digests = []
    for each in (project, project_of(users.RANGES)):
        each.write({"Dockerfile": DOCKERFILE})
        (each.place / "token").write_text(SECRET)
        place = each.place / "again"
        output = f"--output=type=oci,tar=false,dest={place}"
        epoch = "--source-date-epoch=1700000000"
        attested(each, "--sbom=true", "--provenance=mode=max", output, "--no-cache", epoch)
        (listed,) = json.loads((place / "index.json").read_text())["manifests"]
        digests.append(listed["digest"])

    assert digests[0] == digests[1]


@kernel
@pytest.mark.parametrize("packing", ["compression=estargz", "squash=all", "compression=zstd,force-compression=true"])
def test_the_image_that_is_told_of_is_the_one_that_goes_out(project: Project, tmp_path: Path, packing: str) -> None:
    attested(project, "--sbom=true", f"--output=type=oci,tar=false,dest={tmp_path}/layout,{packing}")

    image = validate(tmp_path / "layout", NAME)
    document = statements(tmp_path / "layout")[SPDX]
    assert {package["name"] for package in document["packages"] if "externalRefs" in package} == {"tar", "snake"}
    assert {package["name"] for package in document["packages"]} >= set(image.config["rootfs"]["diff_ids"])


# --- those who want the image


@kernel
def test_other_tools_take_the_image(layout: Path, tmp_path: Path) -> None:
    source = f"oci:{layout}:{NAME}"

    seen = json.loads(tool("skopeo", "inspect", source))
    tool("umoci", "unpack", "--image", f"{copied(source, tmp_path)}:app", tmp_path / "bundle")

    assert seen["Labels"] == {"a": "b"}
    assert (tmp_path / "bundle/rootfs/var/lib/dpkg/status").exists()


@kernel
@pytest.mark.usefixtures("namespaces")
def test_buildah_starts_from_the_image(layout: Path, tmp_path: Path) -> None:
    storage = ["--root", f"{tmp_path}/root", "--runroot", f"{tmp_path}/run", "--storage-driver", "vfs"]

    container = tool("buildah", *storage, "from", f"oci:{layout}:{NAME}").strip()
    folder = tool("buildah", *storage, "mount", container).strip()

    assert (Path(folder) / "opt/venv/snake.dist-info/METADATA").exists()
    tool("buildah", *storage, "rm", container)


def copied(source: str, folder: Path) -> Path:
    """The image alone: umoci takes no index."""
    tool("skopeo", "copy", source, f"oci:{folder}/copied:app")
    return folder / "copied"


@kernel
def test_engines_take_the_image(project: Project, tmp_path: Path) -> None:
    attested(project, "--sbom=true", f"--output=type=docker,dest={tmp_path}/image.tar")

    with docker_daemon(tmp_path) as docker:
        loaded = docker("load", "-i", f"{tmp_path}/image.tar")
        said = docker("run", "--rm", "--network=none", "app")
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as folder:
        storage = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        by_podman = tool("podman", *storage, "--cgroup-manager", "cgroupfs", "load", "-i", tmp_path / "image.tar")

    assert loaded == "Loaded image: app:latest\n"
    assert said.startswith("Name: snake")
    assert by_podman.strip() == f"Loaded image: {NAME}"


@kernel
def test_a_stage_begins_with_the_image_and_a_registry_has_both(project: Project, layout: Path, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry") as registry:
        name = f"{registry.host}/app:1"
        attested(project, "--sbom=true", f"--output=type=registry,name={name}")
        listed = json.loads(tool("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
        pulled = pybuild("pull", f"--root={tmp_path}/root", name, cwd=tmp_path)
        (tmp_path / "Dockerfile").write_text(f"FROM {name} AS pulled\nFROM given\nCOPY --from=pulled /opt/venv /copy\n")
        options = [f"--root={tmp_path}/root", "-t", "two", f"--build-context=given=oci-layout://{layout}:{NAME}"]
        built = pybuild("build", *options, str(tmp_path), cwd=tmp_path)

    assert (pulled.status, built.status) == (0, 0), pulled.err + built.err
    assert [entry["platform"]["os"] for entry in listed["manifests"]] == ["linux", "unknown"]
    two = validate(tmp_path / "root/images", "docker.io/library/two:latest")
    assert two.files["copy/snake.dist-info/METADATA"].startswith(b"Name: snake")


@kernel
def test_commands_show_the_image(project: Project) -> None:
    attested(project, "--sbom=true")

    for command in ("inspect", "history", "run"):
        shown = pybuild(command, f"--root={project.root}", "app", cwd=project.place)
        assert shown.status == 0, shown.err
        assert shown.out
