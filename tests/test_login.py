"""`login`, `logout`, and where logins come from: files of two families, helpers, the command line, the environment."""

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from registries import PASSWORD, USER, FakeRegistry, Reply, basic, stored, write_config

from builder.cli.arguments import Parser, add_store_options
from builder.cli.main import main
from builder.cli.registries import add_login_options, registry_settings
from builder.cli.world import World
from builder.errors import UsageError
from layers.registry.auth_file import AuthFile
from layers.registry.credentials import Logins
from layers.registry.errors import RegistryError
from layers.registry.login import Login
from layers.registry.settings import GivenLogin, RegistrySettings

HUB = "https://index.docker.io/v1/"


class Person:
    """Somebody with a home, an environment and a keyboard."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
        self.out, self.err = io.StringIO(), io.StringIO()
        self._monkeypatch = monkeypatch

    def run(self, *arguments: str, typed: str = "") -> int:
        """One command; what is typed is on standard input, which is no terminal."""
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        return main(arguments, self.world)

    @property
    def world(self) -> World:
        return World(self.environment, self.out, self.err)

    @property
    def config(self) -> Path:
        return self.home / ".docker" / "config.json"

    def settings(self, *arguments: str, places: tuple[str, ...] = ()) -> RegistrySettings:
        """What a command that is given these options knows of registries."""
        parser = Parser(prog="tests", description="")
        add_login_options(parser)
        add_store_options(parser)
        return registry_settings(parser.parse_args(arguments), self.world, places=places)

    def login(self, host: str, repository: str = "", *arguments: str) -> Login:
        return Logins(self.settings(*arguments, places=(host,))).of(host, repository)

    def helper(self, name: str) -> Path:
        """A credential helper that keeps logins in a file, which is given."""
        folder, kept = self.home / "bin", self.home / f"{name}.json"
        folder.mkdir(exist_ok=True)
        program = folder / f"docker-credential-{name}"
        program.write_text(f"#!{sys.executable}\n{HELPER.format(path=str(kept))}")
        program.chmod(0o755)
        self.environment["PATH"] = f"{folder}:{self.environment['PATH']}"
        self._monkeypatch.setenv("PATH", self.environment["PATH"])
        return kept


HELPER = """
import json, pathlib, sys
path = pathlib.Path({path!r})
kept = json.loads(path.read_text()) if path.exists() else {{}}
question = sys.stdin.read()
if sys.argv[1] == "store":
    login = json.loads(question)
    kept[login["ServerURL"]] = login
elif question.strip() not in kept:
    sys.exit("credentials not found in native keychain" if print("credentials not found in native keychain") else 1)
elif sys.argv[1] == "get":
    print(json.dumps(kept[question.strip()]))
else:
    del kept[question.strip()]
