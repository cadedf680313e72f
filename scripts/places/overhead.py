"""How long a RUN takes beyond its command: steps that do nothing, less what a build costs that has but one."""

import os
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cases import PYBUILD
from environments import Place

STEPS = 40
ROUNDS = 5
BUSYBOX = "/usr/bin/busybox"

# Runs in the place: prints the seconds that a command takes there, and those of processors, for it and its children.
_TIMED = """\
import os, resource, sys, time
started = time.perf_counter()
for _ in range(int(sys.argv[1])):
    if status := os.waitpid(os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ), 0)[1]:
        sys.exit(f"it ended with {status}")
wall = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall, used.ru_utime + used.ru_stime)
"""


class Times(NamedTuple):
    """Seconds."""

    wall: float
    processors: float
    """Of all processes together: what the load of a machine changes least."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """Medians of several rounds, for one step."""

    step: Times
    bare: Times
    """Its command, started by itself."""

    def __str__(self) -> str:
        pairs = zip(self.step, self.bare, strict=True)
        return " | ".join(f"{1000 * step:.1f} - {1000 * bare:.1f} = {1000 * (step - bare):.1f}" for step, bare in pairs)


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
    steps, bare = [], []
    for _ in range(ROUNDS):
        few = _timed(place, 1, *_build(place, f"{folder}/1"))
        many = _timed(place, 1, *_build(place, f"{folder}/{1 + STEPS}"))
        steps.append(Times((many.wall - few.wall) / STEPS, (many.processors - few.processors) / STEPS))
        command = _timed(place, STEPS, f"{folder}/1/busybox", "sh", "-c", "true")
        bare.append(Times(command.wall / STEPS, command.processors / STEPS))
    return Overhead(_median(steps), _median(bare))


def _median(times: list[Times]) -> Times:
    return Times(statistics.median(each.wall for each in times), statistics.median(each.processors for each in times))


def _build(place: Place, context: str) -> list[str]:
    """The command of a build in which every step runs, and which says nothing."""
    options = ["--quiet", "--no-cache", f"--root={place.folder}/steps"]
    return [place.python, "-P", "-B", *PYBUILD, "build", *options, context]


def _timed(place: Place, times: int, *command: str) -> Times:
    """What a command takes that is run several times; it prints nothing, or one line before ours."""
    done = place.run(("-c", _TIMED, str(times), *command), {}, subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(os.fsdecode(done.stderr))
    wall, processors = done.stdout.split(b"\n")[-2].split()
    return Times(float(wall), float(processors))
