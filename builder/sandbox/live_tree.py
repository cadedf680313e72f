"""Whole root file systems that commands change one after the other, for where nothing can be stacked.

A tree is for one command at a time. It knows which layers it holds, so that a later command of the same stage finds all
but what came since: a COPY between two RUNs is applied when the second one runs. It is a temporary folder of the store:
what a build that died leaves of it goes with the next sweep.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence

from builder.snapshot import EMPTY_LAYER
from builder.steps.stage_tree import StageTree
from cache.files import hash_file
from cache.store import Store
from layers import inode
from layers.data import dataclass, field
from layers.digest import Digest
from layers.entry import Change, Entry, Kind
from layers.layer import Layer
from layers.view import View
from layers.walk import Walk, folders_above, look_again, tree_changes, wait_for_tick, walk


@dataclass(slots=True)
class LiveTree:
    """One tree, for whoever has got hold of it."""

    folder: str
    """A temporary one of the store."""
    root: str = ""
    """The tree, a folder in that one, without symlinks on the way."""
    layers: list[Digest] = field(default_factory=list)
    """What the tree holds, lowest first."""
    seen: Walk = field(default_factory=dict)
    """What it looked like when it held just that; empty if nobody has looked."""
    touched: list[str] = field(default_factory=list)
    """What the last command changed."""

    def begin(self) -> None:
        """Make an empty tree."""
        self.root = f"{os.path.realpath(self.folder)}/root"
        os.mkdir(self.root)
        top = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        inode.dress(top, Entry("", Kind.DIRECTORY, 0o755))
        os.close(top)
        os.close(os.open(f"{self.folder}/probe", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))

    def bring_to(self, layers: Sequence[Layer], store: Store) -> None:
        """Apply the layers that it does not hold yet, and look at it."""
        for layer in layers[len(self.layers) :]:
            store.trees.apply(layer, store.layout, self.root)
            self.layers.append(layer.diff_id)
            self.seen = {}
        if not self.seen:
            self.seen = walk(self.root)
        wait_for_tick(f"{self.folder}/probe", self.seen)

    def changes(self, layers: Sequence[Layer], view: View, store: Store) -> Iterator[Change]:
        """What a command has changed, to be taken to its end; `layers` and `view` are what it found."""
        before, self.seen = self.seen, walk(self.root)
        self.touched.clear()

        def unchanged(entries: Iterable[Entry]) -> set[str]:
            return _unchanged(self.root, list(entries), StageTree(tuple(layers), store))

        linked: list[str] = []
        for change in tree_changes(self.root, before, self.seen, view, unchanged):
            yield change
            self.touched.append(change.entry.path)
            if change.entry.inode is not None:
                linked.append(change.entry.path)
        for path in linked:
            inode.separate(f"{self.root}/{path}", f"{self.folder}/copy")

    def keep(self, diff_id: Digest) -> None:
        """It holds one layer more: the one that was made of its changes."""
        look_again(self.root, {each for path in self.touched for each in (path, *folders_above(path))}, self.seen)
        if diff_id != EMPTY_LAYER:
            self.layers.append(diff_id)


class LiveTrees:
    """The trees of one build. Any thread may call it."""

    def __init__(self) -> None:
        self._idle: list[LiveTree] = []
        self._lock = threading.Lock()

    def take(self, layers: Sequence[Layer], store: Store) -> LiveTree:
        """A tree that holds these layers: the idle one that needs the least for it, or a new one."""
        wanted = [layer.diff_id for layer in layers]
        with self._lock:
            fitting = [tree for tree in self._idle if tree.layers == wanted[: len(tree.layers)]]
            tree = max(fitting, key=lambda tree: len(tree.layers), default=None)
            if tree:
                self._idle.remove(tree)
        if tree is None:
            tree = LiveTree(store.temporary("tree"))
            tree.begin()
        tree.bring_to(layers, store)
        return tree

    def give_back(self, tree: LiveTree) -> None:
        """Have a tree that is what its layers say wait for the next command."""
        with self._lock:
            self._idle.append(tree)


def _unchanged(root: str, entries: Sequence[Entry], before: StageTree) -> set[str]:
    """The paths of those files that have the bytes that they had. Each layer is read once, if at all."""
    before.fetch(entries)
    return {
        entry.path
        for entry in entries
        if (was := before.lookup(entry.path)) and before.digest(was) == hash_file(f"{root}/{entry.path}")
    }
