"""Logging in: what registries ask for, what Docker's configuration holds, and who is told what."""

import base64
import json
import threading
from pathlib import Path

import pytest
from registries import PASSWORD, USER, FakeRegistry, Reply, basic, make_certificate, make_image, stored, write_config

from layers.digest import Digest
from layers.errors import ImageError
from layers.oci import Descriptor, Image, Platform
from layers.registry import realm as realms
from layers.registry.auth import Access
from layers.registry.challenge import Challenge, parse_challenges
from layers.registry.client import Registry, RegistrySettings
from layers.registry.credentials import Logins
from layers.registry.errors import NotFoundError, RegistryError
from layers.registry.login import Login
from layers.registry.reference import Reference

IMAGE = make_image({"hello": b"hello"})
AMD64 = Platform("linux", "amd64")


def keep(data: bytes, media_type: str) -> Descriptor:
    """A caller that throws the documents away."""
    return Descriptor(media_type, Digest.of(data), len(data))


def pull(fake: FakeRegistry, settings: RegistrySettings, *, warnings: list[str] | None = None) -> Image:
    """Resolve the image that `fake` holds."""
    fake.add("team/app", "1", IMAGE)
    warn = (warnings if warnings is not None else []).append
    with Registry(settings, warn=warn, pause=lambda _: None) as registry:
        return registry.resolve(Reference.parse(f"{fake.host}/team/app:1"), AMD64, keep).image


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of credential helpers that is on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def add_helper(folder: Path, name: str, script: str) -> None:
    """A helper whose standard input is the key it is asked for, in $key."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f'#!/bin/sh\ntest "$1" = get || exit 9\nread -r key\n{script}\n')
    program.chmod(0o755)


def logins_of(folder: str | None) -> Logins:
    """What a folder of Docker's configuration holds."""
    return Logins(RegistrySettings(docker_config=folder))


# --- challenges


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'BEARER Realm="https://a/token?x=1,2",service="s",scope="repository:a:pull,push"',
            [("bearer", {"realm": "https://a/token?x=1,2", "service": "s", "scope": "repository:a:pull,push"})],
        ),
        (
            'Negotiate, Basic realm="a, b" , Bearer realm = "c",error="invalid_token"',
            [("negotiate", {}), ("basic", {"realm": "a, b"}), ("bearer", {"realm": "c", "error": "invalid_token"})],
        ),
        (r'Basic realm="a \"quoted\" word"', [("basic", {"realm": 'a "quoted" word'})]),
        ("Bearer realm=https://a/token,service=s", [("bearer", {"realm": "https://a/token", "service": "s"})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        (',,, =="= Basic', [("basic", {})]),
    ],
)
def test_a_challenge_is_read_in_every_form(header: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(header) == tuple(Challenge(*challenge) for challenge in challenges)


def test_a_long_odd_header_is_read_quickly() -> None:
    header = "Bearer " + 'a="\\' * 15_000

    parse_challenges(header)


# --- Docker's configuration


@pytest.mark.parametrize(
    "key",
    [
        "https://index.docker.io/v1/",
        "https://index.docker.io/v1",
        "https://index.docker.io/v2/",
        "https://index.docker.io",
        "http://index.docker.io/v1/",
        "index.docker.io",
        "docker.io",
        "docker.io/",
        "https://registry-1.docker.io/v2/",
        "registry-1.docker.io",
    ],
)
def test_docker_hub_has_many_keys(tmp_path: Path, key: str) -> None:
    logins = logins_of(write_config(tmp_path, auths={key: stored()}))

    assert logins.of("docker.io") == Login(USER, PASSWORD)


def test_the_tokens_of_docker_desktop_are_no_login(tmp_path: Path) -> None:
    logins = logins_of(write_config(tmp_path, auths={"https://index.docker.io/v1/access-token": stored()}))

    assert logins.of("docker.io") == Login()


@pytest.mark.parametrize("key", ["reg.example:5000", "https://reg.example:5000", "https://reg.example:5000/v2/"])
def test_a_registry_is_known_by_host_and_port(tmp_path: Path, key: str) -> None:
    logins = logins_of(write_config(tmp_path, auths={key: stored(), "reg.example": stored("x", "y")}))

    assert logins.of("reg.example:5000") == Login(USER, PASSWORD)


@pytest.mark.parametrize(
    ("entry", "login"),
    [
        ({"auth": base64.b64encode(b"u:p:q\0\0").decode()}, Login("u", "p:q")),
        ({"username": "u", "password": "p"}, Login("u", "p")),
        ({"registrytoken": "abc"}, Login(token="abc")),
        ({}, Login()),
        (None, Login()),
    ],
)
def test_an_entry_holds_a_login_in_several_forms(tmp_path: Path, entry: object, login: Login) -> None:
    logins = logins_of(write_config(tmp_path, auths={"reg.example": entry}))

    assert logins.of("reg.example") == login


def test_an_identity_token_is_kept_apart_from_passwords(tmp_path: Path) -> None:
    logins = logins_of(write_config(tmp_path, auths={"reg.example": {"auth": "", "identitytoken": "abc"}}))

    assert logins.of("reg.example") == Login(identity="abc")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"auths": ["x"]}',
        '{"auths": {"reg.example": 1}}',
        '{"auths": {"reg.example": {"auth": "%%%"}}}',
        "[" * 99999,
    ],
)
def test_a_broken_configuration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(RegistryError, match=r"config\.json is not a configuration of Docker"):
        logins_of(str(tmp_path)).of("reg.example")


