"""`pybuild doctor`: what it concludes from what it finds, and what it finds here."""

import json
from collections.abc import Callable
from dataclasses import replace

import confined
import pytest
import users
from grants import NAMESPACES, refusal
from images import Project, command, pybuild

from builder.doctor.diagnosis import Diagnosis, diagnose
from builder.doctor.machine import Machine, file_system
from builder.doctor.trials import Answer, Choice, Trials
from builder.sandbox.idmap import Way

MACHINE = Machine("me (uid 1000, gid 1000)", "", "6.1", "x86_64", "ext4", ("arm64",))
INSIDE = dict.fromkeys(("processes", "proc", "overlay", "network"), Answer())
OUTSIDE = dict.fromkeys(("chroot", "owners", "filter", "notify", "reflink"), Answer())
LIMITS = dict.fromkeys(("memory", "cpu", "pids"), Answer())
EVERYTHING = Trials(Choice("overlay"), Way.SUBORDINATE, "", Answer(), INSIDE, OUTSIDE, LIMITS)
EPERM, EINVAL, ENOSPC = Answer(1), Answer(22), Answer(28)


def judged(trials: Trials, machine: Machine = MACHINE) -> Diagnosis:
    return diagnose(machine, "/store", trials)


def finding(diagnosis: Diagnosis, name: str) -> tuple[bool, str]:
    (found,) = [each for each in diagnosis.findings if each.name == name]
    return found.fine, found.detail


def test_where_everything_works_there_is_nothing_to_advise() -> None:
    diagnosis = judged(EVERYTHING)

    assert (diagnosis.works, diagnosis.backend, diagnosis.advice) == (True, "overlay", ())
    assert all(each.fine for each in diagnosis.findings)


def test_without_namespaces_a_container_is_told_how_it_could_be_run() -> None:
    trials = replace(EVERYTHING, choice=Choice("chroot", "it is not isolated"), namespaces=EPERM, inside={})

    diagnosis = judged(trials, replace(MACHINE, container="docker"))

    assert (diagnosis.works, diagnosis.backend, diagnosis.reason) == (True, "chroot", "it is not isolated")
    assert finding(diagnosis, "namespaces") == (False, "EPERM, operation not permitted")
    assert any("seccomp=unconfined" in each for each in diagnosis.advice)


def test_without_namespaces_only_root_has_several_ids() -> None:
    """Root of a default container was told that it has not, beside the words that it has all ids of the container."""
    ways = (Way.CONTAINER_ROOT, Way.SUBORDINATE, Way.SINGLE)
    refused = replace(EVERYTHING, choice=Choice("chroot", "why"), namespaces=EPERM, inside={})

    each = [judged(replace(refused, way=way)) for way in ways]

    assert [finding(diagnosis, "several ids")[0] for diagnosis in each] == [True, False, False]


def test_where_no_back_end_can_be_had_nothing_works() -> None:
    diagnosis = judged(replace(EVERYTHING, choice=Choice("", "no way"), namespaces=EPERM, inside={}))

    assert (diagnosis.works, diagnosis.reason) == (False, "no way")


def test_namespaces_without_those_of_processes_are_no_use() -> None:
    """A build gets in all the same, and its first command fails: `user.max_pid_namespaces` may be 0."""
    diagnosis = judged(replace(EVERYTHING, inside=INSIDE | {"processes": ENOSPC}))

    assert not diagnosis.works
    assert "ENOSPC" in diagnosis.reason


def test_a_single_id_is_told_how_to_get_more() -> None:
    diagnosis = judged(replace(EVERYTHING, way=Way.SINGLE, lacks="/etc/subuid has no line for this user"))

    assert diagnosis.works
    assert finding(diagnosis, "several ids") == (False, "one id alone: /etc/subuid has no line for this user")
    assert any("usermod" in each for each in diagnosis.advice)


