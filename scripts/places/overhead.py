"""How long a RUN takes beyond its command: steps that do nothing, less what a build costs that has but one."""

import os
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cases import PYBUILD
from environments import Place

STEPS = 40
ROUNDS = 7
BUSYBOX = "/usr/bin/busybox"

# Spawning is what a builder without any sandbox would do.
_BARE = """\
import os, sys, time
started = time.perf_counter()
for _ in range(int(sys.argv[2])):
    os.waitpid(os.posix_spawn(sys.argv[1], ["sh", "-c", "true"], {}), 0)
print((time.perf_counter() - started) / int(sys.argv[2]))
"""


@dataclass(frozen=True, slots=True)
class Overhead:
    """Milliseconds, medians of several rounds."""

    step: float
    bare: float
    """The command of the step, started by itself."""

    def __str__(self) -> str:
        return f"{self.step:.1f} | {self.bare:.1f} | {self.step - self.bare:.1f}"


def write_contexts(folder: Path) -> None:
    """Contexts with one step and with one and STEPS; no step's key is that of another."""
    for steps in (1, 1 + STEPS):
        context = folder / str(steps)
        context.mkdir(parents=True, exist_ok=True)
        shutil.copy(BUSYBOX, context / "busybox")
        lines = ["FROM scratch", "COPY busybox /bin/sh", *(f"RUN true {number}" for number in range(steps))]
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")


def measure(place: Place, folder: str) -> Overhead:
    """Measure in one place; `folder` has the contexts, as a path from the checkout."""
    differences, bare = [], []
    for _ in range(ROUNDS):
        few = _timed(place, f"{folder}/1")
        many = _timed(place, f"{folder}/{1 + STEPS}")
        differences.append((many - few) / STEPS)
        done = place.run(("-c", _BARE, f"{folder}/1/busybox", str(STEPS)), {}, subprocess.PIPE)
        bare.append(float(done.stdout))
    return Overhead(1000 * statistics.median(differences), 1000 * statistics.median(bare))


def _timed(place: Place, context: str) -> float:
    """Seconds of a build in which every step runs."""
    program = [*PYBUILD, "build", "--progress=plain", "--no-cache", f"--root={place.folder}/steps", context]
    started = time.monotonic()
    done = place.run(program, {}, subprocess.DEVNULL)
    seconds = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(os.fsdecode(done.stderr))
    return seconds