def test_no_configuration_means_anonymous(tmp_path: Path) -> None:
    assert logins_of(str(tmp_path / "none")).of("docker.io") == logins_of(None).of("docker.io") == Login()


def test_a_helper_of_the_registry_beats_auths_and_they_beat_the_store(tmp_path: Path, helpers: Path) -> None:
    add_helper(helpers, "own", """echo '{"Username": "own", "Secret": "1"}'""")
    add_helper(helpers, "store", """echo "{\\"Username\\": \\"store\\", \\"Secret\\": \\"$key\\"}\"""")
    auths = {"a.example": stored(), "b.example": stored(), "c.example": {}}
    folder = write_config(tmp_path, auths=auths, credHelpers={"a.example": "own"}, credsStore="store")

    logins = logins_of(folder)

    assert logins.of("a.example") == Login("own", "1")
    assert logins.of("b.example") == Login(USER, PASSWORD)
    assert logins.of("c.example") == Login("store", "c.example")
    assert logins.of("docker.io") == Login("store", "https://index.docker.io/v1/")


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("echo credentials not found in native keychain; exit 1", ""),
        ("echo the keychain is locked; exit 1", "docker-credential-odd fails: the keychain is locked"),
        ("echo '[]'", "docker-credential-odd answers something else than a login"),
    ],
)
def test_a_helper_that_has_nothing_leaves_one_anonymous(
    tmp_path: Path, helpers: Path, script: str, trouble: str
) -> None:
    add_helper(helpers, "odd", script)

    login = logins_of(write_config(tmp_path, credsStore="odd")).of("reg.example")

    assert not login.basic
    assert login.trouble.startswith(trouble)
    assert bool(login.trouble) == bool(trouble)


def test_a_helper_is_asked_once_for_a_registry(tmp_path: Path, helpers: Path) -> None:
    add_helper(helpers, "own", f"""echo >> {tmp_path}/count; echo '{{"Username": "own", "Secret": "1"}}'""")
    logins = logins_of(write_config(tmp_path, credsStore="own"))

    logins.of("reg.example")
    logins.of("reg.example")

    assert (tmp_path / "count").read_text() == "\n"


def test_a_login_does_not_show_its_secret() -> None:
    assert PASSWORD not in repr(Login(USER, PASSWORD, token=PASSWORD))


# --- the conversation


@pytest.fixture
def config(tmp_path: Path) -> str:
    """The folder of a config.json in which nothing is stored yet."""
    return write_config(tmp_path / "docker")


def store_login(folder: str, fake: FakeRegistry, **login: str) -> RegistrySettings:
    """Settings with a login for `fake`: the right one, if nothing else is said."""
    write_config(Path(folder), auths={fake.host: stored(**login)})
    return RegistrySettings(docker_config=folder)


def test_basic_access_is_used_when_it_is_asked_for(config: str) -> None:
    with FakeRegistry(auth="basic") as fake:
        image = pull(fake, store_login(config, fake))

    assert image.descriptor.digest == IMAGE.digest
    assert not any(asked.authorization for asked in fake.asked if asked.path == "/v2/")


def test_a_token_is_fetched_with_the_login(config: str) -> None:
    with FakeRegistry(auth="bearer") as fake:
        image = pull(fake, store_login(config, fake))

    assert image.descriptor.digest == IMAGE.digest
    (asked,) = [asked for asked in fake.asked if asked.path.startswith("/token")]
    assert asked.authorization == basic(USER, PASSWORD)
    assert asked.path == "/token?service=fake%2C+of+tests&scope=repository%3Ateam%2Fapp%3Apull&account=ann"


