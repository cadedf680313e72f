"""What a mount leads to, once it is known: an entry, its digest, and where its bytes are."""

from builder.steps.tree import Tree
from layers.data import dataclass
from layers.digest import Digest
from layers.entry import Entry
from layers.layer import Layer


@dataclass(frozen=True, slots=True)
class Bound:
    """The source of one bind mount, or what a cache begins with."""

    digest: Digest
    """Of the entry and all below it, as keys have it."""
    entry: Entry
    tree: Tree
    layers: tuple[Layer, ...] | None = None
    """Of the stage or image that it is in, the lowest first; None for a context."""