def test_a_store_that_cannot_carry_an_overlay_is_told_to_move() -> None:
    machine = replace(MACHINE, file_system="nfs4")

    diagnosis = judged(replace(EVERYTHING, inside=INSIDE | {"overlay": EINVAL}), machine)

    assert finding(diagnosis, "overlay") == (False, "on nfs4; EINVAL, invalid argument")
    assert any("this is nfs4" in each and "--root" in each for each in diagnosis.advice)


def test_what_limits_there_are_is_told_and_what_is_in_the_way_of_others() -> None:
    diagnosis = judged(replace(EVERYTHING, limits=LIMITS | {"cpu": Answer(1, "ask systemd")}))

    assert diagnosis.works
    assert finding(diagnosis, "limits") == (False, "of memory, pids; none of cpu")
    assert diagnosis.advice == ("for limits of RUN: ask systemd",)


@pytest.mark.parametrize(
    ("folder", "expected"), [("/", "ext4"), ("/home", "ext4"), ("/var/lib", "xfs"), ("/var/library", "ext4")]
)
def test_the_file_system_is_that_of_the_nearest_mount(folder: str, expected: str) -> None:
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /var/lib rw - tmpfs x rw\n"
        "3 1 0:6 / /var/lib rw shared:1 - xfs /dev/sdb rw\n"
    )

    assert file_system(folder, mounts) == expected


def back_end_here() -> str:
    return "chroot" if refusal(NAMESPACES, users.ROOT) else "overlay"


@pytest.mark.kernel
@pytest.mark.parametrize("user", [users.ROOT, users.RANGES, users.SINGLE])
def test_it_finds_out_what_builds_find_out_and_leaves_no_trace(project_of: Callable[[str], Project], user: str) -> None:
    project = project_of(user)
    before = sorted(project.place.rglob("*"))

    result = pybuild("doctor", "--json", f"--root={project.root}", cwd=project.place, user=user)

    found = json.loads(result.out)
    assert (result.status, found["works"], found["backend"]) == (0, True, back_end_here())
    ids = next(each["fine"] for each in found["findings"] if each["name"] == "several ids")
    assert ids == (user != users.SINGLE)
    assert sorted(project.place.rglob("*")) == before


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("rights", "status", "backend", "reason"),
    [
        (confined.AS_CONTAINER_ROOT, 0, "chroot", "RUN is not isolated"),
        ("nobody", 8, "", "nothing here can run commands: this place does not allow a sandbox as single id: EPERM"),
    ],
)
def test_the_back_end_is_that_of_a_build_here(
    project_of: Callable[[str], Project], rights: str, status: int, backend: str, reason: str
) -> None:
    """It had trials of its own, and could have named another one than a build got."""
    project = project_of(users.SINGLE if rights == "nobody" else users.ROOT)
    asked = command("doctor", "--json", f"--root={project.root}")

    result = confined.run(project, confined.as_nobody_special() if rights == "nobody" else rights, asked)

    found = json.loads(result.out)
    assert (result.status, found["backend"]) == (status, backend)
    assert found["reason"].startswith(reason)


@pytest.mark.kernel
def test_it_is_told_what_builds_are_told(project: Project) -> None:
    result = pybuild("doctor", "--json", f"--root={project.root}", "--backend=none", cwd=project.place)

    assert result.status == 8
    assert json.loads(result.out)["reason"] == "RUN is not possible with --backend=none"


@pytest.mark.kernel
def test_it_is_written_for_people(project: Project) -> None:
    result = pybuild("doctor", f"--root={project.root}", cwd=project.place)

    assert result.status == 0
    first, why = {
        "overlay": ("  yes  namespaces\n", "namespaces and overlays work, with ids as root."),
        "chroot": ("  no   namespaces       EPERM, operation not permitted\n", "RUN is not isolated: "),
    }[back_end_here()]
    assert f"What RUN can have:\n{first}" in result.out
    assert f"RUN works, with the back-end {back_end_here()}: {why}" in result.out
