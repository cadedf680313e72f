"""What a command changed, read from the upper directory of a real overlay mount."""

import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from grants import mounted
from tars import file, folder, hard_link, index_of, symlink, tar_of

from layers.diff import overlay_changes
from layers.entry import Change, Entry, Kind
from layers.errors import StoreError
from layers.owners import DEVICE, OWNER
from layers.unpack import unpack
from layers.view import View

pytestmark = pytest.mark.kernel

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
IMAGE = [
    folder("", mtime=1),
    folder("d", 0o750, uid=3, mtime=2),
    file("d/a", 0o640, uid=3, mtime=3),
    file("d/b", mtime=3),
    folder("d/sub", mtime=4),
    file("d/sub/x", mtime=3),
    folder("e", mtime=5),
    symlink("e/link", "../d/a"),
    file("e/one", mtime=3),
    hard_link("e/two", "e/one"),
    Entry("e/attributes", Kind.FILE, xattrs=(("security.capability", CAPABILITY), ("user.note", b"x"))),
]


class Overlay:
    """An image of one layer, mounted so that commands can change it."""

    def __init__(self, folder: Path, entries: Sequence[Entry], stack: ExitStack) -> None:
        self.view = View([index_of(*entries)])
        self.lower, self.upper, self.merged = folder / "lower", folder / "upper", folder / "merged"
        for name in ("lower", "upper", "work", "merged"):
            (folder / name).mkdir()
        unpack(tar_of(*entries), str(folder / "lower"))
        root = self.view.lookup("")
        assert root is not None
        self.upper.chmod(root.mode)
        os.utime(self.upper, ns=(root.mtime_ns, root.mtime_ns))
        options = f"userxattr,lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        stack.enter_context(mounted("overlay", self.merged, options))

    def run(self, script: str) -> None:
        """Run a shell script in the mounted image."""
        subprocess.run(["sh", "-ec", script], check=True, cwd=self.merged)

    def changes(self) -> list[Change]:
        """What the upper directory says now."""
        return list(overlay_changes(str(self.upper), self.view, [str(self.lower)]))

    def paths(self) -> list[str]:
        """The same, by path alone."""
        return [change.entry.path for change in self.changes()]

    def entry(self, path: str) -> Entry:
        """The entry of one change."""
        return next(change.entry for change in self.changes() if change.entry.path == path)


Mount = Callable[..., Overlay]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    with ExitStack() as stack:
        yield lambda *entries: Overlay(tmp_path, entries or IMAGE, stack)


@pytest.fixture
def overlay(mount: Mount) -> Overlay:
    return mount()


