"""Names of images mean what Docker takes them for."""

import subprocess
import sys

import pytest

from layers.digest import Digest
from layers.errors import ImageError
from layers.registry.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.12-slim", "docker.io/library/python:3.12-slim"),
        ("library/python", "docker.io/library/python:latest"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/python", "docker.io/library/python:latest"),
        ("index.docker.io/python:3", "docker.io/library/python:3"),
        ("registry-1.docker.io/team/app", "docker.io/team/app:latest"),
        ("ghcr.io/team/app/part:v1", "ghcr.io/team/app/part:v1"),
        ("quay.io/app", "quay.io/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("host:5000/app", "host:5000/app:latest"),
        ("127.0.0.1:5000/team/app", "127.0.0.1:5000/team/app:latest"),
        ("[::1]:5000/app:1", "[::1]:5000/app:1"),
        ("Server/app", "Server/app:latest"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest"),
        (f"python@{DIGEST}", f"docker.io/library/python@{DIGEST}"),
        (f"python:3@{DIGEST}", f"docker.io/library/python:3@{DIGEST}"),
        (f"host:1/app@{DIGEST}", f"host:1/app@{DIGEST}"),
    ],
)
def test_a_short_name_stands_for_a_full_one(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full


@pytest.mark.parametrize("text", ["python", "host:5000/app:1", f"python:3@{DIGEST}", "Server/app", "[::1]/app"])
def test_a_full_name_stands_for_itself(text: str) -> None:
    reference = Reference.parse(text)

    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize("text", ["python:latest", "team/app:1", "ghcr.io/team/app:1", f"python@{DIGEST}"])
def test_people_see_no_docker_io(text: str) -> None:
    assert Reference.parse(text).familiar == text


def test_the_digest_wins_over_the_tag() -> None:
    reference = Reference.parse(f"python:3@{DIGEST}")

    assert reference.selector == Digest(DIGEST)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "@" + DIGEST,
        "host:5000/",
        "a//b",
        "/a",
        "a/",
        "-a",
        "a_",
        "a..b",
        "a:",
        "a:-x",
        "a:" + "x" * 129,
        "a:b:c",
        "a@sha256:12",
        "a@md5:" + "a" * 32,
        "b" * 256,
        "ho_st.x/app",
        "host:port/app",
        "http://host/app",
        "a b",
        "a\n",
        "é",
        "a" * 64,
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ImageError):
        Reference.parse(text)


def test_an_upper_case_repository_is_refused_with_the_name_that_would_do() -> None:
    with pytest.raises(ImageError) as caught:
        Reference.parse("ghcr.io/Team/App")

    assert "team/app" in caught.value.hint


def test_reading_a_name_does_not_import_the_network() -> None:
    """A build that is answered by the cache reads names, too."""
    code = "import sys, layers.registry.reference; print('requests' in sys.modules or 'http' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
