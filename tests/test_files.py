"""Digests that are remembered by what stat says of a file."""

import marshal
import os
import time
from pathlib import Path

import pytest

from cache.db import Database
from cache.files import FileTable, FolderTable, hash_file
from cache.stamps import STAMP_SIZE, is_racy, stamp_of
from layers.digest import Digest

SECOND = 1_000_000_000
RULES = Digest.of(b"rules")


class Folder:
    """A folder with its table; `old` files have times long before the clock of the table."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root
        self._database = database
        self.clock_ns = time.time_ns() + 60 * SECOND

    def open(self) -> FolderTable:
        return FileTable(self._database, clock=lambda: self.clock_ns).folder(str(self.root))

    def digest(self, table: FolderTable, name: str) -> Digest:
        return table.digest(name, stamp_of(os.lstat(self.root / name)))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    root = tmp_path / "context"
    root.mkdir()
    return Folder(root, Database(str(tmp_path / "cache.db")))


def corrupt_known(folder: Folder, name: str) -> Digest:
    """Put a wrong digest into the table, so that a test sees whether it was used."""
    wrong = Digest.of(b"not what the file holds")
    for (stamps,) in folder._database.rows("SELECT stamps FROM files"):
        known = marshal.loads(stamps)  # type: ignore[arg-type]  # as the schema says
        known[name] = known[name][:STAMP_SIZE] + bytes.fromhex(wrong.hex)
        folder._database.write(("UPDATE files SET stamps = ?", [(marshal.dumps(known),)]))
    return wrong


def remember(folder: Folder, name: str) -> Digest:
    """Have the table remember a file; the digest that it gives if it does not read the file again."""
    table = folder.open()
    folder.digest(table, name)
    table.save()
    return corrupt_known(folder, name)


def test_unchanged_file_is_not_read_again(folder: Folder) -> None:
    (folder.root / "a").write_bytes(b"one")
    known = remember(folder, "a")

    assert folder.digest(folder.open(), "a") == known


@pytest.mark.parametrize("change", ["bytes", "size", "inode", "mode"])
def test_changed_file_is_read_again(folder: Folder, change: str) -> None:
    path = folder.root / "a"
    path.write_bytes(b"one")
    remember(folder, "a")
    status = path.stat()
    data = b"longer" if change == "size" else b"two" if change == "bytes" else b"one"
    if change == "mode":
        path.chmod(0o600)
    elif change == "inode":
        (folder.root / "b").write_bytes(data)
        os.replace(folder.root / "b", path)
    else:
        path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert folder.digest(folder.open(), "a") == Digest.of(data)


def test_file_whose_times_are_those_of_its_reading_is_not_remembered(folder: Folder) -> None:
    (folder.root / "a").write_bytes(b"one")
    folder.clock_ns = (folder.root / "a").stat().st_ctime_ns + 9_000_000
    remember(folder, "a")

    assert folder.digest(folder.open(), "a") == Digest.of(b"one")


def test_file_older_than_a_tick_is_remembered(folder: Folder) -> None:
    (folder.root / "a").write_bytes(b"one")
    folder.clock_ns = (folder.root / "a").stat().st_ctime_ns + 10_000_001
    known = remember(folder, "a")

    assert folder.digest(folder.open(), "a") == known


def test_file_from_the_future_is_never_remembered(folder: Folder) -> None:
    (folder.root / "a").write_bytes(b"one")
    os.utime(folder.root / "a", ns=(0, folder.clock_ns + SECOND))
    remember(folder, "a")

    assert folder.digest(folder.open(), "a") == Digest.of(b"one")


def test_whole_seconds_are_taken_for_a_coarse_clock() -> None:
    coarse = os.stat_result(
        (0o100644, 1, 1, 1, 0, 0, 3, 50, 50, 50), {"st_mtime_ns": 50 * SECOND, "st_ctime_ns": 50 * SECOND}
    )

    assert is_racy(stamp_of(coarse), 51 * SECOND)
    assert not is_racy(stamp_of(coarse), 52 * SECOND + 1)


def test_names_may_be_any_bytes(folder: Folder) -> None:
    name = os.fsdecode(b"\xff\xfe")
    (folder.root / name).write_bytes(b"one")
    known = remember(folder, name)

    assert folder.digest(folder.open(), name) == known


def test_inode_beyond_the_numbers_of_sqlite_is_remembered(folder: Folder) -> None:
    """Overlay file systems set the highest bit of inodes; SQLite has signed numbers."""
    times = {"st_mtime_ns": 50, "st_ctime_ns": 50}
    status = os.stat_result((0o100644, 2**64 - 1, 2**64 - 1, 1, 0, 0, 3, 0, 0, 0), times)
    (folder.root / "a").write_bytes(b"one")

    assert folder.open().digest("a", stamp_of(status)) == Digest.of(b"one")


def test_link_in_place_of_a_file_is_not_read(folder: Folder) -> None:
    (folder.root / "a").symlink_to("/etc/passwd")

    with pytest.raises(OSError, match="symbolic links"):
        hash_file(str(folder.root / "a"))


def test_folder_is_known_by_its_real_path(folder: Folder) -> None:
    (folder.root / "a").write_bytes(b"one")
    known = remember(folder, "a")
    link = folder.root.parent / "link"
    link.symlink_to(folder.root)
    folder.root = link

    assert folder.digest(folder.open(), "a") == known


def test_folders_that_are_gone_are_dropped_when_they_are_many(folder: Folder) -> None:
    table = folder.open()
    for number in range(110):
        (folder.root / str(number)).mkdir()
        (folder.root / str(number) / "file").touch()
        folder.digest(table, f"{number}/file")
    table.save()
    table = folder.open()
    folder.digest(table, "1/file")

    table.save()

    assert folder._database.rows("SELECT folder FROM files") == [(b"1",)]


def test_files_that_are_gone_are_dropped_when_they_are_many(folder: Folder) -> None:
    table = folder.open()
    for number in range(110):
        (folder.root / str(number)).touch()
        folder.digest(table, str(number))
    table.save()
    (folder.root / "new").touch()
    table = folder.open()
    folder.digest(table, "1")
    folder.digest(table, "new")

    table.save()

    ((stamps,),) = folder._database.rows("SELECT stamps FROM files")
    assert set(marshal.loads(stamps)) == {"1", "new"}  # type: ignore[arg-type]  # as the schema says


def test_a_row_that_is_damaged_is_made_anew(folder: Folder) -> None:
    (folder.root / "a").write_bytes(b"one")
    remember(folder, "a")
    folder._database.write(("UPDATE files SET stamps = ?", [(b"{damaged",)]))

    table = folder.open()
    assert folder.digest(table, "a") == Digest.of(b"one")
    table.save()

    ((stamps,),) = folder._database.rows("SELECT stamps FROM files")
    assert set(marshal.loads(stamps)) == {"a"}  # type: ignore[arg-type]  # as the schema says


def test_two_looks_at_one_folder_share_what_was_read(folder: Folder) -> None:
    (folder.root / "a").write_bytes(b"one")
    files = FileTable(folder._database, clock=lambda: folder.clock_ns)

    assert files.folder(str(folder.root)) is files.folder(str(folder.root / "."))


def test_verdicts_are_kept_for_each_set_of_rules(folder: Folder) -> None:
    odd = os.fsdecode(b"\xff")
    folder.open().save_verdicts(RULES, {"a": 0, "b/c": 2, odd: 1})

    assert folder.open().verdicts(RULES) == {"a": 0, "b/c": 2, odd: 1}
    assert folder.open().verdicts(Digest.of(b"other rules")) == {}


def test_verdicts_of_old_rules_are_forgotten(folder: Folder) -> None:
    for number in range(6):
        folder.clock_ns += 1
        folder.open().save_verdicts(Digest.of(bytes([number])), {"a": 0})

    kept = [number for number in range(6) if folder.open().verdicts(Digest.of(bytes([number])))]

    assert kept == [2, 3, 4, 5]
