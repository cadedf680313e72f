"""Secrets as named pipes: nobody waits for ever, whenever he comes."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.sandbox.attached import Document
from builder.sandbox.pipes import make_pipe, served

DATA = b"secret"


@contextmanager
def serving(folder: Path, data: bytes) -> Iterator[Path]:
    document = Document(data, uid=os.getuid(), gid=os.getgid())
    place = make_pipe(str(folder / "secret"), document)
    with served(place, document, str(folder / "spare")):
        yield Path(place)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A pipe that is served."""
    with serving(tmp_path, DATA) as place:
        yield place


def shell(script: str, place: Path | str) -> bytes:
    """What a script says that has the pipe as $1; it does not wait for ever."""
    return subprocess.run(["sh", "-c", script, "sh", place], capture_output=True, check=False, timeout=60).stdout


def test_who_reads_gets_it_as_often_as_he_likes(place: Path) -> None:
    assert [place.read_bytes() for _ in range(5)] == [DATA] * 5


def test_what_does_not_fit_into_a_pipe_is_read_whole_or_in_part(tmp_path: Path) -> None:
    data = os.urandom(500_000)
    with serving(tmp_path, data) as place:
        assert place.read_bytes() == data
        assert shell('head -c 9 "$1"', place) == data[:9]
        assert place.read_bytes() == data


def test_who_writes_is_refused_or_not_heard(place: Path) -> None:
    shell('(echo x > "$1"); (echo x >> "$1")', place)

    assert place.read_bytes() == DATA


@pytest.mark.parametrize(("script", "said"), [('cat "$1"', DATA), ('(echo x > "$1"); echo on', b"on\n")])
def test_who_has_opened_a_pipe_that_has_lost_its_name_does_not_wait_for_ever(
    place: Path, script: str, said: bytes
) -> None:
    """Another one had read it in between, and the pipe was given up."""
    pipe = os.open(place, os.O_PATH)
    place.read_bytes()

    found = shell(script, f"/proc/{os.getpid()}/fd/{pipe}")

    os.close(pipe)
    assert found == said
