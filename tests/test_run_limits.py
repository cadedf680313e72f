"""RUN within bounds: further hosts, shared memory, ulimits, cgroups and time, as each kind of user."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import users
from grants import CGROUPS, demand
from images import Project, Result, pybuild
from processes import running, soon
from runs import BOMB, build, fail, outcome, paths

pytestmark = pytest.mark.kernel

EVERYONE = pytest.mark.parametrize("user", [users.ROOT, users.RANGES, users.SINGLE])
ProjectOf = Callable[[str], Project]
TOP = Path("/sys/fs/cgroup")


def left() -> list[str]:
    """The cgroups of pybuild on this machine."""
    return [
        os.path.join(parent, name) for parent, names, _ in os.walk(TOP) for name in names if name.startswith("pybuild-")
    ]


@pytest.fixture
def cgroups() -> None:
    """For limits of what processes use together."""
    demand(CGROUPS)


# --- what a command sees


@EVERYONE
def test_a_command_knows_further_hosts_and_its_layer_does_not(project_of: ProjectOf, user: str) -> None:
    image = build(
        project_of(user),
        "RUN tail -n 2 /etc/hosts > /o; ping -c 1 -w 1 me.test | head -n 1 >> /o\n",
        "--add-host=Db.Test:10.0.0.5",
        "--add-host=me.test=[::1]",
    )

    assert image.files["o"] == b"10.0.0.5\tdb.test\n::1\tme.test\nPING me.test (::1): 56 data bytes\n"
    assert paths(image) == {"o"}


def test_names_of_hosts_are_in_the_key_and_addresses_are_not(project: Project) -> None:
    """As in BuildKit: a name server of the pipeline may live elsewhere tomorrow."""
    build(project, "RUN cat /etc/hosts > /o\n", "--add-host=db:10.0.0.5")

    moved = project.built("--add-host=db:10.0.0.6")
    renamed = project.built("--add-host=sql:10.0.0.6")

    assert outcome(moved, "RUN") == "CACHED"
    assert outcome(renamed, "RUN") == "DONE"


@pytest.mark.usefixtures("namespaces")
@EVERYONE
def test_shared_memory_is_as_large_as_asked(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)

    image = build(project, "RUN df -m /dev/shm | tail -n 1 | awk '{print $2}' > /o\n", "--shm-size=10m")
    again = project.built("--shm-size=11m")

    assert image.files["o"] == b"10\n"
    assert outcome(again, "RUN") == "DONE"


@EVERYONE
def test_ulimits_are_those_asked_for(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)

    image = build(project, "RUN ulimit -n > /o; ulimit -Hn >> /o\n", "--ulimit=nofile=100:200")
    again = project.built("--ulimit=nofile=100:201")

    assert image.files["o"] == b"100\n200\n"
    assert outcome(again, "RUN") == "DONE"


def test_a_ulimit_that_nobody_may_set_is_told(project_of: ProjectOf) -> None:
    result = fail(project_of(users.RANGES), "RUN true", "--ulimit=nofile=99999999999")

    assert result.status == 8
    assert result.error == "cannot set the ulimit nofile: EPERM, operation not permitted"
    assert "only root can raise" in result.err


# --- what its processes use together


@pytest.mark.usefixtures("cgroups")
def test_memory_that_is_not_there_is_told_and_the_cgroup_is_gone(project: Project) -> None:
    result = fail(project, "RUN tail -c 100000000 /dev/zero", "--memory=20m", "--memory-swap=20m")

    assert result.status == 5
    assert result.error == "the command ended with signal 9: tail -c 100000000 /dev/zero"
    assert "hint: out of memory: at the limit of 20 MiB (--memory) the kernel killed a process" in result.err
    assert left() == []


@pytest.mark.usefixtures("cgroups")
def test_a_process_that_was_killed_in_between_is_warned_about(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nRUN tail -c 100000000 /dev/zero | wc -c > /o\n"})

    result = project.built("--memory=20m", "--memory-swap=20m")

    assert "WARNING: out of memory: at the limit of 20 MiB (--memory) the kernel killed a process" in result.err


@pytest.mark.usefixtures("cgroups")
def test_a_fork_bomb_ends_at_the_limit_and_leaves_nothing(project: Project) -> None:
    result = fail(project, f"RUN {BOMB.format(76571)}", "--pids-limit=30", "--step-timeout=60s")

    assert result.error.startswith("the command ended with exit status 7")
    assert "too many processes: at the limit of 30 (--pids-limit) no more could be started" in result.err
    assert running("76571") == []
    assert left() == []


@pytest.mark.usefixtures("cgroups")
def test_limits_are_not_in_the_key(project: Project) -> None:
    build(project, "RUN echo hello > /o\n", "--memory=64m", "--cpus=1", "--cpu-shares=512", "--pids-limit=50")

    again = project.built("--memory=65m", "--step-timeout=1m")

    assert outcome(again, "RUN") == "CACHED"


@pytest.mark.usefixtures("cgroups")
def test_a_command_runs_on_the_cpus_that_it_is_given_and_sees_no_cgroup_of_the_host(project: Project) -> None:
    image = build(
        project,
        "RUN grep Cpus_allowed_list /proc/self/status > /o; cut -d: -f3 /proc/self/cgroup | sort -u >> /o\n",
        "--cpuset-cpus=0",
        "--cpus=0.5",
    )

    assert image.files["o"] == b"Cpus_allowed_list:\t0\n/\n"


@pytest.mark.usefixtures("cgroups")
def test_a_parent_is_made_and_stays(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nRUN echo started; sleep 76572\n"})
    name = f"tests-of-pybuild-{os.getpid()}"
    folders = [TOP / controller / name / "deep" for controller in ("memory", "pids")]
    build = project.start(f"--cgroup-parent=/{name}/deep", "--memory=64m", "--pids-limit=50")
    try:
        assert soon(lambda: len(running("76572")) == 1)
        assert all(any(folder.glob("pybuild-*")) for folder in folders if folder.exists())
        build.send_signal(signal.SIGINT)
        build.communicate(timeout=60)
        assert left() == []
    finally:
        build.kill()
        for folder in [*folders, *(folder.parent for folder in folders)]:
            folder.rmdir()


@pytest.mark.usefixtures("cgroups")
def test_what_a_killed_build_left_is_swept_by_the_next(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nRUN echo started; sleep 76573\n"})
    build = project.start("--memory=64m")
    assert soon(lambda: len(running("76573")) == 1)

    os.killpg(build.pid, signal.SIGKILL)
    build.communicate(timeout=60)
    assert soon(lambda: running("76573") == [])
    found = left()
    project.write({"Dockerfile": "FROM busybox\nRUN true\n"})
    project.built("--memory=64m")

    assert found
    assert left() == []


def test_limits_without_the_right_to_set_them_are_refused_before_any_work(project_of: ProjectOf) -> None:
    project = project_of(users.RANGES)
    if (TOP / "cgroup.controllers").exists():
        pytest.skip("whether a user may limit depends on this machine's systemd: cgroups of version 2")

    result = fail(project, "RUN true", "--memory=64m")

    assert result.status == 8
    assert result.error.startswith("this place does not allow limits of memory: EACCES, permission denied")
    assert "only root can limit" in result.err
    assert "RUN" not in "".join(result.steps)


# --- the same for `pybuild run`


def ran(project: Project, *arguments: str) -> Result:
    """Run a command in an image of busybox."""
    build(project, "LABEL a=b\n")
    return pybuild("run", f"--root={project.root}", *arguments, cwd=project.place, user=project.user)


@EVERYONE
def test_a_command_in_an_image_finds_what_is_asked_for(project_of: ProjectOf, user: str) -> None:
    script = "tail -n 1 /etc/hosts; ulimit -n"

    result = ran(project_of(user), "--add-host=db:10.0.0.5", "--ulimit=nofile=100:200", "app", "sh", "-c", script)

    assert (result.status, result.out) == (0, "10.0.0.5\tdb\n100\n"), result.err


@pytest.mark.usefixtures("namespaces")
@EVERYONE
def test_a_command_in_an_image_has_as_much_shared_memory_as_asked(project_of: ProjectOf, user: str) -> None:
    result = ran(project_of(user), "--shm-size=10m", "app", "df", "-m", "/dev/shm")

    assert (result.status, result.out.splitlines()[-1].split()[1]) == (0, "10"), result.err


def test_a_changed_root_refuses_a_size_of_shared_memory_also_outside_of_builds(project: Project) -> None:
    result = ran(project, "--backend=chroot", "--shm-size=10m", "app", "true")

    assert result.status == 8
    assert result.error.startswith("the size of a folder in memory (tmpfs, /dev/shm) cannot be had here")


@pytest.mark.usefixtures("cgroups")
def test_a_command_in_an_image_has_the_limits_of_its_cgroup(project: Project) -> None:
    result = ran(project, "--memory=20m", "--memory-swap=20m", "app", "tail", "-c", "100000000", "/dev/zero")

    assert result.status == 137
    assert "WARNING: out of memory: at the limit of 20 MiB (--memory) the kernel killed a process\n" in result.err
    assert left() == []


# --- time


@EVERYONE
def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)

    result = fail(project, "RUN echo begun; (trap '' TERM; sleep 76574) & sleep 76574\nRUN true", "--step-timeout=1s")

    assert result.status == 5
    assert result.error == (
        "the command took longer than 1s and was killed: echo begun; (trap '' TERM; sleep 76574) & sleep 76574"
    )
    assert "   2 | >>> RUN echo begun" in result.err
    assert running("76574") == []
    assert os.listdir(project.root / "tmp") == []


def test_a_command_in_time_is_left_alone(project: Project) -> None:
    assert build(project, "RUN echo hello > /o\n", "--step-timeout=5m").files["o"] == b"hello\n"
