"""A cache that machines share, wherever it is kept: looked up in by key, and written to by many builds at once."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from cache.records import Record
from cache.shared.facts import Facts, FactsError
from cache.shared.shelf import TABLE, Obtain, Progress, Shelf
from cache.store import Store
from layers.digest import Digest
from layers.errors import ImageError, PybuildError
from layers.layer import Layer, read_layer
from layers.oci import Descriptor


class SharedCache:
    """One shared cache. What goes wrong in a look-up is told once, and then it knows nothing more. For any thread."""

    def __init__(self, shelf: Shelf, warn: Callable[[str], None]) -> None:
        self._shelf = shelf
        self._warn = warn
        self._table: Facts | None = None
        self._is_empty = False
        """Whether there is no cache, or none that can be read."""
        self._single: dict[str, Facts] = {}
        """What was asked for beside the table: nobody asks twice, the planner and then the solver."""
        self._lock = threading.Lock()

    @property
    def title(self) -> str:
        """As a person reads it."""
        return self._shelf.title

    @property
    def home(self) -> tuple[str, str] | None:
        """Host and repository of its layers, if they are in a registry."""
        return self._shelf.home

    def load(self) -> bool:
        """Get the table; False if there is no cache yet, or none that can be read."""
        with self._lock:
            if self._table is None and not self._is_empty:
                self._table = self._look_up(TABLE)
                self._is_empty = self._table is None
            return not self._is_empty

    def find(self, key: Digest) -> Record | None:
        """The record of a key; its layer is in the cache, as far as that knows itself."""
        return self._facts_of(key, lambda facts: key in facts.records).records.get(key)

    def find_hint(self, key: Digest) -> Record | None:
        """The record of a key whose layer is not in the cache."""
        return self._table.hints.get(key) if self.load() and self._table else None

    def find_content(self, selector: Digest) -> Digest | None:
        """The digest of what a selector selects (`cache.records.Records.find_content`)."""
        return self._facts_of(selector, lambda facts: selector in facts.contents).contents.get(selector)

    def lacking(self, layers: Sequence[Layer]) -> set[Digest]:
        """The blobs that are not there after all; a request for each."""
        return {blob.digest for blob in self._shelf.lacking([layer.descriptor for layer in layers])}

    def fetch(self, layers: Sequence[Layer], store: Store, progress: Progress) -> None:
        """Bring layers into the store; each must be the one of its digest and its diff_id."""
        diff_ids = {layer.descriptor.digest: layer.diff_id for layer in layers}

        def inspect(blob: Descriptor, stream: BinaryIO) -> None:
            diff_id = diff_ids[blob.digest]
            store.keep_index(diff_id, read_layer(blob, diff_id, stream))

        self._shelf.fetch([layer.descriptor for layer in layers], store.layout, inspect, progress)

    def save(self, facts: Facts, obtain: Obtain, store: Store, progress: Progress) -> int:
        """Add facts, and the layers that they speak of; gives the number of records that had not been there.

        `obtain` gets a layer into the store that has to be sent and is not in it.
        """
        with self._shelf.exclusive() as alone:
            new = _without(facts, self._known())
            if new != Facts():
                self._shelf.put(_blobs(new.records.values()), store.layout, obtain, progress)
                if not alone:
                    for name, fact in _single(new):
                        self._shelf.write(name, fact.serialise(), _blobs(fact.records.values()))
                self._write_table(facts.over(self._known()))
        return len(new.records)

    def _facts_of(self, key: Digest, knows: Callable[[Facts], bool]) -> Facts:
        """Facts among which is what is known of a key: those of the table, else the one of its own document."""
        if not self.load() or self._table is None:
            return Facts()
        if knows(self._table):
            return self._table
        if key.hex not in self._single:
            self._single[key.hex] = self._look_up(key.hex) or Facts()
        return self._single[key.hex]

    def _look_up(self, name: str) -> Facts | None:
        if self._is_empty:
            return None
        try:
            data = self._shelf.read(name)
            return None if data is None else Facts.parse(data)
        except (ImageError, OSError) as error:
            self._is_empty = True
            self._warn(f"the cache {self.title} is not used: {getattr(error, 'message', error)}")
            return None

    def _known(self) -> Facts:
        """What the table has now; nothing if it is damaged, or of another format: then it is written anew."""
        data = self._shelf.read(TABLE)
        with suppress(FactsError):
            return Facts.parse(data) if data is not None else Facts()
        return Facts()

    def _write_table(self, table: Facts) -> None:
        try:
            self._shelf.write(TABLE, table.serialise(), _blobs(table.records.values()))
        except PybuildError:
            # A registry takes no manifest that names what is not there: layers of old may have been cleared away.
            blobs = _blobs(table.records.values())
            absent = {blob.digest for blob in self._shelf.lacking(blobs)}
            if not absent:
                raise
            left = {
                key: record for key, record in table.records.items() if record.layer.descriptor.digest not in absent
            }
            self._shelf.write(TABLE, Facts(left, table.contents, table.hints).serialise(), _blobs(left.values()))


def _without(facts: Facts, known: Facts) -> Facts:
    """Those that are not known yet, or with another layer."""
    records = {
        key: record
        for key, record in facts.records.items()
        if key not in known.records or known.records[key].layer != record.layer
    }
    contents = {
        selector: digest for selector, digest in facts.contents.items() if known.contents.get(selector) != digest
    }
    known_keys = {*known.records, *known.hints}
    return Facts(records, contents, {key: record for key, record in facts.hints.items() if key not in known_keys})


def _single(facts: Facts) -> Iterator[tuple[str, Facts]]:
    """Each fact alone, with the name of its document; of hints none is so dear."""
    for key, record in facts.records.items():
        yield key.hex, Facts({key: record})
    for selector, digest in facts.contents.items():
        yield selector.hex, Facts({}, {selector: digest})


def _blobs(records: Iterable[Record]) -> list[Descriptor]:
    return list({record.layer.descriptor.digest: record.layer.descriptor for record in records}.values())
