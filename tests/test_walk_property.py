"""Two ways to find what a command changed must find the same: on an overlay, and in a tree that is looked at twice."""

import os
import random
import shutil
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from grants import NAMESPACES, demand
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import file, folder, hard_link, symlink

from builder.sandbox.live_tree import LiveTree
from cache.store import Store
from layers.diff import overlay_changes
from layers.entry import Change, Entry, Kind
from layers.layer import Layer, write_layer

pytestmark = [pytest.mark.kernel, pytest.mark.property]

IMAGE = [
    folder("a", 0o750, uid=3, mtime=2),
    file("a/x", 0o640, uid=3, mtime=3),
    file("a/y", mtime=3),
    folder("a/b", mtime=4),
    file("a/b/x", mtime=3),
    file("a/b/y", 0o4755, mtime=3),
    folder("b", mtime=5),
    symlink("b/y", "../a/x"),
    file("b/x", mtime=3),
    hard_link("b/z", "b/x"),
    folder("c", 0o1777, mtime=6),
    Entry("c/x", Kind.FIFO, mtime_ns=7),
]
PATHS = [f"{above}{name}" for above in ("", "a/", "b/", "a/b/", "c/", "d/") for name in "abcdxyz"]
Operation = Callable[[str, random.Random], None]


def write(path: str, dice: random.Random) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, dice.choice(["w", "a", "r+"])) as stream:
        stream.write(dice.choice(["", "more", os.path.basename(path)]))


def write_as_it_was(path: str, _dice: random.Random) -> None:
    """Something changes and is put back, times and all: no change, however it is looked for."""
    before = os.lstat(path)
    with open(path, "r+b") as stream:
        data = stream.read()
        stream.seek(0)
        stream.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def write_behind_the_back(path: str, _dice: random.Random) -> None:
    """Another content of the same size, and the time put back."""
    before = os.lstat(path)
    with open(path, "r+b") as stream:
        first = stream.read(1)
        stream.seek(0)
        stream.write(bytes(each ^ 1 for each in first))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path: str, _dice: random.Random) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def make_again(path: str, dice: random.Random) -> None:
    remove(path, dice)
    os.mkdir(path, 0o700)
    if dice.random() < 0.5:
        Path(path, "new").write_text("new")


def rename(path: str, dice: random.Random) -> None:
    if not os.path.isdir(path) or os.path.islink(path):  # folders of lower layers cannot be renamed on an overlay
        os.rename(path, os.path.join(os.path.dirname(path), dice.choice("xyzq")))


def link(path: str, dice: random.Random) -> None:
    os.link(path, os.path.join(os.path.dirname(path), dice.choice("opq")), follow_symlinks=False)


def dress(path: str, dice: random.Random) -> None:
    match dice.choice(["mode", "owner", "time", "attribute"]):
        case "mode":
            os.chmod(path, dice.choice([0o600, 0o755, 0o2711]))
        case "owner":
            os.chown(path, dice.choice([0, 3, 7]), 0, follow_symlinks=False)
        case "time":
            os.utime(path, (1, dice.choice([3, 99])), follow_symlinks=False)
        case "attribute":
            os.setxattr(path, "user.note", b"x")


def make_other(path: str, dice: random.Random) -> None:
    match dice.choice(["pipe", "link", "folder"]):
        case "pipe":
            os.mkfifo(path)
        case "link":
            os.symlink("x", path)
        case "folder":
            os.makedirs(path)


OPERATIONS: list[Operation] = [
    *(write, write, write_as_it_was, write_behind_the_back, remove, remove),
    *(make_again, rename, link, dress, dress, make_other),
]
WRITERS = {write, write_as_it_was, write_behind_the_back}
Operations = Sequence[tuple[Operation, str, int]]
ROUNDS: st.SearchStrategy[list[Operations]] = st.lists(
    st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(PATHS), st.integers(0, 2**20)), min_size=1, max_size=12
    ),
    min_size=1,
    max_size=3,
)