def test_an_anonymous_token_needs_no_login() -> None:
    with FakeRegistry(auth="bearer", anonymous=True) as fake:
        image = pull(fake, RegistrySettings())

    assert image.descriptor.digest == IMAGE.digest


def test_a_missing_helper_does_not_break_a_public_pull(config: str, helpers: Path) -> None:
    write_config(Path(config), credsStore="none")
    with FakeRegistry(auth="bearer", anonymous=True) as fake:
        image = pull(fake, RegistrySettings(docker_config=config))

    assert image.descriptor.digest == IMAGE.digest


def test_a_missing_helper_is_named_when_access_is_refused(config: str, helpers: Path) -> None:
    write_config(Path(config), credsStore="none")
    with FakeRegistry(auth="bearer") as fake, pytest.raises(NotFoundError) as caught:
        pull(fake, RegistrySettings(docker_config=config))

    assert "docker-credential-none" in caught.value.hint


def test_a_stale_login_does_not_break_a_public_pull_and_is_told(config: str) -> None:
    warnings: list[str] = []
    with FakeRegistry(auth="bearer", anonymous=True) as fake:
        image = pull(fake, store_login(config, fake, password="old"), warnings=warnings)

    assert image.descriptor.digest == IMAGE.digest
    assert warnings == [f"the login that is stored for {fake.host} is refused; going on without"]


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_refused_access_asks_for_a_login(kind: str) -> None:
    with FakeRegistry(auth=kind) as fake, pytest.raises(ImageError, match="not found, or no access") as caught:
        pull(fake, RegistrySettings())

    assert "UNAUTHORIZED: log in first" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_a_wrong_login_is_refused_once(config: str, kind: str) -> None:
    with FakeRegistry(auth=kind) as fake, pytest.raises(NotFoundError) as caught:
        pull(fake, store_login(config, fake, password="old"))

    assert len(fake.paths("/manifests/")) <= 2
    assert "is refused" in caught.value.hint or "answers 401" in caught.value.message


def test_a_login_that_is_no_longer_accepted_is_not_sent_twice(config: str) -> None:
    with FakeRegistry(auth="basic") as fake:
        fake.add("team/app", "1", IMAGE)
        with Registry(store_login(config, fake)) as registry:
            reference = Reference.parse(f"{fake.host}/team/app:1")
            registry.resolve(reference, AMD64, keep)
            fake.first[f"/v2/team/app/manifests/{IMAGE.digest}"] = [Reply(401, {"WWW-Authenticate": "Basic"})]
            fake.asked.clear()

            with pytest.raises(NotFoundError):
                registry.resolve(Reference.parse(f"{fake.host}/team/app@{IMAGE.digest}"), AMD64, keep)

    assert len(fake.asked) == 1


def test_a_token_serves_all_requests_of_a_repository() -> None:
    with FakeRegistry(auth="bearer", anonymous=True) as fake:
        fake.add("team/app", "1", IMAGE)
        with Registry(RegistrySettings()) as registry:
            reference = Reference.parse(f"{fake.host}/team/app:1")
            registry.resolve(reference, AMD64, keep)
            registry.open_blob(reference, IMAGE.layers[0]).close()

    assert fake.paths("/token") == ["/token"]


def test_a_token_that_ended_is_renewed_by_one_of_many_threads() -> None:
    with FakeRegistry(auth="bearer", anonymous=True) as fake:
        fake.add("team/app", "1", IMAGE)
        with Registry(RegistrySettings()) as registry:
            reference = Reference.parse(f"{fake.host}/team/app:1")
            registry.resolve(reference, AMD64, keep)
            fake.tokens.clear()
            threads = [
                threading.Thread(target=lambda: registry.open_blob(reference, IMAGE.layers[0]).close())
                for _ in range(6)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    assert len(fake.paths("/token")) == 2


def test_a_token_is_not_used_beyond_its_lifetime() -> None:
    now = [0.0]
    with FakeRegistry(auth="bearer", anonymous=True) as fake, Registry(RegistrySettings()) as registry:
        access = Access(
            registry.dialogue._connection,
            host=fake.host,
            origin=fake.url,
            scopes=["repository:a:pull"],
            login=Login,
            warn=lambda _: None,
            clock=lambda: now[0],
        )
        access.renew(f'Bearer realm="{fake.url}/token"', "")
        fresh = access.header
        now[0] = 299.0

        assert fresh.startswith("Bearer token-0-repository:a:pull")
        assert access.header == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"token": 1}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": ""}',
        b"[" * 99999,
        b"\xff",
    ],
)
def test_an_odd_answer_of_a_token_server_is_one_clear_error(body: bytes) -> None:
    with FakeRegistry(auth="bearer") as fake:
        fake.first["/token"] = [Reply(body=body)]

        with pytest.raises(RegistryError, match=r"token server 127\.0\.0\.1"):
            pull(fake, RegistrySettings())


