"""`pybuild load`: images out of an archive, such as `docker save` writes, into the store."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing

from builder.cli.arguments import Parser
from builder.cli.world import World
from builder.errors import UsageError
from builder.export.unarchive import Loaded, load_archive, load_folder
from builder.progress.choose import open_listener
from builder.report import Report
from cache.store import Store
from layers.counted import counted
from layers.registry.reference import Reference


def main(arguments: Sequence[str], world: World) -> int:
    """Load all images that are there, and say their names."""
    parser = Parser(prog="pybuild load", description="Read images from an archive or an OCI layout into the store.")
    parser.add_argument(
        "-i", "--input", default="-", metavar="FILE|DIR", help="the archive, or a layout folder; else standard input"
    )
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    given = parser.parse_args(arguments)
    if given.input == "-" and os.isatty(0):
        raise UsageError("pybuild load: no archive is read from a terminal", hint="-i FILE names one")
    with (
        closing(Store(given.root or world.default_root())) as store,
        open_listener("auto", world.err, world.monotonic) as listener,
    ):
        report = Report(listener, world.monotonic)
        report.entered()
        with report.running(f"loading {given.input}") as job:
            loaded = _load(given.input, store, lambda done, total: report.progress(job, given.input, done, total))
    for name, image in loaded:
        shown = (
            f"Loaded image: {Reference.parse(name).familiar}"
            if name
            else f"Loaded image ID: {image.manifest.config.digest}"
        )
        world.out.write(shown + "\n")
    return 0


def _load(source: str, store: Store, progress: Callable[[int, int], None]) -> list[Loaded]:
    """Load from standard input, a folder or a file; `progress` is told of the bytes read, and of how many there are."""
    if source == "-":
        return load_archive(counted(sys.stdin.buffer, lambda done: progress(done, 0)), store)
    if os.path.isdir(source):
        return load_folder(source, store)
    try:
        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return load_archive(counted(file, lambda done: progress(done, size)), store)
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {(error.strerror or '').lower()}") from error
