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


class Answers:
    """The answers of one build. For any thread."""

    def __init__(
        self,
        records: Records,
        layout: Layout,
        shared: "Callable[[], Sequence[SharedCache]] | None" = None,
        offer: "Callable[[Layer, SharedCache | None], bool]" = lambda _layer, _cache: True,
    ) -> None:
        """`shared` opens the caches, in the order in which they are asked, when something is not known here.

        `offer` is told of a layer that a shared cache has, or that one of them may have, and says whether what the
        store has under its name can be that layer.
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
        """What shared caches answered."""
        self._promised: dict[Digest, Record] = {}
        """Records of which nobody knows whether a shared cache has their layers."""
        self._foreign_contents: dict[Digest, Digest] = {}
        self._lock = threading.Lock()

    def find(self, key: Digest, stage: int) -> Record | None:
        """The record of a key, for a step of a stage. Its layer is in the store, or may be in a shared cache.

        What a step gives is known even where its layer is not, and often that is enough: what stands on it is found.
        """
        record = self._records.find(key)
        if record is None and self._open is not None:
            record = self._promise(self._records.recall(key)) or self._find_foreign(key)
        if record is not None:
            self._used.setdefault(stage, {})[key] = record
        return record

    def keeper(self, layer: Layer) -> "SharedCache | None":
        """The shared cache that has a layer which was promised."""
        for key, record in list(self._promised.items()):
            if record.layer.descriptor.digest == layer.descriptor.digest:
                for cache in self._shared():
                    found = cache.find(key)
                    if found is not None and found.layer == layer:
                        return cache
        return None

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
        for records in (self._foreign, self._promised, *self._used.values()):
            for key in [key for key, record in records.items() if record.layer.descriptor.digest in blobs]:
                del records[key]

    @property
    def is_remote(self) -> bool:
        """Whether something was answered whose layer is not in the store."""
        return any(not self._layout.has(record.layer.descriptor) for record in self._elsewhere())

    def keep(self) -> None:
        """Make records of this machine of what shared caches answered: next time nobody has to be asked."""
        with suppress(StoreError):  # they can be asked again
            for record in self._elsewhere():
                self._records.add(record)
            for selector, digest in self._foreign_contents.items():
                self._records.add_content(selector, digest)

    def facts(self, stages: Collection[int] | None = None) -> "Facts":
        """All that was of use in the build so far; with layers of some stages only, if that is asked for."""
        from cache.shared.facts import Facts

        records: dict[Digest, Record] = {}
        hints: dict[Digest, Record] = {}
        for stage, used in sorted(self._used.items()):
            for key, record in used.items():
                bare = key in self._promised and not self._layout.has(record.layer.descriptor)
                (hints if bare or (stages is not None and stage not in stages) else records)[key] = record
        return Facts(records, dict(self._contents), {key: each for key, each in hints.items() if key not in records})

    def _elsewhere(self) -> list[Record]:
        return [*self._foreign.values(), *self._promised.values()]

    def _promise(self, record: Record | None) -> Record | None:
        """Take a record whose layer may be in one of the shared caches."""
        if record is None or record.layer.descriptor.digest in self._lost or not self._offer(record.layer, None):
            return None
        self._promised[record.key] = record
        return record

    def _find_foreign(self, key: Digest) -> Record | None:
        for cache in self._shared():
            record = cache.find(key)
            if record and record.layer.descriptor.digest not in self._lost and self._offer(record.layer, cache):
                self._foreign[key] = record
                return record
        hints = (cache.find_hint(key) for cache in self._shared())
        return next((record for record in map(self._promise, hints) if record), None)

    def _shared(self) -> "Sequence[SharedCache]":
        with self._lock:
            if self._opened is None:
                self._opened = self._open() if self._open else ()
            return self._opened
