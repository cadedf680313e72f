"""RUN for another processor, which the kernel hands to QEMU; what the two platforms make is one index."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import machine_code
import pytest
import users
from grants import mounted
from images import Project, make_base, pybuild

from builder import emulation
from layers.entry import Change, Entry, Kind
from layers.layer import write_layer
from layers.layout import Layout
from layers.oci import CONFIG, INDEX, MANIFEST, History, ImageConfig, Index, Manifest, Platform, RunConfig

pytestmark = pytest.mark.kernel

HOST = Platform.host()
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
OTHER = Platform("linux", "arm64" if HOST.architecture == "amd64" else "amd64")
DOCKERFILE = """\
FROM --platform=$BUILDPLATFORM busybox AS build
RUN cat /proc/sys/kernel/random/uuid > /chance
ARG TARGETARCH
RUN echo $TARGETARCH > /for
FROM busybox
COPY --from=build /for /chance /
RUN uname -m > /machine
"""


@contextmanager
def registered(machine: str, flags: str = "F") -> Iterator[None]:
    """QEMU registered for a machine's programs, and everything as it was before afterwards."""
    qemu = shutil.which(f"qemu-{machine}-static")
    if qemu is None:
        pytest.fail(f"qemu-{machine}-static is missing; scripts/test installs qemu-user-static")
    number = machine_code.PROCESSORS[machine].elf_machine
    magic = b"\x7fELF\x02\x01\x01" + bytes(9) + bytes([2, 0, number, 0])
    mask = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + b"\xfe\xff\xff\xff"
    name = f"pybuild-{os.getpid()}{flags}"
    escaped = ["".join(f"\\x{byte:02x}" for byte in part) for part in (magic, mask)]
    with TemporaryDirectory() as place, mounted("binfmt_misc", Path(place), "") as folder:
        try:
            Path(folder, "register").write_text(f":{name}:M::{escaped[0]}:{escaped[1]}:{qemu}:{flags}")
            yield
        except PermissionError as error:
            pytest.skip(f"write(/proc/sys/fs/binfmt_misc/register) by root: {errno.errorcode[error.errno or 0]}")
        finally:
            if Path(folder, name).exists():
                Path(folder, name).write_text("-1")


@pytest.fixture(scope="module", autouse=True)
def _emulator() -> Iterator[None]:
    """Programs of the other processor run, as the machine is or by what is registered for these tests."""
    if emulation.can_run.__wrapped__(OTHER):
        yield
        return
    with registered(MACHINES[OTHER.architecture]):
        yield


@pytest.fixture(scope="module")
def both() -> Iterator[Path]:
    """A base of two images: busybox for this machine, and for the other one a shell that only writes /machine."""
    with users.place_of(users.ROOT) as place:
        make_base(place / "base")
        layout = Layout(str(place / "base"))
        (own,) = layout.index().manifests
        program = machine_code.tells_machine(MACHINES[OTHER.architecture], "/machine")
        changes = [
            Change(Entry("bin", Kind.DIRECTORY, 0o755)),
            Change(Entry("bin/sh", Kind.FILE, 0o755, size=len(program)), program),
        ]
        layer, _ = write_layer(iter(changes), layout)
        config = ImageConfig(OTHER, RunConfig(cmd=("sh",)), (layer.diff_id,), (History(created_by="made"),))
        other = Manifest(layout.put(config.serialise(), CONFIG), (layer.descriptor,))
        listed = [layout.put(other.serialise(), MANIFEST), own]
        platforms = [OTHER, HOST]
        documents = [
            {**each.to_json(), "platform": {"os": "linux", "architecture": platform.architecture}}
            for each, platform in zip(listed, platforms, strict=True)
        ]
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": documents}).encode()
        Index.parse(index)
        layout.tag("docker.io/library/busybox:latest", layout.put(index, INDEX))
        yield place / "base"


@pytest.fixture(scope="module")
def built(both: Path) -> Iterator[Project]:
    """What root has built of it for both platforms, without the cache, into all kinds of places."""
    with users.place_of(users.ROOT) as place:
        project = Project(place, both)
        project.write({"Dockerfile": DOCKERFILE})
        places = [f"--output={place}/out", f"--output=type=oci,dest={place}/app.tar", "--output=type=image"]
        project.built(f"--platform={HOST},{OTHER}", "--no-cache", *places)
        yield project


def files(project: Project, architecture: str) -> dict[str, str]:
    """What an export has for a platform."""
    folder = project.place / "out" / f"linux_{architecture}"
    return {name: (folder / name).read_text().strip() for name in ("machine", "for", "chance")}


def test_commands_run_as_on_the_machine_that_the_image_is_for(built: Project) -> None:
    for architecture, machine in MACHINES.items():
        assert files(built, architecture)["machine"] == machine
        assert files(built, architecture)["for"] == architecture


