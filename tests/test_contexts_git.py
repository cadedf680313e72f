"""Repositories by git: which commit is meant, which files come of it, and what a hostile one cannot do."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from repositories import TIME, Upstream

from builder.context.git import Git
from builder.context.repository import Repository
from builder.errors import CancelledError, ContextError

Checkout = Callable[..., Path]


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream.make(tmp_path / "up stream")


@pytest.fixture
def git() -> Git:
    """Git that may read repositories of this machine."""
    return Git(os.environ, protocols=("file",))


@pytest.fixture
def checkout(tmp_path: Path, git: Git) -> Checkout:
    """Checks a repository out into a new folder."""

    def check_out(repository: Repository, *, keep_git_dir: bool = False) -> Path:
        folder = tmp_path / "checkout"
        folder.mkdir()
        git.checkout(repository, git.commit(repository), str(folder), keep_git_dir=keep_git_dir)
        return folder

    return check_out


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(100):
        if done():
            return
        time.sleep(0.02)
    raise AssertionError("it does not come about")


# --- which commit


def test_without_a_ref_it_is_the_branch_of_the_servers_head(upstream: Upstream, git: Git) -> None:
    commit = upstream.commit({"a": "1"})

    found = git.commit(Repository(upstream.url))

    assert (found.hash, found.ref) == (commit, "refs/heads/main")


@pytest.mark.parametrize("ref", ["topic/x", "heads/topic/x", "refs/heads/topic/x"])
def test_a_branch_is_found_by_short_and_full_names(upstream: Upstream, git: Git, ref: str) -> None:
    commit = upstream.commit({"a": "1"})
    upstream.git("branch", "topic/x")
    upstream.commit({"a": "2"})

    assert git.commit(Repository(upstream.url, ref)).hash == commit


def test_an_annotated_tag_means_the_commit_that_it_is_on(upstream: Upstream, git: Git) -> None:
    commit = upstream.commit({"a": "1"})
    upstream.git("tag", "--annotate", "--message=one", "v1")

    assert git.commit(Repository(upstream.url, "v1")).hash == commit


def test_a_branch_goes_before_a_tag_of_its_name(upstream: Upstream, git: Git) -> None:
    upstream.commit({"a": "1"})
    upstream.git("tag", "same")
    commit = upstream.commit({"a": "2"})
    upstream.git("branch", "same")

    assert git.commit(Repository(upstream.url, "same")).hash == commit


def test_a_ref_whose_name_only_ends_like_that_is_not_meant(upstream: Upstream, git: Git) -> None:
    upstream.commit({"a": "1"})
    upstream.git("branch", "old/v1")

    with pytest.raises(ContextError, match="has no v1"):
        git.commit(Repository(upstream.url, "v1"))


def test_for_a_whole_commit_hash_nobody_is_asked(git: Git) -> None:
    found = git.commit(Repository("file:///nowhere", "a" * 40))

    assert found.hash == "a" * 40


def test_a_repository_without_commits_is_an_error(upstream: Upstream, git: Git) -> None:
    with pytest.raises(ContextError, match="has no commit"):
        git.commit(Repository(upstream.url))


def test_the_beginning_of_the_commit_is_checked(upstream: Upstream, git: Git) -> None:
    commit = upstream.commit({"a": "1"})

    assert git.commit(Repository(upstream.url, checksum=commit[:7])).hash == commit
    with pytest.raises(ContextError, match=f"is commit {commit}, and should be 000"):
        git.commit(Repository(upstream.url, checksum="000"))


# --- which files


def test_a_checkout_has_the_files_and_nothing_of_git(upstream: Upstream, checkout: Checkout) -> None:
    upstream.commit({"a": "1", "d/b": "2", ".gitignore": "x"})

    folder = checkout(Repository(upstream.url))

    assert names(folder) == [".gitignore", "a", "d/b"]
    assert not (folder / ".git").exists()


def test_an_earlier_commit_is_found_by_its_hash(upstream: Upstream, checkout: Checkout) -> None:
    commit = upstream.commit({"a": "1"})
    upstream.commit({"a": "2"})

    folder = checkout(Repository(upstream.url, commit))

    assert (folder / "a").read_text() == "1"


def test_a_branch_that_moves_meanwhile_still_gives_the_commit_of_the_key(
    upstream: Upstream, git: Git, tmp_path: Path
) -> None:
    upstream.commit({"a": "1"})
    before = git.commit(Repository(upstream.url, "main"))
    upstream.commit({"a": "2"})

    git.checkout(Repository(upstream.url, "main"), before, str(tmp_path), keep_git_dir=False)

    assert (tmp_path / "a").read_text() == "1"


def test_modes_and_times_depend_on_nothing_but_the_commit(upstream: Upstream, checkout: Checkout) -> None:
    upstream.commit({"plain": "", "tool": "", "d/x": ""})
    (upstream.folder / "tool").chmod(0o700)
    (upstream.folder / "link").symlink_to("plain")
    upstream.commit({})
    before = os.umask(0o077)
    try:
        folder = checkout(Repository(upstream.url))
    finally:
        os.umask(before)

    found = {path.name: path.lstat() for path in [folder, *folder.rglob("*")]}

    assert {stat.S_IMODE(found[name].st_mode) for name in ("checkout", "d", "tool")} == {0o755}
    assert {stat.S_IMODE(found[name].st_mode) for name in ("plain", "x")} == {0o644}
    assert {status.st_mtime for status in found.values()} == {TIME}


def test_a_kept_git_dir_knows_its_origin_and_the_tag(upstream: Upstream, checkout: Checkout) -> None:
    commit = upstream.commit({"a": "1"})
    upstream.git("tag", "--annotate", "--message=one", "v1")

    folder = checkout(Repository(upstream.url, "v1"), keep_git_dir=True)

    assert Upstream(folder).git("describe", "HEAD") == "v1"
    assert Upstream(folder).git("rev-parse", "HEAD") == commit
    assert Upstream(folder).git("remote", "get-url", "origin") == upstream.url
    assert Upstream(folder).git("status", "--porcelain") == ""


def test_submodules_come_too_unless_refused(upstream: Upstream, git: Git, tmp_path: Path) -> None:
    part = Upstream.make(tmp_path / "part")
    part.commit({"p": "part"})
    upstream.git("submodule", "--quiet", "add", "../part", "sub")
    upstream.commit({"a": "1"})
    for name, repository in {
        "all": Repository(upstream.url),
        "bare": Repository(upstream.url, submodules=False),
    }.items():
        (tmp_path / name).mkdir()
        git.checkout(repository, git.commit(repository), str(tmp_path / name), keep_git_dir=False)

    assert names(tmp_path / "all") == [".gitmodules", "a", "sub/p"]
    assert names(tmp_path / "bare") == [".gitmodules", "a"]


# --- what cannot happen


def test_the_persons_configuration_counts_for_nothing(upstream: Upstream, tmp_path: Path) -> None:
    upstream.commit({"a": "1"})
    home, hooks, witness = tmp_path / "home", tmp_path / "hooks", tmp_path / "witness"
    hooks.mkdir()
    home.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {witness}\n")
    (hooks / "post-checkout").chmod(0o755)
    (home / ".gitconfig").write_text(f"[core]\n\thooksPath = {hooks}\n")
    environment = {**os.environ, "HOME": str(home), "GIT_CONFIG_COUNT": "1", "GIT_DIR": "/nowhere"}
    git = Git(environment, protocols=("file",))
    repository = Repository(upstream.url)

    git.checkout(repository, git.commit(repository), str(tmp_path / "checkout"), keep_git_dir=False)

    assert (tmp_path / "checkout" / "a").exists()
    assert not witness.exists()


def test_a_protocol_that_is_not_allowed_is_refused(upstream: Upstream) -> None:
    upstream.commit({"a": "1"})

    with pytest.raises(ContextError, match="transport 'file' not allowed") as caught:
        Git(os.environ).commit(Repository(upstream.url))

    assert "https" in caught.value.hint


def test_a_submodule_cannot_run_a_command(upstream: Upstream, checkout: Checkout, tmp_path: Path) -> None:
    commit = upstream.commit({".gitmodules": f'[submodule "s"]\n\tpath = s\n\turl = ext::touch {tmp_path}/witness\n'})
    upstream.git("update-index", "--add", "--cacheinfo", f"160000,{commit},s")
    upstream.git("commit", "--quiet", "--message=hostile")

    with pytest.raises(ContextError, match="git cannot fetch"):
        checkout(Repository(upstream.url))

    assert not (tmp_path / "witness").exists()


def test_a_filter_of_the_repository_is_not_run(upstream: Upstream, checkout: Checkout, tmp_path: Path) -> None:
    upstream.commit({".gitattributes": "* filter=evil\n", ".gitconfig": "", "a": "1"})

    folder = checkout(Repository(upstream.url))

    assert (folder / "a").read_text() == "1"


def test_a_machine_without_git_is_told_so(tmp_path: Path) -> None:
    git = Git({"PATH": str(tmp_path)})

    with pytest.raises(ContextError, match="no git on this machine") as caught:
        git.commit(Repository("https://example.org/x.git"))

    assert "install git" in caught.value.hint


def test_git_ends_with_the_build(tmp_path: Path) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\n/bin/sleep 300 &\necho $! > {tmp_path}/pid\nwait\n")
    (tmp_path / "git").chmod(0o755)

    def cancel() -> None:
        if (tmp_path / "pid").exists():
            raise CancelledError("enough")

    with pytest.raises(CancelledError):
        Git({"PATH": str(tmp_path)}, check_cancelled=cancel).commit(Repository("https://example.org/x.git"))

    status = Path("/proc", (tmp_path / "pid").read_text().strip(), "status")
    wait_until(lambda: not status.exists() or "State:\tZ" in status.read_text())


def test_a_password_in_the_url_is_in_no_error(git: Git) -> None:
    with pytest.raises(ContextError) as caught:
        git.commit(Repository("https://ann:secret@127.0.0.1:1/x.git"))

    assert "secret" not in caught.value.message
    assert "secret" not in str(caught.value.__cause__)
