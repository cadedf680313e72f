"""Layers become overlay's lower directories, and hostile ones become nothing outside of them."""

import io
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from grants import USER_NAMESPACES, demand, mounted
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import file, folder, hard_link, index_of, layers, symlink, tar_of

from layers import inode
from layers.entry import Entry, Kind
from layers.errors import ImageError, StoreError
from layers.unpack import unpack

pytestmark = pytest.mark.kernel

SENTINEL = b"untouched"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; beside it a file that must be the same, and alone, after the test."""
    root = tmp_path / "root"
    root.mkdir()
    sentinel = tmp_path / "sentinel"
    sentinel.write_bytes(SENTINEL)
    sentinel.chmod(0o600)
    before = os.lstat(sentinel)

    yield root

    after = os.lstat(sentinel)
    assert sentinel.read_bytes() == SENTINEL
    assert (after.st_mode, after.st_uid, after.st_nlink, after.st_ctime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_nlink,
        before.st_ctime_ns,
    )
    assert sorted(os.listdir(tmp_path)) == ["root", "sentinel"]


def lay(root: Path, *entries: Entry, contents: dict[str, bytes] | None = None) -> bool:
    return unpack(tar_of(*entries, contents=contents), str(root))


def opaque(path: Path) -> bool:
    return inode.is_opaque(str(path))


def is_mark(path: Path | str) -> bool:
    """In either form: on an overlay, as the files of a container are, nobody may make the device."""
    status = os.lstat(path)
    return inode.is_whiteout(status) or inode.is_marked_as_whiteout(str(path), status)


def test_files_come_with_all_that_they_are(root: Path) -> None:
    entry = Entry("a", Kind.FILE, 0o4750, 12, 34, mtime_ns=1_000_000_000 * 10**9, xattrs=(("user.note", b"\xff\0x"),))

    lay(root, entry, contents={"a": b"content"})

    described = inode.describe(str(root / "a"), os.lstat(root / "a"), "a")
    assert described == entry._replace(size=7)
    assert (root / "a").read_bytes() == b"content"


def test_a_large_file_is_whole(root: Path) -> None:
    content = os.urandom(3_000_001)

    lay(root, file("a"), file("b"), contents={"a": content})

    assert (root / "a").read_bytes() == content
    assert (root / "b").read_bytes() == b"b"


def test_every_other_kind_comes_with_its_owner(root: Path) -> None:
    entries = [
        symlink("link", "nowhere")._replace(uid=5, mtime_ns=7 * 10**9),
        Entry("fifo", Kind.FIFO, 0o622, 5, 6, mtime_ns=8 * 10**9),
        Entry("null", Kind.CHARACTER, 0o666, 5, 6, device=(1, 3), mtime_ns=9 * 10**9),
        Entry("loop", Kind.BLOCK, 0o660, 5, 6, device=(7, 200)),
    ]

    lay(root, *entries)

    for entry in entries:
        assert inode.describe(str(root / entry.path), os.lstat(root / entry.path), entry.path) == entry


def test_capabilities_and_setuid_bits_survive_the_owner(root: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")

    lay(root, Entry("ping", Kind.FILE, 0o6755, 5, 6, xattrs=(("security.capability", capability),)))

    assert os.getxattr(root / "ping", "security.capability") == capability
    assert stat.S_IMODE(os.lstat(root / "ping").st_mode) == 0o6755


def test_folders_keep_their_times_and_modes_though_they_are_filled(root: Path) -> None:
    lay(
        root,
        folder("", 0o711, uid=3),
        folder("a", 0o000, uid=5, mtime=9),
        folder("a/b", 0o2555, mtime=8),
        file("a/b/c"),
    )

    assert (os.lstat(root).st_mode & 0o7777, os.lstat(root).st_uid) == (0o711, 3)
    for path, mode, uid, mtime in [("a", 0o000, 5, 9), ("a/b", 0o2555, 0, 8)]:
        status = os.lstat(root / path)
        assert (status.st_mode & 0o7777, status.st_uid, status.st_mtime) == (mode, uid, mtime)
    assert os.lstat(root / "a/b/c").st_gid == 0


def test_folders_that_no_tar_lists_are_made(root: Path) -> None:
    leans = lay(root, file("a/b/c"))

    status = os.lstat(root / "a/b")
    assert (status.st_mode & 0o7777, status.st_mtime, leans) == (0o755, 0, True)


def test_hard_links_share_a_file(root: Path) -> None:
    lay(root, file("a"), symlink("s", "a"), hard_link("d/b", "a"), hard_link("c", "d/b"), hard_link("t", "s"))

    assert os.lstat(root / "a").st_ino == os.lstat(root / "d/b").st_ino == os.lstat(root / "c").st_ino
    assert os.readlink(root / "t") == "a"


def test_the_last_entry_of_a_path_counts(root: Path) -> None:
    lay(
        root,
        file("a"),
        symlink("a", "x"),
        folder("b"),
        file("b/x"),
        file("b"),
        symlink("c", "b"),
        folder("c"),
        file("c/y"),
    )

    assert os.readlink(root / "a") == "x"
    assert (root / "b").read_bytes() == b"b"
    assert os.listdir(root / "c") == ["y"]


def test_names_that_are_not_utf8_survive(root: Path) -> None:
    lay(root, file("\udcff\udc80"), symlink("link", "\udcfe"))

    assert sorted(os.listdir(os.fsencode(root))) == [b"link", b"\xff\x80"]
    assert os.readlink(os.fsencode(root / "link")) == b"\xfe"


def test_a_whiteout_becomes_overlays_mark(root: Path) -> None:
    lay(root, file("d/.wh.gone", 0))

    assert is_mark(root / "d/gone")


def test_an_opaque_folder_becomes_overlays(root: Path) -> None:
    lay(root, file("d/new"), file("d/.wh..wh..opq", 0))

    assert opaque(root / "d")
    assert os.listdir(root / "d") == ["new"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_folder_that_was_removed_and_made_again_is_opaque(root: Path, order: int) -> None:
    lay(root, *[file(".wh.d", 0), folder("d")][::order], file("d/x"))

    assert opaque(root / "d")
    assert os.listdir(root / "d") == ["x"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_that_was_removed_and_made_again_is_a_file(root: Path, order: int) -> None:
    lay(root, *[file(".wh.a", 0), file("a")][::order])

    assert (root / "a").read_bytes() == b"a"


def test_a_hard_link_to_a_lower_layer_is_a_copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    lower, empty = tmp_path_factory.mktemp("lower"), tmp_path_factory.mktemp("empty")
    entry = Entry("d/a", Kind.FILE, 0o4711, 5, 6, mtime_ns=9 * 10**9, xattrs=(("user.x", b"y"),))
    unpack(tar_of(entry, contents={"d/a": b"below"}), str(lower))

    leans = unpack(tar_of(folder("e"), hard_link("e/b", "d/a")), str(root), lowers=[str(lower), str(empty)])

    assert inode.describe(str(root / "e/b"), os.lstat(root / "e/b"), "d/a") == entry._replace(size=5)
    assert (root / "e/b").read_bytes() == b"below"
    assert leans


@pytest.mark.parametrize("mark", [".wh.a", ".wh..wh..opq", "a"])
def test_a_hard_link_to_what_is_hidden_below_is_an_error(
    root: Path, tmp_path_factory: pytest.TempPathFactory, mark: str
) -> None:
    lowers = [tmp_path_factory.mktemp("lower") for _ in range(2)]
    unpack(tar_of(file("d/a")), str(lowers[0]))
    unpack(tar_of(folder("d/a") if mark == "a" else file(f"d/{mark}", 0)), str(lowers[1]))

    with pytest.raises(ImageError, match="hard link 'b' to 'd/a'"):
        unpack(tar_of(hard_link("b", "d/a")), str(root), lowers=[str(lower) for lower in lowers])


def test_a_folder_that_is_not_listed_is_as_it_is_below(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    lower = tmp_path_factory.mktemp("lower")
    unpack(tar_of(folder("tmp", 0o1777, uid=3, mtime=4)), str(lower))

    leans = unpack(tar_of(file("tmp/x")), str(root), lowers=[str(lower)])

    status = os.lstat(root / "tmp")
    assert (status.st_mode & 0o7777, status.st_uid, status.st_mtime, leans) == (0o1777, 3, 4, True)


def test_a_layer_that_lists_its_folders_leans_on_nothing(root: Path) -> None:
    leans = lay(root, folder("a"), file("a/x"), hard_link("a/y", "a/x"))

    assert not leans


LONG = "/".join(["n" * 200] * 15)
HOSTILE = {
    "name with ..": [file("../sentinel")],
    "name with .. in the middle": [folder("a"), file("a/../../sentinel")],
    "folder ..": [folder("..", 0o777)],
    "whiteout of ..": [file("a/.wh...", 0)],
    "whiteout of .": [file(".wh..", 0)],
    "whiteout with .. before": [file("../.wh.sentinel", 0)],
    "opaque ..": [file("../.wh..wh..opq", 0)],
    "entry below a whiteout": [file(".wh.x/y")],
    "hard link to outside": [hard_link("x", "../sentinel"), file("x")],
    "hard link through a symlink": [symlink("up", ".."), hard_link("x", "up/sentinel")],
    "hard link to an absolute path": [hard_link("x", "/etc/passwd")],
    "hard link to a folder": [folder("a"), hard_link("x", "a")],
    "hard link to nothing": [hard_link("x", "nowhere")],
    "hard link to itself": [hard_link("x", "x")],
    "hard link in the place of its target's folder": [file("a/b"), hard_link("a", "a/b")],
    "hard link through a file": [file("a"), hard_link("x", "a/b")],
    "symlink to its own absolute path": [symlink("etc", "/etc"), file("etc/shadow")],
    "symlinks in a circle": [symlink("a", "b"), symlink("b", "a"), file("a/x")],
    "file below a file": [file("a"), file("a/x")],
    "file below a device": [Entry("a", Kind.CHARACTER, device=(1, 3)), file("a/x")],
    "root that is a symlink": [symlink("", "..")],
    "huge name": [file("n" * 300)],
    "huge symlink": [symlink("a", "n" * 5000)],
    "huge path": [file("/".join(["d"] * 3000))],
    "path made huge by symlinks": [symlink("a", LONG), symlink("a/a", LONG), file("a/a/a")],
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_layer_is_refused(root: Path, entries: list[Entry]) -> None:
    with pytest.raises(ImageError):
        lay(root, *entries)


INSIDE = {
    "absolute name": ([file("/sentinel")], "sentinel"),
    "write through a symlink to outside": ([symlink("up", ".."), file("up/sentinel")], "sentinel"),
    "write through an absolute symlink": ([symlink("x", "/etc"), file("x/shadow")], "etc/shadow"),
    "write through two symlinks": ([symlink("a", "b"), symlink("b", "../.."), file("a/sentinel")], "sentinel"),
    "write over a symlink": ([symlink("x", "../sentinel"), file("x")], "x"),
    "write over a hard link to a symlink": ([symlink("s", "../sentinel"), hard_link("x", "s"), file("x")], "x"),
    "symlink in the place of a folder": ([folder("d"), symlink("d", ".."), file("d/sentinel")], "sentinel"),
    "folder in the place of a symlink": ([symlink("d", ".."), folder("d"), file("d/sentinel")], "d/sentinel"),
    "link that changes its target": (
        [folder("a"), symlink("d", "a"), file("d/x"), symlink("d", ".."), file("d/sentinel")],
        "sentinel",
    ),
    "folder over a folder through a symlink": ([symlink("up", ".."), folder("up/d", 0o700), file("up/d/x")], "d/x"),
    "whiteout through a symlink": ([symlink("up", ".."), file("up/.wh.sentinel", 0)], None),
    "opaque through a symlink": ([symlink("up", ".."), file("up/.wh..wh..opq", 0)], None),
    "dots within a name": ([file("./a/./b//c")], "a/b/c"),
    "folder removed under open descriptors": (
        [folder("a"), file("a/b/c/d"), symlink("a", "/"), file("a/b/c/d")],
        "b/c/d",
    ),
}


@pytest.mark.parametrize(("entries", "path"), INSIDE.values(), ids=INSIDE)
def test_whatever_leads_out_of_the_root_ends_inside(root: Path, entries: list[Entry], path: str | None) -> None:
    lay(root, *entries)

    if path:
        assert (root / path).is_file()
        assert not (root / path).is_symlink()


def test_attributes_that_speak_to_the_kernel_or_to_us_are_dropped(root: Path) -> None:
    names = ["user.overlay.opaque", "trusted.overlay.redirect", "user.pybuild.dev", "security.selinux", "user.kept"]

    lay(root, folder("d")._replace(xattrs=tuple((name, b"y") for name in names)))

    assert os.listxattr(root / "d") == ["user.kept"]


@pytest.mark.parametrize("name", ["nonsense", "user.", "system.nonsense", "user.\0"])
def test_an_attribute_that_cannot_be_set_is_told(root: Path, name: str) -> None:
    with (root / "x").open("w") as out, pytest.raises(StoreError, match="extended attribute"):
        inode.dress(out.fileno(), Entry("x", Kind.FILE, xattrs=((name, b""),)))


def test_a_device_with_the_number_of_a_whiteout_is_one(root: Path) -> None:
    lay(root, Entry("d/a", Kind.CHARACTER, 0o666, 5, device=(0, 0)))

    assert os.lstat(root / "d/a").st_uid == 0


def test_a_time_that_no_kernel_knows_is_no_error(root: Path) -> None:
    lay(root, file("a", mtime=-5), file("b", mtime=10**17))

    assert os.lstat(root / "a").st_mtime == -5


def test_a_layer_that_ends_early_is_an_error(root: Path) -> None:
    cut = tar_of(file("a"), contents={"a": bytes(5000)}).getvalue()[:3000]

    with pytest.raises(ImageError):
        unpack(io.BytesIO(cut), str(root))


def test_a_root_that_is_a_symlink_is_refused(root: Path) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("real")

    with pytest.raises(StoreError):
        unpack(tar_of(file("a")), str(root / "link"))

    assert not os.listdir(root / "real")


def test_many_open_folders_do_not_exhaust_descriptors(root: Path) -> None:
    deep = "/".join("d" * 100)

    lay(root, file(f"{deep}/x"), *[file(f"{number}/{deep}/x") for number in range(3)])

    assert (root / f"2/{deep}/x").is_file()
    assert len(os.listdir("/proc/self/fd")) < 60


def test_a_full_disk_is_told(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    small = tmp_path_factory.mktemp("small")
    with (
        mounted("tmpfs", small, "size=64k"),
        pytest.raises(StoreError, match="'a' of a layer cannot be unpacked: No space left"),
    ):
        unpack(tar_of(file("a"), contents={"a": bytes(200_000)}), str(small))


IN_USER_NAMESPACE = """
import sys
from layers.unpack import unpack
from layers.errors import StoreError
from layers import inode
import os
try:
    unpack(open(sys.argv[1], "rb"), sys.argv[2])
