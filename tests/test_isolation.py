"""What a command can reach of the machine that it runs on, and what it leaves there, however it ends: nothing."""

import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import users
from boxes import EVERYONE, Box, Inside
from images import Project
from machine_code import DATA, PROCESSORS, Call, program
from processes import running, soon
from runs import BOMB, fail
from users import ROOT

from builder.sandbox import syscalls
from builder.sandbox.overlay import OverlayBackend
from builder.sandbox.process import Process
from builder.sandbox.seccomp import abi

pytestmark = pytest.mark.kernel

ProjectOf = Callable[[str], Project]
MACHINE = os.uname().machine
NUMBERS = {name: number for number, name in abi.ABIS[MACHINE][0].calls().items()}
SESSION = -3
"""KEY_SPEC_SESSION_KEYRING of linux/keyctl.h."""
KEYCTL_SEARCH = 10


# --- what it sees


@EVERYONE
def test_a_command_sees_no_process_but_its_own(inside: Inside, user: str) -> None:
    output = inside(user, lambda box: box.sh("cd /proc; echo [0-9]*; exec ls -d /proc/[0-9]*"))

    assert output.split() == ["1", "/proc/1"]


@EVERYONE
def test_a_command_sees_no_mount_but_those_of_a_step(inside: Inside, user: str) -> None:
    output = inside(
        user, lambda box: box.sh("while read a b c d place rest; do echo $place; done < /proc/self/mountinfo")
    )

    places = output.split()
    system = ("/proc", "/dev", "/sys")
    assert sorted(place for place in places if not place.startswith(tuple(f"{each}/" for each in system))) == [
        *("/", "/dev", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys"),
    ]
    devices = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
    of_host = set() if user == ROOT else devices  # root makes devices
    assert {place for place in places if place.startswith("/dev/")} == {"/dev/mqueue", "/dev/pts", "/dev/shm", *of_host}


@EVERYONE
def test_what_docker_masks_is_empty(inside: Inside, user: str) -> None:
    output = inside(
        user, lambda box: box.sh("cat /proc/kcore /proc/keys /proc/timer_list; ls /proc/acpi /sys/firmware")
    )

    assert "".join(line for line in output.splitlines() if not line.startswith(("/", "cat: ", "ls: "))) == ""


@EVERYONE
def test_the_old_way_out_of_a_chroot_leads_nowhere(inside: Inside, user: str) -> None:
    """Who stands outside of a new root can go up past it: here, to the root of the step's own mounts and no further."""

    def body(box: Box) -> list[int]:
        with open(f"{box.folder}/secret", "w", encoding="utf-8") as file:
            file.write("of the host")
        os.mkdir(f"{box.image}/deeper")
        data = b"deeper\0../../../../../../..\0"
        out = [(NUMBERS["chroot"], DATA), (NUMBERS["chdir"], DATA + 7), (NUMBERS["chroot"], DATA + 7)]
        statuses = []
        for path in (f"{box.folder}/secret", "/bin/busybox"):
            calls = [*out, (NUMBERS["openat"], 0, DATA + len(data), 0, 0)]
            executable(f"{box.image}/bin/escape", *calls, data=data + os.fsencode(path) + b"\0")
            statuses.append(box.run("/bin/escape")[0].status)
        return statuses

    secret, busybox = inside(user, body)

    assert secret == errno.ENOENT
    assert busybox > 200  # a descriptor


def executable(path: str, *calls: Call, data: bytes) -> None:
    """Write a program that makes the calls; its exit status is the errno of the last one, or above 200 if it worked."""
    with open(path, "wb") as file:
        file.write(program(PROCESSORS[MACHINE], *calls, data=data))
    os.chmod(path, 0o755)


def test_a_command_has_a_session_keyring_of_its_own(inside: Inside) -> None:
    """That of the person may hold what opens their other doors."""

    def body(box: Box) -> tuple[int, int]:
        syscalls.new_session_keyring()
        libc = ctypes.CDLL(None)
        assert libc.syscall(NUMBERS["add_key"], b"user", b"token", b"secret", 6, SESSION) > 0
        backend = OverlayBackend()
        backend.enter()
        search = (NUMBERS["keyctl"], KEYCTL_SEARCH, SESSION & 0xFFFFFFFF, DATA, DATA + 5)
        executable(f"{box.image}/bin/search", search, data=b"user\0token\0")
        with open(f"{box.image}/bin/search", "rb") as file:
            ours = os.spawnv(os.P_WAIT, f"/proc/self/fd/{file.fileno()}", ["search"])
        step = backend.run(Process(("/bin/search",), seccomp=False), box.spec(), lambda _: None)
        backend.close()
        return ours, step.status

    ours, step = inside(ROOT, body)

    assert ours != errno.ENOKEY
    assert step == errno.ENOKEY


# --- what it leaves


def mounts_of(place: Path) -> list[str]:
    """The processes of this machine that see mounts with this path in them."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/mountinfo", encoding="utf-8") as file:
            if str(place) in file.read():
                found.append(name)
    return found


STUBBORN = "setsid sh -c \"trap '' TERM INT HUP; sleep {0} & sleep {0}\" & trap '' TERM INT HUP; sleep {0}"


@EVERYONE
def test_what_ignores_every_signal_ends_with_the_build(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    project.write({"Dockerfile": f"FROM busybox\nRUN {STUBBORN.format(76581)}\n"})
    build = project.start()
    assert soon(lambda: len(running("76581")) == 3)

    os.killpg(build.pid, signal.SIGINT)  # as the terminal does for Ctrl-C
    build.communicate(timeout=60)

    assert build.returncode == 130
    assert running("76581") == []
    assert mounts_of(project.root) == []
    assert os.listdir(project.root / "tmp") == []


@EVERYONE
def test_a_build_that_is_killed_leaves_nothing_that_the_next_does_not_sweep(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    project.write({"Dockerfile": f"FROM busybox\nRUN touch /new; {STUBBORN.format(76582)}\n"})
    build = project.start()
    assert soon(lambda: len(running("76582")) == 3)

    build.kill()
    build.communicate(timeout=60)

    assert soon(lambda: running("76582") == [])
    assert soon(lambda: mounts_of(project.root) == [])
    project.write({"Dockerfile": "FROM busybox\nRUN true\n"})
    project.built()
    assert os.listdir(project.root / "tmp") == []


@EVERYONE
def test_a_daemon_ends_with_the_command_that_left_it(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    project.write({"Dockerfile": "FROM busybox\nRUN setsid sh -c \"trap '' TERM HUP; sleep 76583\" & echo left > /o\n"})

    project.built()

    assert running("76583") == []
    assert project.image().files["o"] == b"left\n"


@pytest.mark.parametrize("user", [users.RANGES, users.SINGLE])
def test_a_fork_bomb_of_a_user_ends_at_its_ulimit(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    result = fail(project, f"RUN {BOMB.format(76584)}", "--ulimit=nproc=30", "--step-timeout=60s")

    assert result.error.startswith("the command ended with exit status 7")
    assert "can't fork" in result.err
    assert running("76584") == []
    assert os.listdir(project.root / "tmp") == []
