"""How a registry takes blobs, as far as it has shown: in pieces of which size, or only whole."""

import threading
from enum import Enum

from layers.registry.errors import RegistryError

LARGEST = 8 << 20
"""Bytes of a piece at first: what is lost when an answer says "again", yet few enough requests on a fast line.

Stores of objects below a registry want 5 MiB at least.
"""
SMALLEST = 64 << 10
"""A line that breaks before so many bytes is no line."""


class Way(Enum):
    """The two ways of the specification: PATCH for each piece and an empty PUT, or one PUT with the whole blob."""

    PIECES = "pieces"
    WHOLE = "whole"


class Pace:
    """What is known of one registry; all uploads to it share this."""

    def __init__(self) -> None:
        self.piece = LARGEST
        """Bytes of a request."""
        self.alone = False
        """Whether each piece goes over a connection of its own, since connections break before long."""
        self._refused: set[Way] = set()
        self._lock = threading.Lock()

    def way(self, size: int) -> Way:
        """How to send so many bytes: what fits into one piece goes whole, which saves a request."""
        usual = Way.WHOLE if size <= self.piece else Way.PIECES
        others = [way for way in Way if way not in self._refused]
        return usual if usual in others or not others else others[0]

    def refuse(self, way: Way, error: RegistryError) -> None:
        """The registry does not take blobs this way: remember the other; raises the error if that is refused too."""
        with self._lock:
            self._refused.add(way)
            if len(self._refused) == len(Way):
                raise error

    def broke(self, sent: int) -> None:
        """An upload was lost with a connection that broke after so many bytes.

        Some registries forget an upload when a piece of it breaks off. What follows goes in pieces of which the line
        has carried several, each over a new connection. How much it carried is not known well: most of what was sent
        may have been waiting in this machine still. A few bytes say nothing.
        """
        if sent <= SMALLEST:
            return
        with self._lock:
            self.piece = max(SMALLEST, min(self.piece, 1 << sent.bit_length() - 4))
            self.alone = True

    def too_large(self, size: int, error: RegistryError) -> None:
        """A request of so many bytes was refused for its size; raises the error if there is no smaller one."""
        with self._lock:
            if size <= SMALLEST:
                raise error
            self._refused.add(Way.WHOLE)
            self.piece = max(SMALLEST, min(self.piece, size // 4))
