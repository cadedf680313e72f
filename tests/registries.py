"""Registries of tests: the real docker-registry, and one that misbehaves on purpose.

Both listen on loopback at a free port and end with their `with` block.
"""

import base64
import contextlib
import gzip
import io
import json
import os
import socket
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import parse_qs, urljoin, urlsplit

from layers.digest import Digest
from layers.oci import CONFIG, INDEX, LAYER_GZIP, MANIFEST, Descriptor, Index, Manifest, Platform

USER, PASSWORD = "ann", "s:e:cret"
HTPASSWD = "ann:$2b$04$PGtGve.pH1lWdRiq/NQGpuOTf/H7KrGkXRMBnNQvybrP6SXoPcvnq\n"
"""USER and PASSWORD as docker-registry wants them (bcrypt, of the least cost)."""


# --- images made of bytes


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image, or several under one index, as the documents and blobs that a registry holds."""

    media_type: str
    document: bytes
    """The manifest or index that a tag names."""
    manifests: Mapping[Digest, bytes]
    """The manifests below an index; empty for a single image."""
    blobs: Mapping[Digest, bytes]
    layers: tuple[Descriptor, ...]

    @property
    def digest(self) -> Digest:
        return Digest.of(self.document)


def make_image(
    *layers: Mapping[str, bytes], platform: str = "linux/amd64", config_type: str = CONFIG, **config: object
) -> MadeImage:
    """An image with a layer for each mapping of paths to contents; `config` goes into its configuration's config."""
    tars = [tar_of_files(files) for files in layers]
    packed = [gzip.compress(tar, mtime=0) for tar in tars]
    os_name, architecture, *variant = platform.split("/")
    configuration = json.dumps(
        {
            "os": os_name,
            "architecture": architecture,
            **({"variant": variant[0]} if variant else {}),
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [Digest.of(tar) for tar in tars]},
        },
        indent=1,
    ).encode()
    descriptors = tuple(Descriptor(LAYER_GZIP, Digest.of(blob), len(blob)) for blob in packed)
    manifest = Manifest(Descriptor(config_type, Digest.of(configuration), len(configuration)), descriptors)
    blobs = {Digest.of(blob): blob for blob in (*packed, configuration)}
    return MadeImage(MANIFEST, _indented(manifest.serialise()), {}, blobs, descriptors)


def make_index(images: Mapping[str, MadeImage]) -> MadeImage:
    """An index of single images by platform, such as `linux/arm64`."""
    descriptors = [
        Descriptor(image.media_type, image.digest, len(image.document), Platform.parse(platform))
        for platform, image in images.items()
    ]
    return MadeImage(
        INDEX,
        Index(tuple(descriptors)).serialise(),
        {image.digest: image.document for image in images.values()},
        {digest: blob for image in images.values() for digest, blob in image.blobs.items()},
        (),
    )


