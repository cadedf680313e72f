"""Builds that fail: one clear message, the documented exit status, nothing left behind, and the next build works."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Self

import pytest
import users
from grants import mounted
from images import Project, Result, command
from processes import running, soon
from registries import FakeRegistry, Reply, make_image

from builder.sandbox import syscalls
from layers.errors import PybuildError

pytestmark = pytest.mark.kernel

EVERYONE = pytest.mark.parametrize("user", [users.ROOT, users.RANGES])
FINE = "FROM busybox\nRUN echo fine > /fine\n"


def fails(result: Result, status: int, message: str, *, line: int = 0, text: str = "") -> None:
    """Check how a build failed: `message` begins the one error, which shows a line of the Dockerfile if it has one."""
    assert result.status == status, result.err
    assert "Traceback" not in result.err
    assert result.error.startswith(message)
    if line:
        assert f"\nDockerfile:{line}\n" in f"\n{result.err}"
        assert re.search(rf"^ +{line} \| >>> {re.escape(text)}$", result.err, re.MULTILINE), result.err
    else:
        assert ">>>" not in result.err


def next_build_works(project: Project) -> None:
    """The same store and folder, once the cause is gone: builds, and has left nothing but the image."""
    project.write({"Dockerfile": FINE})
    project.built()
    assert project.image().files["fine"] == b"fine\n"
    assert os.listdir(project.root / "tmp") == []


# --- what a Dockerfile, or the command line, gets wrong


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("RUN echo out; exit 3", 5, "the command ended with exit status 3: echo out; exit 3"),
        ('RUN ["/nope"]', 5, "the command ended with exit status 127: /nope"),
        ("COPY nothere /", 4, "'nothere' is not there"),
        ("COPY --from=0 /x /", 3, "circular dependency detected on stage: 0"),
        ("COPY Dockerfile /etc/passwd/", 4, "cannot create the directory /etc/passwd"),
        ("RUNN echo", 3, "unknown instruction: RUNN"),
        ("ENV", 3, "ENV requires"),
        ("FROM 127.0.0.1:1/x", 6, "127.0.0.1:1 does not answer"),
        ("FROM host.invalid/x", 6, "host.invalid does not answer"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(project: Project, line: str, status: int, message: str) -> None:
    project.write({"Dockerfile": f"FROM busybox\n\n{line}\nRUN echo never\n"})

    result = project.build()

    fails(result, status, message, line=3, text=line)
    assert not any("never" in title for title in result.steps)
    next_build_works(project)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--target=nope"], 3, 'target stage "nope" could not be found'),
        (["-f", "nope"], 3, "the Dockerfile nope cannot be read"),
        (["--nope"], 2, "unrecognized arguments: --nope"),
        (["-t", "No!"], 2, "-t No!: 'No!' is not an image name"),
        (["--output=type=nope,dest=x"], 2, "--output type=nope,dest=x: "),
        (["--iidfile=/nope/iid"], 1, "/nope/iid cannot be written"),
        (["--output=type=oci,dest=/nope/x.tar"], 1, "/nope/x.tar cannot be written"),
        (["--root=/proc/nope"], 7, "/proc/nope: no such file or directory"),
    ],
)
def test_what_is_wrong_with_an_option_is_told(project: Project, options: list[str], status: int, message: str) -> None:
    project.write({"Dockerfile": FINE})

    result = project.build(*options)

    fails(result, status, message)
    next_build_works(project)


def test_a_failed_command_shows_its_last_lines(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nRUN seq 100; echo last >&2; exit 1\n"})

    result = project.build("--progress=quiet")

    fails(result, 5, "the command ended with exit status 1", line=2, text="RUN seq 100; echo last >&2; exit 1")
    assert re.search(r"^[0-9.]+ 100\n[0-9.]+ last$", result.err, re.MULTILINE), result.err


def test_a_failed_stage_ends_the_others(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        project.write(
            {
                "Dockerfile": f"FROM busybox AS a\nRUN nc 127.0.0.1 {port}; sleep 76561\n"
                f"FROM busybox AS b\nRUN nc 127.0.0.1 {port}; exit 1\n"
                "FROM scratch\nCOPY --from=a /x /\nCOPY --from=b /x /\n"
            }
        )
        server.settimeout(60)
        build = project.start()
        both = [server.accept()[0] for _ in range(2)]
        for each in both:  # are running: let them go on
            each.close()
        output, _ = build.communicate(timeout=60)

    assert build.returncode == 5, output
    assert "CANCELED" in output
    assert running("76561") == []
    next_build_works(project)


def test_every_error_has_an_exit_status_that_is_documented() -> None:
    for path in sorted((users.CHECKOUT / "builder").rglob("*.py")):
        import_module(".".join(path.relative_to(users.CHECKOUT).with_suffix("").parts).removesuffix(".__init__"))
    table = (users.CHECKOUT / "README.md").read_text().partition("### Exit status")[2].partition("##")[0]

    documented = {int(status) for status in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}

    assert {kind.exit_status for kind in kinds_of(PybuildError)} <= documented


def kinds_of(kind: type[PybuildError]) -> set[type[PybuildError]]:
    return {kind}.union(*map(kinds_of, kind.__subclasses__()))


# --- registries

IMAGE = make_image({"etc/hello": b"hello"})


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.add("team/app", "1", IMAGE)
        yield registry


def test_a_wrong_tag_is_told_with_its_line(project: Project, registry: FakeRegistry) -> None:
    line = f"FROM {registry.host}/team/app:2"
    project.write({"Dockerfile": f"{line}\nCOPY Dockerfile /\n"})

    result = project.build()

    fails(result, 6, f"{registry.host}/team/app:2: not found", line=1, text=line)
    next_build_works(project)


def test_wrong_bytes_of_a_registry_are_told_with_the_line_and_not_kept(
    project: Project, registry: FakeRegistry
) -> None:
    line = f"FROM {registry.host}/team/app:1"
    project.write({"Dockerfile": f"{line}\nCOPY Dockerfile /\n"})
    path = f"/v2/team/app/blobs/{IMAGE.layers[0].digest}"
    sound = registry.replies[path]
    registry.replies[path] = Reply(body=bytes(len(sound.body)))

    result = project.build()
    registry.replies[path] = sound
    project.built()

    fails(result, 6, f"blob {IMAGE.layers[0].digest}", line=1, text=line)
    assert project.image().files["etc/hello"] == b"hello"


def test_a_layer_of_a_base_image_that_the_store_lost_is_fetched_again(project: Project, registry: FakeRegistry) -> None:
    project.write({"Dockerfile": f"FROM {registry.host}/team/app:1\nCOPY Dockerfile /\n"})
    project.built()
    blob(project, str(IMAGE.layers[0].digest)).unlink()

    result = project.built()

    assert "WARNING: the store has lost layers of" in result.err
    assert project.image().files["etc/hello"] == b"hello"


# --- the store


def blob(project: Project, digest: str) -> Path:
    return project.store / "blobs" / digest.replace(":", "/")


def damage(project: Project, layer: int) -> str:
    """Change a byte in the middle of a layer of the image in the store; gives its digest."""
    digest: str = json.loads(blob(project, project.image().digest).read_bytes())["layers"][layer]["digest"]
    path = blob(project, digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return digest


@pytest.mark.parametrize("layer", [0, 1, 2], ids=["base", "copy", "run"])
def test_a_damaged_blob_is_told_and_the_next_build_makes_it_again(project: Project, layer: int) -> None:
    project.write({"Dockerfile": "FROM busybox\nCOPY Dockerfile /\nRUN seq 1000 > /many\n"})
    project.built()
    digest = damage(project, layer)
    output = f"--output=type=oci,dest={project.place}/app.tar"

    result = project.build(output)
    project.built(output)
    project.built()

    fails(result, 7, f"blob {digest} in the store is damaged")
    assert project.image().files["many"].endswith(b"1000\n")


def test_a_damaged_blob_is_told_with_the_line_of_the_step_that_needs_it(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nCOPY Dockerfile /\n"})
    project.built()
    digest = damage(project, 0)
    project.write({"Dockerfile": "FROM busybox\nRUN echo fine > /fine\n"})

    result = project.build()

    fails(result, 7, f"blob {digest} in the store is damaged", line=2, text="RUN echo fine > /fine")
    next_build_works(project)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A disk of its own for a folder; gives how to make it larger."""
    folder.mkdir()
    with mounted("tmpfs", folder, f"size={size},mode=700"):
        yield lambda larger: syscalls.mount("none", str(folder), "tmpfs", syscalls.MS_REMOUNT, f"size={larger}")


