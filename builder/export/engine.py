"""Hands images to the program that runs containers here: a dockerd that listens on a socket, or podman.

It is looked for before the build begins, so that a long build does not end with nobody to take it, and while this
process is still in the groups of its user: the namespaces that a RUN needs leave them behind.
"""

import http.client
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, Protocol, cast

from builder.errors import UsageError
from builder.export.sink import OutputError
from layers.digest import Digest

Write = Callable[[BinaryIO, frozenset[Digest]], None]
"""Writes an archive to a stream, without the layers of these diff_ids."""

_CHUNK = 1 << 20
_UNIX = "unix://"
_NOBODY = "neither dockerd nor podman is there to load the image"


class Engine(Protocol):
    """A program that takes images. To be closed, whether it was given one or not."""

    name: str

    def load(self, write: Write, diff_ids: Sequence[Digest]) -> None:
        """Hand an archive over; OutputError with what the engine says if it does not take it."""

    def close(self) -> None:
        """Let go of it."""


def find_engine(environment: Mapping[str, str]) -> Engine:
    """What DOCKER_HOST names, else a dockerd on one of its sockets, else podman. UsageError if there is none."""
    host = environment.get("DOCKER_HOST", "")
    if host and not host.startswith(_UNIX):
        return _Program("docker", ["docker", "load", "--quiet"], environment)
    for path in [host.removeprefix(_UNIX)] if host else _sockets(environment):
        connection = _Connection(path)
        if connection.is_alive():
            return Dockerd(path, connection)
    if host:
        raise UsageError(
            f"no dockerd answers at {host}, where DOCKER_HOST says it is", hint="start it, or unset DOCKER_HOST"
        )
    if _is_program("podman", environment):
        return _Program("podman", ["podman", "load", "--quiet"], environment)
    raise UsageError(_NOBODY, hint="start one, or write an archive: -o type=docker,dest=FILE")


def _sockets(environment: Mapping[str, str]) -> list[str]:
    """Where dockerd listens unless it is told otherwise, as root and as a user."""
    folder = environment.get("XDG_RUNTIME_DIR", "")
    return ["/var/run/docker.sock", *([os.path.join(folder, "docker.sock")] if folder else [])]


def _is_program(name: str, environment: Mapping[str, str]) -> bool:
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(os.path.join(folder, name), os.X_OK) for folder in folders)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)

    def is_alive(self) -> bool:
        """Whether a dockerd answers; if not, this is closed."""
        with suppress(OSError, http.client.HTTPException):
            self.request("GET", "/_ping")
            answer = self.getresponse()
            if (answer.status, answer.read().strip()) == (200, b"OK"):
                return True
        self.close()
        return False

    def ask(self, path: str) -> object:
        """The JSON that a GET gives; None for any other answer. A connection that was idle may be made again."""
        try:
            self.request("GET", path)
            answer = self.getresponse()
        except (OSError, http.client.HTTPException):
            self.close()
            self.request("GET", path)
            answer = self.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == 200 else None


class Dockerd:
    """A Docker daemon, by its API (https://docs.docker.com/reference/api/engine/, ImageLoad)."""

    name = "docker"

    def __init__(self, path: str, connection: _Connection) -> None:
        self._path = path
        self._connection = connection

    def close(self) -> None:
        self._connection.close()

    def load(self, write: Write, diff_ids: Sequence[Digest]) -> None:
        """Send the archive, without the layers that some image there begins with.

        The daemon reads a layer of an archive only if it has not got it. Should one have gone meanwhile, all are sent.
        """
        try:
            there = self._layers_there(diff_ids)
            refusal = self._send(write, there)
            if refusal and there:
                refusal = self._send(write, frozenset())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise OutputError(f"the dockerd at {self._path} broke off: {error}") from error
        if refusal:
            raise OutputError(f"dockerd does not take the image: {refusal}")

    def _layers_there(self, diff_ids: Sequence[Digest]) -> frozenset[Digest]:
        """The lowest layers, as many as one image of the daemon has.

        A daemon that stores images in containerd names blobs by their compressed digests, and gets all of them.
        """
        information = self._connection.ask("/info")
        if not isinstance(information, dict) or information.get("Driver") not in _GRAPH_DRIVERS:
            return frozenset()
        most = 0
        images = self._connection.ask("/images/json")
        for row in images if isinstance(images, list) else []:
            image = self._connection.ask(f"/images/{row['Id']}/json")
            layers = image["RootFS"].get("Layers") or [] if isinstance(image, dict) else []
            same = (number for number, pair in enumerate(zip(layers, diff_ids, strict=False)) if pair[0] != pair[1])
            most = max(most, next(same, min(len(layers), len(diff_ids))))
        return frozenset(diff_ids[:most])

    def _send(self, write: Write, left_out: frozenset[Digest]) -> str:
        """Send an archive; what the daemon says against it, or nothing."""
        connection = self._connection
        connection.putrequest("POST", "/images/load?quiet=1")
        connection.putheader("Content-Type", "application/x-tar")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        body = _Chunks(connection)
        with suppress(BrokenPipeError, ConnectionResetError):  # then the daemon has seen enough, and says why
            write(cast(BinaryIO, body), left_out)
            body.finish()
        answer = connection.getresponse()
        return _refusal(answer.status, answer.read())


_GRAPH_DRIVERS = frozenset({"overlay2", "fuse-overlayfs", "vfs", "btrfs", "zfs", "devicemapper", "aufs"})
"""What a daemon that names layers by their diff_ids calls its driver; with containerd it is a snapshotter's name."""


def _refusal(status: int, body: bytes) -> str:
    """The error in an answer: its status, or a line of the progress that it is made of."""
    for line in body.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and (value.get("error") or (status != 200 and value.get("message"))):
            return str(value.get("error") or value["message"])
    return "" if status == 200 else f"HTTP status {status}"


class _Chunks:
    """The body of a request whose length is not known in advance (RFC 9112, "Chunked Transfer Coding")."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size >= _CHUNK:
            self._flush()

    def finish(self) -> None:
        """Say that this was all."""
        self._flush()
        self._connection.send(b"0\r\n\r\n")

    def _flush(self) -> None:
        if self._size:
            self._connection.send(b"%x\r\n%b\r\n" % (self._size, b"".join(self._held)))
            self._held, self._size = [], 0


class _Program:
    """A client program that reads an archive from its standard input. It is started at once, and waits for it."""

    def __init__(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        import subprocess  # few builds load into anything

        self.name = name
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(environment)
            )
        except OSError as error:
            raise UsageError(f"{name} cannot be started: {error.strerror}", hint="is it installed?") from error

    def load(self, write: Write, diff_ids: Sequence[Digest]) -> None:  # noqa: ARG002 - it cannot be asked what it has
        with suppress(BrokenPipeError):  # then it has seen enough, and says why
            write(cast(BinaryIO, self._process.stdin), frozenset())
        _, said = self._process.communicate()
        if self._process.returncode:
            lines = said.decode(errors="replace").strip().splitlines() or [f"exit status {self._process.returncode}"]
            raise OutputError(f"{self.name} does not take the image: {lines[-1]}")

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
