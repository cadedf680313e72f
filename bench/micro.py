#!/usr/bin/env python3
"""Times the parts of a build, each beside what cannot be beaten, or hardly.

    scripts/bench micro [--files 5000] [--markdown FILE]

The best of several rounds counts, in CPU seconds of the process and of those that it started.
"""

import argparse
import hashlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from workloads import write_file, write_tree

from builder.build import Clocks, build
from builder.context.local import LocalTree
from builder.options import BuildOptions
from builder.steps.tree import fingerprint, walk
from cache.store import Store
from layers.compress import Compression
from layers.entry import Change, Kind
from layers.layer import write_layer
from layers.layout import Layout
from layers.tar import TarWriter
from layers.unpack import unpack

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Part:
    """Something that pybuild does, and the limit beside it."""

    name: str
    own: Callable[[], object]
    limit_name: str
    limit: Callable[[], object]
    without: Callable[[], object] | None = None
    """What is taken off: all that is not the part."""


def main() -> int:
    """Measure all parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--work", default="bench-work", help="a folder to write to")
    parser.add_argument("--pybuild", default="pybuild", help="its command")
    parser.add_argument("--files", type=int, default=5_000, help="small files")
    parser.add_argument("--size", type=int, default=1 << 27, help="bytes of the large file")
    parser.add_argument("--markdown", default="", metavar="FILE", help="write the table there too")
    given = parser.parse_args()
    place = os.path.join(os.path.abspath(given.work), "micro")
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    write_tree(f"{place}/tree", given.files, given.files * 6500)
    write_file(f"{place}/large", given.size)
    lines = ["| part | CPU s | limit | CPU s | ratio |", "|---|---|---|---|---|"]
    for part in (*parts(place), planner(place), sandbox(place, given.pybuild.split())):
        own, limit = best(part.own), best(part.limit)
        if part.without:
            own -= best(part.without)
        lines.append(f"| {part.name} | {own:.3f} | {part.limit_name} | {limit:.3f} | {own / limit:.2f} |")
        sys.stderr.write(lines[-1] + "\n")
    shutil.rmtree(place)
    text = "\n".join(lines) + "\n"
    if given.markdown:
        with open(given.markdown, "w", encoding="utf-8") as file:
            file.write(text)
    sys.stdout.write(text)
    return 0


def best(work: Callable[[], object]) -> float:
    """CPU seconds of the best round, with those of children."""
    found = []
    for _ in range(ROUNDS):
        before = used()
        work()
        found.append(used() - before)
    return min(found)


def used() -> float:
    """CPU seconds of this process and of its children so far."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def parts(place: str) -> Iterator[Part]:
    """What needs no sandbox."""
    tree, large = f"{place}/tree", f"{place}/large"
    tar = f"{place}/tree.tar"
    subprocess.run(["tar", "-C", place, "-cf", tar, "tree"], check=True)
    yield Part("hash a new context", lambda: digest(tree, place), "sha256 of its tar", lambda: sha256_of(tar))
    with_known = f"{place}/known"
    digest(tree, with_known)
    time.sleep(0.05)
    digest(tree, with_known)
    yield Part("look at a known context", lambda: digest(tree, with_known), "scandir and stat", lambda: look(tree))
    yield Part("write a tar", lambda: write_tar(tree, place), "GNU tar", lambda: gnu_tar(tree))
    yield Part("unpack a tar", lambda: unpack_tar(tar, f"{place}/out"), "cp -a", lambda: copy(tree, f"{place}/out"))
    for kind in (Compression.GZIP, Compression.ZSTD):
        yield Part(f"a layer of one file, {kind.value}", lambda kind=kind: pack(large, place, kind), *hashing(large))


def hashing(path: str) -> tuple[str, Callable[[], object]]:
    """The limit of what has to go over all bytes."""
    return "sha256 of it", lambda: sha256_of(path)


def digest(tree: str, place: str) -> None:
    """What a cache key says of a context; what is known of its files is in a store, if there is one."""
    fresh = not place.endswith("known")
    root = f"{place}/store"
    if fresh:
        shutil.rmtree(root, ignore_errors=True)
    store = Store(root)
    context = LocalTree(tree, store.files)
    top = context.lookup("")
    assert top is not None
    fingerprint(context, top, owners=False)
    context.save()
    store.close()


