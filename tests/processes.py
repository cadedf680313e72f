"""What runs on this machine, and waiting for it."""

import contextlib
import os
import time
from collections.abc import Callable


def running(marker: str) -> list[str]:
    """The processes of the whole machine that have the marker as a word of their command line."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if marker.encode() in file.read().split(b"\0"):
                found.append(name)
    return found


def soon(condition: Callable[[], bool]) -> bool:
    """Whether something comes true within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
