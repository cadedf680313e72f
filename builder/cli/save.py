"""`pybuild save`: images as an archive for `docker load`, `podman load` and `pybuild load`."""

import argparse
from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser, add_platform_option, platform_of
from builder.cli.outputs import compression_of, refuse_terminal
from builder.cli.refs import find_image
from builder.cli.world import World
from builder.export import docker, oci
from builder.export.image import Draft, Packaged, package
from builder.export.output import Packing
from builder.export.sink import opened
from builder.images import OCI_LAYOUT, images_at
from builder.progress.choose import open_listener
from builder.report import Report
from builder.stored import find_stored
from cache.store import Store
from layers.oci import INDEXES, Descriptor
from layers.parts import is_whole


def main(arguments: Sequence[str], world: World) -> int:
    """Write one archive with all the images."""
    parser = Parser(prog="pybuild save", description="Write images to an archive.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a name, an id, or oci-layout://DIR[:TAG]")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="where to; standard output if left out")
    parser.add_argument(
        "--format",
        default="docker",
        choices=["docker", "oci"],
        help="an archive for docker load, which is an OCI layout as well; or a layout alone",
    )
    parser.add_argument("--compression", default="", metavar="KIND", help="gzip, zstd, estargz or uncompressed")
    parser.add_argument(
        "--compression-level", default="", metavar="N", help="gzip has 0 to 9, zstd 0 to 22, estargz 0 to 9"
    )
    add_platform_option(parser)
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    given = parser.parse_args(arguments)
    compression, level = compression_of(given.compression, given.compression_level, "--compression")
    packing = Packing(compression, level)
    if given.output == "-":
        refuse_terminal("pybuild save")
    write = oci.write_archive if given.format == "oci" else docker.write_archive
    with (
        closing(Store(given.root or world.default_root())) as store,
        open_listener("auto", world.err, world.monotonic) as listener,
    ):
        report = Report(listener, world.monotonic)
        report.entered()
        images = []
        for text in given.images:
            name, found = _found(text, given, store)
            names = (name,) if name in store.layout.names() else ()
            if packing != Packing():
                found = package([Draft.of(image) for image in found.images], packing, store, report)
            images.append(oci.Named(found, names))
        with report.running(f"saving to {given.output}") as job, opened(given.output) as stream:

            def progress(blob: Descriptor, done: int) -> None:
                report.progress(job, blob.digest, done, blob.size)

            write(images, store.layout, stream, progress)
    return 0


def _found(text: str, given: argparse.Namespace, store: Store) -> tuple[str, Packaged]:
    """The name and the image of a text; in an OCI layout, an index with all its images unless one is chosen."""
    platform = platform_of(given.platform)
    if given.format == "oci" and platform is None and not text.startswith(OCI_LAYOUT):
        stored = find_stored(store.layout, text)
        if stored.image.media_type in INDEXES and is_whole(store.layout, stored.image):
            return stored.names[0], Packaged(tuple(images_at(store.layout, stored.image)), stored.image)
    name, image = find_image(text, store, platform)
    return name, Packaged((image,), image.descriptor)
