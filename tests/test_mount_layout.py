"""What a tree holds, written into a folder; and what keys say of mounts."""

import os
from pathlib import Path

import pytest
from fakes import MemoryTree

from builder.bindings import mount_rows
from builder.errors import ContextError
from builder.steps.mounts_layout import ALONE, lay_out
from builder.steps.step import (
    BindMount,
    CacheMount,
    FromContext,
    FromStage,
    Run,
    RunMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from builder.steps.tree import Tree, walk
from cache.mount_sharing import Sharing
from layers.digest import Digest, canonical_json
from layers.entry import Content, Entry, Kind
from layers.oci import Platform

ME = (os.geteuid(), os.getegid())
ROOT = Entry("", Kind.DIRECTORY, 0o755)


class OnDisk(MemoryTree):
    """A tree whose files are on disk."""

    def __init__(self, place: Path, *names: str) -> None:
        super().__init__({name: (place / name).read_bytes() for name in names})
        self._place = place

    def content(self, entry: Entry) -> Content:
        return str(self._place / entry.path)


def write(tree: Tree, folder: Path, path: str = "") -> None:
    top = tree.lookup(path)
    assert top is not None
    folder.mkdir()
    lay_out(tree, (mine(entry) for entry in walk(tree, top)), mine(top), str(folder))


def mine(entry: Entry) -> Entry:
    return entry._replace(uid=ME[0], gid=ME[1])


def test_a_folder_is_written_with_modes_times_and_links(tmp_path: Path) -> None:
    tree = MemoryTree(
        {
            "d": Entry("d", Kind.DIRECTORY, 0o2750, mtime_ns=3_000_000_000),
            "d/f": b"F",
            "d/x": Entry("d/x", Kind.FILE, 0o4711, size=0, mtime_ns=5),
            "l": Entry("l", Kind.SYMLINK, 0o777, target="../out", mtime_ns=7_000_000_000),
            "p": Entry("p", Kind.FIFO, 0o600),
        }
    )

    write(tree, tmp_path / "o")

    got = {path: os.lstat(tmp_path / "o" / path) for path in ("d", "d/f", "d/x", "l", "p")}
    assert (tmp_path / "o/d/f").read_bytes() == b"F"
    assert os.readlink(tmp_path / "o/l") == "../out"
    assert [oct(got[path].st_mode & 0o7777) for path in ("d", "d/x")] == ["0o2750", "0o4711"]
    assert [got[path].st_mtime_ns for path in ("d", "d/x", "l")] == [3_000_000_000, 5, 7_000_000_000]


def test_files_on_disk_are_copied_and_hard_links_hold(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").write_bytes(os.urandom(3 << 20))
    os.link(tmp_path / "src/a", tmp_path / "src/b")
    tree = OnDisk(tmp_path / "src", "a", "b")
    entries = [mine(entry._replace(inode=7)) if entry.kind is Kind.FILE else mine(entry) for entry in walk(tree, ROOT)]
    (tmp_path / "o").mkdir()

    lay_out(tree, entries, ROOT, str(tmp_path / "o"))

    assert (tmp_path / "o/a").read_bytes() == (tmp_path / "src/a").read_bytes()
    assert os.path.samefile(tmp_path / "o/a", tmp_path / "o/b")
    assert not os.path.samefile(tmp_path / "o/a", tmp_path / "src/a")


def test_a_file_alone_has_one_name_whatever_it_was_called(tmp_path: Path) -> None:
    write(MemoryTree({"d/name": b"x"}), tmp_path / "o", "d/name")

    assert [path.name for path in (tmp_path / "o").iterdir()] == [ALONE]
    assert (tmp_path / "o" / ALONE).read_bytes() == b"x"


def test_a_part_of_a_tree_becomes_the_folder(tmp_path: Path) -> None:
    write(MemoryTree({"a/b/f": b"x", "a/c": b"y"}), tmp_path / "o", "a/b")

    assert [path.name for path in (tmp_path / "o").iterdir()] == ["f"]


@pytest.mark.parametrize("now", [b"", b"longer than before"])
def test_a_file_that_changed_its_length_is_told(tmp_path: Path, now: bytes) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/f").write_bytes(b"before")
    tree = OnDisk(tmp_path / "src", "f")
    (tmp_path / "src/f").write_bytes(now)

    with pytest.raises(ContextError, match="f changed while it was read"):
        write(tree, tmp_path / "o")


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/f").write_bytes(b"before")
    tree = OnDisk(tmp_path / "src", "f")
    (tmp_path / "src/f").unlink()
    (tmp_path / "src/f").symlink_to("/etc/passwd")

    with pytest.raises(OSError, match="symbolic links"):
        write(tree, tmp_path / "o")


# --- keys


def row(mount: RunMount, *digests: Digest) -> bytes:
    run = Run(("true",), (), "/", "", Platform.host(), mounts=(mount,))
    return canonical_json({"mounts": mount_rows(run, digests)})


ONE, TWO = Digest.of(b"1"), Digest.of(b"2")
BIND = BindMount("/m", FromContext())


def test_a_key_speaks_of_the_content_of_a_bind_and_not_of_its_place() -> None:
    assert row(BIND, ONE) == row(BindMount("/m", FromContext("other"), "elsewhere"), ONE)
    assert row(BIND, ONE) != row(BIND, TWO)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (BIND, BindMount("/n", FromContext())),
        (BIND, BindMount("/m", FromContext(), writable=True)),
        (BIND, BindMount("/m", FromStage(0))),
        (CacheMount("/m", "a"), CacheMount("/m", "b")),
        (CacheMount("/m", "a"), CacheMount("/m", "a", Sharing.LOCKED)),
        (CacheMount("/m", "a"), CacheMount("/m", "a", seed=BIND)),
        (CacheMount("/m", "a"), CacheMount("/m", "a", uid=0)),
        (TmpfsMount("/m"), TmpfsMount("/m", 1)),
        (SecretMount("a", "/m"), SecretMount("b", "/m")),
        (SecretMount("a", "/m"), SecretMount("a", "/m", "M")),
        (SshMount("a", "/m"), SshMount("b", "/m")),
        (SshMount("a", "/m"), SecretMount("a", "/m")),
    ],
)
def test_mounts_that_differ_have_other_keys(one: RunMount, other: RunMount) -> None:
    assert row(one, ONE) != row(other, ONE)
