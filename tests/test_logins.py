"""Logins for what a build fetches by itself: which server gets which, and who never does."""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Bench
from registries import Asked, FakeRegistry, Reply
from repositories import Upstream

from builder.credentials import Credentials, Secret
from builder.errors import ContextError, UsageError
from builder.logins import of_repository, of_url

TOKEN = "t0ken-of-ann"
GIT = "Basic " + b64encode(f"x-access-token:{TOKEN}".encode()).decode()


class Private(FakeRegistry):
    """A server that wants one Authorization for everything."""

    wanted = f"Bearer {TOKEN}"

    def answer(self, asked: Asked) -> Reply:
        reply = super().answer(asked)
        return reply if asked.authorization == self.wanted else Reply(401, {"WWW-Authenticate": "Basic realm=x"})


@pytest.fixture
def private() -> Iterator[Private]:
    with Private() as server:
        yield server


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def secrets(**values: str) -> Credentials:
    """Secrets by id; `_HOST_` in an id stands for 127.0.0.1."""
    return Credentials({name.replace("_HOST_", "127.0.0.1"): Secret(value.encode()) for name, value in values.items()})


def test_a_token_is_for_the_urls_of_its_host(bench: Bench, private: Private) -> None:
    private.replies["/file"] = Reply(body=b"text")

    lent = Credentials({f"HTTP_AUTH_TOKEN_{private.host}": Secret(f"{TOKEN}\n".encode())})
    built = bench.build_text(f"FROM scratch\nADD {private.url}/file /\n", credentials=lent)

    assert built.texts == {"file": "text"}


def test_a_header_is_sent_as_it_is(bench: Bench, private: Private) -> None:
    private.replies["/file"] = Reply(body=b"text")
    private.wanted = "Digest of=mine"

    lent = secrets(HTTP_AUTH_HEADER__HOST_="Digest of=mine")
    built = bench.build_text(f"FROM scratch\nADD {private.url}/file /\n", credentials=lent)

    assert built.texts == {"file": "text"}


def test_a_redirect_does_not_pass_it_on(bench: Bench, private: Private) -> None:
    with FakeRegistry() as other:
        private.replies["/file"] = Reply(302, {"Location": f"{other.url}/file"})
        other.replies["/file"] = Reply(body=b"text")

        bench.build_text(f"FROM scratch\nADD {private.url}/file /\n", credentials=secrets(HTTP_AUTH_TOKEN__HOST_=TOKEN))

        assert [asked.authorization for asked in other.asked] == [""]


def test_without_a_login_the_error_says_how_to_give_one(bench: Bench, private: Private) -> None:
    with pytest.raises(ContextError) as caught:
        bench.build_text(f"FROM scratch\nADD {private.url}/file /\n", credentials=secrets(GIT_AUTH_TOKEN=TOKEN))

    assert f"--secret id=HTTP_AUTH_TOKEN_{private.host}" in caught.value.hint


def test_a_repository_is_fetched_with_a_token(bench: Bench, private: Private, tmp_path: Path) -> None:
    upstream = Upstream.make(tmp_path / "upstream")
    upstream.commit({"file": "text"})
    private.replies |= {f"/r.git/{path}": Reply(body=data) for path, data in upstream.served().items()}
    private.wanted = GIT

    built = bench.build_text(f"FROM scratch\nADD {private.url}/r.git /r/\n", credentials=secrets(GIT_AUTH_TOKEN=TOKEN))

    assert built.texts == {"r/file": "text"}
    assert {asked.authorization for asked in private.asked} == {GIT}
    held = b"".join(path.read_bytes() for path in Path(bench.folder / "root").rglob("*") if path.is_file())
    assert TOKEN.encode() not in held
    assert GIT.encode() not in held


def test_the_login_of_a_host_goes_before_the_one_of_all() -> None:
    lent = secrets(**{"GIT_AUTH_TOKEN": "all", "GIT_AUTH_HEADER.git.example": "Custom x"}).secrets

    assert of_repository("https://git.example/r.git", lent) == "Custom x"
    assert of_repository("https://other.example/r.git", lent).startswith("Basic ")


@pytest.mark.parametrize(
    "url", ["ssh://git@example.org/r.git", "git@example.org:r.git", "https://ann:pw@example.org/r.git"]
)
def test_a_repository_with_another_login_gets_none(url: str) -> None:
    assert of_repository(url, secrets(GIT_AUTH_TOKEN=TOKEN).secrets) == ""


@pytest.mark.parametrize("value", ["one\r\nX-Other: two", "\N{BULLET}"])
def test_what_no_header_can_hold_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        of_url("https://127.0.0.1/file", secrets(HTTP_AUTH_TOKEN__HOST_=value).secrets)

    assert value not in str(caught.value)
