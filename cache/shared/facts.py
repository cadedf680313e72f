"""What caches outside of this machine know, as a document: which layer each step made, and digests of parts of layers.

Whoever may write to a cache decides what is built with it; what is checked here is that a document says something, and
that each key is the digest of the parts that stand beside it. So an entry can be wrong about the layer of a step, but
not be found for another step than its own.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar

from cache.keys import key_of
from cache.records import Record
from layers.data import dataclass, field, replace
from layers.digest import Digest, canonical_json
from layers.errors import ImageError, PybuildError
from layers.layer import Layer
from layers.oci import Descriptor

FORMAT = 1
"""Of the document. Another number is an empty cache; the number in the keys themselves is that of `cache.keys`."""

MOST = 5000
"""Facts of a kind that a table keeps, those of latest use; some 2 MB in all."""

_LARGEST = 64 << 20
"""Bytes of a document when it is unpacked."""


T = TypeVar("T")


class FactsError(ImageError):
    """What should be a cache is none."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Some facts; both mappings have what was of use last first."""

    records: Mapping[Digest, Record] = field(default_factory=dict)
    """By key. Their layers are where the cache is."""
    contents: Mapping[Digest, Digest] = field(default_factory=dict)
    """By selector (`cache.records.Records.find_content`)."""
    hints: Mapping[Digest, Record] = field(default_factory=dict)
    """Records whose layers are not kept there: that a step gives a layer leads on to what stands on it."""

    def over(self, older: "Facts") -> "Facts":
        """These, then the others that they do not replace; as many as a table may have."""
        records = _newest(self.records, older.records)
        hints = _newest(self.hints, older.hints)
        for key in records.keys() & hints.keys():
            del hints[key]
        return Facts(records, _newest(self.contents, older.contents), hints)

    def of_image(self, blobs: Mapping[Digest, Descriptor]) -> "Facts":
        """The records of an image's layers, which are given by diff_id, without what differs from build to build."""
        records = {}
        for key, record in self.records.items():
            blob = blobs.get(record.layer.diff_id)
            if blob is not None:
                records[key] = replace(record, layer=replace(record.layer, descriptor=blob), seconds=0.0)
        hints = {key: replace(record, seconds=0.0) for key, record in self.hints.items()}
        return Facts(records, dict(sorted(self.contents.items())), hints)

    def serialise(self) -> bytes:
        """The same facts always give the same bytes."""
        value = {
            "format": FORMAT,
            "records": [_record_json(record) for record in self.records.values()],
            "hints": [_record_json(record) for record in self.hints.values()],
            "contents": [[selector, digest] for selector, digest in self.contents.items()],
        }
        return zlib.compress(canonical_json(value), 6)

    @classmethod
    def parse(cls, data: bytes) -> "Facts":
        """Read a document; FactsError if it is none. Records whose key is not that of their parts are left out."""
        value = _json(data)
        if not isinstance(value, dict) or "format" not in value:
            raise FactsError("the document is not a cache of pybuild")
        if value["format"] != FORMAT:
            raise FactsError(f"the cache is of format {value['format']!r}, and this version of pybuild reads {FORMAT}")
        try:
            records, hints = ([_record(item) for item in value[name]] for name in ("records", "hints"))
            contents = {Digest(selector): Digest(digest) for selector, digest in value["contents"]}
        except (PybuildError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise FactsError("the document of the cache is damaged") from error
        return cls(_by_key(records), contents, _by_key(hints))


def _newest(new: Mapping[Digest, T], old: Mapping[Digest, T]) -> dict[Digest, T]:
    return dict(islice((dict(new) | dict(old)).items(), MOST))


def _by_key(records: Iterable[Record | None]) -> dict[Digest, Record]:
    return {record.key: record for record in records if record}


def _json(data: bytes) -> Any:  # noqa: ANN401 - JSON is any
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(data, _LARGEST)
        if not unpacker.eof:
            raise FactsError("the document of the cache is cut off, or larger than any cache is")
        return json.loads(plain)
    except (zlib.error, ValueError, RecursionError) as error:
        raise FactsError("the document is not a cache of pybuild") from error


def _record_json(record: Record) -> dict[str, Any]:
    return {
        "operation": record.operation,
        "parent": record.parent,
        "material": json.loads(record.material),
        "diffId": record.layer.diff_id,
        "unpacked": record.layer.size,
        "layer": record.layer.descriptor.to_json(),
        "created": record.created,
        "seconds": record.seconds,
        "key": record.key,
    }


def _record(value: Mapping[str, Any]) -> Record | None:
    """The record; None if the key is not that of its parts."""
    parent = None if value["parent"] is None else Digest(value["parent"])
    operation, material, key = str(value["operation"]), dict(value["material"]), Digest(value["key"])
    # A COPY --link stands on nothing, wherever it was made.
    if key not in {key_of(operation, parent, material), key_of(operation, None, material)}:
        return None
    return Record(
        key=key,
        operation=operation,
        parent=parent,
        material=canonical_json(material),
        layer=Layer(Digest(value["diffId"]), Descriptor.from_json(value["layer"]), int(value["unpacked"])),
        created=str(value["created"]),
        seconds=float(value["seconds"]),
    )
