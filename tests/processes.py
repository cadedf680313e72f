"""What runs on this machine, and waiting for it."""

import contextlib
import os
import socket
import time
import urllib.request
from collections.abc import Callable


def running(marker: str) -> list[str]:
    """The processes of the whole machine that have the marker as a word of their command line."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if marker.encode() in file.read().split(b"\0"):
                found.append(name)
    return found


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended: in a container nobody may wait for it."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return bool(file.read())
    except OSError:
        return False


def soon(condition: Callable[[], bool]) -> bool:
    """Whether something comes true within a minute: on a busy machine everything takes its time."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def answer(port: int) -> str:
    """The page that a server on this machine gives, once it listens; it has a minute."""
    # The request stays on this machine, whatever proxies there are.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while True:
        try:
            with opener.open(f"http://127.0.0.1:{port}/", timeout=5) as response:
                page: bytes = response.read()
                return page.decode()
        except OSError:
            assert time.monotonic() < deadline, "nobody answers"
            time.sleep(0.05)
