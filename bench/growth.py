#!/usr/bin/env python3
"""Measures how time and memory of a build grow with what is built.

    scripts/bench growth [--largest 100000] [-w files layers] [--markdown FILE] [--plot FILE]

Each series makes one thing larger and leaves all else as it is. CPU seconds are told, which other work on the machine
disturbs less than the clock; the exponent says how they grew between the last two sizes: 1 is linear. No network.
"""

import argparse
import math
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from measure import Run, run
from plot import Panel, svg


@dataclass(frozen=True, slots=True)
class Series:
    """One thing that grows."""

    name: str
    what: str
    sizes: Sequence[int]
    fill: Callable[[str, int], None]
    """Makes a context folder of that size, Dockerfile included."""


@dataclass(frozen=True, slots=True)
class Point:
    """One size, measured three times."""

    size: int
    cold: Run
    """The build from an empty store."""
    cached: Run
    """The next one, which asks the cache about every step."""
    again: Run
    """One that finds the receipt of the one before."""


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--work", default="bench-work", help="contexts and stores")
    parser.add_argument("--pybuild", default="pybuild", help="its command")
    parser.add_argument("--largest", type=int, default=100_000, help="the most files and records")
    parser.add_argument("--bytes", type=int, default=10**10, help="the largest file; it is sparse")
    parser.add_argument("-w", dest="names", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--markdown", default="", metavar="FILE", help="write the table there too")
    parser.add_argument("--plot", default="", metavar="FILE", help="draw the CPU seconds there, as SVG")
    given = parser.parse_args()
    lines = [
        "| | size | cold: CPU s | MB | cached | MB | again | MB | exponent, cold | cached | again |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    panels = []
    for series in all_series(given.largest, given.bytes):
        if not given.names or series.name in given.names:
            points = list(measure(series, os.path.abspath(given.work), given.pybuild.split()))
            lines += [_line(series, points[: number + 1]) for number in range(len(points))]
            curves = {name: [getattr(point, name).cpu for point in points] for name in ("cold", "cached", "again")}
            panels.append(Panel(series.what, [point.size for point in points], curves))
    text = "\n".join(lines) + "\n"
    if given.plot:
        with open(given.plot, "w", encoding="utf-8") as file:
            file.write(svg(panels, "s"))
    if given.markdown:
        with open(given.markdown, "w", encoding="utf-8") as file:
            file.write(text)
    sys.stdout.write(text)
    return 0


def all_series(largest: int, size: int) -> tuple[Series, ...]:
    """Everything that can grow."""
    counts = [count for count in (1_000, 10_000, 100_000, 700_000) if count <= largest]
    return (
        Series("files", "files in the context", counts, many_files),
        Series("layers", "layers", (10, 50, 100), many_layers),
        Series("stages", "stages, each copied from", (1, 16, 64), many_stages),
        Series("bytes", "bytes of one file", [10**n for n in (6, 8, 9, 10) if 10**n <= size], large_file),
        Series("records", "records in the cache", [10, *(count for count in counts if count > 1_000)], many_files),
    )


def measure(series: Series, work: str, pybuild: Sequence[str]) -> Iterator[Point]:
    """Build each size three times, in a store of its own."""
    for size in series.sizes:
        context, store = f"{work}/growth", f"{work}/growth-store"
        for folder in (context, store):
            shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(context)
        series.fill(context, 1_000 if series.name == "records" else size)
        command = [*pybuild, "build", "-q", "-t", "growth", "--root", store, context]
        cold = run([command], dict(os.environ), [])
        if series.name == "records":
            add_records(f"{store}/cache.db", size)
        shutil.rmtree(f"{store}/receipts", ignore_errors=True)
        cached, again = (run([command], dict(os.environ), []) for _ in range(2))
        sys.stderr.write(f"{series.name} {size}: {cold.cpu:.2f} s, {cached.cpu:.2f} s, {again.cpu:.2f} s\n")
        yield Point(size, cold, cached, again)
        for folder in (context, store):
            shutil.rmtree(folder, ignore_errors=True)


def many_files(context: str, count: int) -> None:
    """Small files, a hundred a folder."""
    for number in range(count):
        folder = f"{context}/d{number // 10_000}/d{number // 100 % 100}"
        if number % 100 == 0:
            os.makedirs(folder)
        with open(f"{folder}/f{number % 100}", "w", encoding="ascii") as file:
            file.write(f"{number}\n" * 40)
    _dockerfile(context, "FROM scratch\nCOPY . /files/\n")


def many_layers(context: str, count: int) -> None:
    """A layer for each of many files."""
    for number in range(count):
        with open(f"{context}/f{number}", "w", encoding="ascii") as file:
            file.write(f"{number}\n")
    _dockerfile(context, "FROM scratch\n" + "".join(f"COPY f{number} /f{number}\n" for number in range(count)))


def many_stages(context: str, count: int) -> None:
    """Stages that are all wanted by the last."""
    with open(f"{context}/f", "w", encoding="ascii") as file:
        file.write("f\n")
    stages = "".join(f"FROM scratch AS s{number}\nCOPY f /f{number}\n" for number in range(count))
    copies = "".join(f"COPY --from=s{number} /f{number} /f{number}\n" for number in range(count))
    _dockerfile(context, f"{stages}FROM scratch\n{copies}")


def large_file(context: str, size: int) -> None:
    """One file without a block on disk."""
    with open(f"{context}/large", "wb") as file:
        file.truncate(size)
    _dockerfile(context, "FROM scratch\nCOPY large /large\n")


def _dockerfile(context: str, text: str) -> None:
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(text)


def add_records(path: str, count: int) -> None:
    """Records of steps that were done some time: copies of one that is there, under other keys."""
    with sqlite3.connect(path) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(records)")]
        others = ", ".join(column for column in columns if column != "key")
        query = f"INSERT INTO records (key, {others}) SELECT ?, {others} FROM records LIMIT 1"
        database.executemany(query, ((f"sha256:{number:064x}",) for number in range(count)))
    database.close()


def _line(series: Series, points: Sequence[Point]) -> str:
    point = points[-1]
    cells = [series.what if len(points) == 1 else "", f"{point.size:,}"]
    for one in (point.cold, point.cached, point.again):
        cells += [f"{one.cpu:.2f}", f"{one.memory / 1e6:.0f}"]
    cells.append(_exponent(points, lambda each: each.cold.cpu))
    cells.append(_exponent(points, lambda each: each.cached.cpu))
    cells.append(_exponent(points, lambda each: each.again.cpu))
    return f"| {' | '.join(cells)} |"


def _exponent(points: Sequence[Point], of: Callable[[Point], float]) -> str:
    """How the figure grew since the size before; below 1 is less than linear."""
    if len(points) < 2:
        return ""
    before, after = points[-2:]
    return f"{math.log(of(after) / of(before)) / math.log(after.size / before.size):.2f}"


if __name__ == "__main__":
    sys.exit(main())
