"""Content digests, and the one JSON form that is ever hashed."""

import hashlib
import json
from typing import Any, Self

from layers.errors import PybuildError

_LENGTHS = {"sha256": 64, "sha512": 128}
_DIGITS = "0123456789abcdef"


class DigestError(PybuildError, ValueError):
    """A text that should be a digest is none."""


class Digest(str):
    """`algorithm:hex` as the OCI image specification writes it (descriptor.md, "Digests").

    A str, so that it can stand in JSON and SQLite as it is; the constructor refuses anything else.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text; DigestError if it is not a SHA-256 or SHA-512 digest."""
        algorithm, _, digits = text.partition(":")
        if len(digits) != _LENGTHS.get(algorithm) or digits.strip(_DIGITS):
            raise DigestError(f"{text[:100]!r} is not a digest")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The SHA-256 digest of some bytes."""
        return super().__new__(cls, "sha256:" + hashlib.sha256(data).hexdigest())

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """What follows the colon."""
        return self.partition(":")[2]


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - JSON is any
    """The same value always gives the same bytes: sorted keys, no blanks, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
