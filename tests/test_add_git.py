"""ADD of git repositories: what lands in the image, and what the key is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Bench, Built
from registries import FakeRegistry, Reply
from repositories import TIME, Upstream

from builder.errors import ContextError, DockerfileError


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Served:
    """A repository that a web server has as x.git."""

    def __init__(self, upstream: Upstream, web: FakeRegistry) -> None:
        self.upstream = upstream
        self.web = web
        self.url = f"{web.url}/x.git"

    def commit(self, files: dict[str, str]) -> str:
        commit = self.upstream.commit(files)
        self.publish()
        return commit

    def publish(self) -> None:
        served = self.upstream.served()
        self.web.replies.update((f"/x.git/{path}", Reply(body=data)) for path, data in served.items())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with FakeRegistry() as web:
        yield Served(Upstream.make(tmp_path / "upstream"), web)


def add(bench: Bench, arguments: str) -> Built:
    return bench.build_text(f"FROM scratch\nADD {arguments}\n", environment=os.environ)


def was_cached(built: Built) -> bool:
    return any("ADD" in title for title in built.cached)


# --- what lands


def test_the_files_of_a_repository_are_added_without_git(bench: Bench, served: Served) -> None:
    served.commit({"a": "1", "d/b": "2"})
    (served.upstream.folder / "a").chmod(0o700)
    served.commit({})

    built = add(bench, f"{served.url} /x")

    assert built.texts == {"x/a": "1", "x/d/b": "2"}
    assert [built.entries[path].mode for path in ("x", "x/a", "x/d", "x/d/b")] == [0o755, 0o755, 0o755, 0o644]
    assert {(entry.uid, entry.gid) for entry in built.entries.values()} == {(0, 0)}
    assert built.entries["x/a"].mtime_ns == TIME * 10**9


@pytest.mark.parametrize("choice", ["#v1:d", "?tag=v1&subdir=d", "?ref=v1#:d"])
def test_a_ref_and_a_folder_are_chosen(bench: Bench, served: Served, choice: str) -> None:
    served.commit({"a": "1", "d/b": "old"})
    served.upstream.git("tag", "v1")
    served.commit({"d/b": "new"})

    assert add(bench, f"{served.url}{choice} /x/").texts == {"x/b": "old"}


def test_git_dir_is_kept_on_demand(bench: Bench, served: Served) -> None:
    served.commit({"a": "1"})

    by_flag = add(bench, f"--keep-git-dir=true {served.url} /x")
    by_query = add(bench, f"{served.url}?keep-git-dir=true /x")
    refused = add(bench, f"--keep-git-dir=false {served.url}?keep-git-dir=true /x")

    assert "x/.git/HEAD" in by_flag.contents
    assert was_cached(by_query)
    assert "x/.git" not in refused.entries


def test_the_kept_git_dir_holds_no_password(bench: Bench, served: Served) -> None:
    served.commit({"a": "1"})

    built = add(bench, f"--keep-git-dir {served.url.replace('://', '://ann:secret@')} /x")

    assert served.url in built.texts["x/.git/config"]
    assert not any(b"secret" in data for data in built.contents.values())


def test_excludes_and_owners_count(bench: Bench, served: Served) -> None:
    served.commit({"a.md": "", "b": "", "d/c.md": ""})

    built = add(bench, f"--exclude=*.md --chown=5 {served.url} /x")

    assert sorted(built.contents) == ["x/b", "x/d/c.md"]
    assert built.entries["x/b"].uid == 5


def test_links_of_a_repository_lead_nowhere_outside(bench: Bench, served: Served) -> None:
    served.commit({"a": "1"})
    (served.upstream.folder / "link").symlink_to("/etc/passwd")
    served.commit({})

    entry = add(bench, f"{served.url} /x").entries["x/link"]

    assert (entry.kind, entry.target) == ("l", "/etc/passwd")


def test_dockerignore_of_a_repository_does_not_count(bench: Bench, served: Served) -> None:
    served.commit({"a": "1", ".dockerignore": "*"})

    assert sorted(add(bench, f"{served.url} /").contents) == [".dockerignore", "a"]


# --- the key


def test_the_key_is_the_commit(bench: Bench, served: Served) -> None:
    served.commit({"a": "1"})
    add(bench, f"{served.url} /")

    again = add(bench, f"{served.url}#main /")
    served.commit({"a": "2"})
    changed = add(bench, f"{served.url}#main /")

    assert was_cached(again)
    assert not any("check out" in title for title in again.started)
    assert not was_cached(changed)
    assert changed.texts == {"a": "2"}


def test_a_whole_commit_hash_needs_no_server_once_it_is_built(bench: Bench, served: Served) -> None:
    commit = served.commit({"a": "1"})
    add(bench, f"{served.url}#{commit} /")
    asked = len(served.web.asked)

    built = add(bench, f"{served.url}#{commit} /")

    assert was_cached(built)
    assert len(served.web.asked) == asked


@pytest.mark.parametrize("other", ["--keep-git-dir URL", "URL#:d", "URL?submodules=false", "--exclude=a URL"])
def test_what_is_taken_of_a_commit_is_part_of_the_key(bench: Bench, served: Served, other: str) -> None:
    served.commit({"a": "1", "d/a": "1"})
    add(bench, f"{served.url} /")

    assert not was_cached(add(bench, other.replace("URL", served.url) + " /"))


# --- checks


def test_a_checksum_is_the_beginning_of_the_commit(bench: Bench, served: Served) -> None:
    commit = served.commit({"a": "1"})

    built = add(bench, f"--checksum={commit[:10]} {served.url}#main /")
    with pytest.raises(ContextError, match=f"is commit {commit}, and should be 0000"):
        add(bench, f"--checksum=0000 {served.url}#main /")

    assert built.texts == {"a": "1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--checksum=xyz URL /", "no commit hash"),
        ("--checksum=abc URL?checksum=abd /", "is not the abd"),
        ("URL#--upload-pack=x /", "no name of a branch"),
        ("URL?what=1 /", "unknown 'what'"),
    ],
)
def test_wrong_repositories_are_refused_with_the_line(
    bench: Bench, served: Served, arguments: str, message: str
) -> None:
    with pytest.raises(DockerfileError, match=message) as caught:
        add(bench, arguments.replace("URL", served.url))

    assert caught.value.location is not None
    assert served.web.asked == []


def test_a_ref_that_is_not_there_is_an_error(bench: Bench, served: Served) -> None:
    served.commit({"a": "1"})

    with pytest.raises(ContextError, match="has no v9"):
        add(bench, f"{served.url}#v9 /")


@pytest.mark.parametrize("source", ["https://host/x.git", "git@host:x", "ssh://host/x", "git://host/x"])
def test_copy_takes_no_repositories(bench: Bench, source: str) -> None:
    with pytest.raises(DockerfileError, match="cannot be a source of COPY"):
        bench.build_text(f"FROM scratch\nCOPY {source} /\n")


def test_a_file_with_an_at_sign_is_a_file(bench: Bench) -> None:
    context = bench.context({"Dockerfile": "FROM scratch\nCOPY a@1.0 /\n", "a@1.0": "x"})

    assert bench.build(context).texts == {"a@1.0": "x"}