@pytest.mark.parametrize(
    ("size", "status", "message", "line"),
    [
        ("100k", 7, "", 1),  # the base image does not fit
        ("3m", 7, "'bin/busybox' of a layer cannot be unpacked", 2),
        ("6m", 5, "the command ended with exit status 1", 2),
        ("12m", 7, "", 2),  # the layer does not fit beside the files
    ],
)
def test_a_full_disk_is_told_and_gives_back_what_it_held(
    project: Project, size: str, status: int, message: str, line: int
) -> None:
    lines = ["FROM busybox", "RUN head -c 8000000 /dev/urandom > /big"]
    project.write({"Dockerfile": "\n".join(lines)})
    with small_disk(project.root, size) as enlarge:
        result = project.build()
        left = os.listdir(project.root / "tmp")
        enlarge("60m")
        next_build_works(project)

    fails(result, status, message, line=line, text=lines[line - 1])
    assert "full" in result.err or "make room" in result.err
    assert left == []


# --- builds that are ended from outside


@EVERYONE
def test_a_build_that_is_killed_takes_its_processes_along(project_of: Callable[[str], Project], user: str) -> None:
    project = project_of(user)
    build = began(project, "sleep 76562 & sleep 76562", "76562", 2)

    build.kill()
    build.communicate()

    assert soon(lambda: running("76562") == [])
    next_build_works(project)


