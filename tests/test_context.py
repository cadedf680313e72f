"""A folder as a tree to copy from."""

import os
import socket
from pathlib import Path

import pytest

from builder.context.ignore import IgnoreFile
from builder.context.local import LocalTree
from builder.errors import ContextError
from builder.steps.tree import Tree
from cache.db import Database
from cache.files import FileTable
from layers.digest import Digest
from layers.entry import Entry, Kind


@pytest.fixture
def files(tmp_path: Path) -> FileTable:
    return FileTable(Database(str(tmp_path / "cache.db")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    return folder


@pytest.mark.kernel
def test_file_is_as_on_disk_but_for_its_owner(root: Path, files: FileTable) -> None:
    (root / "tool").write_bytes(b"12345")
    (root / "tool").chmod(0o4755)
    os.chown(root / "tool", 12, 34)
    os.chmod(root / "tool", 0o4755)
    os.utime(root / "tool", ns=(0, 1_234_567_890))
    os.setxattr(root / "tool", "user.note", b"x")

    entry = LocalTree(str(root), files).lookup("tool")

    assert entry == Entry("tool", Kind.FILE, 0o4755, size=5, mtime_ns=1_000_000_000)


def test_tree_fulfils_what_a_copy_asks_of_it(root: Path, files: FileTable) -> None:
    (root / "a").write_bytes(b"text")
    tree: Tree = LocalTree(str(root), files)

    entry = tree.lookup("a")

    assert entry is not None
    assert tree.digest(entry) == Digest.of(b"text")
    assert tree.content(entry) == str(root / "a")


def test_names_are_sorted_by_their_bytes_and_may_be_any_bytes(root: Path, files: FileTable) -> None:
    names = [b"\xff", b"b", b"a-b", b"a", "é".encode(), b"\xef\xbf\xbd"]
    for name in names:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).touch()

    found = [os.fsencode(entry.path) for entry in LocalTree(str(root), files).children("")]

    assert found == sorted(names)


def test_each_kind_is_told(root: Path, files: FileTable) -> None:
    (root / "d").mkdir(mode=0o700)
    (root / "l").symlink_to("d/../nowhere")
    os.mkfifo(root / "p", 0o600)

    found = {entry.path: entry for entry in LocalTree(str(root), files).children("")}

    assert {path: entry.kind for path, entry in found.items()} == {
        "d": Kind.DIRECTORY,
        "l": Kind.SYMLINK,
        "p": Kind.FIFO,
    }
    assert found["l"].target == "d/../nowhere"
    assert found["d"].mode == 0o700


def test_a_socket_is_an_empty_file(root: Path, files: FileTable) -> None:
    """So it is for BuildKit, which lets COPY name one; it was not there for COPY before."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "s"))
    (root / "s").chmod(0o640)
    tree = LocalTree(str(root), files)

    entry = tree.lookup("s")

    assert entry is not None
    assert (entry.kind, entry.mode, entry.size) == (Kind.FILE, 0o640, 0)
    assert (tree.content(entry), tree.digest(entry)) == (b"", Digest.of(b""))


@pytest.mark.kernel
def test_device_nodes_are_told_with_their_numbers(root: Path, files: FileTable) -> None:
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))

    entry = LocalTree(str(root), files).lookup("null")

    assert entry is not None
    assert (entry.kind, entry.device) == (Kind.CHARACTER, (1, 3))


def test_names_of_one_file_share_an_inode(root: Path, files: FileTable) -> None:
    (root / "a").write_bytes(b"x")
    os.link(root / "a", root / "b")
    (root / "c").write_bytes(b"x")

    a, b, c = LocalTree(str(root), files).children("")

    assert a.inode == b.inode is not None
    assert c.inode is None


def test_lookup_follows_no_link_on_the_way(root: Path, files: FileTable) -> None:
    (root / "d").mkdir()
    (root / "d" / "a").touch()
    (root / "l").symlink_to("d")
    (root / "outside").symlink_to("/etc")
    tree = LocalTree(str(root), files)

    assert tree.lookup("l/a") is None
    assert tree.lookup("outside/passwd") is None
    assert tree.children("l") == []
    assert tree.lookup("d/a/below-a-file") is None


@pytest.mark.parametrize(
    ("target", "path", "resolved"),
    [
        ("d", "l/a", "d/a"),
        ("/d", "l/a", "d/a"),
        ("/etc", "l/passwd", "etc/passwd"),
        ("../../../d", "l/a", "d/a"),
        ("d/../d/./", "l/a", "d/a"),
        ("d", "l/../x", "x"),
        ("d", "./d//e/../a", "d/a"),
        ("d", "../../d/a", "d/a"),
        ("nowhere", "l/a", "nowhere/a"),
        ("d", "", ""),
    ],
)
def test_links_are_followed_inside_the_context(
    root: Path, files: FileTable, target: str, path: str, resolved: str
) -> None:
    (root / "d").mkdir()
    (root / "d" / "a").touch()
    (root / "l").symlink_to(target)

    assert LocalTree(str(root), files).resolve(path) == resolved


def test_last_component_is_left_alone_on_demand(root: Path, files: FileTable) -> None:
    (root / "d").mkdir()
    (root / "d" / "l").symlink_to("a")
    (root / "k").symlink_to("d")

    assert LocalTree(str(root), files).resolve("k/l", follow_last=False) == "d/l"


def test_loop_of_links_is_an_error(root: Path, files: FileTable) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")

    with pytest.raises(ContextError, match="too many symbolic links"):
        LocalTree(str(root), files).resolve("a/x")


def test_excluded_file_is_not_there_and_the_tree_knows_why(root: Path, files: FileTable) -> None:
    (root / "secret").touch()
    (root / "open").touch()
    tree = LocalTree(str(root), files, IgnoreFile(".dockerignore", b"secret\nabsent\n"))

    assert tree.lookup("secret") is None
    assert [entry.path for entry in tree.children("")] == ["open"]
    assert tree.excluded("secret")
    assert not tree.excluded("open")
    assert not tree.excluded("absent")


def test_excluded_folder_is_there_for_what_was_brought_back(root: Path, files: FileTable) -> None:
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "keep").touch()
    (root / "d" / "drop").touch()
    (root / "d" / "empty").mkdir()
    tree = LocalTree(str(root), files, IgnoreFile(".dockerignore", b"d\n!d/e/keep\n"))

    assert [entry.path for entry in tree.children("d")] == ["d/e"]
    assert [entry.path for entry in tree.children("d/e")] == ["d/e/keep"]


def test_excluded_folder_in_which_nothing_was_brought_back_is_not_there(root: Path, files: FileTable) -> None:
    (root / "d").mkdir()
    (root / "d" / "drop").touch()
    tree = LocalTree(str(root), files, IgnoreFile(".dockerignore", b"d\n!d/e/keep\n"))

    assert tree.lookup("d") is None
    assert tree.children("d") == []


def test_link_into_an_excluded_folder_leads_nowhere(root: Path, files: FileTable) -> None:
    (root / "d").mkdir()
    (root / "d" / "a").touch()
    (root / "l").symlink_to("d")
    tree = LocalTree(str(root), files, IgnoreFile(".dockerignore", b"d"))

    assert tree.lookup(tree.resolve("l/a")) is None


def test_context_that_is_no_folder_is_an_error(root: Path, files: FileTable) -> None:
    with pytest.raises(ContextError, match="not a folder"):
        LocalTree(str(root / "missing"), files)


def test_file_that_vanishes_is_an_error_with_its_name(root: Path, files: FileTable) -> None:
    (root / "a").touch()
    tree = LocalTree(str(root), files)
    entry = tree.lookup("a")
    assert entry is not None
    (root / "a").unlink()

    with pytest.raises(ContextError, match="a in the build context cannot be read: no such file"):
        tree.digest(entry)


def test_name_that_no_file_can_have_is_an_error(root: Path, files: FileTable) -> None:
    with pytest.raises(ContextError, match="cannot be read"):
        LocalTree(str(root), files).lookup("x" * 300)
