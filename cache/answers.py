"""What is known of steps, wherever it is known: on this machine first, then in the caches that machines share.

It also keeps in mind what was of use in a build, which is what the build gives to shared caches in the end.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from cache.records import Record, Records
from layers.digest import Digest
from layers.errors import StoreError
from layers.layer import Layer
from layers.layout import Layout

if TYPE_CHECKING:
    from cache.shared.cache import SharedCache
    from cache.shared.facts import Facts

# A build that this machine answers altogether imports nothing of shared caches, and so nothing of HTTP.


def nothing_shared() -> "Sequence[SharedCache]":
    """No caches but that of this machine."""
    return ()


class Answers:
    """The answers of one build. For any thread."""

    def __init__(
        self,
        records: Records,
        layout: Layout,
        shared: "Callable[[], Sequence[SharedCache]]" = nothing_shared,
        offer: "Callable[[Layer, SharedCache], bool]" = lambda _layer, _cache: True,
    ) -> None:
        """`shared` opens the caches, in the order in which they are asked, when something is not known here.

        `offer` is told of a layer that a shared cache has, and says whether it can be that layer.
        """
        self._records = records
        self._layout = layout
        self._open = shared
        self._opened: Sequence[SharedCache] | None = None
        self._offer = offer
        self._lost: set[Digest] = set()
        self._used: dict[int, dict[Digest, Record]] = {}
        self._contents: dict[Digest, Digest] = {}
        self._foreign: dict[Digest, Record] = {}
        self._foreign_contents: dict[Digest, Digest] = {}
        self._lock = threading.Lock()

    def find(self, key: Digest, stage: int) -> Record | None:
        """The record of a key, for a step of a stage. Its layer is in the store, or in a shared cache."""
        record = self._records.find(key) or self._find_foreign(key)
        if record is not None:
            self._used.setdefault(stage, {})[key] = record
        return record

    def add(self, record: Record, stage: int, *, keep: bool) -> None:
        """Remember a step of this build whose blob is on disk; for later builds only if they are to `keep` it."""
        if keep:
            self._records.add(record)
        self._used.setdefault(stage, {})[record.key] = record

    def find_content(self, selector: Digest) -> Digest | None:
        """The digest of a part of some stack of layers (`Records.find_content`)."""
        digest = self._records.find_content(selector)
        if digest is None:
            found = (cache.find_content(selector) for cache in self._shared())
            digest = next((each for each in found if each), None)
            if digest is not None:
                self._foreign_contents[selector] = digest
        if digest is not None:
            self._contents[selector] = digest
        return digest

    def add_content(self, selector: Digest, digest: Digest) -> None:
        """Remember the digest of what `selector` selects, which was worked out here."""
        self._records.add_content(selector, digest)
        self._contents[selector] = digest

    def reject(self, blobs: Collection[Digest]) -> None:
        """Find no record of these any more: the shared caches do not have them after all."""
        self._lost.update(blobs)
        for records in (self._foreign, *self._used.values()):
            for key in [key for key, record in records.items() if record.layer.descriptor.digest in blobs]:
                del records[key]

    @property
    def is_remote(self) -> bool:
        """Whether a shared cache has answered anything whose layer is not in the store."""
        return any(not self._layout.has(record.layer.descriptor) for record in self._foreign.values())

    def keep(self) -> None:
        """Make records of this machine of what shared caches answered, as far as the layers are in the store now."""
        here = [record for record in self._foreign.values() if self._layout.has(record.layer.descriptor)]
        with suppress(StoreError):  # they can be asked for again
            for record in here:
                self._records.add(record)
            for selector, digest in self._foreign_contents.items() if here else ():
                self._records.add_content(selector, digest)

    def facts(self, stages: Collection[int] | None = None) -> "Facts":
        """All that was of use in the build so far; records of some stages only, if that is asked for."""
        from cache.shared.facts import Facts

        chosen = [records for stage, records in sorted(self._used.items()) if stages is None or stage in stages]
        return Facts({key: record for records in chosen for key, record in records.items()}, dict(self._contents))

    def _find_foreign(self, key: Digest) -> Record | None:
        for cache in self._shared():
            record = cache.find(key)
            if record and record.layer.descriptor.digest not in self._lost and self._offer(record.layer, cache):
                self._foreign[key] = record
                return record
        return None

    def _shared(self) -> "Sequence[SharedCache]":
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened
