"""registries.conf: where names are looked for, which are blocked, and proxies on the way."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
from pulls import IMAGE, Pull, name_of
from pushes import Push
from registries import Asked, FakeRegistry
from uploads import Habits, PushRegistry

from layers.registry.errors import RegistryError
from layers.registry.places import Places
from layers.registry.reference import Reference
from layers.registry.settings import RegistrySettings


class Rules:
    """A registries.conf, and what follows from it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "registries.conf"

    def write(self, text: str) -> RegistrySettings:
        self.path.write_text(text)
        return RegistrySettings(rules=(str(self.path),))

    def sources(self, text: str, name: str) -> list[str]:
        """Where an image is looked for."""
        return [str(place) for place in Places(self.write(text)).sources(Reference.parse(name))]


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(tmp_path)


MIRRORED = """
unqualified-search-registries = ["quay.io"]
short-name-mode = "enforcing"

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.example/hub"
[[registry.mirror]]
location = "by-digest.example"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "by-tag.example"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "docker.io/team"
location = "team.example/moved"

[[registry]]
prefix = "*.internal.example"
blocked = true

[[registry]]
prefix = "*.insecure.example"
insecure = true
"""

DIGEST = "@sha256:" + "0" * 64


def test_mirrors_are_asked_in_order_and_the_registry_last(rules: Rules) -> None:
    sources = rules.sources(MIRRORED, "python")

    assert sources == ["mirror.example/hub/library/python", "by-tag.example/library/python", "docker.io/library/python"]


def test_a_digest_may_go_to_other_mirrors_than_a_tag(rules: Rules) -> None:
    sources = rules.sources(MIRRORED, f"python{DIGEST}")

    assert sources[1:] == ["by-digest.example/library/python", "docker.io/library/python"]


def test_mirrors_may_be_for_digests_alone(rules: Rules) -> None:
    text = """
[[registry]]
location = "a.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.example"
"""
    assert rules.sources(text, "a.example/app") == ["a.example/app"]
    assert rules.sources(text, f"a.example/app{DIGEST}") == ["mirror.example/app", "a.example/app"]


def test_the_longest_prefix_decides_and_moves(rules: Rules) -> None:
    assert rules.sources(MIRRORED, "team/app") == ["team.example/moved/app"]
    assert rules.sources(MIRRORED, "teams/app")[-1] == "docker.io/teams/app"


def test_an_image_may_be_moved_alone(rules: Rules) -> None:
    text = '[[registry]]\nprefix = "docker.io/library/python:3"\nlocation = "a.example/python"\n'

    assert rules.sources(text, "python:3") == ["a.example/python"]
    assert rules.sources(text, "python:31") == ["docker.io/library/python"]


def test_mirrors_of_the_command_line_are_asked_first(rules: Rules) -> None:
    settings = rules.write(MIRRORED)
    chosen = RegistrySettings(rules=settings.rules, mirrors={"docker.io": ("mine.example",)})

    first, *_ = Places(chosen).sources(Reference.parse("python"))

    assert str(first) == "mine.example/library/python"


@pytest.mark.parametrize("name", ["a.internal.example/app", "a.b.internal.example/app"])
def test_a_blocked_name_is_neither_pulled_nor_pushed(rules: Rules, name: str) -> None:
    settings = rules.write(MIRRORED)

    with Pull(settings) as pull, pytest.raises(RegistryError, match="is blocked"):
        pull.resolve(name)
    with Push(settings) as person, pytest.raises(RegistryError, match="is blocked"):
        person.registry.dialogue.places.target(Reference.parse(name))


def test_a_push_goes_where_its_name_says(rules: Rules) -> None:
    target = Places(rules.write(MIRRORED)).target(Reference.parse("team/app"))

    assert str(target) == "docker.io/team/app"


def test_insecure_hosts_may_be_spoken_to_without_tls(rules: Rules) -> None:
    places = Places(rules.write(MIRRORED))

    assert places.origins("a.insecure.example") == ("https://a.insecure.example", "http://a.insecure.example")
    assert places.origins("a.example") == ("https://a.example",)


