"""The document of a shared cache: what is read back, and what is not believed."""

import json
import zlib

import pytest

from cache.keys import key_of
from cache.records import Record
from cache.shared import facts as facts_module
from cache.shared.facts import Facts, FactsError
from layers.data import replace
from layers.digest import Digest, canonical_json
from layers.layer import Layer
from layers.oci import LAYER_GZIP, Descriptor

PARENT = Digest.of(b"parent")


def record(name: str, *, linked: bool = False) -> Record:
    """A record whose key is that of its parts."""
    material = {"argv": [name]}
    return Record(
        key=key_of("run", None if linked else PARENT, material),
        operation="run",
        parent=PARENT,
        material=canonical_json(material),
        layer=Layer(Digest.of(b"diff"), Descriptor(LAYER_GZIP, Digest.of(name.encode()), 5), 1536),
        created="2024-01-02T03:04:05Z",
        seconds=1.5,
    )


def facts_of(*records: Record) -> Facts:
    hint = record("hint")
    content = {Digest.of(b"selector"): Digest.of(b"content")}
    return Facts({each.key: each for each in records}, content, {hint.key: hint})


def test_facts_are_read_as_they_were_written() -> None:
    facts = facts_of(record("make"), record("true"))

    assert Facts.parse(facts.serialise()) == facts


def test_a_copy_that_stands_on_nothing_keeps_its_key() -> None:
    facts = facts_of(record("link", linked=True))

    assert Facts.parse(facts.serialise()).records == facts.records


def test_a_record_whose_key_is_that_of_another_step_is_left_out() -> None:
    forged = replace(record("make"), key=record("true").key)

    assert Facts.parse(facts_of(forged).serialise()).records == {}


def test_another_format_is_no_cache_of_ours() -> None:
    document = zlib.compress(json.dumps({"format": 99}).encode())

    with pytest.raises(FactsError, match="format 99"):
        Facts.parse(document)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"no cache",
        zlib.compress(b"[" * 100_000),
        zlib.compress(b"[]"),
        zlib.compress(b'{"format":1}'),
        zlib.compress(b'{"format":1,"records":[{}],"hints":[],"contents":[]}'),
        zlib.compress(b'{"format":1,"records":[],"hints":[],"contents":[["x","y"]]}'),
        zlib.compress(b'{"format":1,"records":[],"hints":[],"contents":[]}')[:-6],
    ],
)
def test_what_is_no_document_is_told(document: bytes) -> None:
    with pytest.raises(FactsError):
        Facts.parse(document)


def test_a_document_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "_LARGEST", 1000)

    with pytest.raises(FactsError, match="larger"):
        Facts.parse(zlib.compress(b" " * 100_000))


def test_new_facts_go_before_old_ones_and_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "MOST", 2)
    old, older, new = record("old"), record("older"), record("new")

    assert list(facts_of(new).over(facts_of(old, older)).records) == [new.key, old.key]


def test_a_layer_that_came_makes_a_record_of_a_hint() -> None:
    known = record("hint")

    facts = Facts({known.key: known}).over(facts_of())

    assert (list(facts.records), list(facts.hints)) == ([known.key], [])


def test_an_image_carries_the_records_of_its_own_layers_only() -> None:
    inside, outside = record("in"), replace(record("out"), layer=replace(record("out").layer, diff_id=PARENT))
    blob = Descriptor(LAYER_GZIP, Digest.of(b"compressed otherwise"), 7)

    carried = facts_of(inside, outside).of_image({inside.layer.diff_id: blob})

    assert [each.layer.descriptor for each in carried.records.values()] == [blob]
