"""What commands and daemons used: time, processor, memory, bytes written."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

_FIRST_LOOKS = 0.02
_LATER_LOOKS = 0.05
"""Seconds between two looks at memory; a process that ends soon is looked at more often."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one timed build used."""

    wall: float
    cpu: float
    """Seconds of user and system time, of the commands and of daemons."""
    memory: int
    """Bytes that all processes together held at once. Pages that processes share are counted for each."""
    written: int
    """Bytes that were sent to file systems on disk, as the kernel accounts them (proc(5), `write_bytes`)."""
    size: int = 0
    """Bytes of the archive, if one was asked for."""


def run(commands: Sequence[Sequence[str]], environment: dict[str, str], daemons: Sequence[int]) -> Run:
    """Run commands one after the other; the benchmark ends if one fails."""
    found = Run(0, 0, 0, 0)
    before = [_used(daemons), _written(daemons)]
    for command in commands:
        one = _run(command, environment, daemons)
        found = Run(
            found.wall + one.wall,
            found.cpu + one.cpu,
            max(found.memory, one.memory),
            found.written + one.written,
        )
    cpu, written = _used(daemons) - before[0], _written(daemons) - before[1]
    return replace(found, cpu=found.cpu + cpu, written=found.written + int(written))


def _run(command: Sequence[str], environment: dict[str, str], daemons: Sequence[int]) -> Run:
    with tempfile.TemporaryFile() as output:
        written = _own_children_wrote()
        started = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output
        )
        watch = _Watch([process.pid, *daemons])
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        watch.end()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{output.read().decode(errors='replace')[-3000:]}")
    memory = max(watch.most, usage.ru_maxrss << 10)
    return Run(wall, usage.ru_utime + usage.ru_stime, memory, _own_children_wrote() - written)


class _Watch(threading.Thread):
    """Looks again and again at how much memory trees of processes hold."""

    def __init__(self, roots: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self._roots = roots
        self._ended = threading.Event()

    def run(self) -> None:
        looks = 0
        while not self._ended.wait(_FIRST_LOOKS if looks < 50 else _LATER_LOOKS):
            looks += 1
            self.most = max(self.most, sum(map(_resident, tree(self._roots))))

    def end(self) -> None:
        self._ended.set()
        self.join()


def tree(roots: Sequence[int]) -> list[int]:
    """Processes, with all their descendants that are alive."""
    found = list(roots)
    for pid in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError), open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                    found += [int(child) for child in file.read().split()]
    return found


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0  # it has just ended


def _used(daemons: Sequence[int]) -> float:
    """CPU seconds of daemons with their children, ended ones included."""
    total = 0
    for pid in tree(daemons):
        with suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii") as file:
            total += sum(map(int, file.read().rpartition(")")[2].split()[11:15]))
    return total / TICK


def _written(daemons: Sequence[int]) -> int:
    """Bytes written by daemons with their children, ended ones included."""
    return sum(_wrote(str(pid)) for pid in tree(daemons))


def _own_children_wrote() -> int:
    return _wrote("self")  # what a process wrote is added to its parent's account when it has ended


def _wrote(pid: str) -> int:
    with suppress(OSError), open(f"/proc/{pid}/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))
    return 0
