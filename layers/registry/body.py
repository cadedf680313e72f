"""What a request carries to a server."""

from collections.abc import Callable, Iterator
from typing import Self

from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes that can be sent, and sent again where a redirect or a refusal asks for it."""

    size: int
    blocks: Callable[[], Iterator[bytes]]
    """Gives all of it, from its beginning, at each call; in blocks, so that it is never whole in memory."""

    secret: bool = False
    """Whether it may go to no other server than the one that it was meant for."""

    @classmethod
    def of(cls, data: bytes, *, secret: bool = False) -> Self:
        """A short one that is at hand."""
        return cls(len(data), lambda: iter((data,) if data else ()), secret)


EMPTY = Body.of(b"")
