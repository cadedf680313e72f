"""COPY and back: a random tree, copied onto an empty root and unpacked from its layer, is the tree that it was."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from copies import nobody
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.context.local import LocalTree
from builder.steps.attributes import Attributes
from builder.steps.copy import copy_changes
from builder.steps.sources import find_sources
from builder.steps.step import Copy, FromContext
from builder.steps.target import Target
from builder.steps.tree import fingerprint
from cache.store import Store
from layers.compress import decompressed
from layers.layer import write_layer
from layers.unpack import unpack
from layers.view import View

pytestmark = [pytest.mark.kernel, pytest.mark.property]

NAMES = ["a", "b", ".c", "with blank", "ü", os.fsdecode(b"\xff"), "x" * 120, "new\nline", "*", "~"]
KINDS = ["file", "folder", "folder", "link", "hard link", "fifo"]


@dataclass(frozen=True)
class Thing:
    """Something to make at a path; what is in the way there stays."""

    path: list[str]
    kind: str
    mode: int
    seconds: int
    text: str = field(repr=False)


THINGS = st.lists(
    st.builds(
        Thing,
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
        st.sampled_from(KINDS),
        st.sampled_from([0o644, 0o755, 0o600, 0, 0o4755, 0o2711, 0o1777]),
        st.integers(-100_000, 2**32),
        st.text("ab/.\n", max_size=5),
    ),
    max_size=12,
)


def make(root: str, things: list[Thing]) -> None:
    """A tree on disk; times and modes last, since making one thing changes others."""
    made: dict[str, Thing] = {}
    for thing in things:
        path = os.path.join(root, *thing.path)
        above = [os.path.join(root, *thing.path[:count]) for count in range(1, len(thing.path))]
        if os.path.lexists(path) or any(os.path.islink(other) or os.path.isfile(other) for other in above):
            continue
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except (FileExistsError, NotADirectoryError):  # a fifo is in the way
            continue
        made[path] = thing
        files = [other for other in made if os.path.isfile(other) and not os.path.islink(other)]
        if thing.kind == "folder":
            os.mkdir(path)
        elif thing.kind == "link":
            os.symlink(thing.text.replace("\n", "") or "a", path)
        elif thing.kind == "hard link" and files:
            os.link(files[0], path)
        elif thing.kind == "fifo":
            os.mkfifo(path)
        else:
            Path(path).write_text(thing.text)
    for path in sorted(made, reverse=True):
        if not os.path.islink(path):
            os.chmod(path, made[path].mode)
        os.utime(path, (0, made[path].seconds), follow_symlinks=False)


def described(root: str) -> dict[str, tuple[object, ...]]:
    """All that a copy keeps of a tree, by path."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for path in sorted(everything(root)):
        status = os.lstat(path)
        name = os.path.relpath(path, root)
        if not os.path.isdir(path) or os.path.islink(path):
            inodes.setdefault(status.st_ino, name)
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = Path(path).read_bytes()
        found[name] = (status.st_mode, content, status.st_mtime_ns // 10**9, inodes.get(status.st_ino))
    return found


def everything(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def copied(source: str, target: str, place: str, *, excludes: tuple[str, ...] = ()) -> str:
    """Copy a folder onto an empty root, unpack the layer; gives the digest of what was read."""
    with closing(Store(os.path.join(place, "store"))) as store:
        tree = LocalTree(source, store.files)
        action = Copy(FromContext(), (".",), "/", excludes=excludes)
        attributes = Attributes(None, None, 0)
        changes = copy_changes(action, find_sources(action, tree), tree, Target(View([])), attributes, nobody)
        layer, _ = write_layer(changes, store.layout)
        with store.layout.open(layer.descriptor) as blob:
            unpack(decompressed(blob), target)
        top = tree.lookup("")
        assert top is not None
        return fingerprint(tree, top, owners=False)


@settings(max_examples=60)
@given(THINGS)
def test_an_unpacked_copy_is_the_tree_that_was_copied(things: list[Thing]) -> None:
    with TemporaryDirectory() as place:
        source, target, again = (os.path.join(place, name) for name in ("source", "target", "again"))
        for folder in (source, target, again):
            os.mkdir(folder)
        make(source, things)

        digest = copied(source, target, place)

        assert described(target) == described(source)
        assert copied(target, again, place) == digest


@settings(max_examples=40)
@given(THINGS, st.sampled_from(NAMES[:5]))
def test_what_is_excluded_is_all_that_is_missing(things: list[Thing], name: str) -> None:
    with TemporaryDirectory() as place:
        source, target = (os.path.join(place, part) for part in ("source", "target"))
        os.mkdir(source)
        os.mkdir(target)
        make(source, things)

        copied(source, target, place, excludes=(f"**/{name}",))

        kept = {path for path in described(source) if name not in path.split("/")}
        assert set(described(target)) == kept
