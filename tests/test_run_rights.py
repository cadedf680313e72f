"""RUN with here-documents that are executed, with networks, and with rights that have to be allowed."""

import os
from collections.abc import Callable

import pytest
import users
from images import Project
from runs import build, fail, paths

pytestmark = pytest.mark.kernel

EVERYONE = pytest.mark.parametrize("user", [users.ROOT, users.RANGES, users.SINGLE])
WITH_IDS = pytest.mark.parametrize("user", [users.ROOT, users.RANGES])
ProjectOf = Callable[[str], Project]


# --- here-documents that are executed


@EVERYONE
def test_a_script_is_executed_by_its_interpreter_and_leaves_no_trace(project_of: ProjectOf, user: str) -> None:
    image = build(
        project_of(user),
        'ENV X=env\nRUN <<EOF\n#!/bin/awk -f\nBEGIN { print ENVIRON["X"] > "/o" }\nEOF\n'
        "RUN <<SCRIPT\n#!/bin/sh\necho $0 > /p; stat -c '%a %u' $0 >> /p; ls /dev/pipes >> /p\nSCRIPT\n",
    )

    assert image.files["o"] == b"env\n"
    assert image.files["p"] == b"/dev/pipes/SCRIPT\n755 0\nSCRIPT\n"
    assert paths(image) == {"p"}


@pytest.mark.usefixtures("namespaces")
def test_a_script_cannot_be_written(project: Project) -> None:
    image = build(project, "RUN <<EOF\n#!/bin/sh\necho >> $0 || echo ro > /o\nEOF\n")

    assert image.files["o"] == b"ro\n"


def test_another_script_is_another_step(project: Project) -> None:
    build(project, "RUN <<EOF\n#!/bin/sh\necho 1 > /o\nEOF\n")

    image = build(project, "RUN <<EOF\n#!/bin/sh\necho 2 > /o\nEOF\n")

    assert image.files["o"] == b"2\n"


# --- network and security


@pytest.mark.usefixtures("namespaces")
@EVERYONE
def test_a_build_without_network_has_only_loopback(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)

    image = build(
        project,
        "RUN ls /sys/class/net > /o\nRUN --network=host ls /sys/class/net > /p\n",
        "--network=none",
        "--allow=network.host",
    )

    assert image.files["o"] == b"lo\n"
    assert image.files["p"].split() == [name.encode() for name in sorted(os.listdir("/sys/class/net"))]


def test_the_network_of_the_host_is_refused_until_it_is_allowed(project: Project) -> None:
    result = fail(project, "RUN --network=host true")

    assert result.status == 3
    assert result.error == "network.host is not allowed"
    assert "--allow network.host" in result.err
    project.built("--network=host")


@pytest.mark.usefixtures("namespaces")
def test_an_insecure_command_has_all_capabilities_and_sees_everything(project: Project) -> None:
    text = (
        "grep -E 'CapEff|Seccomp:' /proc/self/status > /o; touch /sys/x 2>> /o; ls /proc/acpi | wc -l >> /o;"
        " mkdir /mnt; mount -t tmpfs none /mnt && echo mounted >> /o"
    )
    with open("/proc/self/status", encoding="ascii") as file:
        held = next(line for line in file if line.startswith("CapEff"))

    refused = fail(project, f"RUN --security=insecure {text}")
    image = build(project, f"RUN --security=insecure {text}", "--allow=security.insecure")

    lines = image.files["o"].decode().splitlines(keepends=True)
    assert refused.error == "security.insecure is not allowed"
    assert lines[:2] == [held, "Seccomp:\t0\n"]
    assert "Read-only" not in image.files["o"].decode()
    assert lines[-1] == "mounted\n"


def test_a_right_that_nobody_knows_is_refused(project: Project) -> None:
    result = fail(project, "RUN true", "--allow=network.hosts")

    assert result.status == 2
    assert "did you mean network.host?" in result.err
