"""Which back-end a build gets, and what becomes of builds where commands cannot run."""

import argparse
from pathlib import Path

import confined
import pytest
import users
from grants import demand_reach
from images import Project

from builder.cli.run_options import backend_of
from builder.errors import UsageError
from builder.sandbox.probe import probe_chroot

kernel = pytest.mark.kernel

RUN = "FROM busybox\nCOPY a /a\nRUN cat /a /a > /b\n"
NO_RUN = "FROM busybox AS one\nCOPY a /a\nFROM busybox\nWORKDIR /w\nCOPY --from=one --chown=33 /a b\nENV X=1\n"


@pytest.mark.parametrize(
    ("option", "variable", "name"), [("", "", "auto"), ("", "chroot", "chroot"), ("none", "chroot", "none")]
)
def test_the_option_goes_before_the_variable(option: str, variable: str, name: str) -> None:
    assert backend_of(argparse.Namespace(backend=option), {"PYBUILD_BACKEND": variable}) == name


def test_an_unknown_back_end_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        backend_of(argparse.Namespace(backend="docker"), {})

    assert caught.value.hint == "there are auto, overlay, chroot, none"


@kernel
def test_root_of_a_default_container_gets_a_changed_root(project: Project) -> None:
    project.write({"a": "A", "Dockerfile": RUN})

    result = confined.build(project, confined.AS_CONTAINER_ROOT)

    assert result.status == 0, result.err
    assert "WARNING: RUN is not isolated" in result.err
    assert project.image().files["b"] == b"AA"


@kernel
def test_where_no_command_can_run_nothing_is_done(project: Project) -> None:
    project.write({"a": "A", "Dockerfile": RUN})
    user = project_of_single(project)

    result = confined.build(user, confined.as_nobody_special())

    assert result.status == 8
    assert result.error.startswith("nothing here can run commands: ")
    assert result.error.count("EPERM, operation not permitted") == 2
    assert ">>> RUN cat" in result.err
    assert "seccomp" in result.err or "security module" in result.err
    assert result.steps == {}
    assert not any(project.root.glob("trees/*"))


@kernel
def test_what_is_in_the_cache_needs_no_back_end(project: Project) -> None:
    project.write({"a": "A", "Dockerfile": RUN})
    project.built()
    before = project.image().id

    result = project.built("--backend=none")

    assert set(result.steps.values()) == {"CACHED"}
    assert project.image().id == before


@kernel
def test_without_commands_no_back_end_is_needed(project: Project) -> None:
    project.write({"a": "A", "Dockerfile": NO_RUN})
    user = project_of_single(project)

    result = confined.build(user, confined.as_nobody_special())

    assert result.status == 0, result.err
    assert [item[:5] for item in project.image().layers[-1]] == [("w", "5", 0o755, 0, 0), ("w/b", "0", 0o644, 33, 33)]


def test_none_refuses_commands_before_anything_is_done(project: Project) -> None:
    project.write({"a": "A", "Dockerfile": RUN})

    result = project.build("--backend=none")

    assert (result.status, result.steps) == (8, {})
    assert result.error == "RUN is not possible with --backend=none"
    assert ">>> RUN cat" in result.err


@kernel
def test_a_user_cannot_force_a_changed_root(project: Project) -> None:
    project.write({"a": "A", "Dockerfile": RUN})
    user = project_of_single(project)

    result = user.build("--backend=chroot")

    assert (result.status, result.error) == (8, "chroot: EPERM, operation not permitted")


@kernel
@pytest.mark.parametrize(
    ("flag", "options", "what"),
    [
        ("--network=none", (), "--network=none"),
        ("--security=insecure", ("--allow=security.insecure",), "--security=insecure"),
        ("--mount=type=tmpfs,target=/t,size=1m", (), "the size of a folder in memory (tmpfs, /dev/shm)"),
        ("", ("--shm-size=1m",), "the size of a folder in memory (tmpfs, /dev/shm)"),
    ],
)
def test_what_a_changed_root_cannot_give_is_refused_at_its_line(
    project: Project, flag: str, options: tuple[str, ...], what: str
) -> None:
    project.write({"Dockerfile": f"FROM busybox\nWORKDIR /x\nRUN {flag} true\n"})

    result = project.build("--backend=chroot", *options)

    assert (result.status, result.steps) == (8, {})
    assert result.error.startswith(f"{what} cannot be had here")
    assert f">>> RUN {flag}" in result.err


@kernel
def test_a_changed_root_is_tried_in_the_store_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipelines stand in checkouts that are mounted read-only: the probe wrote there, and gave the place up."""
    monkeypatch.chdir("/proc")

    assert probe_chroot(str(tmp_path)) is None


def project_of_single(project: Project) -> Project:
    """The same project, for a user who has nothing but an id."""
    users.users()
    demand_reach(users.SINGLE)
    users.hand_over(project.place, users.SINGLE)
    return Project(project.place, project.base, users.SINGLE)


@kernel
def test_reading_a_secret_in_a_changed_root_changes_no_folder(project: Project) -> None:
    """Each reader gets a new pipe; the folder that it is put into was in the layer then."""
    run = (
        "RUN --mount=type=secret,id=t,target=/etc/token sleep 1 && cat /etc/token > /dev/null && cat /etc/token | wc -c"
    )
    project.write({"Dockerfile": f"FROM busybox\n{run} > /size\n"})

    project.built("--backend=chroot", "--secret=id=t,env=T", T="secret")

    paths = {item.path for item in project.image().layers[-1]}
    assert "size" in paths
    assert "etc" not in paths
