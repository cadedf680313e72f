"""A Docker daemon that only listens: what it is told it has, and what it is sent."""

import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

_OK = (200, b'{"stream":"Loaded image: app:latest\\n"}\n')


@dataclass
class FakeDockerd:
    """What it says, and the names in the archives that it was sent."""

    images: Sequence[Sequence[str]] = ()
    """The diff_ids of each image that it has."""
    driver: str = "overlay2"
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    """To one archive after the other; then to all that it takes them."""
    archives: list[list[str]] = field(default_factory=list)

    def json(self, path: str) -> object:
        """The answer to a GET."""
        if path == "/info":
            return {"Driver": self.driver}
        if path == "/images/json":
            return [{"Id": str(number)} for number in range(len(self.images))]
        layers = self.images[int(path.split("/")[2])]
        return {"RootFS": {"Type": "layers", "Layers": list(layers)}}


@contextmanager
def listening(daemon: FakeDockerd, folder: Path) -> Iterator[Mapping[str, str]]:
    """Let it listen on a socket in a folder; gives the environment in which it is found."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200, b"OK" if self.path == "/_ping" else json.dumps(daemon.json(self.path)).encode())

        def do_POST(self) -> None:
            with tarfile.open(fileobj=io.BytesIO(b"".join(self._chunks()))) as tar:
                daemon.archives.append([member.name for member in tar if member.isfile()])
            self._answer(*(daemon.answers.pop(0) if daemon.answers else _OK))

        def _chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "a socket"

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingUnixStreamServer(str(folder / "docker.sock"), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {"DOCKER_HOST": f"unix://{folder}/docker.sock", "PATH": "/nowhere"}
        finally:
            server.shutdown()
            thread.join()