def test_what_both_begin_with_is_run_once_also_without_the_cache(built: Project) -> None:
    assert files(built, "amd64")["chance"] == files(built, "arm64")["chance"]


def test_commands_run_the_same_for_an_ordinary_user(both: Path, project_of: Callable[[str], Project]) -> None:
    place = project_of(users.RANGES).place
    project = Project(place, both, users.RANGES)
    project.write({"Dockerfile": "FROM busybox\nRUN uname -m > /machine\n"})

    project.built(f"--platform={OTHER}", f"--output={place}/out")

    assert (place / "out/machine").read_text() == MACHINES[OTHER.architecture]


def test_commands_run_on_a_base_in_no_index_that_is_for_another_machine(
    both: Path, project_of: Callable[[str], Project]
) -> None:
    layout = Layout(str(both))
    (index,) = layout.index().manifests
    (single,) = [each for each in Index.parse(layout.read(index)).manifests if each.platform == OTHER]
    place = project_of(users.ROOT).place
    project = Project(place, Path(f"{both}@{single.digest}"))
    project.write({"Dockerfile": "FROM busybox\nRUN uname -m > /machine\n"})

    result = project.built(f"--output={place}/out")

    assert (place / "out/machine").read_text() == MACHINES[OTHER.architecture]
    assert f"is for {OTHER}, not for {HOST}" in result.err


def test_a_second_build_for_both_runs_nothing(built: Project) -> None:
    again = built.built(f"--platform={HOST}", f"--platform={OTHER}")

    assert set(again.steps.values()) == {"CACHED"}


def test_skopeo_reads_and_copies_all_of_the_index(built: Project) -> None:
    place, name = built.place, "docker.io/library/app:latest"

    raw = tool("skopeo", "inspect", "--raw", f"oci:{built.store}:{name}")
    tool("skopeo", "copy", "--quiet", "--all", f"oci-archive:{place}/app.tar", f"oci:{place}/copy:app")
    chosen = tool("skopeo", "inspect", f"--override-arch={OTHER.architecture}", f"oci:{place}/copy:app")

    platforms = [listed["platform"]["architecture"] for listed in json.loads(raw)["manifests"]]
    assert platforms == [HOST.architecture, OTHER.architecture]
    assert json.loads(chosen)["Architecture"] == OTHER.architecture


def test_buildah_and_umoci_read_a_platform_of_the_index(built: Project) -> None:
    """umoci itself chooses none of several platforms: it is given one of them."""
    place, name = built.place, "docker.io/library/app:latest"

    storage = [f"--root={place}/storage", f"--runroot={place}/run", "--storage-driver=vfs"]
    made = tool("buildah", *storage, "pull", f"--arch={OTHER.architecture}", f"oci:{built.store}:{name}").split()[-1]
    inspected = tool("buildah", *storage, "inspect", "--type=image", made)
    architecture = f"--override-arch={OTHER.architecture}"
    tool("skopeo", architecture, "copy", "--quiet", f"oci:{built.store}:{name}", f"oci:{place}/one:app")
    tool("umoci", "unpack", "--image", f"{place}/one:app", str(place / "bundle"))

    assert json.loads(inspected)["OCIv1"]["architecture"] == OTHER.architecture
    assert (place / "bundle/rootfs/machine").read_text() == MACHINES[OTHER.architecture]


def test_an_image_for_the_other_machine_is_run(built: Project) -> None:
    done = pybuild("run", f"--root={built.root}", f"--platform={OTHER}", "app", "/bin/sh", cwd=built.place)

    assert (done.status, done.err) == (0, "")


def test_an_emulator_that_images_do_not_see_is_told_of(both: Path, project_of: Callable[[str], Project]) -> None:
    """Without the flag F the kernel looks for it in the image, when it is needed."""
    project = Project(project_of(users.ROOT).place, both)
    project.write({"Dockerfile": "FROM busybox\nRUN uname -m > /machine\n"})

    with registered(MACHINES[OTHER.architecture], flags=""):
        result = project.build(f"--platform={OTHER}")

    assert result.status == 5
    assert "under the flag F" in result.err


def test_a_program_for_another_processor_than_the_image_says_is_told_of(project: Project) -> None:
    program = machine_code.program(machine_code.Processor(0xFFFF, 64, (), b"", b"", exit=0), data=b"")
    project.write({"Dockerfile": 'FROM busybox\nCOPY --chmod=755 tool /\nRUN ["/tool"]\n', "tool": program})

    result = project.build()

    assert result.status == 5
    assert f"the image says that it is for {HOST}, and the program is not" in result.err


def tool(*arguments: str) -> str:
    """What a program prints."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