path.write_text(json.dumps(kept))
"""


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(tmp_path, monkeypatch)


@pytest.fixture(params=["basic", "bearer"])
def fake(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    """A registry that knows ann."""
    with FakeRegistry(auth=request.param) as registry:
        yield registry


# --- login


def test_a_login_is_tried_and_kept(person: Person, fake: FakeRegistry) -> None:
    status = person.run("login", "-u", USER, "--password-stdin", fake.host, typed=PASSWORD + "\n")

    assert status == 0
    assert json.loads(person.config.read_text()) == {"auths": {fake.host: stored()}}
    assert person.login(fake.host) == Login(USER, PASSWORD)
    assert person.out.getvalue() == f"logged in to {fake.host}\n"


def test_a_wrong_login_is_not_kept(person: Person, fake: FakeRegistry) -> None:
    status = person.run("login", "-u", USER, "--password-stdin", fake.host, typed="old")

    assert status == 6
    assert "refuses the login" in person.err.getvalue()
    assert not person.config.exists()


def test_a_password_is_shown_nowhere(person: Person, fake: FakeRegistry) -> None:
    for password in (PASSWORD, PASSWORD + "x"):
        person.run("login", "-u", USER, "--password-stdin", fake.host, typed=password)

    shown = person.out.getvalue() + person.err.getvalue()
    assert PASSWORD not in shown
    assert stored()["auth"] not in shown


def test_the_file_is_for_nobody_else_and_keeps_what_it_had(person: Person, fake: FakeRegistry) -> None:
    write_config(person.config.parent, auths={"other.example": stored("x", "y")}, psFormat="table")

    person.run("login", "-u", USER, "--password-stdin", fake.host, typed=PASSWORD)

    kept = json.loads(person.config.read_text())
    assert kept == {"auths": {"other.example": stored("x", "y"), fake.host: stored()}, "psFormat": "table"}
    assert person.config.stat().st_mode & 0o777 == 0o600
    assert os.listdir(person.config.parent) == ["config.json"]


def test_a_file_that_is_a_link_stays_one(person: Person, fake: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    person.config.parent.mkdir()
    person.config.symlink_to(tmp_path / "real.json")

    person.run("login", "-u", USER, "--password-stdin", fake.host, typed=PASSWORD)

    assert person.config.is_symlink()
    assert fake.host in (tmp_path / "real.json").read_text()


def test_a_helper_keeps_what_it_is_configured_for(person: Person, fake: FakeRegistry) -> None:
    kept = person.helper("vault")
    write_config(person.config.parent, credsStore="vault")

    person.run("login", "-u", USER, "--password-stdin", fake.host, typed=PASSWORD)

    assert json.loads(kept.read_text())[fake.host]["Secret"] == PASSWORD
    assert json.loads(person.config.read_text())["auths"] == {fake.host: {}}
    assert person.login(fake.host) == Login(USER, PASSWORD)


def test_a_helper_that_is_missing_is_an_error_of_the_login(person: Person, fake: FakeRegistry) -> None:
    write_config(person.config.parent, credHelpers={fake.host: "none"})

    status = person.run("login", "-u", USER, "--password-stdin", fake.host, typed=PASSWORD)

    assert status == 6
    assert "docker-credential-none" in person.err.getvalue()


def test_a_login_may_be_for_a_namespace(person: Person, fake: FakeRegistry) -> None:
    person.run("login", "-u", USER, "--password-stdin", f"{fake.host}/team", typed=PASSWORD)

    assert person.login(fake.host, "team/app") == Login(USER, PASSWORD)
    assert person.login(fake.host, "other/app") == person.login(fake.host) == Login()


def test_a_registry_may_be_written_as_a_url(person: Person, fake: FakeRegistry) -> None:
    person.run("login", "-u", USER, "--password-stdin", f"https://{fake.host}/v2/", typed=PASSWORD)

    assert person.login(fake.host) == Login(USER, PASSWORD)


def test_a_registry_for_everybody_is_told(person: Person) -> None:
    with FakeRegistry() as fake:
        person.run("login", "-u", USER, "--password-stdin", fake.host, typed=PASSWORD)

    assert f"{fake.host} asked for no login" in person.err.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-u", USER, "-p", "x", "--password-stdin"], "exclude each other"),
        (["--password-stdin"], "needs --username"),
        (["-u", USER, "--password-stdin"], "must not be empty"),
        (["-u", USER], "nobody to ask"),
        ([], "nobody to ask"),
        (["https://"], "is not a registry"),
    ],
)
def test_a_login_that_cannot_be_is_a_wrong_command_line(person: Person, arguments: list[str], words: str) -> None:
    assert person.run("login", *arguments) == 2
    assert words in person.err.getvalue()


def test_authfile_and_its_variable_say_where_logins_are(person: Person, fake: FakeRegistry, tmp_path: Path) -> None:
    person.environment["REGISTRY_AUTH_FILE"] = str(tmp_path / "a.json")

    person.run("login", "-u", USER, "-p", PASSWORD, fake.host)
    person.run("login", "-u", USER, "-p", PASSWORD, "--authfile", str(tmp_path / "b.json"), fake.host)

    assert fake.host in (tmp_path / "a.json").read_text()
    assert fake.host in (tmp_path / "b.json").read_text()
    assert not person.config.exists()
    assert person.login(fake.host) == Login(USER, PASSWORD)


# --- logout


def test_a_logout_removes_the_login(person: Person) -> None:
    write_config(person.config.parent, auths={"a.example": stored(), "b.example": stored()})

    assert person.run("logout", "a.example") == 0

    assert json.loads(person.config.read_text()) == {"auths": {"b.example": stored()}}


def test_a_logout_of_docker_hub_knows_its_key(person: Person) -> None:
    write_config(person.config.parent, auths={HUB: stored()})

    person.run("logout")

    assert person.login("docker.io") == Login()


def test_a_logout_erases_what_the_helper_has(person: Person) -> None:
    kept = person.helper("vault")
    kept.write_text(json.dumps({"a.example": {"Username": "x", "Secret": "y"}}))
    write_config(person.config.parent, auths={"a.example": {}}, credsStore="vault")

    person.run("logout", "a.example")

    assert json.loads(kept.read_text()) == {}
    assert json.loads(person.config.read_text())["auths"] == {}


def test_a_login_that_is_elsewhere_too_is_told(person: Person) -> None:
    write_config(person.config.parent, auths={"a.example": stored()})
    auth = person.home / ".config" / "containers" / "auth.json"
    auth.parent.mkdir(parents=True)
    auth.write_text(json.dumps({"auths": {"a.example": stored()}}))

    person.run("logout", "a.example")

    assert "still logged in" in person.err.getvalue()


def test_a_logout_without_a_login_is_no_error(person: Person) -> None:
    assert person.run("logout", "a.example") == 0
    assert "there was no login" in person.out.getvalue()


# --- where logins come from


def write_auth(path: Path, auths: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths}))


def test_logins_of_podman_are_used(person: Person, tmp_path: Path) -> None:
    person.environment["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    write_auth(tmp_path / "run/containers/auth.json", {"a.example": stored("run", "1")})
    write_auth(tmp_path / ".config/containers/auth.json", {"a.example": stored("home", "1"), "b.example": stored()})

    assert person.login("a.example").username == "run"
    assert person.login("b.example").username == USER


def test_the_longest_namespace_wins(person: Person) -> None:
    auths = {
        "a.example": stored("host", "1"),
        "a.example/team": stored("team", "1"),
        "a.example/team/app": stored("app", "1"),
        "a.example/te": stored("te", "1"),
    }
    write_config(person.config.parent, auths=auths)

    names = {name: person.login("a.example", name).username for name in ("team/app", "team/other", "tea/app", "")}

    assert names == {"team/app": "app", "team/other": "team", "tea/app": "host", "": "host"}


def test_creds_go_before_all_and_to_their_place_only(person: Person) -> None:
    write_config(person.config.parent, auths={"a.example": stored("file", "1"), "b.example": stored("file", "1")})
    logins = Logins(person.settings("--creds", "me:s:e:cret", places=("a.example/team/app",)))

    assert logins.of("a.example", "team/app") == Login("me", "s:e:cret")
    assert logins.of("a.example", "other").username == "file"
    assert logins.of("b.example").username == "file"


@pytest.mark.parametrize("creds", ["me", ":x"])
def test_creds_without_their_half_are_a_wrong_command_line(person: Person, creds: str) -> None:
    with pytest.raises(UsageError, match="--creds"):
        person.settings("--creds", creds, places=("a.example",))


def test_a_pipeline_gives_a_login_by_variables(person: Person) -> None:
    person.environment |= {"PYBUILD_REGISTRY": "https://a.example/", "PYBUILD_REGISTRY_USER": "ci"}
    person.environment["PYBUILD_REGISTRY_PASSWORD"] = "token"

    assert person.login("a.example", "team/app") == Login("ci", "token")
    assert person.login("b.example") == Login()


def test_a_half_of_a_login_in_variables_is_an_error(person: Person) -> None:
    person.environment["PYBUILD_REGISTRY_PASSWORD"] = "token"

    with pytest.raises(UsageError, match="PYBUILD_REGISTRY and PYBUILD_REGISTRY_USER must be set too"):
        person.settings()


def test_a_whole_configuration_may_be_in_a_variable(person: Person) -> None:
    write_config(person.config.parent, auths={"a.example": stored("file", "1"), "b.example": stored("file", "1")})
    person.environment["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"a.example": stored()}})

    assert person.login("a.example") == Login(USER, PASSWORD)
    assert person.login("b.example").username == "file"


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"a.example": {"auth": "secret"}}}'])
def test_a_broken_variable_is_named_and_not_quoted(person: Person, text: str) -> None:
    person.environment["DOCKER_AUTH_CONFIG"] = text

    with pytest.raises(RegistryError, match="DOCKER_AUTH_CONFIG") as caught:
        person.login("a.example")

    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


def test_settings_do_not_show_secrets() -> None:
    settings = RegistrySettings(logins=(GivenLogin("a.example", "me", "hidden-1"),), auth_document="hidden-2")

    assert "hidden" not in repr(settings)


def test_a_missing_helper_lets_other_files_speak(person: Person) -> None:
    write_config(person.config.parent, credsStore="none")
    write_auth(person.home / ".config/containers/auth.json", {"a.example": stored()})

    assert person.login("a.example") == Login(USER, PASSWORD)
    assert "docker-credential-none" in person.login("b.example").trouble


# --- identity tokens


def test_an_identity_token_is_exchanged_by_post(person: Person) -> None:
    with FakeRegistry(auth="bearer") as fake:
        fake.tokens.append("short-lived")
        fake.first["/token"] = [Reply(body=b'{"access_token": "short-lived"}')]
        write_config(person.config.parent, auths={fake.host: {"identitytoken": "long-lived", "auth": ""}})

        status = person.run("push", "--root", str(person.home / "root"), "--progress", "plain", "x")
        assert status == 6  # there is no x
        fake.replies["/v2/team/app/manifests/1"] = Reply(404)
        person.run("pull", "--root", str(person.home / "root"), f"{fake.host}/team/app:1")

        (asked,) = [asked for asked in fake.asked if asked.path == "/token"]
    assert asked.method == "POST"
    assert b"grant_type=refresh_token" in asked.body
    assert b"refresh_token=long-lived" in asked.body
    assert b"scope=repository%3Ateam%2Fapp%3Apull" in asked.body
    assert "long-lived" not in asked.path
    assert fake.asked[-1].authorization == "Bearer short-lived"


def test_an_identity_token_follows_no_redirect_to_another_server(person: Person) -> None:
    with FakeRegistry() as thief, FakeRegistry(auth="bearer") as fake:
        fake.first["/token"] = [Reply(307, {"Location": f"{thief.url}/token"})]
        write_config(person.config.parent, auths={fake.host: {"identitytoken": "long-lived"}})

        person.run("pull", "--root", str(person.home / "root"), f"{fake.host}/team/app:1")

    assert thief.asked == []
    assert "redirects a login to another server" in person.err.getvalue()


def test_an_identity_token_is_no_password(person: Person) -> None:
    with FakeRegistry(auth="basic") as fake:
        write_config(person.config.parent, auths={fake.host: {"identitytoken": "long-lived"}})

        person.run("pull", "--root", str(person.home / "root"), f"{fake.host}/team/app:1")

    assert "asks for a password" in person.err.getvalue()
    assert not any("long-lived" in asked.authorization for asked in fake.asked)


def test_an_identity_token_is_kept_as_one(tmp_path: Path) -> None:
    file = AuthFile(str(tmp_path / "config.json"))

    file.save("a.example", "", Login("me", identity="long-lived"))

    assert file.find("a.example", "") == Login("me", identity="long-lived")


def test_creds_open_a_registry(person: Person) -> None:
    with FakeRegistry(auth="basic") as fake:
        fake.replies["/v2/team/app/manifests/1"] = Reply(404)
        person.run(
            "pull", "--root", str(person.home / "root"), "--creds", f"{USER}:{PASSWORD}", f"{fake.host}/team/app:1"
        )

    assert fake.asked[-1].authorization == basic(USER, PASSWORD)
