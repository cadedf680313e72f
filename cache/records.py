"""What each step once made. A record is a fact: written after its layer is on disk, found only while it still is."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from cache.db import Database, Row
from layers.data import dataclass
from layers.digest import Digest
from layers.errors import StoreError
from layers.layer import Layer
from layers.layout import Layout
from layers.oci import Descriptor

_FIELDS = "key, operation, parent, material, diff_id, unpacked, media_type, digest, size, created, seconds"

_USE_IS_OLD = 3600.0
"""Seconds. Writing to the database costs some 5 ms when it is closed, which builds in a row need not pay each."""


@dataclass(frozen=True, slots=True)
class Record:
    """A step's key, the layer that it made, and the parts of the key, so that a later miss can be explained."""

    key: Digest
    operation: str
    parent: Digest | None
    """Chain id of the layers below; None for scratch."""
    material: bytes
    """JSON of what went into the key, by name."""
    layer: Layer
    created: str
    """When the layer was made, in RFC 3339."""
    seconds: float
    """How long the step took: what the record saves."""


class Records:
    """The records of one store, and the memo of content digests. For any thread."""

    def __init__(self, database: Database, layout: Layout, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._layout = layout
        self._clock = clock

    def find(self, key: Digest) -> Record | None:
        """The record of a key, if the layer that it speaks of is in the store."""
        record = self.recall(key)
        return record if record and self._layout.has(record.layer.descriptor) else None

    def recall(self, key: Digest) -> Record | None:
        """The record of a key, wherever its layer may be by now."""
        rows = self._database.rows(f"SELECT {_FIELDS} FROM records WHERE key = ?", (key,))  # noqa: S608 - own names
        return _record(rows[0]) if rows else None

    def add(self, record: Record) -> None:
        """Remember a step. The same key again replaces what was there.

        Its blob must be on disk already, or in a cache that was asked: only who asks such again will find it.
        """
        layer = record.layer
        values = (
            record.key,
            record.operation,
            record.parent,
            record.material,
            layer.diff_id,
            layer.size,
            layer.descriptor.media_type,
            layer.descriptor.digest,
            layer.descriptor.size,
            record.created,
            record.seconds,
            self._clock(),
        )
        self._database.write(
            (f"INSERT OR REPLACE INTO records ({_FIELDS}, used) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", [values])  # noqa: S608 - own names
        )

    def touch(self, keys: Iterable[Digest]) -> None:
        """Note that records were of use now, to the hour."""
        now = self._clock()
        query = "UPDATE records SET used = ? WHERE key = ? AND used < ?"
        # Only pruning reads this: a full disk is no reason to end a build that needs nothing more.
        with suppress(StoreError):
            self._database.write((query, [(now, key, now - _USE_IS_OLD) for key in keys]))

    def find_content(self, selector: Digest) -> Digest | None:
        """The digest of a part of some stack of layers, if it was worked out before.

        `selector` is a key over the stack's chain id and what is selected of it; so a warm COPY --from needs no index.
        """
        rows = self._database.rows("SELECT digest FROM contents WHERE selector = ?", (selector,))
        return Digest(str(rows[0][0])) if rows else None

    def add_content(self, selector: Digest, digest: Digest) -> None:
        """Remember the digest of what `selector` selects. The layers of a chain never change, so it holds for ever."""
        self._database.write(("INSERT OR REPLACE INTO contents VALUES (?, ?)", [(selector, digest)]))


def _record(row: Row) -> Record:
    key, operation, parent, material, diff_id, unpacked, media_type, digest, size, created, seconds = row
    assert isinstance(material, bytes)
    assert isinstance(unpacked, int)
    assert isinstance(size, int)
    assert isinstance(seconds, float)
    return Record(
        key=Digest(str(key)),
        operation=str(operation),
        parent=None if parent is None else Digest(str(parent)),
        material=material,
        layer=Layer(Digest(str(diff_id)), Descriptor(str(media_type), Digest(str(digest)), size), unpacked),
        created=str(created),
        seconds=seconds,
    )
