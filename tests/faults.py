"""A proxy before a registry that breaks, refuses and falsifies on purpose, and counts what passes.

It reads HTTP/1.1 with Content-Length, as docker-registry and pybuild speak it.
"""

import contextlib
import fcntl
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_BLOCK = 64 * 1024
_SIOCOUTQ = 0x5411
"""ioctl(2): bytes that the other side has not confirmed (linux/sockios.h)."""
_TLS_HELLO = b"\x16"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Passing:
    """One request on its way."""

    number: int
    """From 1, over all connections."""
    method: str
    path: str
    size: int
    """Of its body."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens instead of, or to, one exchange."""

    answer: bytes = b""
    """A whole answer in place of the registry's, which hears nothing of the request."""
    flip: bool = False
    """One bit of the body is changed, of the request's if that has a body, else of the answer's."""
    truncate: int = 0
    """So many bytes of the answer's body are left out, and its Content-Length agrees with what is left."""
    lose: bool = False
    """The registry does what is asked, and its answer never comes."""


def answer(status: int, *headers: str) -> Fault:
    """An answer with an empty body."""
    lines = [f"HTTP/1.1 {status} Fault", "Content-Length: 0", *headers, "", ""]
    return Fault("\r\n".join(lines).encode())


class FaultyProxy:
    """Listens on loopback while its `with` lasts."""

    def __init__(
        self,
        upstream: str,
        *,
        cut: int = 0,
        fault: Callable[[Passing], Fault | None] = lambda _: None,
    ) -> None:
        """`cut` ends each connection after so many bytes, both ways counted; 0 never."""
        self.upstream = upstream
        self.cut = cut
        self.fault = fault
        self.up = 0
        """Bytes that came from clients."""
        self.down = 0
        """Bytes that went to clients."""
        self.connections = 0
        self.requests: list[Passing] = []
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def passing(self, head: bytes, size: int) -> tuple[Passing, Fault]:
        """Note a request, and say what happens to it."""
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        with self.lock:
            request = Passing(len(self.requests) + 1, method, path, size)
            self.requests.append(request)
        return request, self.fault(request) or Fault()


class _CutError(Exception):
    """The connection has had its bytes."""


class _Server(socketserver.ThreadingTCPServer):
    proxy: FaultyProxy
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what this is for."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        proxy = self.server.proxy
        self._left = proxy.cut or float("inf")
        with proxy.lock:
            proxy.connections += 1
        host, _, port = proxy.upstream.partition(":")
        self.request.settimeout(20)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with (
            contextlib.suppress(_CutError, EOFError, OSError),
            socket.create_connection((host, int(port)), 20) as registry,
        ):
            try:
                while True:
                    self._exchange(proxy, registry)
            except _CutError:
                # Closed hard, as by a box on the way that has lost its state, when what it let through has arrived.
                while struct.unpack("i", fcntl.ioctl(self.request, _SIOCOUTQ, b"\0" * 4))[0]:
                    time.sleep(0.001)
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise

    def _exchange(self, proxy: FaultyProxy, registry: socket.socket) -> None:
        head, rest = _head(self.request)
        self._count(len(head) + len(rest), up=True)
        size = _length(head)
        _, fault = proxy.passing(head, size)
        if fault.answer:
            for _ in _stream(self.request, rest, size, lambda block: self._count(len(block), up=True)):
                pass
            self._give(fault.answer)
            return
        registry.sendall(head)
        flip = fault.flip and size > 0
        for block in _stream(self.request, rest, size, lambda block: self._count(len(block), up=True)):
            registry.sendall(_flipped(block) if flip else block)
            flip = False
        if fault.lose:
            _head(registry)
            raise _CutError
        self._answer(registry, head, fault)

    def _answer(self, registry: socket.socket, question: bytes, fault: Fault) -> None:
        head, rest = _head(registry)
        bodiless = question.startswith(b"HEAD ") or head.split(b" ", 2)[1] in {b"204", b"304"}
        size = 0 if bodiless else _length(head)
        left = max(0, size - fault.truncate)
        flip = fault.flip and not _length(question)
        if left != size:
            head = _LENGTH.sub(b"\r\nContent-Length: %d" % left, head)
        self._give(head)
        for block in _stream(registry, rest, size):
            self._give((_flipped(block) if flip else block)[:left])
            left -= min(left, len(block))
            flip = False

    def _give(self, data: bytes) -> None:
        room = data[: int(min(self._left, len(data)))]
        self.request.sendall(room)
        self._count(len(data), up=False, passed=len(room))

    def _count(self, size: int, *, up: bool, passed: int | None = None) -> None:
        proxy = self.server.proxy
        with proxy.lock:
            if up:
                proxy.up += size
            else:
                proxy.down += size if passed is None else passed
        self._left -= size
        if self._left < 0:
            raise _CutError


def _head(source: socket.socket) -> tuple[bytes, bytes]:
    """The lines of a request or an answer, and what came with them of its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = source.recv(_BLOCK)
        if not piece or piece[:1] == _TLS_HELLO:
            raise EOFError
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _length(head: bytes) -> int:
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


def _stream(
    source: socket.socket, rest: bytes, size: int, received: Callable[[bytes], object] = lambda _: None
) -> Iterator[bytes]:
    """A body of `size` bytes, of which the first have come already."""
    if rest:
        yield rest
    left = size - len(rest)
    while left:
        block = source.recv(min(left, _BLOCK))
        if not block:
            raise EOFError
        received(block)
        left -= len(block)
        yield block


def _flipped(block: bytes) -> bytes:
    middle = len(block) // 2
    return block[:middle] + bytes([block[middle] ^ 1]) + block[middle + 1 :]
