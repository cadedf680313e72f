"""Contexts of the build command: standard input, URLs, repositories, and contexts with a name."""

import io
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from builds import Bench, tar_of
from registries import FakeRegistry, Reply, make_image
from repositories import Upstream

from builder.build import Clocks
from builder.call.answer import answer, parse_call
from builder.errors import ContextError, DockerfileError, UsageError
from builder.options import BuildOptions
from layers.entry import Entry
from layers.errors import ImageError

COPY_ALL = "FROM scratch\nCOPY . /x/\n"
FILES = {"Dockerfile": COPY_ALL, "a": "1", "d/b": "2"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def web() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        yield server


def serve(web: FakeRegistry, files: Mapping[str, bytes]) -> None:
    web.replies.update((f"/{path}", Reply(body=body)) for path, body in files.items())


def say(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Let this be standard input."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def copied(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {path.removeprefix("x/"): data.decode() for path, data in contents.items()}


# --- standard input


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_on_standard_input_is_the_context(bench: Bench, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    say(monkeypatch, tar_of(FILES, mode))

    built = bench.build("-")

    assert copied(built.contents) == FILES
    assert built.entries["x/a"].mtime_ns == 1_000_000_000 * 10**9


def test_a_dockerfile_on_standard_input_has_no_context(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, COPY_ALL.encode())

    built = bench.build("-")

    assert list(built.entries) == ["x"]


def test_a_file_option_names_a_file_in_the_archive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, tar_of({"docker/Other": COPY_ALL, "docker/Other.dockerignore": "docker", "a": "1"}))

    built = bench.build("-", dockerfile="docker/Other")

    assert copied(built.contents) == {"a": "1"}


def test_dockerignore_in_an_archive_counts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, tar_of({**FILES, ".dockerignore": "d\n.dockerignore\n"}))

    built = bench.build("-")

    assert sorted(copied(built.contents)) == ["Dockerfile", "a"]


def test_a_dockerfile_on_standard_input_goes_with_a_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, COPY_ALL.encode())

    built = bench.build(bench.context({"a": "1"}), dockerfile="-")

    assert copied(built.contents) == {"a": "1"}


def test_standard_input_cannot_be_two_things(bench: Bench) -> None:
    with pytest.raises(UsageError, match="both the context and the Dockerfile"):
        bench.build("-", dockerfile="-")


def test_a_dockerfile_in_small_letters_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"dockerfile": COPY_ALL, "dockerfile.dockerignore": "dockerfile*", "a": "1"}
    say(monkeypatch, tar_of(files))

    built = [bench.build(bench.context(files)), bench.build("-")]

    assert [copied(each.contents) for each in built] == [{"a": "1"}, {"a": "1"}]


def test_a_dockerfile_of_the_usual_name_goes_before_small_letters(bench: Bench) -> None:
    context = bench.context({"Dockerfile": "FROM scratch\nCOPY a /\n", "dockerfile": "FROM nowhere", "a": "1"})

    built = bench.build(context)

    assert list(built.entries) == ["a"]


def test_two_dockerfiles_are_one_too_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, COPY_ALL.encode())

    with pytest.raises(UsageError, match="names another one"):
        bench.build("-", dockerfile="Other")


def test_an_archive_without_dockerfile_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, tar_of({"a": "1"}))

    with pytest.raises(DockerfileError, match="the context has no Dockerfile"):
        bench.build("-")


@pytest.mark.parametrize("data", [b"\x1f\x8bnothing", b"BZhnothing", tar_of(FILES)[:520]])
def test_a_broken_archive_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    say(monkeypatch, data)

    with pytest.raises(ContextError, match="the archive of the context is refused"):
        bench.build("-")


def hostile(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("..", size=1)],
        [member("h", type=tarfile.LNKTYPE, linkname="../../secret")],
        [member(".wh.a", size=0)],
        [member("d", type=tarfile.DIRTYPE), member("d", size=1)],
    ],
)
def test_a_hostile_archive_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, members: list[tarfile.TarInfo]
) -> None:
    say(monkeypatch, hostile(*members))

    with pytest.raises(ContextError, match="the archive of the context is refused"):
        bench.build("-")


