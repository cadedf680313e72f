"""What is built in the benchmark: contexts and Dockerfiles, the same bytes for the same scale."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

SEED = 7
WORDS = ("alpha", "beta", "return", "import", "class", "{", "}", "=", "value", "index", "0x1f", "while", "\n")


class Before(Enum):
    """What is there when the clock starts."""

    NOTHING = "an empty store"
    BASE = "the base images, pulled and unpacked"
    SAME = "all of the same build"
    CHANGED = "the build of before one file changed"
    IMAGE = "the image, which is to be pushed"
    REMOTE = "a cache in a registry, and an empty store"


@dataclass(frozen=True, slots=True)
class Context:
    """A context folder, which several workloads may share."""

    name: str
    make: Callable[[str, float], str]
    """Fills a folder at a scale, and returns the Dockerfile; `BUSYBOX`, `DEBIAN`, `PYTHON` stand for base images."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table."""

    name: str
    what: str
    context: Context
    before: Before = Before.BASE
    archive: bool = False
    """The result is wanted as an image archive; else it stays in the builder's store."""
    compression: str = "gzip"
    target: float | None = None
    """What pybuild may take at most of the time of the fastest peer."""


def write_tree(folder: str, files: int, size: int) -> None:
    """Many small text files, `size` bytes in all, fifty a folder."""
    rng = random.Random(SEED)
    text = " ".join(rng.choice(WORDS) for _ in range(200_000)).encode()
    for number in range(files):
        place = os.path.join(folder, f"package{number // 50:04d}", ("", "src", "src/inner")[number % 3])
        os.makedirs(place, exist_ok=True)
        length = max(1, int(rng.expovariate(1) * size / files))
        start = rng.randrange(len(text) - min(length, len(text) - 1))
        with open(os.path.join(place, f"file{number % 50:02d}.txt"), "wb") as file:
            file.write(text[start : start + length])


def write_file(path: str, size: int) -> None:
    """One file of which about half can be compressed."""
    rng = random.Random(SEED)
    text = " ".join(rng.choice(WORDS) for _ in range(50_000)).encode()[: 64 << 10]
    with open(path, "wb") as file:
        file.writelines(rng.randbytes(64 << 10) if block % 2 else text for block in range(size >> 16))


def _nothing(dockerfile: str) -> Callable[[str, float], str]:
    return lambda _, __: dockerfile


def _application(files: int) -> Callable[[str, float], str]:
    def make(folder: str, scale: float) -> str:
        write_tree(f"{folder}/source", int(files * scale), int(files * 6500 * scale))
        return (
            "FROM DEBIAN\nENV HOME_OF_APP=/app\nWORKDIR /app\nRUN echo deps > /deps\nCOPY source source\n"
            "RUN find source -type f | wc -l > /count\nLABEL bench=1\nEXPOSE 8080\nUSER nobody\nCMD cat /count\n"
        )

    return make


def _tree(folder: str, scale: float) -> str:
    write_tree(f"{folder}/tree", int(30_000 * scale), int(250e6 * scale))
    write_file(f"{folder}/changed", 1 << 16)
    return "FROM BUSYBOX\nCOPY . /app/\n"


def _large(folder: str, scale: float) -> str:
    write_file(f"{folder}/large", int((1 << 30) * scale))
    return "FROM BUSYBOX\nCOPY large /large\n"


def _steps(base: str, count: int) -> Callable[[str, float], str]:
    def make(_: str, scale: float) -> str:
        steps = range(max(1, int(count * scale)))
        return f"FROM {base}\n" + "".join(f"RUN echo {number} > /etc/step{number}\n" for number in steps)

    return make


def _stages(_: str, __: float) -> str:
    stages = "".join(f"FROM BUSYBOX AS s{n}\nRUN sleep 2; echo {n} > /out{n}\n" for n in range(4))
    return stages + "FROM BUSYBOX\n" + "".join(f"COPY --from=s{n} /out{n} /out{n}\n" for n in range(4))


ONE = Context("one", _nothing("FROM BUSYBOX\nRUN echo hello\n"))
APPLICATION = Context("application", _application(2_000))
BIG_APPLICATION = Context("big-application", _application(30_000))
TREE = Context("tree", _tree)
LARGE = Context("large", _large)
PYTHON = Context("python", _nothing("FROM PYTHON\nRUN true\n"))

WORKLOADS = (
    Workload("W1", "one RUN", ONE),
    Workload("W2", "10 instructions, 2,000 files, all cached", APPLICATION, Before.SAME, target=0.3),
    Workload("W2l", "the same with 30,000 files", BIG_APPLICATION, Before.SAME, target=0.3),
    Workload("W3", "COPY of 30,000 files, archive", TREE, archive=True, target=0.15),
    Workload("W3s", "the same into the store", TREE),
    Workload("W3b", "one of 30,000 files changed, archive", TREE, Before.CHANGED, archive=True, target=0.2),
    Workload("W4", "COPY of 1 GiB, gzip archive", LARGE, archive=True, target=0.3),
    Workload("W4z", "COPY of 1 GiB, zstd archive", LARGE, archive=True, compression="zstd", target=0.4),
    Workload("W4s", "COPY of 1 GiB into the store", LARGE),
    Workload("W5", "40 RUN steps on busybox", Context("steps", _steps("BUSYBOX", 40)), target=0.2),
    Workload("W6", "20 RUN steps on Debian", Context("debian-steps", _steps("DEBIAN", 20)), target=0.2),
    Workload("W7", "four stages that sleep 2 s each", Context("stages", _stages)),
    Workload("W9u", "pull and unpack a Python image, one RUN", PYTHON, Before.NOTHING, target=0.5),
    Workload("W10", "push an image with 30,000 new files", TREE, Before.IMAGE, target=0.6),
    Workload("W11", "W2 from a cache in a registry, archive", APPLICATION, Before.REMOTE, archive=True, target=0.5),
)
