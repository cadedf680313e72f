"""What steps once made, and when it may be used."""

import json
import os
from pathlib import Path

import pytest

from cache.db import Database
from cache.keys import key_of
from cache.records import Record, Records
from layers.data import replace
from layers.digest import Digest
from layers.layer import Layer
from layers.layout import Layout
from layers.oci import LAYER_GZIP, Descriptor

KEY = Digest.of(b"key")
PARENT = Digest.of(b"parent")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "images"))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(str(tmp_path / "cache.db"))


@pytest.fixture
def records(database: Database, layout: Layout) -> Records:
    return Records(database, layout, clock=lambda: 1000.0)


def record(descriptor: Descriptor) -> Record:
    return Record(
        key=KEY,
        operation="run",
        parent=PARENT,
        material=b'{"argv":["make"]}',
        layer=Layer(Digest.of(b"diff"), descriptor, 1536),
        created="2024-01-02T03:04:05Z",
        seconds=1.5,
    )


def test_record_is_found_as_it_was_added(records: Records, layout: Layout) -> None:
    added = record(layout.put(b"blob", LAYER_GZIP))
    records.add(added)

    assert records.find(KEY) == added


def test_unknown_key_is_a_miss(records: Records) -> None:
    assert records.find(KEY) is None


def test_step_on_scratch_has_no_parent(records: Records, layout: Layout) -> None:
    records.add(replace(record(layout.put(b"blob", LAYER_GZIP)), parent=None))

    found = records.find(KEY)

    assert found is not None
    assert found.parent is None


@pytest.mark.parametrize("harm", ["removed", "shortened"])
def test_record_whose_blob_is_gone_is_a_miss(records: Records, layout: Layout, harm: str) -> None:
    descriptor = layout.put(b"blob", LAYER_GZIP)
    records.add(record(descriptor))
    path = layout.path(descriptor.digest)
    if harm == "removed":
        os.unlink(path)
    else:
        Path(path).chmod(0o600)
        Path(path).write_bytes(b"b")

    assert records.find(KEY) is None


def test_later_record_of_the_same_key_replaces_the_earlier(records: Records, layout: Layout) -> None:
    first = record(layout.put(b"blob", LAYER_GZIP))
    second = replace(first, seconds=9.0)
    records.add(first)
    records.add(second)

    assert records.find(KEY) == second


def test_parts_of_a_key_can_be_read_back(records: Records, layout: Layout) -> None:
    """So that a miss can be explained: the key follows from what is stored."""
    material = {"argv": ["make"], "user": ""}
    stored = replace(
        record(layout.put(b"blob", LAYER_GZIP)),
        key=key_of("run", PARENT, material),
        material=json.dumps(material).encode(),
    )
    records.add(stored)

    found = records.find(stored.key)

    assert found is not None
    assert key_of(found.operation, found.parent, json.loads(found.material)) == found.key


def test_use_is_noted(database: Database, layout: Layout) -> None:
    Records(database, layout, clock=lambda: 1000.0).add(record(layout.put(b"blob", LAYER_GZIP)))

    Records(database, layout, clock=lambda: 5000.0).touch([KEY])

    assert database.rows("SELECT used FROM records") == [(5000.0,)]


def test_full_disk_does_not_end_a_build_that_only_notes_its_use(database: Database, layout: Layout) -> None:
    Records(database, layout, clock=lambda: 1000.0).add(record(layout.put(b"blob", LAYER_GZIP)))
    database.rows("PRAGMA query_only = ON")

    Records(database, layout, clock=lambda: 5000.0).touch([KEY])

    assert database.rows("SELECT used FROM records") == [(1000.0,)]


def test_content_of_a_selection_is_remembered(records: Records) -> None:
    assert records.find_content(KEY) is None

    records.add_content(KEY, PARENT)

    assert records.find_content(KEY) == PARENT


def test_lost_cache_makes_every_step_a_miss(tmp_path: Path, records: Records, layout: Layout) -> None:
    records.add(record(layout.put(b"blob", LAYER_GZIP)))

    fresh = Records(Database(str(tmp_path / "another.db")), layout)

    assert fresh.find(KEY) is None