@pytest.mark.parametrize("name", ["../out", "l/../../out", "/out", "./a/../out"])
def test_a_name_in_an_archive_leads_nowhere_above(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As docker unpacks: above the context there is nothing."""
    data = b"FROM scratch\nCOPY out /\n"
    buffer = io.BytesIO(hostile(member("l", type=tarfile.SYMTYPE, linkname="/"), member(name, size=1)))
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        tar.addfile(member("Dockerfile", size=len(data)), io.BytesIO(data))
    say(monkeypatch, buffer.getvalue())

    assert bench.build("-").contents == {"out": b"x"}


def test_a_link_in_an_archive_leads_nowhere_outside(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = bench.folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    link = member("l", type=tarfile.SYMTYPE, linkname=str(outside))
    say(
        monkeypatch,
        hostile(link, member("l/in", size=1), member("Dockerfile", type=tarfile.SYMTYPE, linkname="l/secret")),
    )

    with pytest.raises(DockerfileError, match="the context has no Dockerfile"):
        bench.build("-")

    assert os.listdir(outside) == ["secret"]


def test_kinds_and_modes_of_an_archive_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(member("Dockerfile", size=len(COPY_ALL)), io.BytesIO(COPY_ALL.encode()))
        tar.addfile(member("d", type=tarfile.DIRTYPE, mode=0o500, uid=12, mtime=5))
        tar.addfile(member("d/tool", size=1, mode=0o4755, uid=12), io.BytesIO(b"x"))
        tar.addfile(member("d/again", type=tarfile.LNKTYPE, linkname="d/tool"))
        tar.addfile(member("d/link", type=tarfile.SYMTYPE, linkname="tool"))
    say(monkeypatch, buffer.getvalue())

    entries = bench.build("-").entries

    def shown(entry: Entry) -> tuple[str, int, int]:
        return entry.kind, entry.mode, entry.uid

    assert shown(entries["x/d"]) == ("d", 0o700, 0)
    assert entries["x/d"].mtime_ns == 5 * 10**9
    assert {shown(entries["x/d/tool"]), shown(entries["x/d/again"])} == {("f", 0o4755, 0), ("h", 0o4755, 0)}
    assert entries["x/d/link"].target == "tool"


# --- URLs


def test_a_tar_behind_a_url_is_the_context(bench: Bench, web: FakeRegistry) -> None:
    web.replies["/here"] = Reply(302, {"Location": "/there?signature=1"})
    web.replies["/there"] = Reply(body=tar_of(FILES, "w:gz"))

    built = bench.build(f"{web.url}/here")

    assert copied(built.contents) == FILES


def test_a_dockerfile_behind_a_url_is_built_alone(bench: Bench, web: FakeRegistry) -> None:
    serve(web, {"path/Dockerfile": b"FROM scratch\nLABEL a=b\n"})

    assert bench.build(f"{web.url}/path/Dockerfile").entries == {}


def test_a_context_that_did_not_change_is_not_fetched_again(bench: Bench, web: FakeRegistry) -> None:
    web.first["/c.tar"] = [Reply(headers={"ETag": '"1"'}, body=tar_of(FILES)), Reply(304)]
    bench.build(f"{web.url}/c.tar")

    built = bench.build(f"{web.url}/c.tar")

    assert copied(built.contents) == FILES
    assert web.asked[1].headers["if-none-match"] == '"1"'


def test_a_url_without_an_answer_is_an_error(bench: Bench, web: FakeRegistry) -> None:
    with pytest.raises(ContextError, match="answers 404"):
        bench.build(f"{web.url}/nothing")


def test_the_dockerfile_may_come_from_a_url(bench: Bench, web: FakeRegistry) -> None:
    serve(web, {"Dockerfile": COPY_ALL.encode()})

    built = bench.build(bench.context({"a": "1"}), dockerfile=f"{web.url}/Dockerfile")

    assert copied(built.contents) == {"a": "1"}


def test_questions_are_answered_of_contexts_that_are_no_folders(bench: Bench, web: FakeRegistry) -> None:
    serve(web, {"c.tar": tar_of({"Dockerfile": "FROM scratch AS one\n"})})
    options = BuildOptions(f"{web.url}/c.tar", str(bench.folder / "root"))

    given = answer(parse_call("targets"), options, lambda _: None, Clocks(time.monotonic, time.time_ns))

    assert "one" in given.text


# --- repositories


@pytest.fixture
def upstream(tmp_path: Path, web: FakeRegistry) -> Upstream:
    """A repository that the web server has as x.git."""
    upstream = Upstream.make(tmp_path / "upstream")
    upstream.commit({"Dockerfile": COPY_ALL, "a": "1", "d/Dockerfile": COPY_ALL, "d/b": "2"})
    serve(web, {f"x.git/{path}": data for path, data in upstream.served().items()})
    return upstream


def test_a_repository_is_the_context(bench: Bench, web: FakeRegistry, upstream: Upstream) -> None:
    built = bench.build(f"{web.url}/x.git", environment=os.environ)

    assert sorted(copied(built.contents)) == ["Dockerfile", "a", "d/Dockerfile", "d/b"]


def test_a_folder_of_a_repository_is_the_context(bench: Bench, web: FakeRegistry, upstream: Upstream) -> None:
    built = bench.build(f"{web.url}/x.git#main:d", environment=os.environ)

    assert sorted(copied(built.contents)) == ["Dockerfile", "b"]


def test_a_repository_keeps_its_git_dir_on_demand(bench: Bench, web: FakeRegistry, upstream: Upstream) -> None:
    built = bench.build(f"{web.url}/x.git", environment=os.environ, build_args={"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1"})

    assert "x/.git/HEAD" in built.entries
    assert built.warnings == []


@pytest.mark.parametrize("folder", ["no", "a", "up", "etc"])
def test_a_folder_that_a_repository_has_not_is_an_error(
    bench: Bench, web: FakeRegistry, upstream: Upstream, folder: str
) -> None:
    (upstream.folder / "up").symlink_to("..")
    (upstream.folder / "etc").symlink_to("/usr")
    upstream.commit({})
    serve(web, {f"x.git/{path}": data for path, data in upstream.served().items()})

    if folder == "up":
        assert "x/a" in bench.build(f"{web.url}/x.git#:up", environment=os.environ).entries
        return
    with pytest.raises(ContextError, match=f"has no folder '{folder}'"):
        bench.build(f"{web.url}/x.git#:{folder}", environment=os.environ)


# --- contexts with a name


def test_a_named_folder_is_what_copy_from_takes(bench: Bench) -> None:
    named = bench.context({"a": "named", "b": "", ".dockerignore": "b\n.dockerignore"}, "named")

    built = bench.build_text("FROM scratch\nCOPY --from=extra . /x/\n", contexts={"extra": named})

    assert copied(built.contents) == {"a": "named"}


def test_a_change_in_a_named_folder_is_seen(bench: Bench) -> None:
    text = "FROM scratch\nCOPY --from=extra a /\n"
    bench.build_text(text, contexts={"extra": bench.context({"a": "1"}, "named")})

    same = bench.build_text(text, contexts={"extra": bench.context({"a": "1"}, "named")})
    other = bench.build_text(text, contexts={"extra": bench.context({"a": "2"}, "named")})

    assert same.cached == ["[2/2] COPY --from=extra a /"]
    assert other.texts == {"a": "2"}


@pytest.mark.parametrize("source", ["0", "base", "BASE"])
def test_a_name_wins_over_a_stage(bench: Bench, source: str) -> None:
    text = f"FROM scratch AS base\nCOPY Dockerfile /a\nFROM scratch\nCOPY --from={source} a /\n"

    built = bench.build_text(text, contexts={"base": bench.context({"a": "named"}, "named")})

    assert built.texts == {"a": "named"}


def test_a_named_folder_is_no_base_image(bench: Bench) -> None:
    with pytest.raises(DockerfileError, match="--build-context makes busybox a folder of files"):
        bench.build_text("FROM busybox\n", contexts={"docker.io/library/busybox:latest": str(bench.folder)})


def test_a_named_folder_that_is_missing_is_an_error(bench: Bench) -> None:
    with pytest.raises(ContextError, match="is not a folder"):
        bench.build_text("FROM scratch\nCOPY --from=x . /\n", contexts={"x": str(bench.folder / "missing")})


def test_named_contexts_are_fetched_only_if_needed(bench: Bench) -> None:
    built = bench.build_text("FROM scratch\nLABEL a=b\n", contexts={"x": "http://127.0.0.1:1/x"})

    assert built.entries == {}


def test_named_contexts_may_be_archives_files_and_repositories(
    bench: Bench, web: FakeRegistry, upstream: Upstream
) -> None:
    serve(web, {"c.tar": tar_of({"t": "tar"}), "dir/one.txt": b"one"})
    text = "FROM scratch\nCOPY --from=tar . /\nCOPY --from=file . /\nCOPY --from=git d/b /\n"
    contexts = {"tar": f"{web.url}/c.tar", "file": f"{web.url}/dir/one.txt", "git": f"{web.url}/x.git#main"}

    built = bench.build_text(text, contexts=contexts, environment=os.environ)

    assert built.texts == {"t": "tar", "one.txt": "one", "b": "2"}


def test_a_name_may_stand_for_an_image(bench: Bench, web: FakeRegistry) -> None:
    web.add("some/image", "v1", make_image({"f": b"image"}))
    text = "FROM alias\nCOPY --from=alias f /g\n"

    built = bench.build_text(text, contexts={"alias": f"docker-image://{web.host}/some/image:v1"})

    assert built.texts == {"f": "image", "g": "image"}


def layout_of(bench: Bench) -> tuple[str, str]:
    """An OCI layout with an image that is called `one`; its folder, and the digest of the image."""
    folder = str(bench.folder / "layout")
    bench.build_text("FROM scratch\nCOPY Dockerfile /f\n", tags=("one",))
    shutil.move(bench.folder / "root" / "images", folder)
    shutil.rmtree(bench.folder / "root")
    index = (bench.folder / "layout" / "index.json").read_text()
    return folder, "sha256:" + index.partition("sha256:")[2][:64]


def test_a_name_may_stand_for_an_image_of_a_layout(bench: Bench) -> None:
    folder, digest = layout_of(bench)

    for location in (folder, f"{folder}:docker.io/library/one:latest", f"{folder}@{digest}", f"{folder}:gone@{digest}"):
        built = bench.build_text("FROM alias\n", contexts={"alias": f"oci-layout://{location}"})

        assert list(built.entries) == ["f"]


def test_an_image_that_a_layout_has_not_is_an_error(bench: Bench) -> None:
    folder, _ = layout_of(bench)

    for location in (f"{folder}:two", f"{folder}@sha256:{'0' * 64}", str(bench.folder)):
        with pytest.raises(ImageError):
            bench.build_text("FROM alias\n", contexts={"alias": f"oci-layout://{location}"})
