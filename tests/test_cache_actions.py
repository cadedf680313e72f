"""Caches in the cache service of GitHub Actions, as a small server here speaks its interface."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import Machine
from registries import Asked, FakeRegistry, Reply

from cache.shared.actions import ActionsShelf
from layers.digest import Digest
from layers.errors import ImageError
from layers.layout import Layout
from layers.oci import LAYER, Descriptor
from layers.registry.connection import Connection
from layers.registry.settings import RegistrySettings

DOCKERFILE = "FROM scratch AS one\nCOPY Dockerfile /file\nFROM scratch\nCOPY --from=one /file /copied\n"
STEPS = ["COPY Dockerfile /file", "COPY --from=one /file /copied"]
TOKEN = "t0ken"


class Service(FakeRegistry):
    """Immutable entries by key: whole keys first, then the newest that begins as asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges = True
        self._methods = {
            "CreateCacheEntry": self._create,
            "FinalizeCacheEntryUpload": self._finalize,
            "GetCacheEntryDownloadURL": self._find,
        }
        self.entries: dict[str, str] = {}
        self.broken: list[int] = []
        """How many bytes of the next downloads come."""

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        if asked.path.startswith("/place/"):
            return self._place(asked)
        if asked.authorization != f"Bearer {TOKEN}" or asked.method != "POST":
            return Reply(401)
        method, request = asked.path.rpartition("/")[2], json.loads(asked.body)
        answer: dict[str, Any] = self._methods[method](request)
        return Reply(body=json.dumps(answer).encode()) if answer else Reply(409, body=b'{"code":"already_exists"}')

    def _place(self, asked: Asked) -> Reply:
        assert not asked.authorization, "the place of a blob is no part of the service"
        if asked.method == "PUT":
            assert asked.headers["x-ms-blob-type"] == "BlockBlob"
            self.replies[asked.path] = Reply(body=asked.body)
            return Reply(201)
        reply = self._part(asked, self.replies[asked.path])
        return Reply(reply.status, reply.headers, reply.body, self.broken.pop()) if self.broken else reply

    def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["key"] in self.entries:
            return {}
        return {"ok": True, "signed_upload_url": f"{self.url}/place/{request['key']}"}

    def _finalize(self, request: dict[str, Any]) -> dict[str, Any]:
        place = f"/place/{request['key']}"
        assert int(request["size_bytes"]) == len(self.replies[place].body)
        self.entries[request["key"]] = place
        return {"ok": True, "entry_id": "1"}

    def _find(self, request: dict[str, Any]) -> dict[str, Any]:
        alike = [key for prefix in request["restore_keys"] for key in self.entries if key.startswith(prefix)]
        matched = request["key"] if request["key"] in self.entries else next(iter(alike[::-1]), None)
        if matched is None:
            return {"ok": False}
        return {"ok": True, "signed_download_url": self.url + self.entries[matched], "matched_key": matched}


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        yield running


@pytest.fixture
def shelf(service: Service) -> Iterator[ActionsShelf]:
    connection = Connection(RegistrySettings())
    yield ActionsShelf(connection, {"url_v2": service.url, "token": TOKEN})
    connection.close()


def nothing(*_: object) -> None:
    """Whoever is not listened to."""


def test_a_second_machine_finds_all_steps(service: Service, tmp_path: Path) -> None:
    here, there = Machine(tmp_path / "here"), Machine(tmp_path / "there")
    spec = f"type=gha,url_v2={service.url}/,token={TOKEN},scope=main"
    here.build(here.context(Dockerfile=DOCKERFILE), "--cache-to", f"{spec},mode=max")

    said = there.build(there.context(Dockerfile=DOCKERFILE), "-t", "found", "--cache-from", spec)

    assert said.cached == STEPS
    assert there.blobs == 3


def test_the_newest_table_counts(shelf: ActionsShelf) -> None:
    assert shelf.read("") is None

    shelf.write("", b"old", ())
    shelf.write("", b"new", ())

    assert shelf.read("") == b"new"


def test_a_fact_is_written_once_and_found_by_its_whole_key(shelf: ActionsShelf) -> None:
    shelf.write("abc", b"first", ())
    shelf.write("abc", b"second", ())

    assert (shelf.read("abc"), shelf.read("ab")) == (b"first", None)


def test_a_blob_goes_on_where_it_broke_off(service: Service, shelf: ActionsShelf, tmp_path: Path) -> None:
    here, there = Layout(str(tmp_path / "here")), Layout(str(tmp_path / "there"))
    blob = here.put(os.urandom(1_000_000), LAYER)
    shelf.put([blob], here, nothing, nothing)
    service.broken = [300_000]

    shelf.fetch([blob], there, nothing, nothing)

    assert there.read(blob) == here.read(blob)
    assert [asked.headers.get("range") for asked in service.asked if asked.method == "GET"] == [None, "bytes=300000-"]
    assert shelf.lacking([blob]) == []


def test_what_is_not_there_is_said_to_lack(shelf: ActionsShelf, tmp_path: Path) -> None:
    absent = Descriptor(LAYER, Digest.of(b"absent"), 6)

    assert shelf.lacking([absent]) == [absent]
    with pytest.raises(ImageError, match="has no sha256:"):
        shelf.fetch([absent], Layout(str(tmp_path)), nothing, nothing)


def test_a_token_that_is_refused_is_told_and_not_shown(service: Service, tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    said = machine.run(
        "build", "--cache-to", f"type=gha,url_v2={service.url},token=wr0ng", machine.context(Dockerfile=DOCKERFILE)
    )

    assert (said.status, "is answered by 401" in said.err, "wr0ng" in said.err) == (6, True, False)
