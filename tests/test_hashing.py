"""Many files are hashed by several processes, and nobody can tell by the result."""

import os
import signal
import time
from pathlib import Path

import pytest

from cache import hashing
from cache.db import Database
from cache.files import FileTable, hash_file
from cache.hashing import Hashed, read, read_many
from cache.stamps import any_is_racy, is_racy, stamp_of

FUTURE = time.time_ns() + 10**12
"""By this clock no file was changed just now."""


def clock() -> int:
    return FUTURE


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[str, bytes]]:
    """So many small files that they are worth several processes."""
    found = []
    for number in range(4000):
        path = tmp_path / str(number)
        path.write_text(str(number))
        found.append((str(path), stamp_of(path.stat())))
    return found


def forks(monkeypatch: pytest.MonkeyPatch, processors: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))


@pytest.mark.parametrize("processors", [2, 3])
def test_all_are_hashed_in_their_order(
    files: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    forks(monkeypatch, processors)

    found = read_many(files, clock)

    assert found == [read(path, 0, clock) for path, _ in files]


def test_one_processor_does_it_alone(files: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    forks(monkeypatch, 1)

    assert read_many(files, clock) is None


def test_a_few_files_are_not_worth_it(files: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    forks(monkeypatch, 2)

    assert read_many(files[:10], clock) is None


def test_what_cannot_be_read_is_left_out(files: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    forks(monkeypatch, 2)
    for place in (0, len(files) - 1):
        os.unlink(files[place][0])

    found = read_many(files, clock)

    assert found is not None
    assert [place for place, each in enumerate(found) if each is None] == [0, len(files) - 1]


def test_a_helper_that_is_killed_is_done_without(
    files: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    forks(monkeypatch, 2)
    parent = os.getpid()

    def dying(path: str, size: int, clock: object) -> Hashed:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return Hashed(b"\1" * 32, b"")

    monkeypatch.setattr(hashing, "read", dying)

    found = read_many(files, clock)

    assert found is not None
    assert len(found) == len(files)
    assert {each is None for each in found} == {True, False}


def test_a_file_that_may_change_unseen_has_no_stamp(files: list[tuple[str, bytes]]) -> None:
    path, stamp = files[-1]

    assert is_racy(stamp, 0)
    assert read(path, 1, lambda: 0).stamp == b""
    assert read(path, 1, clock).stamp == stamp


@pytest.mark.parametrize("times", [(9_000_000_050, 9_000_000_060), (8_000_000_000, 9_000_000_000)])
@pytest.mark.parametrize("later", [-1, 0, 9_999_999, 10_000_001, 1_999_999_999, 2_000_000_001])
def test_of_many_stamps_one_is_enough(files: list[tuple[str, bytes]], times: tuple[int, int], later: int) -> None:
    """Whatever the clock says, and whether or not the file system has parts of seconds."""
    young = files[0][1][:24] + b"".join(time.to_bytes(8, "little") for time in times)
    old = files[0][1][:24] + bytes(16)
    now = max(times) + later

    assert any_is_racy([old, b"-", young], now) == is_racy(young, now)


@pytest.mark.parametrize("expected", [0, 3, 5, 6, 2**20])
def test_a_file_is_read_to_its_end_whatever_its_size_should_be(tmp_path: Path, expected: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")

    assert read(str(path), expected, clock).digest.hex() == hash_file(str(path)).hex


def test_a_table_that_is_asked_for_many_answers_the_same(files: list[tuple[str, bytes]], tmp_path: Path) -> None:
    names = [(os.path.basename(path), stamp) for path, stamp in files]
    asked = FileTable(Database(str(tmp_path / "one.db")), clock=clock).folder(str(tmp_path))
    plain = FileTable(Database(str(tmp_path / "two.db")), clock=clock).folder(str(tmp_path))

    digests = asked.digests(names)

    assert digests == {name: plain.digest(name, stamp) for name, stamp in names}
    assert asked.digests(names) == {name: asked.digest(name, stamp) for name, stamp in names} == digests