def test_a_folder_adds_to_the_file_and_replaces_its_rules(rules: Rules, tmp_path: Path) -> None:
    folder = tmp_path / "registries.conf.d"
    folder.mkdir()
    (folder / "10-team.conf").write_text('[[registry]]\nprefix = "docker.io/team"\nlocation = "other.example"\n')
    (folder / "ignored.txt").write_text("no TOML")
    settings = RegistrySettings(rules=(*rules.write(MIRRORED).rules, str(folder), str(tmp_path / "none")))

    sources = Places(settings).sources(Reference.parse("team/app"))

    assert [str(place) for place in sources] == ["other.example/app"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[registry]", "is not a registries.conf"),
        ("[[registry]]\ninsecure = true", "neither prefix nor location"),
        ('[[registry]]\nlocation = "https://a.example"', "written HOST"),
        ('[[registry]]\nlocation = "a.example"\nblocked = "yes"', "neither true nor false"),
        ('[[registry]]\nprefix = "a.*.example"', "only as"),
        ('[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\ninsecure = true', "a mirror has the location"),
        ('registry = "a.example"', "is not a registries.conf"),
        ("registry = 1", "is not a registries.conf"),
        ('[registries.search]\nregistries = ["docker.io"]', "format 1"),
        ("\udcff", "is not a registries.conf"),
    ],
)
def test_a_broken_file_is_named(rules: Rules, text: str, words: str) -> None:
    rules.path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(RegistryError, match=words) as caught:
        Places(RegistrySettings(rules=(str(rules.path),))).sources(Reference.parse("python"))

    assert str(rules.path) in caught.value.message


def test_an_image_comes_from_the_place_that_stands_for_it(rules: Rules) -> None:
    with FakeRegistry() as fake:
        fake.add("hub/library/python", "latest", IMAGE)
        settings = rules.write(f'[[registry]]\nlocation = "{fake.host}/hub"\nprefix = "docker.io"\n')

        with Pull(settings) as pull:
            image = pull.resolve("python")
            pull.fetch("python")

    assert image.descriptor.digest == IMAGE.digest


# --- proxies


class Proxy:
    """An HTTP proxy that has one registry for every name, and no tunnels."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.asked: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                proxy.asked.append(self.path)
                parts = urlsplit(self.path)
                headers = {name.lower(): text for name, text in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", "0")))
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                reply = registry.answer(Asked(path, headers, self.command, body))
                self.send_response(reply.status)
                for name, text in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body)

            do_HEAD = do_POST = do_PATCH = do_PUT = do_GET  # noqa: N815 - the names that the base class looks for

            def do_CONNECT(self) -> None:
                self.send_error(502)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PushRegistry, Proxy]]:
    """A registry that only a proxy can reach, as `plain.invalid`."""
    with PushRegistry(Habits(location="/v2/{name}/blobs/uploads/{id}")) as fake, Proxy(fake) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("https_proxy", proxy.url)
        yield fake, proxy


def test_a_registry_is_reached_through_a_proxy(proxied: tuple[PushRegistry, Proxy]) -> None:
    fake, proxy = proxied
    settings = RegistrySettings(insecure=frozenset({"plain.invalid"}))
    fake.host = "plain.invalid"

    with Push(settings) as person:
        person.push(fake, person.make(250_000))

    assert "1" in fake.repository("team/app").manifests
    assert all(path.startswith("http://plain.invalid/v2/") for path in proxy.asked)


def test_what_no_proxy_names_is_reached_directly(
    proxied: tuple[PushRegistry, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, proxy = proxied
    monkeypatch.setenv("no_proxy", "plain.invalid")
    fake.host = "plain.invalid"

    with Push(RegistrySettings(insecure=frozenset({"plain.invalid"}))) as person, pytest.raises(RegistryError):
        person.push(fake, person.make(10))

    assert proxy.asked == []


def test_loopback_is_never_asked_of_a_proxy(proxied: tuple[PushRegistry, Proxy]) -> None:
    fake, proxy = proxied
    fake.add("team/app", "1", IMAGE)

    with Pull() as pull:
        pull.resolve(name_of(fake))

    assert proxy.asked == []
