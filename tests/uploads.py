"""A registry to push to, in memory, with every habit that real ones have."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from registries import Asked, FakeRegistry, Reply

from layers.digest import Digest

_UPLOADS = re.compile(r"/v2/(.+)/blobs/uploads/(\w*)")
_BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:\w+)")
_MANIFEST = re.compile(r"/v2/(.+)/manifests/(.+)")


@dataclass(slots=True)
class Habits:
    """What registries do differently."""

    patch: int = 202
    """The status of a PATCH; another than 202 refuses the way by pieces."""
    whole: int = 201
    """The status of a PUT with the whole blob; another than 201 refuses that way."""
    largest: int = 1 << 40
    """Bytes of a body; 413 answers what is larger."""
    least: int = 0
    """What it says is the smallest piece."""
    remembers: bool = True
    """Whether an upload outlives a connection that breaks."""
    tells: bool = True
    """Whether it answers the question how much it has."""
    ranges: bool = True
    """Whether it says what it has in its answers."""
    mounts: int = 201
    """The status of a mount that could be done."""
    location: str = "{origin}/v2/{name}/blobs/uploads/{id}"
    """Where uploads are."""


@dataclass(slots=True)
class Repository:
    """What a repository holds."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)


class PushRegistry(FakeRegistry):
    """Takes images. `breaks` decides by method and body after how many bytes of a body the connection is gone."""

    def __init__(self, habits: Habits | None = None, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]  # by name, as they are
        self.habits = habits or Habits()
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytearray] = {}
        self._started = 0
        self.breaks: Callable[[Asked], int | None] = lambda _: None

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def methods(self, containing: str = "") -> list[str]:
        """What was asked for, in order: `PATCH 1048576` for a body of that size."""
        return [
            f"{asked.method} {len(asked.body)}" if asked.body else asked.method
            for asked in self.asked
            if containing in asked.path and asked.path != "/v2/"
        ]

    def answer(self, asked: Asked) -> Reply:
        usual = super().answer(asked)
        if usual.status != 404 or asked.path in self.replies:
            return usual
        path, _, _ = asked.path.partition("?")
        if found := _UPLOADS.fullmatch(path):
            return self._upload(asked, found[1], found[2])
        if found := _BLOB.fullmatch(path):
            blob = self.repository(found[1]).blobs.get(found[2])
            return Reply(404) if blob is None else self._part(asked, Reply(body=blob))
        if found := _MANIFEST.fullmatch(path):
            return self._manifest(asked, self.repository(found[1]), found[2])
        return usual

    def _manifest(self, asked: Asked, repository: Repository, selector: str) -> Reply:
        digest = Digest.of(asked.body) if asked.method == "PUT" else ""
        if asked.method == "PUT":
            missing = [part for part in _parts(asked.body) if part not in {**repository.blobs, **repository.manifests}]
            if missing:
                return Reply(400, body=_error("MANIFEST_BLOB_UNKNOWN", missing[0]))
            for name in (selector, digest):
                repository.manifests[name] = asked.body
                repository.types[name] = asked.headers.get("content-type", "")
            return Reply(201, {"Docker-Content-Digest": digest})
        if selector not in repository.manifests:
            return Reply(404)
        return Reply(headers={"Content-Type": repository.types[selector]}, body=repository.manifests[selector])

    def _upload(self, asked: Asked, name: str, upload: str) -> Reply:
        query = parse_qs(urlsplit(asked.path).query)
        if len(asked.body) > self.habits.largest:
            return Reply(413)
        if asked.method == "POST":
            return self._start(name, query)
        if upload not in self.uploads:
            return Reply(404, body=_error("BLOB_UPLOAD_UNKNOWN", "no such upload"))
        if asked.method == "GET":
            return self._status(name, upload, 204) if self.habits.tells else Reply(405)
        if asked.method == "PATCH":
            return self._piece(asked, name, upload)
        return self._finish(asked, name, upload, query)

    def _start(self, name: str, query: Mapping[str, list[str]]) -> Reply:
        source = self.repositories.get(query.get("from", [""])[0], Repository())
        blob = source.blobs.get(query.get("mount", [""])[0])
        if blob is not None and self.habits.mounts == 201:
            self.repository(name).blobs[query["mount"][0]] = blob
            return Reply(201)
        if "mount" in query and self.habits.mounts not in {201, 202}:
            return Reply(self.habits.mounts)
        upload = f"u{self._started}"
        self._started += 1
        self.uploads[upload] = bytearray()
        reply = self._status(name, upload, 202)
        extra = {"OCI-Chunk-Min-Length": str(self.habits.least)} if self.habits.least else {}
        return Reply(202, {**reply.headers, **extra})

    def _piece(self, asked: Asked, name: str, upload: str) -> Reply:
        if self.habits.patch != 202:
            return Reply(self.habits.patch)
        have = self.uploads[upload]
        start = int(asked.headers.get("content-range", "0-").partition("-")[0])
        if start != len(have):
            return Reply(416)
        limit = self.breaks(asked)
        if limit is not None:
            have += asked.body[:limit]
            if not self.habits.remembers:
                del self.uploads[upload]
            return Reply(0)
        have += asked.body
        return self._status(name, upload, 202)

    def _finish(self, asked: Asked, name: str, upload: str, query: Mapping[str, list[str]]) -> Reply:
        if asked.body and self.habits.whole != 201:
            return Reply(self.habits.whole)
        if self.breaks(asked) is not None:
            del self.uploads[upload]
            return Reply(0)
        blob = bytes(self.uploads.pop(upload)) + asked.body
        if query.get("digest") != [Digest.of(blob)]:
            return Reply(400, body=_error("DIGEST_INVALID", "not the bytes of the digest"))
        self.repository(name).blobs[Digest.of(blob)] = blob
        return Reply(201)

    def _status(self, name: str, upload: str, status: int) -> Reply:
        location = self.habits.location.format(origin=self.url, name=name, id=upload)
        end = max(0, len(self.uploads[upload]) - 1)
        said = {"Range": f"0-{end}"} if self.habits.ranges else {}
        return Reply(status, {"Location": location, **said})


def _parts(document: bytes) -> list[str]:
    value = json.loads(document)
    found = [*value.get("layers", []), *value.get("manifests", []), *([value["config"]] if "config" in value else [])]
    return [part["digest"] for part in found if not part.get("urls")]


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