except StoreError as error:
    print(error.message, "|", error.hint)
path = sys.argv[2] + "/null"
print(inode.describe(path, os.lstat(path), "null"))
"""


def unpack_with_one_id(tar: bytes, tmp_path: Path) -> str:
    demand(USER_NAMESPACES)
    (tmp_path / "tar").write_bytes(tar)
    (tmp_path / "tree").mkdir()
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", IN_USER_NAMESPACE]
    arguments = [str(tmp_path / "tar"), str(tmp_path / "tree")]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True, env={"PYTHONPATH": "."})
    return done.stdout


def test_where_no_device_may_be_made_a_placeholder_is_read_as_one(tmp_path: Path) -> None:
    entry = Entry("null", Kind.CHARACTER, 0o666, device=(1, 3), mtime_ns=5 * 10**9)

    output = unpack_with_one_id(tar_of(entry, file("d/.wh.x", 0)).getvalue(), tmp_path)

    assert output == f"{entry}\n"
    assert stat.S_ISREG(os.lstat(tmp_path / "tree/null").st_mode)
    assert is_mark(tmp_path / "tree/d/x")


def test_with_one_id_owners_are_noted_and_read_again(tmp_path: Path) -> None:
    entry = Entry("null", Kind.CHARACTER, 0o666, 33, 4_000_000_000, device=(1, 3), mtime_ns=5 * 10**9)
    others = (file("f", uid=33), symlink("l", "f")._replace(uid=33, gid=44), folder("d", 0o755)._replace(gid=44))

    output = unpack_with_one_id(tar_of(entry, *others).getvalue(), tmp_path)

    assert output == f"{entry}\n"
    assert os.getxattr(tmp_path / "tree/f", "user.pybuild.owner") == b"33:0"
    assert os.getxattr(tmp_path / "tree/d", "user.pybuild.owner") == b"0:44"
    assert os.listxattr(tmp_path / "tree/l", follow_symlinks=False) == ["security.capability"]


WHOLE = tar_of(
    folder("d", 0o700),
    file("d/a")._replace(xattrs=(("user.x", b"y"),)),
    symlink("d/l", "../d"),
    hard_link("d/l/b", "d/a"),
    Entry("null", Kind.CHARACTER, device=(1, 3)),
    file("e/.wh.x", 0),
).getvalue()


@pytest.mark.property
@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_layer_is_an_error_for_people_or_none(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    data = bytearray(WHOLE)
    for position, value in damage:
        data[position] = value
        header = position - position % 512
        data[header + 148 : header + 156] = b" " * 8
        data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])

    with suppress(ImageError, StoreError):
        unpack(io.BytesIO(data), str(tmp_path_factory.mktemp("tree")))


@pytest.mark.property
@settings(max_examples=100)
@given(layers())
def test_a_tree_is_what_the_index_of_its_layer_says(
    tmp_path_factory: pytest.TempPathFactory, stack: list[list[Entry]]
) -> None:
    for entries in stack:
        root = str(tmp_path_factory.mktemp("tree"))
        try:
            unpack(tar_of(*entries), root)
        except ImageError:
            continue

        index = index_of(*entries)

        found: dict[str, Entry] = {}
        for place, folders, files in os.walk(root):
            for path in (os.path.join(place, name) for name in [*folders, *files]):
                if not is_mark(path):
                    entry = inode.describe(path, os.lstat(path), os.path.relpath(path, root))
                    assert entry is not None
                    found[entry.path] = entry
        listed = {path: entry for path, entry in found.items() if path in index.entries}
        assert {path: entry._replace(inode=None) for path, entry in listed.items()} == {
            path: entry._replace(inode=None) for path, entry in index.entries.items()
        }
        assert found.keys() - listed.keys() <= index.folders.keys()
        assert groups(found) == groups(listed) == groups(index.entries)


def groups(entries: object) -> set[frozenset[str]]:
    """Which paths are links of one file."""
    assert isinstance(entries, dict)
    inodes: dict[object, set[str]] = {}
    for path, entry in entries.items():
        if entry.inode is not None:
            inodes.setdefault(entry.inode, set()).add(path)
    return {frozenset(paths) for paths in inodes.values() if len(paths) > 1}
