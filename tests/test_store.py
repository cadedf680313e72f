"""The state folder: opening it, its locks, what is temporary, and what happens when it is damaged."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.db import Database
from cache.keys import chain_id, key_of
from cache.store import Store
from cache.trees import remove
from layers.digest import Digest
from layers.entry import Change, Entry, Kind
from layers.errors import StoreError
from layers.layer import write_layer

ONE = Digest.of(b"1")
TWO = Digest.of(b"2")
HOUSE = Path(__file__).parent.parent


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(str(tmp_path / "state"))
    yield store
    store.close()


def in_another_process(program: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process in the house, up to its first printed line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=HOUSE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_new_store_is_private_and_complete(tmp_path: Path) -> None:
    Store(str(tmp_path / "a" / "b")).close()

    root = tmp_path / "a" / "b"
    assert root.stat().st_mode & 0o777 == 0o700
    assert {"images", "trees", "indexes", "locks", "mounts", "tmp", "cache.db"} <= set(os.listdir(root))


def test_two_builds_have_the_same_store_open(store: Store) -> None:
    other = Store(store.root)
    other.records.add_content(ONE, TWO)

    assert store.records.find_content(ONE) == TWO
    other.close()


def test_file_in_place_of_the_store_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "state").touch()

    with pytest.raises(StoreError) as caught:
        Store(str(tmp_path / "state"))

    assert "--root" in caught.value.hint


@pytest.mark.kernel
def test_store_of_another_user_is_refused(store: Store) -> None:
    os.chown(os.path.join(store.root, "tmp"), 4242, 4242)

    with pytest.raises(StoreError, match="belongs to user 4242") as caught:
        Store(store.root)

    assert "PYBUILD_ROOT" in caught.value.hint


def test_opening_imports_nothing_that_a_cached_build_can_do_without(tmp_path: Path) -> None:
    program = (
        "import sys; from cache.store import Store; Store(sys.argv[1]).close();"
        "print(*sorted({'requests', 'rich', 'pathspec', 'asyncio', 'subprocess', 'tempfile', 'shutil', 'zstandard',"
        " 'isal', 'ctypes', 'logging', 'concurrent.futures'} & set(sys.modules)))"
    )

    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "state")], capture_output=True, text=True, check=True, cwd=HOUSE
    )

    assert result.stdout.split() == []


# The database


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_damaged_cache_starts_empty_and_says_so(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(damage)

    database = Database(str(path))

    assert "was damaged" in database.note
    assert database.rows("SELECT * FROM records") == []
    assert (tmp_path / "cache.db.old").read_bytes() == damage


def test_cache_of_another_format_starts_empty_and_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.db")
    Database(path).write(("INSERT INTO contents VALUES (?, ?)", [(ONE, TWO)]))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 77")
    connection.close()

    database = Database(path)

    assert "format 77" in database.note
    assert database.rows("SELECT * FROM contents") == []
    assert Database(path).note == ""


def test_damage_found_in_the_midst_of_a_build_does_not_end_it(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    first = Database(str(path))
    first.write(("INSERT INTO contents VALUES (?, ?)", [(f"{n}" * 100, TWO) for n in range(500)]))
    first.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * (size - 3 * 4096))
    database = Database(str(path))

    rows = database.rows("SELECT count(selector) FROM contents WHERE digest <> ''")
    database.write(("INSERT INTO contents VALUES (?, ?)", [(ONE, TWO)]))

    assert rows == []
    assert "was damaged" in database.note
    assert database.rows("SELECT selector FROM contents") == [(ONE,)]


def test_full_disk_is_an_error_with_a_hint_and_leaves_the_cache_sound(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "cache.db"))
    (pages,) = database.rows("PRAGMA page_count")[0]
    database.rows(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreError) as caught:
        database.write(("INSERT INTO contents VALUES (?, ?)", [(f"{n}" * 1000, TWO) for n in range(1000)]))

    assert "full" in caught.value.hint
    assert database.rows("SELECT * FROM contents") == []


def test_write_is_all_or_nothing(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "cache.db"))

    with pytest.raises(StoreError):
        database.write(
            ("INSERT INTO contents VALUES (?, ?)", [(ONE, TWO)]), ("INSERT INTO contents VALUES (?, ?)", [(ONE, None)])
        )

    assert database.rows("SELECT * FROM contents") == []


def test_threads_share_a_database(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "cache.db"))

    def write(start: int) -> None:
        for number in range(start, start + 50):
            database.write(("INSERT INTO contents VALUES (?, ?)", [(str(number), TWO)]))

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert database.rows("SELECT count(*) FROM contents") == [(150,)]


# Keys


def test_key_does_not_depend_on_the_order_of_its_parts() -> None:
    assert key_of("run", ONE, {"a": 1, "b": 2}) == key_of("run", ONE, {"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("operation", "parent", "material"),
    [("copy", ONE, {"argv": ["a", "b"]}), ("run", None, {"argv": ["a", "b"]}), ("run", ONE, {"argv": ["a b"]})],
)
def test_every_part_is_in_the_key(operation: str, parent: Digest | None, material: dict[str, object]) -> None:
    assert key_of(operation, parent, material) != key_of("run", ONE, {"argv": ["a", "b"]})


def test_chain_id_is_that_of_the_specification() -> None:
    assert chain_id([]) is None
    assert chain_id([ONE]) == ONE
    assert chain_id([ONE, TWO]) == Digest.of(f"{ONE} {TWO}".encode())


# Locks


def test_lock_is_held_by_one_thread_at_a_time(store: Store) -> None:
    inside, worst = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, worst
        for _ in range(20):
            with store.lock(ONE):
                with guard:
                    inside += 1
                    worst = max(worst, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert worst == 1


def test_lock_of_a_dead_process_is_free(store: Store) -> None:
    program = (
        "import sys; from cache.store import Store; store = Store(sys.argv[1])\n"
        "with store.lock('key'):\n print('held', flush=True); sys.stdin.read()"
    )
    kill(in_another_process(program, store.root))

    with store.lock("key"):
        pass


def test_lock_may_have_any_name(store: Store) -> None:
    with store.lock("docker.io/library/python:3"), store.lock(ONE):
        pass


# Temporary folders


def test_sweep_spares_what_living_builds_write(store: Store) -> None:
    mine = store.temporary("run")
    program = (
        "import sys; from cache.store import Store\n"
        "print(Store(sys.argv[1]).temporary('run'), flush=True); sys.stdin.read()"
    )
    process = in_another_process(program, store.root)

    store.sweep()

    assert os.path.isdir(mine)
    assert len(os.listdir(os.path.join(store.root, "tmp"))) == 2
    kill(process)


def test_sweep_removes_what_dead_builds_left(store: Store) -> None:
    program = (
        "import os, sys; from cache.store import Store; path = Store(sys.argv[1]).temporary('run')\n"
        "os.makedirs(path + '/a/b'); open(path + '/a/b/c', 'w').close(); os.chmod(path + '/a', 0)\n"
        "print('made', flush=True); sys.stdin.read()"
    )
    kill(in_another_process(program, store.root))

    store.sweep()

    assert os.listdir(os.path.join(store.root, "tmp")) == []


def test_sweep_spares_files_that_were_written_lately(store: Store) -> None:
    fresh, old = (Path(store.root, "tmp", name) for name in ("fresh", "old"))
    fresh.touch()
    old.touch()
    os.utime(old, (0, 0))

    store.sweep()

    assert fresh.exists()
    assert not old.exists()


def test_scratch_folder_is_gone_after_its_block_even_if_it_was_moved(store: Store, tmp_path: Path) -> None:
    with store.scratch("a") as kept:
        Path(kept, "file").touch()
    with store.scratch("b") as moved:
        os.rename(moved, tmp_path / "elsewhere")

    assert not os.path.exists(kept)
    assert (tmp_path / "elsewhere").is_dir()


def test_closing_removes_temporary_folders(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "state"))
    path = store.temporary("run")

    store.close()

    assert not os.path.exists(path)


# Removing


def test_removal_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "outside")

    remove(str(tmp_path / "gone"))

    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside" / "file").exists()


def test_folders_deeper_than_any_path_may_be_are_removed(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    here = os.open(tmp_path / "gone", os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("deep", 0o700, dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    remove(str(tmp_path / "gone"))

    assert os.listdir(tmp_path) == []


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove(str(tmp_path / "nothing"))


# Indexes


def test_index_that_was_lost_or_damaged_is_made_from_the_blob(store: Store) -> None:
    changes = [Change(Entry("a", Kind.FILE, size=1), b"x")]
    layer, index = write_layer(changes, store.layout)
    path = Path(store.root, "indexes", layer.diff_id.hex)
    store.keep_index(layer.diff_id, index)
    path.write_bytes(b"{}")
    other = Store(store.root)

    rebuilt = other.index_of(layer.diff_id, layer.descriptor)

    assert rebuilt == index
    assert path.read_bytes() == index.serialise()
    other.close()


def test_view_shows_layers_one_upon_the_other(store: Store) -> None:
    lower, _ = write_layer([Change(Entry("a", Kind.FILE, size=1), b"x")], store.layout)
    upper, _ = write_layer([Change(Entry("b", Kind.FILE, size=2), b"xy")], store.layout)

    view = store.view((lower, upper))

    assert [entry.path for entry in view.children("")] == ["a", "b"]
