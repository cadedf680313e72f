"""Secrets and SSH agents that a build lends to RUN: who can use them, and where they never are."""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import users
from images import Project
from processes import running
from runs import build, fail, paths

pytestmark = pytest.mark.kernel

EVERYONE = pytest.mark.parametrize("user", [users.ROOT, users.RANGES, users.SINGLE])
WITH_IDS = pytest.mark.parametrize("user", [users.ROOT, users.RANGES])
ProjectOf = Callable[[str], Project]


# --- secrets


SECRET = "correct horse battery staple"


def everywhere(folder: Path) -> Iterator[bytes]:
    for parent, _, files in os.walk(folder):
        for path in (Path(parent, name) for name in files):
            if path.is_file():  # what a device or a pipe gives is on no disk
                yield path.read_bytes()


@EVERYONE
def test_a_secret_is_a_file_of_roots_alone_and_a_variable(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)

    image = build(
        project,
        "RUN --mount=type=secret,id=s wc -c < /run/secrets/s > /o; stat -c '%a %u:%g' /run/secrets/s >> /o\n"
        "RUN --mount=type=secret,id=s,env=S,target=/x/y echo ${#S} > /p; wc -c < /x/y >> /p\n"
        "RUN --mount=type=secret,id=s,env=S ls /run/secrets > /q 2>&1; echo ${#S} >> /q\n",
        "--secret=id=s,env=TOKEN",
        TOKEN=SECRET,
    )

    assert image.files["o"] == b"28\n400 0:0\n"
    assert image.files["p"] == b"28\n28\n"
    assert image.files["q"] == b"ls: /run/secrets: No such file or directory\n28\n"
    assert paths(image) == {"q"}


@pytest.mark.usefixtures("namespaces")
@EVERYONE
def test_a_secret_cannot_be_written(project_of: ProjectOf, user: str) -> None:
    run = "RUN --mount=type=secret,id=s echo x >> /run/secrets/s || echo kept > /o\n"

    image = build(project_of(user), run, "--secret=id=s,env=TOKEN", TOKEN=SECRET)

    assert image.files["o"] == b"kept\n"


@WITH_IDS
def test_a_secret_has_the_owner_and_mode_that_it_asks_for(project_of: ProjectOf, user: str) -> None:
    image = build(
        project_of(user),
        "USER 33\nRUN --mount=type=secret,id=s,uid=33,gid=7,mode=0440 stat -c '%a %u:%g' /run/secrets/s > /tmp/o",
        "--secret=id=s,env=TOKEN",
        TOKEN=SECRET,
    )

    assert image.files["tmp/o"] == b"440 33:7\n"


def test_a_secret_for_somebody_else_can_be_read_with_a_single_id(project_of: ProjectOf) -> None:
    """Whose it is cannot be seen: nothing can be noted on a file in memory."""
    image = build(
        project_of(users.SINGLE),
        "USER 33\nRUN --mount=type=secret,id=s,uid=33,gid=7 cat /run/secrets/s > /tmp/o",
        "--secret=id=s,env=TOKEN",
        TOKEN=SECRET,
    )

    assert image.files["tmp/o"] == SECRET.encode()


def test_no_byte_of_a_secret_reaches_the_disk_or_the_output(project: Project) -> None:
    project.write(
        {
            "Dockerfile": "FROM busybox\n"
            "RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S [ ${#S} = 28 ] && cat /run/secrets/s | wc -c\n"
            "RUN --mount=type=secret,id=s,env=S echo up; false\n"
        }
    )

    result = project.build("--secret=id=s,env=TOKEN", TOKEN=SECRET)

    assert result.status == 5, result.err
    assert SECRET not in result.err + result.out
    assert not [data for data in everywhere(project.root) if SECRET.encode() in data]


def test_a_secret_is_on_no_disk_while_it_is_used(project: Project) -> None:
    project.write(
        {"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=s,required wc -c < /run/secrets/s; sleep 1\n"}
    )
    (project.place / "secret").write_text(SECRET)

    with project.start(f"--secret=id=s,src={project.place}/secret") as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.rstrip().endswith(" 28"))
        found = [data for data in everywhere(project.root) if SECRET.encode() in data]
        process.communicate()

    assert process.returncode == 0
    assert found == []


def test_a_secret_that_was_not_given_is_no_file_and_an_empty_variable(project: Project) -> None:
    image = build(
        project,
        'ENV S=image\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s echo "[$S]" ${S-unset} > /o;'
        " ls /run/secrets >> /o 2>&1 || true",
    )

    assert image.files["o"] == b"[]\nls: /run/secrets: No such file or directory\n"


def test_a_required_secret_that_was_not_given_ends_the_build(project: Project) -> None:
    result = fail(project, "RUN --mount=type=secret,id=s,required true")

    assert result.status == 2
    assert result.error == "secret s: not found"
    assert "--secret id=s,src=FILE" in result.err
    assert "Dockerfile:2" in result.err


