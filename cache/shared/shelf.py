"""What a place must be able to do to keep a cache: documents under names, and blobs beside them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from layers.layout import Layout
from layers.oci import Descriptor

TABLE = ""
"""The name of the document that has all facts; those of single facts are the hex digits of their keys."""

Progress = Callable[[Descriptor, int], object]
"""Called with a blob and how many of its bytes have been moved."""

Inspect = Callable[[Descriptor, BinaryIO], object]
"""Reads a blob while it comes; an error ends the transfer."""


Obtain = Callable[[Descriptor], object]
"""Brings a blob into a layout."""


class Shelf(Protocol):
    """One place. Errors are those of `layers.errors`. Threads may share it."""

    title: str
    """As a person reads it."""
    home: tuple[str, str] | None
    """Host and repository, if the blobs are in a registry."""
    by_platform: bool
    """Whether what was read is of one platform among others: images of several carry what made each of them."""

    def exclusive(self) -> AbstractContextManager[bool]:
        """Keep all others from writing, where that is possible: whether it is."""

    def read(self, name: str) -> bytes | None:
        """A document; None if there is none."""

    def write(self, name: str, data: bytes, blobs: Sequence[Descriptor]) -> None:
        """Store a document in place of an earlier one; `blobs` must be kept as long as it is, and are there already."""

    def lacking(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Those of the blobs that are not there."""

    def fetch(self, blobs: Sequence[Descriptor], layout: Layout, inspect: Inspect, progress: Progress) -> None:
        """Bring blobs into a layout, each verified."""

    def put(self, blobs: Sequence[Descriptor], layout: Layout, obtain: Obtain, progress: Progress) -> None:
        """Bring blobs of a layout there, as far as they are not; `obtain` gets one into it that has to be sent."""

    def close(self) -> None:
        """Let go of connections."""
