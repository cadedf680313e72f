"""A cache in the cache service of GitHub Actions (`type=gha`), by version 2 of its interface.

The service keeps entries that never change, each under a key and a version, and finds them by their whole key or, of
those whose keys begin alike, the newest. So each table is a new entry, and blobs and facts are entries that are written
once. Which branches see what is the service's affair. The requests are Twirp's: JSON by POST to the name of a method.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cache.shared.shelf import TABLE, Inspect, Obtain, Progress
from layers.errors import ImageError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.answer import Answer
from layers.registry.body import Body
from layers.registry.connection import Connection
from layers.registry.errors import RegistryError
from layers.registry.parallel import TRANSFERS, Stop, each
from layers.registry.retry import retrying
from layers.registry.transfer import receive

_METHODS = "twirp/github.actions.results.api.v1.CacheService"
_VERSION = hashlib.sha256(b"pybuild cache 1").hexdigest()
"""Keeps entries of other forms apart: the service's own actions put a digest of paths and compression here."""
_LONGEST_ANSWER = 1 << 20
_LARGEST_DOCUMENT = 16 << 20
_BLOCK = 1 << 18


class ActionsShelf:
    """The cache of one scope."""

    home: tuple[str, str] | None = None
    by_platform = False

    def __init__(self, connection: Connection, settings: Mapping[str, str]) -> None:
        """`url_v2` and `token` are what a workflow is given as ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN."""
        self._connection = connection
        self._base = settings["url_v2"].rstrip("/")
        self._token = settings["token"]
        self._prefix = f"pybuild-{settings.get('scope', 'buildkit')}"
        self.title = f"GitHub Actions, scope {settings.get('scope', 'buildkit')}"

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        yield False

    def read(self, name: str) -> bytes | None:
        url = self._find(f"{self._prefix}-fact-{name}") if name != TABLE else self._newest(f"{self._prefix}-table-")
        if not url:
            return None

        def get() -> bytes:
            with self._open(url, 0) as answer:
                return answer.document(_LARGEST_DOCUMENT)

        return retrying(get, pause=time.sleep)

    def write(self, name: str, data: bytes, blobs: Sequence[Descriptor]) -> None:  # noqa: ARG002 - entries age alone
        key = f"{self._prefix}-fact-{name}" if name != TABLE else f"{self._prefix}-table-{os.urandom(8).hex()}"
        self._create(key, Body.of(data), time.sleep)

    def lacking(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        lacking: list[Descriptor] = []

        def look(blob: Descriptor, _: Stop) -> None:
            if not self._find(_key(blob)):
                lacking.append(blob)

        each(look, blobs, parallel=TRANSFERS, pause=time.sleep, name="look")
        return lacking

    def fetch(self, blobs: Sequence[Descriptor], layout: Layout, inspect: Inspect, progress: Progress) -> None:
        def connect(blob: Descriptor, start: int) -> Answer:
            url = self._find(_key(blob))  # anew for each connection: these URLs hold for minutes
            if not url:
                raise ImageError(f"{self.title} has no {blob.digest}")
            return self._open(url, start)

        receive(connect, blobs, layout, progress=progress, inspect=inspect, pause=time.sleep)

    def put(self, blobs: Sequence[Descriptor], layout: Layout, obtain: Obtain, progress: Progress) -> None:
        def send(blob: Descriptor, stop: Stop) -> None:
            if not layout.has(blob):
                obtain(blob)

            def blocks() -> Iterator[bytes]:
                done = 0
                with open(layout.path(blob.digest), "rb", buffering=0) as file:
                    while block := file.read(_BLOCK):
                        stop.check()
                        yield block
                        done += len(block)
                        progress(blob, done)

            self._create(_key(blob), Body(blob.size, blocks), stop.pause)

        each(send, self.lacking(blobs), parallel=TRANSFERS, pause=time.sleep, name="push")

    def close(self) -> None:
        """The connections belong to whoever made them."""

    def _find(self, key: str) -> str:
        """The URL of the entry of exactly this key; empty if there is none."""
        found = self._call("GetCacheEntryDownloadURL", {"key": key, "restore_keys": [], "version": _VERSION})
        # What is like it, but longer, may be offered as well.
        return str(found.get("signed_download_url", "")) if found.get("matched_key", key) == key else ""

    def _newest(self, prefix: str) -> str:
        found = self._call("GetCacheEntryDownloadURL", {"key": prefix, "restore_keys": [prefix], "version": _VERSION})
        return str(found.get("signed_download_url", ""))

    def _create(self, key: str, body: Body, pause: Callable[[float], object]) -> None:
        """Store an entry, unless there is one of this key."""
        url = self._call("CreateCacheEntry", {"key": key, "version": _VERSION}).get("signed_upload_url")
        if not url:
            return

        def put() -> None:
            # What the service gives is a place in Azure's storage of blobs (its "Put Blob").
            headers = {"Content-Type": "application/octet-stream", "x-ms-blob-type": "BlockBlob"}
            with self._connection.ask("PUT", str(url), headers=headers, body=body) as answer:
                if answer.status not in {200, 201}:
                    raise RegistryError(f"{self.title}: {answer.host} does not take an entry: {answer.status}")

        retrying(put, pause=pause)
        size = str(body.size)  # as JSON has 64 bits
        self._call("FinalizeCacheEntryUpload", {"key": key, "size_bytes": size, "version": _VERSION})

    def _open(self, url: str, start: int) -> Answer:
        part = {"Range": f"bytes={start}-"} if start else {}
        answer = self._connection.ask("GET", url, headers=part)
        if answer.status not in {200, 206}:
            with answer:
                raise RegistryError(f"{self.title}: {answer.host} does not give an entry: {answer.status}")
        return answer

    def _call(self, method: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a method answers; nothing for what is not there, or is there already."""

        def call() -> Mapping[str, Any]:
            body = Body.of(json.dumps(request).encode(), secret=True)
            with self._connection.ask(
                "POST",
                f"{self._base}/{_METHODS}/{method}",
                authorization=f"Bearer {self._token}",
                headers={"Content-Type": "application/json"},
                body=body,
            ) as answer:
                if answer.status in {404, 409}:
                    return {}
                if answer.status != 200:
                    hint = (
                        "ACTIONS_RUNTIME_TOKEN is of this job and for its time" if answer.status in {401, 403} else ""
                    )
                    raise RegistryError(f"{self.title}: {method} is answered by {answer.status}", hint=hint)
                return _object(answer.document(_LONGEST_ANSWER), self.title)

        return retrying(call, pause=time.sleep)


def _key(blob: Descriptor) -> str:
    return f"pybuild-blob-{blob.digest.replace(':', '-')}"


def _object(data: bytes, title: str) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{title}: what answers is not the cache service") from error
    return value if isinstance(value, dict) and value.get("ok") else {}