def began(project: Project, script: str, marker: str, count: int) -> subprocess.Popen[str]:
    """A build whose RUN has begun: so many processes have the marker."""
    project.write({"Dockerfile": f"FROM busybox\nRUN {script}\n"})
    build = project.start()
    assert soon(lambda: len(running(marker)) == count)
    return build


@EVERYONE
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_build_and_leaves_nothing(
    project_of: Callable[[str], Project], user: str, by: signal.Signals
) -> None:
    project = project_of(user)
    build = began(project, "trap '' INT TERM; sleep 76563 & sleep 76563", "76563", 2)

    build.send_signal(by)
    output, _ = build.communicate(timeout=60)

    assert build.returncode == 130
    assert output.endswith("CANCELED\ninterrupted\n")
    assert running("76563") == []
    assert os.listdir(project.root / "tmp") == []
    next_build_works(project)


# --- two builds at the same time


class Meeting:
    """RUN steps call here and wait to be let go on."""

    def __init__(self, project: Project) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(60)
        project.write({"Dockerfile": f"FROM busybox\nRUN nc 127.0.0.1 {self._server.getsockname()[1]} > /answer\n"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def wait(self) -> socket.socket:
        """Until a step has called; closing what this gives lets the step go on."""
        return self._server.accept()[0]

    def calls_again(self) -> bool:
        """Whether another step calls."""
        self._server.settimeout(0)
        try:
            self._server.accept()
        except BlockingIOError:
            return False
        return True


def await_line(build: subprocess.Popen[str], text: str) -> None:
    assert build.stdout
    assert any(text in line for line in build.stdout)


@EVERYONE
def test_two_builds_share_the_work(project_of: Callable[[str], Project], user: str) -> None:
    """The second one waits at the step that the first is at, and takes what it made."""
    project = project_of(user)
    with Meeting(project) as meeting:
        builds = [project.start(f"--iidfile={project.place}/{number}") for number in range(2)]
        for build in builds:
            await_line(build, "RUN nc")
        meeting.wait().close()
        outputs = [build.communicate(timeout=60)[0] for build in builds]

        assert [build.returncode for build in builds] == [0, 0], outputs
        assert not meeting.calls_again()
    assert sorted("CACHED" in output for output in outputs) == [False, True]
    assert (project.place / "0").read_text() == (project.place / "1").read_text()


def test_a_build_goes_on_when_the_one_that_it_waited_for_is_killed(project: Project) -> None:
    with Meeting(project) as meeting:
        first = project.start()
        call = meeting.wait()
        second = project.start()
        await_line(second, "RUN nc")
        first.kill()
        first.communicate()
        call.close()
        meeting.wait().close()
        output, _ = second.communicate(timeout=60)

    assert second.returncode == 0, output


def test_ctrl_c_ends_a_build_that_waits_for_another_one(project: Project) -> None:
    """It waited until the other build let go of the step."""
    with Meeting(project) as meeting:
        first = project.start()
        call = meeting.wait()
        second = project.start()
        await_line(second, "RUN nc")
        second.send_signal(signal.SIGINT)
        second.communicate(timeout=60)
        unfinished = first.poll() is None
        call.close()
        first.communicate(timeout=60)

    assert (second.returncode, unfinished, first.returncode) == (130, True, 0)


def test_a_full_standard_output_is_told(project: Project) -> None:
    project.write({"Dockerfile": FINE})

    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command(*project.arguments("-q")),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