def look(folder: str) -> None:
    """Read all folders and the status of all that is in them."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as items:
            for item in items:
                item.stat(follow_symlinks=False)
                if item.is_dir(follow_symlinks=False):
                    waiting.append(item.path)


def sha256_of(path: str) -> None:
    """Hash a file in blocks."""
    with open(path, "rb") as file:
        hashlib.file_digest(file, "sha256")


def changes(tree: str, store: Store) -> Iterator[Change]:
    """A folder as the content of a layer."""
    context = LocalTree(tree, store.files)
    top = context.lookup("")
    assert top is not None
    entries = walk(context, top)
    next(entries)
    for entry in entries:
        yield Change(entry, context.content(entry) if entry.kind is Kind.FILE else None)


def write_tar(tree: str, place: str) -> None:
    """The tar of a folder, into nothing."""
    store = Store(f"{place}/store")
    writer = TarWriter(lambda _: None)
    for entry, content in changes(tree, store):
        writer.add(entry, content)
    writer.close()
    store.close()


def gnu_tar(tree: str) -> None:
    """The same by tar, through a pipe: into /dev/null it would read no file."""
    with subprocess.Popen(
        ["tar", "-cf", "-", "--sort=name", tree], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as it:
        assert it.stdout is not None
        while it.stdout.read(1 << 20):
            pass


def unpack_tar(tar: str, target: str) -> None:
    """As a layer is unpacked."""
    os.mkdir(target)
    with open(tar, "rb") as file:
        unpack(file, target, lowers=())
    shutil.rmtree(target)


def copy(tree: str, target: str) -> None:
    """What the kernel's copy costs, and to remove it as above."""
    subprocess.run(["cp", "-a", tree, target], check=True)
    shutil.rmtree(target)


def pack(path: str, place: str, kind: Compression) -> None:
    """A layer that is compressed, hashed twice and written."""
    shutil.rmtree(f"{place}/layout", ignore_errors=True)
    store = Store(f"{place}/store")
    one = [change for change in changes(os.path.dirname(path), store) if change.entry.path == "large"]
    write_layer(one, Layout(f"{place}/layout"), compression=kind)
    store.close()


def planner(place: str) -> Part:
    """A hundred steps that the cache answers, beside a hundred questions to its database."""
    context = f"{place}/plan"
    os.mkdir(context)
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write("FROM scratch\n" + "".join(f"COPY Dockerfile /{number}\n" for number in range(100)))
    options = BuildOptions(context, f"{place}/store")

    def plan() -> None:
        build(options, lambda _: None, Clocks(time.monotonic, time.time_ns))

    def ask() -> None:
        with closing(sqlite3.connect(f"{place}/store/cache.db")) as database:
            for number in range(100):
                database.execute("SELECT * FROM records WHERE key = ?", (f"sha256:{number:064x}",)).fetchall()

    plan()
    return Part("plan 100 cached steps, in process", plan, "100 questions to SQLite", ask)


def sandbox(place: str, pybuild: Sequence[str]) -> Part:
    """What twenty commands cost as steps of a build, beside twenty that are only forked and executed."""
    program = f"{place}/sandbox/20/bin/sh"
    return Part(
        "20 RUN, without the rest of the build",
        _build_of(20, place, pybuild),
        "fork and exec, 20 times",
        lambda: [subprocess.run([program, "-c", ":"], check=True) for _ in range(20)],
        _build_of(0, place, pybuild),
    )


def _build_of(count: int, place: str, pybuild: Sequence[str]) -> Callable[[], object]:
    """A build with a command, and so many more."""
    context = f"{place}/sandbox/{count}"
    os.makedirs(f"{context}/bin")
    shutil.copy("/bin/busybox", f"{context}/bin/sh")
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write("FROM scratch\nCOPY bin /bin\nRUN :\n" + "".join(f"RUN : {number}\n" for number in range(count)))
    command = [*pybuild, "build", "-q", "--no-cache", "--root", f"{place}/store", "-t", "sandbox", context]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
