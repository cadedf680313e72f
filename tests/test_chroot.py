"""Commands in a changed root: what they find, what stays of it, and what becomes of what they leave running."""

import hashlib
import os
import signal
import subprocess

import pytest
from grants import NAMESPACES, demand
from images import Project
from processes import running, soon
from runs import build, fail, paths

pytestmark = pytest.mark.kernel

CHROOT = "--backend=chroot"
EVERYTHING = """FROM busybox AS one
RUN mkdir -p /s/d && echo 1 > /s/d/a && ln /s/d/a /s/b && ln -s d/a /s/c && chmod 2711 /s && mkfifo /s/p
COPY a /s/d/
RUN echo 2 >> /s/d/a && rm /s/d && true; rm -r /bin/zcat; chown -R 33:33 /s; mknod /s/n c 1 3
FROM busybox
ENV X=1
RUN --mount=from=one,target=/m cp -a /m/s /t && cat /m/s/d/a > /o
RUN touch /etc/resolv.conf; echo x > /etc/hosts; rm -r /t/d; mkdir /t/d; echo y > /t/d/new; ln /t/b /t/e
USER www
WORKDIR /home/www
RUN id > i
"""


def test_layers_are_those_of_an_overlay(project: Project) -> None:
    demand(NAMESPACES)
    project.write({"a": "A", "Dockerfile": EVERYTHING})
    ids = {}
    for backend in ("overlay", "chroot"):
        project.built(f"--backend={backend}", "--no-cache", "--source-date-epoch=1000000000")
        ids[backend] = project.image()

    assert ids["chroot"].layers == ids["overlay"].layers
    assert ids["chroot"].id == ids["overlay"].id
    assert ids["chroot"].files["o"] == b"A2\n"


def test_devices_and_names_of_hosts_are_there_and_leave_no_trace(project: Project) -> None:
    script = (
        "test -c /dev/null; cat /etc/hosts > /o; echo lost > /dev/null; head -c 3 /dev/zero | wc -c >> /o;"
        " test ! -e /proc/self; echo through > /dev/stdout; echo too > /dev/stderr; touch /dev/shm/x; : > /etc/hosts"
    )
    project.write(
        {"Dockerfile": f"FROM busybox\nRUN set -e; {script}\nRUN ls -a /dev /proc /sys > /p; rm -f /dev/null\n"}
    )

    result = project.built(CHROOT)

    image = project.image()
    assert b"localhost buildkitsandbox" in image.files["o"]
    assert " through\n" in result.err
    assert " too\n" in result.err
    assert (paths(image, 1), paths(image, 2)) == ({"o"}, {"p"})
    assert not [path for path in image.files if path.startswith("dev/")]


def test_mounts_are_moved_into_place_and_away(project: Project) -> None:
    project.write({"f": "F", "d/g": "G"})

    image = build(
        project,
        "RUN --mount=target=/m --mount=source=f,target=/etc/f --mount=type=cache,target=/c --mount=type=tmpfs,target=/t"
        " --mount=type=cache,id=/c,target=/deep/er/c cat /m/f /m/d/g /etc/f > /o; echo 1 >> /c/x; touch /t/y /m/new;"
        " cat /deep/er/c/x >> /o; stat -c %a /t >> /o\n"
        "RUN --mount=type=cache,target=/c --mount=target=/m cat /c/x > /p; ls /m >> /p\n",
        CHROOT,
    )

    assert image.files["o"] == b"FGF1\n1777\n"
    assert image.files["p"] == b"1\nDockerfile\nd\nf\n"
    assert (paths(image, 1), paths(image, 2)) == ({"o"}, {"p"})
    assert not (project.context / "new").exists()