def tar_of_files(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _indented(document: bytes) -> bytes:
    """The same JSON in other bytes, so that a test sees whether a document was serialised anew on its way."""
    return json.dumps(json.loads(document), indent=3).encode()


# --- the real registry


class Tokens(Protocol):
    """Whose tokens a registry trusts (tokens.py has such)."""

    realm: str
    service: str
    certificate: str


@dataclass(slots=True)
class DockerRegistry:
    """Debian's docker-registry over a folder; `with` starts and stops it."""

    folder: Path
    htpasswd: str = ""
    certificate: tuple[str, str] | None = None
    """Files of certificate and key, for https."""
    client_authority: str = ""
    """A file: who has no certificate of this authority is not spoken to."""
    tokens: "Tokens | None" = None
    """Who gives the tokens that it wants to see."""
    host: str = ""
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.host = f"127.0.0.1:{free_port()}"
        (self.folder / "config.yml").write_text(self._config())
        (self.folder / "htpasswd").write_text(self.htpasswd)
        log = (self.folder / "log").open("wb")
        with log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(self.folder / "config.yml")],
                env={"PATH": os.environ["PATH"], **self._settings()},
                stdout=log,
                stderr=log,
            )
        self._await()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(60)

    def _config(self) -> str:
        """What cannot be said in its environment."""
        if not self.client_authority:
            return "version: 0.1\n"
        return f"version: 0.1\nhttp:\n  tls:\n    clientcas: [{self.client_authority}]\n"

    def _settings(self) -> dict[str, str]:
        settings = {
            "REGISTRY_HTTP_ADDR": self.host,
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(self.folder / "data"),
            "REGISTRY_LOG_LEVEL": "warn",
            "OTEL_TRACES_EXPORTER": "none",
        }
        if self.htpasswd:
            settings["REGISTRY_AUTH_HTPASSWD_REALM"] = "tests"
            settings["REGISTRY_AUTH_HTPASSWD_PATH"] = str(self.folder / "htpasswd")
        if self.tokens:
            settings["REGISTRY_AUTH_TOKEN_REALM"] = self.tokens.realm
            settings["REGISTRY_AUTH_TOKEN_SERVICE"] = self.tokens.service
            settings["REGISTRY_AUTH_TOKEN_ISSUER"] = self.tokens.service
            settings["REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE"] = self.tokens.certificate
        if self.certificate:
            settings["REGISTRY_HTTP_TLS_CERTIFICATE"], settings["REGISTRY_HTTP_TLS_KEY"] = self.certificate
        return settings

    def _await(self) -> None:
        assert self._process
        address, _, port = self.host.partition(":")
        for _ in range(200):
            assert self._process.poll() is None, (self.folder / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection((address, int(port)), 1):
                return
            time.sleep(0.05)
        raise AssertionError("docker-registry does not listen")


def push(host: str, repository: str, tag: str, image: MadeImage, *, authorization: str = "") -> None:
    """Put an image into a registry of plain http, as the distribution specification's "Push" says."""
    connection = HTTPConnection(host, timeout=60)
    headers = {"Authorization": authorization} if authorization else {}

    def ask(method: str, url: str, body: bytes, media_type: str) -> Mapping[str, str]:
        connection.request(method, url, body, {**headers, "Content-Type": media_type})
        response = connection.getresponse()
        text = response.read()
        assert response.status in {201, 202}, (method, url, response.status, text)
        return dict(response.headers.items())

    with contextlib.closing(connection):
        for digest, blob in image.blobs.items():
            start = f"http://{host}/v2/{repository}/blobs/uploads/"
            place = urljoin(start, ask("POST", start, b"", "application/json")["Location"])
            ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", blob, "application/octet-stream")
        for digest, document in image.manifests.items():
            ask("PUT", f"/v2/{repository}/manifests/{digest}", document, MANIFEST)
        ask("PUT", f"/v2/{repository}/manifests/{tag}", image.document, image.media_type)


def make_certificate(folder: Path) -> tuple[str, str]:
    """Files of a certificate for 127.0.0.1 that signs itself, and of its key."""
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=tests"
    extra = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-out", certificate, "-keyout", key]
    subprocess.run([*command.split(), *extra], check=True, capture_output=True)
    return certificate, key


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- the registry that misbehaves


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; `cut` sends only that many bytes of the body and closes. Status 0 closes without an answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came; names of headers in lower case."""

    path: str
    """With the query."""
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes = b""

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class FakeRegistry:
    """A registry whose every answer a test can decide.

    `replies` holds what a path always gives; `first` a list of replies for a path, used up before that. With `auth`
    "basic" or "bearer", everything below /v2/ wants USER and PASSWORD, or a token, which /token gives to USER, and
    to everybody if `anonymous`.
    """

    def __init__(
        self, *, auth: str = "", anonymous: bool = False, certificate: tuple[str, str] | None = None, realm: str = ""
    ) -> None:
        self.auth = auth
        self.anonymous = anonymous
        self.realm = realm
        self.lifetime: object = 300
        self.ranges = False
        """Whether it knows what a Range is."""
        self.replies: dict[str, Reply] = {}
        self.first: dict[str, list[Reply]] = {}
        self.asked: list[Asked] = []
        self.tokens: list[str] = []
        """Those that are good; a test may take them away."""
        self._issued = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.registry = self
        self.scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, repository: str, tag: str, image: MadeImage) -> None:
        """Hold an image, as if it had been pushed."""
        named: dict[str, bytes] = {tag: image.document, image.digest: image.document}
        for name, document in [*image.manifests.items(), *named.items()]:
            media_type = image.media_type if document is image.document else MANIFEST
            headers = {"Content-Type": media_type, "Docker-Content-Digest": str(Digest.of(document))}
            self.replies[f"/v2/{repository}/manifests/{name}"] = Reply(headers=headers, body=document)
        for digest, blob in image.blobs.items():
            self.replies[f"/v2/{repository}/blobs/{digest}"] = Reply(body=blob)

    def paths(self, containing: str = "") -> list[str]:
        """The paths asked for so far, without their queries."""
        return [asked.path.partition("?")[0] for asked in self.asked if containing in asked.path]

    def answer(self, asked: Asked) -> Reply:
        """What the server gives for a request."""
        path = asked.path.partition("?")[0]
        with self._lock:
            self.asked.append(asked)
            if self.first.get(path):
                return self._part(asked, self.first[path].pop(0))
            if path == "/token":
                return self._token(asked)
        if path.startswith("/v2/") and not self._admits(asked):
            return Reply(401, {"WWW-Authenticate": self._challenge(path)}, _error("UNAUTHORIZED", "log in first"))
        if path == "/v2/":
            return Reply(body=b"{}")
        return self._part(
            asked, self.replies.get(path, Reply(404, body=_error("MANIFEST_UNKNOWN", "manifest unknown")))
        )

    def _part(self, asked: Asked, reply: Reply) -> Reply:
        wanted = asked.headers.get("range", "")
        if not self.ranges or not wanted or reply.status != 200:
            return reply
        start, whole = int(wanted.removeprefix("bytes=").rstrip("-")), len(reply.body)
        if start >= whole:
            return Reply(416, {"Content-Range": f"bytes */{whole}"})
        part = {**reply.headers, "Content-Range": f"bytes {start}-{whole - 1}/{whole}"}
        return Reply(206, part, reply.body[start:], reply.cut)

    def _admits(self, asked: Asked) -> bool:
        if self.auth == "basic":
            return asked.authorization == basic(USER, PASSWORD)
        return not self.auth or asked.authorization.removeprefix("Bearer ") in self.tokens

    def _challenge(self, path: str) -> str:
        if self.auth == "basic":
            return 'Basic realm="tests"'
        scope = "repository:" + path.removeprefix("/v2/").split("/manifests/")[0].split("/blobs/")[0] + ":pull"
        return f'Bearer realm="{self.realm or self.url + "/token"}",service="fake, of tests",scope="{scope}"'

    def _token(self, asked: Asked) -> Reply:
        if asked.authorization != basic(USER, PASSWORD) and (asked.authorization or not self.anonymous):
            return Reply(401, body=b"{}")
        scope = parse_qs(urlsplit(asked.path).query).get("scope", [""])[0]
        token = f"token-{self._issued}-{scope}"
        self._issued += 1
        self.tokens.append(token)
        return Reply(body=json.dumps({"token": token, "expires_in": self.lifetime}).encode())


def basic(username: str, password: str) -> str:
    """The Authorization header of a login."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def write_config(folder: Path, **sections: object) -> str:
    """A config.json of Docker with these sections; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(sections))
    return str(folder)


def stored(username: str = USER, password: str = PASSWORD) -> dict[str, str]:
    """An entry of `auths` as `docker login` writes it."""
    return {"auth": basic(username, password).removeprefix("Basic ")}


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


class _Server(ThreadingHTTPServer):
    registry: FakeRegistry
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away in the middle are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 5

    def do_GET(self) -> None:
        headers = {name.lower(): text for name, text in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        reply = self.server.registry.answer(Asked(self.path, headers, self.command, body))
        if not reply.status:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, text in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body if reply.cut is None else reply.body[: reply.cut])
        if reply.cut is not None:
            self.close_connection = True

    do_HEAD = do_POST = do_PATCH = do_PUT = do_GET  # noqa: N815 - the names that the base class looks for

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of the base class
        """Nothing: a test looks into `asked`."""
