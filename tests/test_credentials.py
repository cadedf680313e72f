"""--secret, --ssh, --network and --allow: what they lend and allow, and how each mistake is told."""

import argparse
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from builder.cli.run_options import add_run_options, allowed_by, credentials_of
from builder.credentials import Credentials, Secret, SshAgent
from builder.errors import UsageError


def given(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    return parser.parse_args(arguments)


def lent(*arguments: str, environment: Mapping[str, str] | None = None) -> Credentials:
    return credentials_of(given(*arguments), environment or {})


def error(*arguments: str, environment: Mapping[str, str] | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        lent(*arguments, environment=environment)
    return caught.value


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """A socket that could be an agent's."""
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        yield path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("id=s,src={file}", b"\0bytes\xff\n"),
        ("id=s,source={file}", b"\0bytes\xff\n"),
        ("ID=s,SRC={file},type=file", b"\0bytes\xff\n"),
        ("id=s,env=TOKEN", b"t\xc3\xb6ken"),
        ("id=s,type=env,src=TOKEN", b"t\xc3\xb6ken"),
        ("id=s,type=env,env=TOKEN", b"t\xc3\xb6ken"),
        ("id=s,env=EMPTY", b""),
    ],
)
def test_a_secret_is_read_from_a_file_or_a_variable(tmp_path: Path, text: str, value: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"\0bytes\xff\n")

    credentials = lent(f"--secret={text.format(file=file)}", environment={"TOKEN": "töken", "EMPTY": ""})

    assert credentials.secrets == {"s": Secret(value)}


def test_an_id_alone_is_a_variable_or_else_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "NAME").write_text("file")

    both = lent("--secret=id=NAME", environment={"NAME": "variable"}).secrets["NAME"]
    file = lent("--secret=id=NAME").secrets["NAME"]

    assert (both.value, file.value) == (b"variable", b"file")


def test_a_variable_that_is_not_set_is_noted() -> None:
    assert lent("--secret=id=s,env=GONE").secrets == {"s": Secret(b"", unset="GONE")}


def test_nothing_of_a_secret_shows_in_its_repr(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("private")

    credentials = lent("--secret=id=s,env=T", f"--ssh=k={key}", environment={"T": "hidden"})

    assert "hidden" not in repr(credentials)
    assert "private" not in repr(credentials)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src=x", "the id is missing"),
        ("", "the id is missing"),
        ("id=s,file=x", "unexpected key 'file'"),
        ("id=s,src", "invalid field 'src' must be a key=value pair"),
        ("id=s,type=vault,src=x", "unsupported secret type 'vault'"),
        ("id=s,src=/nowhere/secret", "/nowhere/secret cannot be read: no such file or directory"),
        ("id=s,src=/", "/ cannot be read: is a directory"),
        ("id=nowhere", "nowhere cannot be read: no such file or directory"),
    ],
)
def test_a_wrong_secret_is_told(text: str, message: str) -> None:
    assert message in error(f"--secret={text}").message


def test_a_secret_has_a_largest_size(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(bytes(500 * 1024))
    lent(f"--secret=id=s,src={file}")
    file.write_bytes(bytes(500 * 1024 + 1))

    assert "too big: at most 500 KiB" in error(f"--secret=id=s,src={file}").message


def test_the_agent_of_the_person_is_the_default(agent: str) -> None:
    credentials = lent("--ssh=default", "--ssh=other=", environment={"SSH_AUTH_SOCK": agent})

    assert credentials.agents == {"default": SshAgent(agent), "other": SshAgent(agent)}


def test_an_agent_is_a_socket_or_keys(tmp_path: Path, agent: str) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)

    credentials = lent(f"--ssh=one={agent}", f"--ssh=two={tmp_path}/a,{tmp_path}/b")

    assert credentials.agents == {
        "one": SshAgent(agent),
        "two": SshAgent(keys=((f"{tmp_path}/a", b"a"), (f"{tmp_path}/b", b"b"))),
    }


def test_wrong_agents_are_told(tmp_path: Path, agent: str) -> None:
    assert "no agent is there to forward" in error("--ssh=default").message
    assert "x is given twice" in error(f"--ssh=x={agent}", f"--ssh=x={agent}").message
    assert "a socket stands alone" in error(f"--ssh=x={agent},{agent}").message
    assert "no such file or directory" in error(f"--ssh=x={tmp_path}/gone").message


def test_what_is_allowed_may_come_in_one_option_or_in_several() -> None:
    both = frozenset({"network.host", "security.insecure"})

    assert allowed_by(given("--allow=network.host,security.insecure")) == both
    assert allowed_by(given("--allow=network.host", "--allow=security.insecure")) == both
    assert allowed_by(given()) == frozenset()


def test_the_network_of_the_host_for_all_allows_it_to_each() -> None:
    assert allowed_by(given("--network=host")) == {"network.host"}


def test_a_right_that_is_misspelt_is_told() -> None:
    with pytest.raises(UsageError) as caught:
        allowed_by(given("--allow=security.unsecure"))

    assert caught.value.hint == "did you mean security.insecure?"
