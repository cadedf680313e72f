"""ADD of URLs: what lands in the image, what the key is, and when a server is asked again."""

import hashlib
import io
import re
import tarfile
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from builds import Bench, Built, tar_of
from registries import FakeRegistry, Reply, make_certificate

from builder.errors import ContextError, DockerfileError
from layers.entry import Kind
from layers.errors import StoreError
from layers.registry.settings import RegistrySettings

YESTERDAY = formatdate(1_700_000_000, usegmt=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def web() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        yield server


def add(bench: Bench, arguments: str, files: dict[str, str] | None = None, **options: object) -> Built:
    """Build one ADD on an empty image."""
    context = bench.context({"Dockerfile": f"FROM scratch\nADD {arguments}\n", **(files or {})})
    return bench.build(context, **options)


def was_cached(built: Built) -> bool:
    return any("ADD" in title for title in built.cached)


# --- what lands


def test_a_file_is_roots_alone_and_as_old_as_the_server_says(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page.txt"] = Reply(headers={"Last-Modified": YESTERDAY}, body=b"page")

    entry = add(bench, f"{web.url}/page.txt /d/").entries["d/page.txt"]

    assert (entry.kind, entry.mode, entry.uid, entry.gid) == (Kind.FILE, 0o600, 0, 0)
    assert entry.mtime_ns == 1_700_000_000 * 10**9


@pytest.mark.parametrize("headers", [{}, {"Last-Modified": "soon"}, {"Last-Modified": "Thu, 01 Jan 1900 00:00:00 GMT"}])
def test_without_a_time_a_file_is_of_1970(bench: Bench, web: FakeRegistry, headers: dict[str, str]) -> None:
    web.replies["/page"] = Reply(headers=headers, body=b"page")

    assert add(bench, f"{web.url}/page /").entries["page"].mtime_ns == 0


def test_flags_give_owner_and_mode(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/tool"] = Reply(body=b"x")

    entry = add(bench, f"--chown=3:4 --chmod=755 {web.url}/tool /bin/").entries["bin/tool"]

    assert (entry.mode, entry.uid, entry.gid) == (0o755, 3, 4)


def test_a_destination_without_slash_is_the_files_name(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/"] = Reply(body=b"x")

    assert add(bench, f"{web.url}/ /a/b").texts == {"a/b": "x"}


def test_a_url_without_a_name_cannot_go_into_a_directory(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/"] = Reply(body=b"x")

    with pytest.raises(DockerfileError, match="has no name for a file in /d/"):
        add(bench, f"{web.url}/ /d/")
    with pytest.raises(ContextError, match="/d is a directory, and the URL has no name"):
        bench.build_text(f"FROM scratch\nWORKDIR /d\nADD {web.url}/ /d\n")


def test_a_query_is_no_part_of_the_name(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/a%20b"] = Reply(body=b"x")

    built = add(bench, f'["{web.url}/a%20b?version=1*", "/d/"]')

    assert built.texts == {"d/a b": "x"}
    assert web.asked[0].path == "/a%20b?version=1*"


def test_variables_are_replaced(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/v2.txt"] = Reply(body=b"x")
    text = f"FROM scratch\nARG VERSION=1\nADD {web.url}/v$VERSION.txt /\n"

    assert bench.build_text(text, build_args={"VERSION": "2"}).texts == {"v2.txt": "x"}


def test_sources_of_all_kinds_are_added_in_order(bench: Bench, web: FakeRegistry) -> None:
    web.replies |= {"/one/same": Reply(body=b"url"), "/two": Reply(body=b"2")}

    built = add(bench, f"d/same {web.url}/one/same {web.url}/two a /x/", {"d/same": "local", "a": "1"})

    assert built.texts == {"x/same": "url", "x/two": "2", "x/a": "1"}


def test_an_archive_is_unpacked_only_on_demand(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/c.tar.gz"] = Reply(body=tar_of({"a": "1"}, "w:gz"))

    kept = add(bench, f"{web.url}/c.tar.gz /x/")
    unpacked = add(bench, f"--unpack=true {web.url}/c.tar.gz /x/")

    assert list(kept.contents) == ["x/c.tar.gz"]
    assert unpacked.texts == {"x/a": "1"}


def test_what_is_no_archive_is_added_as_it_is(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(body=b"page")

    assert add(bench, f"--unpack=true {web.url}/page /").texts == {"page": "page"}


def test_a_local_archive_beside_a_url_is_unpacked(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/c.tar"] = Reply(body=tar_of({"remote": ""}))
    context = bench.context({"Dockerfile": f"FROM scratch\nADD {web.url}/c.tar l.tar /\n"})
    Path(context, "l.tar").write_bytes(tar_of({"local": ""}))

    assert sorted(bench.build(context).contents) == ["c.tar", "local"]


def test_an_archive_cannot_leave_its_destination(bench: Bench, web: FakeRegistry) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("../../evil")
        tar.addfile(member)
    web.replies["/c.tar"] = Reply(body=buffer.getvalue())

    assert list(add(bench, f"--unpack=true {web.url}/c.tar /d/").entries) == ["d", "d/evil"]


# --- the key


def test_the_key_is_the_content(bench: Bench, web: FakeRegistry) -> None:
    web.first["/page"] = [
        Reply(body=b"1"),
        Reply(headers={"Last-Modified": YESTERDAY}, body=b"1"),
        Reply(body=b"2"),
    ]

    builds = [add(bench, f"{web.url}/page /") for _ in range(3)]

    assert [was_cached(built) for built in builds] == [False, True, False]
    assert builds[2].texts == {"page": "2"}


def test_the_same_content_of_another_place_is_the_same_step(bench: Bench, web: FakeRegistry) -> None:
    web.replies |= {"/old/page": Reply(body=b"1"), "/new/page": Reply(body=b"1")}
    add(bench, f"{web.url}/old/page /")

    assert was_cached(add(bench, f"{web.url}/new/page /"))


@pytest.mark.parametrize("flags", ["--chmod=644", "--chown=1", "--unpack=true"])
def test_flags_are_part_of_the_key(bench: Bench, web: FakeRegistry, flags: str) -> None:
    web.replies["/page"] = Reply(body=b"1")
    add(bench, f"{web.url}/page /")

    assert not was_cached(add(bench, f"{flags} {web.url}/page /"))


# --- asking again


def test_an_unchanged_url_is_not_fetched_again(bench: Bench, web: FakeRegistry) -> None:
    web.first["/page"] = [Reply(headers={"ETag": 'W/"v1"', "Last-Modified": YESTERDAY}, body=b"1"), Reply(304)]
    add(bench, f"{web.url}/page /")

    built = add(bench, f"{web.url}/page /")

    assert was_cached(built)
    assert web.asked[1].headers["if-none-match"] == 'W/"v1"'
    assert built.entries["page"].mtime_ns == 1_700_000_000 * 10**9


def test_what_is_known_to_be_unchanged_can_be_added_anew(bench: Bench, web: FakeRegistry) -> None:
    web.first["/page"] = [Reply(headers={"ETag": '"v1"'}, body=b"1"), Reply(304)]
    add(bench, f"{web.url}/page /")

    assert add(bench, f"{web.url}/page /elsewhere/").texts == {"elsewhere/page": "1"}


def test_a_changed_url_is_fetched(bench: Bench, web: FakeRegistry) -> None:
    web.first["/page"] = [
        Reply(headers={"ETag": '"v1"'}, body=b"1"),
        Reply(headers={"ETag": '"v2"'}, body=b"2"),
        Reply(304),
    ]
    add(bench, f"{web.url}/page /")
    add(bench, f"{web.url}/page /")

    assert add(bench, f"{web.url}/page /").texts == {"page": "2"}
    assert web.asked[2].headers["if-none-match"] == '"v2"'


def test_a_tag_counts_for_the_very_same_url(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(headers={"ETag": '"v1"'}, body=b"1")
    for url in (f"{web.url}/page", f"{web.url}/page?x=1", f"http://ann:pw@{web.host}/page"):
        add(bench, f"{url} /")

    assert ["if-none-match" in asked.headers for asked in web.asked] == [False, False, False]


def test_a_fragment_is_not_sent_and_makes_no_difference(bench: Bench, web: FakeRegistry) -> None:
    web.first["/page"] = [Reply(headers={"ETag": '"v1"'}, body=b"1"), Reply(304)]
    add(bench, f"{web.url}/page#one /")

    assert was_cached(add(bench, f"{web.url}/page#two /"))


def test_the_time_of_the_last_change_counts_if_it_is_long_ago(bench: Bench, web: FakeRegistry) -> None:
    """A page that changed within the minute of the answer may have changed again in the same second."""
    just_now = formatdate(time.time() - 5, usegmt=True)
    web.first |= {
        "/old": [Reply(headers={"Last-Modified": YESTERDAY}, body=b"1"), Reply(304)],
        "/new": [Reply(headers={"Last-Modified": just_now}, body=b"1"), Reply(body=b"2")],
    }
    for page in ("old", "new", "old", "new"):
        add(bench, f"{web.url}/{page} /")

    assert web.asked[2].headers["if-modified-since"] == YESTERDAY
    assert "if-modified-since" not in web.asked[3].headers


def test_a_tag_goes_only_to_the_place_that_gave_it(bench: Bench, web: FakeRegistry) -> None:
    """A redirect may lead elsewhere the next time, where the same tag means other bytes."""
    web.first["/page"] = [
        Reply(302, {"Location": "/a?signature=1"}),
        Reply(302, {"Location": "/a?signature=2"}),
        Reply(302, {"Location": "/b"}),
    ]
    web.first["/a"] = [Reply(headers={"ETag": '"1"'}, body=b"a"), Reply(304)]
    web.replies["/b"] = Reply(headers={"ETag": '"1"'}, body=b"b")

    builds = [add(bench, f"{web.url}/page /") for _ in range(3)]

    assert [built.texts["page"] for built in builds] == ["a", "a", "b"]
    assert [asked.path for asked in web.asked if "if-none-match" in asked.headers] == ["/a?signature=2"]


def test_a_304_that_nobody_asked_for_is_an_error(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(304)

    with pytest.raises(ContextError, match="answers 304"):
        add(bench, f"{web.url}/page /")


def test_content_that_was_lost_is_fetched_again(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(headers={"ETag": '"1"'}, body=b"1")
    add(bench, f"{web.url}/page /")
    (bench.folder / "root/images/blobs/sha256" / hashlib.sha256(b"1").hexdigest()).unlink()

    add(bench, f"{web.url}/page /elsewhere/")

    assert "if-none-match" not in web.asked[1].headers


def test_a_url_is_asked_once_in_a_build(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(body=b"1")
    text = f"FROM scratch AS a\nADD {web.url}/page /\nFROM scratch\nADD {web.url}/page /\nCOPY --from=a page /a\n"

    bench.build_text(text)

    assert len(web.asked) == 1


def test_no_secret_of_a_url_is_kept(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(headers={"ETag": '"1"'}, body=b"1")

    built = add(bench, f"http://ann:secret@{web.host}/page?token=geheim /")

    database = b"".join(path.read_bytes() for path in (bench.folder / "root").glob("cache.db*"))
    assert b"secret" not in database
    assert b"geheim" not in database
    assert not any("secret" in title for title in built.started if title.startswith("[internal]"))


# --- checksums


def test_a_checksum_is_compared(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(body=b"1")
    wrong, right = hashlib.sha256(b"0").hexdigest(), hashlib.sha256(b"1").hexdigest()

    built = add(bench, f"--checksum=sha256:{right} {web.url}/page /")
    with pytest.raises(ContextError, match=f"has sha256:{right}, and --checksum wants sha256:{wrong}") as caught:
        add(bench, f"--checksum=sha256:{wrong} {web.url}/page /")

    assert built.texts == {"page": "1"}
    assert caught.value.location is not None
    assert caught.value.location.first == 2


def test_a_checksum_of_content_that_is_known_does_not_spare_the_look(bench: Bench, web: FakeRegistry) -> None:
    """Content of another URL has this checksum and is cached; this URL has something else."""
    web.replies |= {"/one/page": Reply(body=b"1"), "/two/page": Reply(body=b"2")}
    checksum = hashlib.sha256(b"1").hexdigest()
    add(bench, f"--checksum=sha256:{checksum} {web.url}/one/page /")

    with pytest.raises(ContextError, match="digest mismatch"):
        add(bench, f"--checksum=sha256:{checksum} {web.url}/two/page /")


def test_a_checksum_counts_for_unchanged_content_too(bench: Bench, web: FakeRegistry) -> None:
    web.first["/page"] = [Reply(headers={"ETag": '"1"'}, body=b"1"), Reply(304)]
    add(bench, f"{web.url}/page /")

    with pytest.raises(ContextError, match="digest mismatch"):
        add(bench, f"--checksum=sha256:{'0' * 64} {web.url}/page /")


def test_a_checksum_may_be_sha512(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(body=b"1")
    checksum = hashlib.sha512(b"1").hexdigest()

    built = add(bench, f"--checksum=sha512:{checksum} {web.url}/page /")

    assert built.texts == {"page": "1"}


def test_a_checksum_may_be_a_variable(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(body=b"1")
    text = f"FROM scratch\nARG SUM\nADD --checksum=$SUM {web.url}/page /\n"

    with pytest.raises(ContextError, match="digest mismatch"):
        bench.build_text(text, build_args={"SUM": f"sha256:{'0' * 64}"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--checksum=sha256:00 URL /", "is no digest"),
        (f"--checksum=sha256:{'0' * 64} a /", "checksum requires HTTP(S) or Git sources"),
        (f"--checksum=sha256:{'0' * 64} URL URL2 /", "checksum can't be specified for multiple sources"),
    ],
)
def test_checksums_that_do_not_fit_are_refused(bench: Bench, web: FakeRegistry, arguments: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=re.escape(message)):
        add(bench, arguments.replace("URL", f"{web.url}/page"), {"a": ""})

    assert web.asked == []


# --- what goes wrong


def test_copy_takes_no_urls(bench: Bench) -> None:
    with pytest.raises(DockerfileError, match="cannot be a source of COPY"):
        bench.build_text("FROM scratch\nCOPY http://host/page /\n")


@pytest.mark.parametrize(("status", "hint"), [(404, "check the URL"), (403, "HTTP_AUTH_TOKEN_127.0.0.1"), (418, "")])
def test_a_refusal_is_told_with_the_line(bench: Bench, web: FakeRegistry, status: int, hint: str) -> None:
    web.replies["/page"] = Reply(status)

    with pytest.raises(ContextError, match=f"/page: {web.host} answers {status}") as caught:
        add(bench, f"{web.url}/page /")

    assert hint in caught.value.hint
    assert caught.value.location is not None


def test_an_answer_that_breaks_off_is_asked_for_again(bench: Bench, web: FakeRegistry) -> None:
    web.first["/page"] = [Reply(body=b"whole", cut=2), Reply(503), Reply(body=b"whole")]

    assert add(bench, f"{web.url}/page /").texts == {"page": "whole"}


def test_a_server_that_is_not_there_is_an_error(bench: Bench) -> None:
    with pytest.raises(ContextError, match="does not answer") as caught:
        add(bench, "http://127.0.0.1:1/page /")

    assert caught.value.hint == "check the URL, and the network"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_leads_to_http_only(bench: Bench, web: FakeRegistry, target: str) -> None:
    web.replies["/page"] = Reply(302, {"Location": target})

    with pytest.raises(ContextError, match="not a URL"):
        add(bench, f"{web.url}/page /")


def test_a_certificate_that_nobody_knows_is_refused(bench: Bench, tmp_path: Path) -> None:
    with FakeRegistry(certificate=make_certificate(tmp_path)) as web:
        web.replies["/page"] = Reply(body=b"1")

        with pytest.raises(ContextError, match="certificate"):
            add(bench, f"{web.url}/page /")
        trusted = add(bench, f"{web.url}/page /", registries=RegistrySettings(ca_file=str(tmp_path / "cert.pem")))

    assert trusted.texts == {"page": "1"}


def test_damaged_content_is_not_used(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/page"] = Reply(headers={"ETag": '"1"'}, body=b"1")
    add(bench, f"{web.url}/page /")
    blob = bench.folder / "root/images/blobs/sha256" / hashlib.sha256(b"1").hexdigest()
    blob.write_bytes(b"2")
    web.replies["/page"] = Reply(304)

    with pytest.raises(StoreError, match="damaged"):
        add(bench, f"{web.url}/page /elsewhere/")

    assert not blob.exists()
