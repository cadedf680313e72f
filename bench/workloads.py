"""What is built in the benchmark: contexts and Dockerfiles, the same bytes for the same scale."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass

SEED = 7
WORDS = ("alpha", "beta", "return", "import", "class", "{", "}", "=", "value", "index", "0x1f", "while", "\n")


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table."""

    name: str
    what: str
    make: Callable[[str, float], str]
    """Fills a context folder at a scale, and returns the Dockerfile; `BUSYBOX` and `DEBIAN` stand for base images."""
    warm: bool = False
    """What is timed is the second build, with nothing changed."""
    touched: bool = False
    """What is timed is the second build, with the file `changed` changed."""
    archive: bool = False
    """The result is wanted as an OCI archive; else it stays in the builder's store."""
    compression: str = "gzip"


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


def _cached(folder: str, scale: float, files: int) -> str:
    write_tree(f"{folder}/source", int(files * scale), int(files * 6500 * scale))
    return (
        "FROM DEBIAN\nENV HOME_OF_APP=/app\nWORKDIR /app\nRUN echo deps > /deps\nCOPY source source\n"
        "RUN find source -type f | wc -l > /count\nLABEL bench=1\nEXPOSE 8080\nUSER nobody\nCMD cat /count\n"
    )


def _copy(folder: str, scale: float) -> str:
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


WORKLOADS = (
    Workload("W1", "one RUN echo", lambda _, __: "FROM BUSYBOX\nRUN echo hello\n"),
    Workload("W2", "10 instructions, 2,000 files, all cached", lambda f, s: _cached(f, s, 2_000), warm=True),
    Workload("W2l", "the same with 30,000 files", lambda f, s: _cached(f, s, 30_000), warm=True),
    Workload("W3", "COPY of 30,000 files, archive", _copy, archive=True),
    Workload("W3s", "the same into the store", _copy),
    Workload("W3b", "one of 30,000 files changed, archive", _copy, touched=True, archive=True),
    Workload("W4", "COPY of 1 GiB, gzip archive", _large, archive=True),
    Workload("W5", "40 RUN steps on busybox", _steps("BUSYBOX", 40)),
    Workload("W6", "20 RUN steps on Debian", _steps("DEBIAN", 20)),
    Workload("W7", "four stages that sleep 2 s each", _stages),
    Workload("W9", "pull and unpack Debian, one RUN", lambda _, __: "FROM DEBIAN\nRUN true\n"),
)