@pytest.mark.parametrize("lifetime", [None, "soon", -1, True, 1e400])
def test_an_odd_lifetime_of_a_token_is_no_error(lifetime: object) -> None:
    with FakeRegistry(auth="bearer", anonymous=True) as fake:
        fake.lifetime = lifetime

        image = pull(fake, RegistrySettings())

    assert image.descriptor.digest == IMAGE.digest


def test_an_access_token_is_a_token() -> None:
    with FakeRegistry(auth="bearer") as fake:
        fake.tokens.append("abc")
        fake.first["/token"] = [Reply(body=b'{"access_token": "abc"}')]

        image = pull(fake, RegistrySettings())

    assert image.descriptor.digest == IMAGE.digest


def test_a_registry_token_is_sent_as_it_is(config: str) -> None:
    with FakeRegistry(auth="bearer") as fake:
        fake.tokens.append("abc")
        write_config(Path(config), auths={fake.host: {"registrytoken": "abc"}})

        image = pull(fake, RegistrySettings(docker_config=config))

    assert image.descriptor.digest == IMAGE.digest
    assert fake.paths("/token") == []


@pytest.mark.parametrize(
    ("realm", "origin", "words"),
    [
        ("http://auth.example/token", "https://reg.example", "without TLS"),
        ("https://127.0.0.1/token", "https://93.184.216.34", "loopback address"),
        ("https://localhost/token", "https://93.184.216.34", "loopback address"),
        ("https://10.0.0.1/token", "https://93.184.216.34", "private address"),
        ("https://0.0.0.0/token", "https://93.184.216.34", "private address"),
        ("https://[::1]/token", "https://93.184.216.34", "loopback address"),
        ("https://[::ffff:10.0.0.1]/token", "https://93.184.216.34", "private address"),
        ("https://169.254.169.254/token", "https://93.184.216.34", "local address"),
        ("http://169.254.169.254/token", "http://127.0.0.1:5000", "local address"),
        ("https://127.0.0.1/token", "https://10.0.0.1", "loopback address"),
        ("", "https://reg.example", "no URL"),
        ("file:///etc/passwd", "https://reg.example", "no URL"),
        ("https://[bad", "https://reg.example", "no URL"),
    ],
)
def test_a_realm_may_not_lead_inside(realm: str, origin: str, words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        realms.check_realm(realm, origin)


@pytest.mark.parametrize(
    ("realm", "origin"),
    [
        ("https://93.184.216.34/token", "https://93.184.216.35"),
        ("https://127.0.0.1:5001/token", "https://127.0.0.1:5000"),
        ("http://127.0.0.1:5001/token", "http://127.0.0.1:5000"),
        ("https://10.0.0.2/token", "https://10.0.0.1"),
        ("https://10.0.0.2/token", "https://127.0.0.1:5000"),
        ("https://93.184.216.34/token", "http://10.0.0.1"),
    ],
)
def test_a_realm_may_be_where_the_registry_is(realm: str, origin: str) -> None:
    realms.check_realm(realm, origin)


@pytest.mark.kernel
def test_a_plain_realm_of_a_registry_with_tls_gets_no_login(tmp_path: Path, config: str) -> None:
    certificate = make_certificate(tmp_path)
    with FakeRegistry() as other, FakeRegistry(auth="bearer", certificate=certificate, realm=f"{other.url}/t") as fake:
        write_config(Path(config), auths={fake.host: stored()})
        settings = RegistrySettings(docker_config=config, ca_file=certificate[0])

        with pytest.raises(RegistryError, match="without TLS"):
            pull(fake, settings)

    assert other.asked == []


def test_a_login_from_netrc_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {json.dumps(PASSWORD)[1:-1]}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with FakeRegistry(auth="basic") as fake, pytest.raises(NotFoundError):
        pull(fake, RegistrySettings())

    assert not any(asked.authorization for asked in fake.asked)
