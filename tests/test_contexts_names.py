"""What a text on the command line, or of ADD, names: folders, repositories, URLs, images."""

import pytest

from builder.context.named import Folder, ImageContext, LayoutContext, NamedContexts, Url, context_source
from builder.context.remote import file_name
from builder.context.repository import Repository, parse_repository
from builder.errors import ContextError, UsageError

REPOSITORY = "https://host/x.git"


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("https://host/x.git", Repository("https://host/x.git")),
        ("http://host:80/a/x.git", Repository("http://host:80/a/x.git")),
        ("git://host/x", Repository("git://host/x")),
        ("ssh://git@host:22/x", Repository("ssh://git@host:22/x")),
        ("git@host:a/x.git", Repository("git@host:a/x.git")),
        ("git@host:a/x.git#v1:d", Repository("git@host:a/x.git", "v1", "d")),
        ("git@host:x?tag=v1", Repository("git@host:x", "refs/tags/v1")),
        (f"{REPOSITORY}#main", Repository(REPOSITORY, "main")),
        (f"{REPOSITORY}#:docs", Repository(REPOSITORY, "", "docs")),
        (f"{REPOSITORY}#pull/1/head:a/b", Repository(REPOSITORY, "pull/1/head", "a/b")),
        (f"{REPOSITORY}?ref=v1&subdir=d", Repository(REPOSITORY, "v1", "d")),
        (f"{REPOSITORY}?branch=v1", Repository(REPOSITORY, "refs/heads/v1")),
        (f"{REPOSITORY}?tag=refs/tags/v1", Repository(REPOSITORY, "refs/tags/v1")),
        (f"{REPOSITORY}?ref=v1&checksum=abc", Repository(REPOSITORY, "v1", checksum="abc")),
        (f"{REPOSITORY}?commit={'a' * 40}", Repository(REPOSITORY, "a" * 40, checksum="a" * 40)),
        (f"{REPOSITORY}?keep-git-dir&submodules=false", Repository(REPOSITORY, keep_git_dir=True, submodules=False)),
        (f"{REPOSITORY}?subdir=d#v1:d", Repository(REPOSITORY, "v1", "d")),
    ],
)
def test_forms_of_repositories(text: str, repository: Repository) -> None:
    assert parse_repository(text) == repository


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "../x.git",
        "/x.git",
        "x.git",
        "https://host/x",
        "https://host/x.git/",
        "https://host/x#a.git",
        "a@b",
    ],
)
def test_other_texts_are_no_repositories(text: str) -> None:
    assert parse_repository(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{REPOSITORY}#--upload-pack=touch", "no name of a branch"),
        (f"{REPOSITORY}#a b", "no name of a branch"),
        (f"{REPOSITORY}#a..b", "no name of a branch"),
        (f"{REPOSITORY}#a^{{}}", "no name of a branch"),
        (f"{REPOSITORY}?ref=a*", "no name of a branch"),
        (f"{REPOSITORY}?ref=%0a", "no name of a branch"),
        (f"{REPOSITORY}?ref=a#b", "more than one ref: a and b"),
        (f"{REPOSITORY}?tag=a&branch=a", "more than one ref"),
        (f"{REPOSITORY}?subdir=a#:b", "more than one subdir"),
        (f"{REPOSITORY}?ref=a&ref=b", "'ref' more than once"),
        (f"{REPOSITORY}?ref=", "'ref' without a value"),
        (f"{REPOSITORY}?reff=a", "unknown 'reff'"),
        (f"{REPOSITORY}?keep-git-dir=maybe", "neither true nor false"),
        (f"{REPOSITORY}?checksum=xyz", "no commit hash"),
        ("git://-oProxyCommand=x/y", "names no host"),
        ("ssh:///x.git", "names no host"),
        ("https://[::1/x.git", "not a URL"),
    ],
)
def test_wrong_repositories_are_refused(text: str, message: str) -> None:
    with pytest.raises(ContextError, match=message):
        parse_repository(text)


def test_a_password_is_not_shown() -> None:
    repository = parse_repository("https://ann:secret@host/x.git#v1:d")

    assert repository is not None
    assert str(repository) == "https://host/x.git#v1:d"
    assert repository.url == "https://ann:secret@host/x.git"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (".", Folder(".")),
        ("a@b/c", Folder("a@b/c")),
        ("http://host/a.tar", Url("http://host/a.tar")),
        ("HTTPS://host/a.tar", Url("HTTPS://host/a.tar")),
        ("https://host/x.git#v1", Repository("https://host/x.git", "v1")),
        ("docker-image://busybox", ImageContext("busybox")),
        ("oci-layout://d:tag@sha256:0", LayoutContext("d:tag@sha256:0")),
    ],
)
def test_forms_of_contexts(text: str, source: object) -> None:
    assert context_source(text) == source


@pytest.mark.parametrize("text", ["ftp://host/a", "file:///etc", "s3://bucket/key"])
def test_other_schemes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown scheme"):
        context_source(text)


@pytest.mark.parametrize("name", ["busybox", "busybox:latest", "library/busybox", "docker.io/library/busybox:latest"])
def test_a_named_context_is_an_image_name(name: str) -> None:
    named = NamedContexts({"docker.io/busybox": "folder"})

    assert named.find(name) == Folder("folder")
    assert named.has_files(name)


def test_other_names_have_no_special_meaning() -> None:
    named = NamedContexts({"alias": "docker-image://busybox"})

    assert not named.is_named("busybox")
    assert named.is_named("alias")
    assert not named.has_files("alias")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://host/a/b.txt", "b.txt"),
        ("http://host/own/", "own"),
        ("http://host/a%20b", "a b"),
        ("http://host/a%2Fb", "b"),
        ("http://host/a?name=c#d", "a"),
        ("http://host", ""),
        ("http://host/", ""),
        ("http://host/a/..", ""),
        ("http://host/%2e%2e", ""),
        ("http://host/a%00b", ""),
    ],
)
def test_the_path_of_a_url_names_the_file(url: str, name: str) -> None:
    assert file_name(url) == name