def test_a_secret_from_a_variable_that_is_not_set_is_empty_and_warned_of(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /o\n"})

    result = project.built("--secret=id=s,env=NOT_THERE")

    assert project.image().files["o"] == b"0\n"
    assert "the secret s is empty: the variable NOT_THERE is not set" in result.err


def test_steps_that_run_at_the_same_time_do_not_see_each_others_secrets(project: Project) -> None:
    wait = "for i in 1 2 3 4 5 6 7 8; do ls /run/secrets /proc/[0-9]*/environ; sleep 0.1; done"
    project.write(
        {
            "Dockerfile": "FROM busybox AS a\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s sleep 1\n"
            f"FROM busybox\nRUN ({wait}; cat /proc/*/environ) > /o 2>&1 || true\nCOPY --from=a /etc/passwd /a\n"
        }
    )

    project.built("--secret=id=s,env=TOKEN", TOKEN=SECRET)

    assert b"/run/secrets: No such file" in project.image().files["o"]
    assert SECRET.encode() not in project.image().files["o"]


# --- SSH


@contextmanager
def agent(project: Project) -> Iterator[str]:
    """An agent of the person's with one key; gives its socket. Agents answer to their own user only."""
    account = pwd.getpwnam(project.user)
    key = new_key(project)
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(project.place / "socket")],
        stdout=subprocess.PIPE,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=(),
    ) as process:
        try:
            socket = project.place / "socket"
            assert process.stdout
            process.stdout.readline()  # written once the agent listens
            subprocess.run(
                ["ssh-add", "-q", "-"], env={"SSH_AUTH_SOCK": str(socket)}, check=True, input=key.read_bytes()
            )
            yield str(socket)
        finally:
            process.terminate()


def new_key(project: Project, passphrase: str = "") -> Path:
    """A key in a file that all may read, as after many a checkout: ssh itself would refuse it."""
    path = project.place / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True)
    path.chmod(0o644)
    return path


def ask(project: Project, mount: str, question: str, *options: str, prelude: str = "", **variables: str) -> str:
    """What the person's own ssh-add says in a command."""
    tools = project.place / "tools"
    tools.mkdir()
    needed = subprocess.run(["ldd", "/usr/bin/ssh-add"], capture_output=True, text=True, check=True).stdout
    for path in ("/usr/bin/ssh-add", *re.findall(r"(/\S+) \(0x", needed)):
        shutil.copy(path, tools)
    linker = next(path.name for path in tools.iterdir() if path.name.startswith("ld-"))
    command = f"/tools/{linker} --library-path /tools /tools/ssh-add {question} > /tmp/o 2>&1"
    text = f"{prelude}RUN --mount={mount} --mount=from=tools,target=/tools {command} || true"
    image = build(project, text, f"--build-context=tools={tools}", *options, **variables)
    return image.files["tmp/o"].decode()


@EVERYONE
def test_an_agent_answers_a_command(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)

    with agent(project) as socket:
        answer = ask(project, "type=ssh", "-l", "--ssh=default", SSH_AUTH_SOCK=socket)

    assert "(ED25519)" in answer


@EVERYONE
def test_key_files_are_held_by_an_agent_of_ours(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    key = new_key(project)
    prelude = "USER 33\nENV SSH_AUTH_SOCK=/agent\n"

    answer = ask(project, "type=ssh,id=deploy,uid=33,target=/agent", "-l", f"--ssh=deploy={key}", prelude=prelude)

    assert "(ED25519)" in answer


def test_an_agent_is_closed_to_other_users(project: Project) -> None:
    key = new_key(project)

    answer = ask(project, "type=ssh", "-l", f"--ssh=default={key}", prelude="USER 33\n")

    assert "Permission denied" in answer


def test_an_agent_signs(project: Project) -> None:
    key = new_key(project)
    project.write({"key.pub": (project.place / "key.pub").read_bytes()})

    answer = ask(project, "type=ssh --mount=source=key.pub,target=/pub", "-T /pub", f"--ssh=default={key}")

    assert answer == ""


def test_an_agent_lets_nothing_be_changed(project: Project) -> None:
    with agent(project) as socket:
        answer = ask(project, "type=ssh", "-D", "--ssh=default", SSH_AUTH_SOCK=socket)
        listed = subprocess.run(["ssh-add", "-l"], env={"SSH_AUTH_SOCK": socket}, capture_output=True, check=True)

    assert answer == "Failed to remove all identities.\n"
    assert b"ED25519" in listed.stdout


def test_an_agent_that_was_not_given_leaves_a_variable_and_no_socket(project: Project) -> None:
    image = build(project, "RUN --mount=type=ssh echo $SSH_AUTH_SOCK > /o; ls $SSH_AUTH_SOCK || echo none >> /o")

    assert image.files["o"] == b"/run/buildkit/ssh_agent.0\nnone\n"
    assert paths(image) == {"o"}


def test_a_required_agent_that_was_not_given_ends_the_build(project: Project) -> None:
    result = fail(project, "RUN --mount=type=ssh,id=k,required true")

    assert result.status == 2
    assert result.error == 'no SSH key "k" forwarded from the client'


def test_a_key_with_a_passphrase_is_refused_with_a_way_out(project: Project) -> None:
    key = new_key(project, "secret")

    result = fail(project, "RUN --mount=type=ssh true", f"--ssh=default={key}")

    assert result.error == f"--ssh: the key {key} has a passphrase"
    assert "--ssh default" in result.err


def test_an_agent_of_ours_ends_with_the_build(project: Project) -> None:
    key = new_key(project)

    build(project, "RUN --mount=type=ssh true", f"--ssh=default={key}")

    assert running("agent") == []  # the socket that ours is told of