@pytest.fixture
def no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a user namespace, where they are noted; there the recorder sees to it that no command writes a note."""
    monkeypatch.setattr("layers.inode.may_make_devices", lambda: False)


def test_nothing_changed_is_no_change(overlay: Overlay) -> None:
    overlay.run("cat d/a e/link; ls -R . > /dev/null")

    assert overlay.changes() == []


def test_a_new_file_brings_the_folders_above_it(overlay: Overlay) -> None:
    overlay.run("echo new > d/sub/new; chmod 4755 d/sub/new; chown 7:8 d/sub/new; touch -d @99.123456789 d/sub/new")

    assert overlay.paths() == ["d", "d/sub", "d/sub/new"]
    assert overlay.entry("d") == folder("d", 0o750, uid=3, mtime=2)
    assert overlay.entry("d/sub/new") == Entry("d/sub/new", Kind.FILE, 0o755, 7, 8, 4, 99_123456789)


def test_content_is_where_the_file_is(overlay: Overlay) -> None:
    overlay.run("echo new > new")

    (change,) = overlay.changes()
    assert change.content == str(overlay.upper / "new")


def test_a_changed_file_is_listed(overlay: Overlay) -> None:
    overlay.run("echo more >> d/a")

    assert overlay.paths() == ["d", "d/a"]
    assert overlay.entry("d/a").size == len("d/a" + "more\n")


def test_a_command_of_real_root_makes_no_device_and_no_owner_by_a_note(overlay: Overlay) -> None:
    """A user of an image might give itself what only root may make."""
    overlay.run("touch new; chown 7:8 new")
    os.setxattr(overlay.merged / "new", DEVICE, b"b 8 0")
    os.setxattr(overlay.merged / "new", OWNER, b"0:0")

    entry = overlay.entry("new")

    assert (entry.kind, entry.uid, entry.gid, entry.xattrs) == (Kind.FILE, 7, 8, ())


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ("chmod 600 d/a", "d/a"),
        ("chown 9:9 d/a", "d/a"),
        ("chown -h 9:9 e/link", "e/link"),
        ("touch -d @77 d/a", "d/a"),
        ("chmod 700 d/sub", "d/sub"),
        ("touch -d @77 d/sub", "d/sub"),
    ],
)
def test_a_change_of_attributes_alone_is_listed(overlay: Overlay, script: str, path: str) -> None:
    overlay.run(script)

    assert overlay.paths() == [path.split("/", maxsplit=1)[0], path]


def test_a_folder_with_a_new_attribute_is_listed(overlay: Overlay) -> None:
    os.setxattr(overlay.merged / "d/sub", "user.mine", b"1")

    assert overlay.paths() == ["d", "d/sub"]


def test_a_folder_that_is_as_it_was_is_left_out(overlay: Overlay) -> None:
    overlay.run("chmod 700 d/sub; chmod 755 d/sub; touch e/new; rm e/new; touch -d @5 e")

    assert (overlay.upper / "d/sub").is_dir()
    assert overlay.changes() == []


def test_the_root_is_listed_only_for_its_own_attributes(overlay: Overlay) -> None:
    overlay.run("echo > new; chmod 711 .")

    assert overlay.paths() == ["", "new"]
    assert overlay.entry("").mode == 0o711


def test_a_removed_file_leaves_a_whiteout(overlay: Overlay) -> None:
    overlay.run("rm d/a")

    assert overlay.paths() == ["d", "d/.wh.a"]
    assert overlay.entry("d/.wh.a") == Entry("d/.wh.a", Kind.FILE, 0)


def test_a_removed_folder_leaves_one_whiteout(overlay: Overlay) -> None:
    overlay.run("rm -r d")

    assert overlay.paths() == [".wh.d"]


def test_what_was_made_and_removed_leaves_nothing(overlay: Overlay) -> None:
    overlay.run("mkdir new; echo > new/x; mv new newer; rm -r newer")

    assert overlay.changes() == []


def test_a_whiteout_of_what_is_not_below_is_left_out(overlay: Overlay) -> None:
    os.mknod(overlay.upper / "stray", stat.S_IFCHR, 0)

    assert overlay.changes() == []


def test_whiteouts_come_before_the_other_entries_of_their_folder(overlay: Overlay) -> None:
    overlay.run("rm -r e/one d/sub; echo > d/0new; echo > e/0new")

    assert overlay.paths() == ["d", "d/.wh.sub", "d/0new", "e", "e/.wh.one", "e/0new"]


def test_a_folder_made_again_hides_what_was_in_it_one_by_one(overlay: Overlay) -> None:
    overlay.run("rm -r d; mkdir d; echo > d/b; echo > d/new")

    assert overlay.paths() == ["d", "d/.wh.a", "d/.wh.sub", "d/b", "d/new"]
    assert overlay.entry("d").mode == 0o755


def test_a_folder_made_again_below_one_made_again_hides_what_was_in_it(overlay: Overlay) -> None:
    overlay.run("rm -r d; mkdir -p d/sub")

    assert overlay.paths() == ["d", "d/.wh.a", "d/.wh.b", "d/sub", "d/sub/.wh.x"]


def test_a_folder_in_the_place_of_a_file_hides_nothing(overlay: Overlay) -> None:
    overlay.run("rm d/a; mkdir d/a; echo > d/a/x")

    assert overlay.paths() == ["d", "d/a", "d/a/x"]
    assert overlay.entry("d/a").kind is Kind.DIRECTORY


def test_a_symlink_in_the_place_of_a_folder_is_one_entry(overlay: Overlay) -> None:
    overlay.run("rm -r d/sub; ln -s /e d/sub")

    assert overlay.paths() == ["d", "d/sub"]
    assert overlay.entry("d/sub").target == "/e"


def test_a_renamed_file_is_a_whiteout_and_a_file(overlay: Overlay) -> None:
    overlay.run("mv d/a e/a")

    assert overlay.paths() == ["d", "d/.wh.a", "e", "e/a"]
    assert overlay.entry("e/a") == file("e/a", 0o640, uid=3, mtime=3)._replace(size=3)


def test_a_renamed_folder_is_a_whiteout_and_a_copy(overlay: Overlay) -> None:
    overlay.run("mv d z")

    assert overlay.paths() == [".wh.d", "z", "z/a", "z/b", "z/sub", "z/sub/x"]


def test_hard_links_of_new_files_share_an_inode(overlay: Overlay) -> None:
    overlay.run("echo > new; ln new d/new; ln -s x l; ln l m; echo > alone")

    new, other = overlay.entry("new"), overlay.entry("d/new")
    assert new.inode == other.inode is not None
    assert overlay.entry("l").inode == overlay.entry("m").inode is not None
    assert overlay.entry("alone").inode is None


def test_a_new_link_to_a_lower_file_brings_the_file(overlay: Overlay) -> None:
    overlay.run("ln d/a e/a")

    assert overlay.paths() == ["e", "e/a"]


def test_a_write_through_one_of_two_lower_links_changes_that_name(overlay: Overlay) -> None:
    overlay.run("echo >> e/one")

    assert overlay.paths() == ["e", "e/one"]
    assert overlay.entry("e/one").inode is None


def test_whiteouts_are_not_taken_for_hard_links(overlay: Overlay) -> None:
    overlay.run("rm d/a d/b e/one e/two")

    assert overlay.paths() == ["d", "d/.wh.a", "d/.wh.b", "e", "e/.wh.one", "e/.wh.two"]


def test_fifos_and_devices_are_kept_and_sockets_are_not(overlay: Overlay) -> None:
    overlay.run("mkfifo -m 622 fifo; mknod -m 666 null c 1 3; mknod -m 660 loop b 7 200")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(overlay.merged / "socket"))

    fifo, loop, null = (change.entry for change in overlay.changes())
    assert (fifo.kind, fifo.mode, fifo.device) == (Kind.FIFO, 0o622, (0, 0))
    assert (loop.kind, loop.mode, loop.device) == (Kind.BLOCK, 0o660, (7, 200))
    assert (null.kind, null.mode, null.device) == (Kind.CHARACTER, 0o666, (1, 3))


def test_a_placeholder_is_the_device_that_it_stands_for(overlay: Overlay, no_devices: None) -> None:
    (overlay.merged / "null").write_bytes(b"x")
    os.setxattr(overlay.merged / "null", "user.pybuild.dev", b"c 1 3")

    (change,) = overlay.changes()
    assert (change.entry.kind, change.entry.device, change.entry.size) == (Kind.CHARACTER, (1, 3), 0)
    assert (change.entry.xattrs, change.content) == ((), None)


@pytest.mark.parametrize("note", [b"", b"nonsense", b"f 1 3", b"c 1", b"c 1 99999999"])
def test_a_placeholder_that_means_nothing_is_a_file(overlay: Overlay, no_devices: None, note: bytes) -> None:
    (overlay.merged / "x").write_bytes(b"")
    os.setxattr(overlay.merged / "x", "user.pybuild.dev", note)

    assert overlay.entry("x").kind is Kind.FILE


def test_extended_attributes_are_kept_but_for_overlays(overlay: Overlay) -> None:
    os.setxattr(overlay.merged / "e/attributes", "user.more", b"y")
    os.setxattr(overlay.merged / "e", "user.overlay.x", b"y")

    xattrs = dict(overlay.entry("e/attributes").xattrs)
    assert xattrs == {"security.capability": CAPABILITY, "user.note": b"x", "user.more": b"y"}
    assert overlay.entry("e").xattrs == ()


def test_capabilities_of_a_user_namespace_are_told_without_it(overlay: Overlay) -> None:
    overlay.run("echo > ping")
    bound = b"\1\0\0\3" + CAPABILITY[4:] + (1000).to_bytes(4, "little")
    os.setxattr(overlay.upper / "ping", "security.capability", bound)

    assert overlay.entry("ping").xattrs == (("security.capability", CAPABILITY),)


def test_names_that_are_not_utf8_are_sorted_by_their_bytes(overlay: Overlay) -> None:
    for name in [b"\xff", b"\xf0\x9f\x98\x80", b"z", "é".encode()]:
        (overlay.merged / os.fsdecode(name)).write_bytes(b"")

    assert [os.fsencode(path) for path in overlay.paths()] == [b"z", "é".encode(), b"\xf0\x9f\x98\x80", b"\xff"]


def test_folders_that_no_layer_lists_are_no_change(mount: Mount) -> None:
    overlay = mount(file("a/b/c"))

    overlay.run("rm a/b/c; mkdir a/b/c; rmdir a/b/c; touch -d @0 a/b")

    assert overlay.paths() == ["a", "a/b", "a/b/.wh.c"]
    assert overlay.entry("a") == folder("a")


def test_what_was_only_copied_up_is_no_change_and_leaves_the_upper_directory(overlay: Overlay) -> None:
    overlay.run("true >> d/a; chmod 600 d/b; chmod 644 d/b; chown -h 0:0 e/link")
    assert (overlay.upper / "d" / "a").exists()

    assert overlay.paths() == []

    assert list(overlay.upper.iterdir()) == []


def test_a_file_of_the_same_size_and_times_is_a_change_if_its_bytes_are(overlay: Overlay) -> None:
    overlay.run("touch -r d/a ../stamp; size=$(stat -c %s d/a); head -c $size /dev/zero > d/a; touch -r ../stamp d/a")

    assert "d/a" in overlay.paths()


def test_a_very_deep_folder_is_walked(overlay: Overlay) -> None:
    deep = "/".join("d" * 1010)

    overlay.run(f"mkdir -p {deep}; echo > {deep}/x")

    assert len(overlay.paths()) == 1010 + 1
    overlay.run("rm -r d")  # pytest cannot remove it


def test_the_changes_upon_the_image_are_the_new_image(overlay: Overlay) -> None:
    """The whole way: changes, a layer of them, and a view of both layers that shows what the mount shows."""
    overlay.run("rm -r d/sub; mkdir d/sub; echo > d/sub/y; mv e/one e/three; ln -s e f; rm e/link; echo x > d/b")

    shown = sorted(
        os.path.relpath(os.path.join(place, name), overlay.merged)
        for place, folders, files in os.walk(overlay.merged)
        for name in [*folders, *files]
    )
    changes = overlay.changes()

    above = View([index_of(*IMAGE), index_of(*(change.entry._replace(inode=None) for change in changes))])
    assert sorted(names(above)) == shown


def names(view: View, path: str = "") -> Iterator[str]:
    for entry in view.children(path):
        yield entry.path
        yield from names(view, entry.path)


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere cannot be read"):
        list(overlay_changes(str(tmp_path / "nowhere"), View([]), []))