def test_a_secret_is_read_like_a_file_and_is_on_no_disk(project: Project) -> None:
    secret = "zq" + os.urandom(20).hex()
    (project.place / "secret").write_text(secret)
    sums = "for i in 1 2 3; do cat /run/secrets/s | md5sum >> /o; done"
    run = (
        f"RUN --mount=type=secret,id=s,uid=33,mode=440 stat -c '%a %u' /run/secrets/s >/o; {sums}; echo ready; sleep 1"
    )
    project.write({"Dockerfile": f"FROM busybox\n{run}\n"})
    found: list[bytes] = []
    with project.start(CHROOT, f"--secret=id=s,src={project.place}/secret") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith(" ready\n"):
                grep = ["grep", "-rl", "-D", "skip", secret, str(project.root)]
                found.append(subprocess.run(grep, capture_output=True, check=False).stdout)

    assert found == [b""]
    first, *read = project.image().files["o"].splitlines()
    assert first == b"440 33"
    assert read == [f"{hashlib.md5(secret.encode(), usedforsecurity=False).hexdigest()}  -".encode()] * 3


def test_a_command_that_writes_to_a_secret_does_not_wait_for_ever(project: Project) -> None:
    """A pipe is opened for writing when somebody reads it, and nobody does: the build stood still."""
    run = "RUN --mount=type=secret,id=s (echo x >> /run/secrets/s); (echo x > /run/secrets/s); cat /run/secrets/s > /o"

    image = build(project, run, CHROOT, "--secret=id=s,env=T", "--step-timeout=60s", T="secret")

    assert image.files["o"] == b"secret"


def test_a_daemon_that_left_its_session_ends_with_its_step(project: Project) -> None:
    build(project, "RUN setsid sh -c 'trap \"\" TERM HUP; sleep 76551' & sleep 76551 & sleep 0.2", CHROOT)

    assert running("76551") == []


def test_processes_that_fork_and_end_do_not_outlive_their_step(project: Project) -> None:
    """At most 127, in 6 generations: a kill from parent to child would come too late for some."""
    script = "f() { [ $1 = 0 ] && exec sleep 76552; f $(($1 - 1)) & f $(($1 - 1)) & }; f 6"

    build(project, f"RUN {script}", CHROOT)

    assert running("76552") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_ended_leaves_no_process_and_nothing_after_the_next(project: Project, number: int) -> None:
    cached = "FROM busybox\nRUN --mount=type=cache,target=/c echo 1 >> /c/x; "
    project.write({"Dockerfile": f"{cached} echo ready; setsid sleep 76553 & sleep 76553\n"})
    with project.start(CHROOT) as process:
        assert process.stdout is not None
        assert any(line.endswith(" ready\n") for line in process.stdout)
        os.kill(process.pid, number)
        process.stdout.read()

    assert soon(lambda: running("76553") == [])
    project.write({"Dockerfile": f"{cached} cp /c/x /o\n"})
    project.built(CHROOT)
    assert project.image().files["o"] == b"1\n1\n"
    assert list((project.root / "tmp").iterdir()) == []


def test_a_step_that_takes_its_mount_point_away_harms_nothing(project: Project) -> None:
    image = build(
        project,
        "RUN --mount=type=cache,target=/deep/c mv /deep /other; rm -r /other; ln -s / /deep; rm -f /etc/resolv.conf\n"
        "RUN --mount=type=cache,target=/c touch /c/again; test ! -e /other; ls /c > /o\n",
        CHROOT,
    )

    assert image.files["o"] == b"again\n"


def test_parallel_stages_have_trees_of_their_own(project: Project) -> None:
    stages = "".join(f"FROM one AS s{n}\nRUN sleep 0.3; test ! -e /x; echo {n} > /x\n" for n in range(3))
    copies = "".join(f"COPY --from=s{n} /x /x{n}\n" for n in range(3))
    project.write({"Dockerfile": f"FROM busybox AS one\nRUN echo 1 > /one\n{stages}FROM busybox\n{copies}"})

    project.built(CHROOT)

    files = project.image().files
    assert [files[f"x{n}"] for n in range(3)] == [b"0\n", b"1\n", b"2\n"]


def test_a_failed_command_is_told_that_there_is_no_proc(project: Project) -> None:
    result = fail(project, "RUN cat /proc/self/status", CHROOT)

    assert result.status == 5
    assert "there is no /proc" in result.err