def do(root: str, operations: Operations) -> None:
    """What a command does. What cannot be done cannot be done in either place."""
    for operation, name, seed in operations:
        path = f"{root}/{name}"
        is_there = os.path.lexists(path)
        if operation in WRITERS and is_there and not stat.S_ISREG(os.lstat(path).st_mode):
            continue
        if is_there != (operation is make_other) or operation is write:
            with suppress(OSError):
                operation(path, random.Random(seed))


class OnOverlay:
    def __init__(self, place: Path, store: Store) -> None:
        self.place = place
        self.store = store

    def run(self, layers: Sequence[Layer], operations: Operations) -> str:
        self.lowers = self.store.trees.stack(layers, self.store.layout)
        names = [self.place / name for name in ("upper", "work", "merged")]
        for name in names:
            name.mkdir()
        self.upper, work, merged = map(str, names)
        lowers = ":".join(reversed(self.lowers))
        options = f"userxattr,index=off,lowerdir={lowers},upperdir={self.upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
        try:
            do(merged, operations)
        finally:
            subprocess.run(["umount", merged], check=True)
        return self.upper


def told(changes: Iterable[Change], since: int) -> list[tuple[Entry, bytes]]:
    """Changes so that those of two places can be compared: contents, links as groups, and "now" for all new times."""
    changes = list(changes)
    names = Counter(change.entry.inode for change in changes)
    groups: dict[object, str] = {}
    found = []
    for entry, content in changes:
        # A name that shares its file with names that did not change is a file of its own to every layer.
        inode = (
            groups.setdefault(entry.inode, entry.path) if entry.inode is not None and names[entry.inode] > 1 else None
        )
        seconds = -1 if entry.mtime_ns > since else entry.mtime_ns // 10**9
        data = Path(content).read_bytes() if isinstance(content, str) else b""
        found.append((entry._replace(inode=inode, mtime_ns=seconds), data))
    return found


@settings(max_examples=15)
@given(ROUNDS)
def test_a_walk_finds_what_an_overlay_has(tmp_path_factory: pytest.TempPathFactory, rounds: list[Operations]) -> None:
    demand(NAMESPACES)
    place = tmp_path_factory.mktemp("both")
    since = time.time_ns() - 10**9
    with closing(Store(str(place / "store"))) as store:
        contents = {entry.path: entry.path.encode() for entry in IMAGE if entry.kind is Kind.FILE}
        entries = [entry._replace(size=len(contents.get(entry.path, b""))) for entry in IMAGE]
        layer, index = write_layer([Change(entry, contents.get(entry.path)) for entry in entries], store.layout)
        store.keep_index(layer.diff_id, index)
        layers = [layer]
        tree = LiveTree(store.temporary("tree"))
        tree.begin()
        for number, operations in enumerate(rounds):
            (place / str(number)).mkdir()
            overlay = OnOverlay(place / str(number), store)
            view = store.view(layers)
            upper = overlay.run(layers, operations)
            tree.bring_to(layers, store)
            do(tree.root, operations)

            changes = list(tree.changes(layers, view, store))
            by_overlay = list(overlay_changes(upper, view, overlay.lowers))

            assert told(changes, since) == told(by_overlay, since)
            layer, index = write_layer(by_overlay, store.layout)
            store.keep_index(layer.diff_id, index)
            tree.keep(layer.diff_id)
            if changes:
                layers.append(layer)
        fresh = LiveTree(store.temporary("tree"))
        fresh.begin()
        fresh.bring_to(layers, store)
        assert everything(fresh.root, since) == everything(tree.root, since)


def everything(root: str, since: int) -> dict[str, object]:
    """All that is to be seen of a tree."""
    found: dict[str, object] = {}
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            content = Path(path).read_bytes() if stat.S_ISREG(status.st_mode) else b""
            target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
            seconds = -1 if status.st_mtime_ns > since else status.st_mtime_ns // 10**9
            key = os.path.relpath(path, root)
            found[key] = (status.st_mode, status.st_uid, status.st_gid, seconds, content, target)
    return found
