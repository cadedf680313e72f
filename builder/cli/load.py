"""`pybuild load`: images out of an archive, such as `docker save` writes, into the store."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser
from builder.cli.world import World
from builder.errors import UsageError
from builder.export.unarchive import load_archive, load_folder
from cache.store import Store
from layers.oci import Platform
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
    with closing(Store(given.root or world.default_root())) as store:
        if given.input == "-":
            loaded = load_archive(sys.stdin.buffer, store, Platform.host())
        elif os.path.isdir(given.input):
            loaded = load_folder(given.input, store, Platform.host())
        else:
            try:
                with open(given.input, "rb") as file:
                    loaded = load_archive(file, store, Platform.host())
            except OSError as error:
                raise UsageError(f"{given.input} cannot be read: {(error.strerror or '').lower()}") from error
    for name, image in loaded:
        shown = (
            f"Loaded image: {Reference.parse(name).familiar}"
            if name
            else f"Loaded image ID: {image.manifest.config.digest}"
        )
        world.out.write(shown + "\n")
    return 0
