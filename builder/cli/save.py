"""`pybuild save`: images as an archive for `docker load`, `podman load` and `pybuild load`."""

from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser
from builder.cli.outputs import compression_of, refuse_terminal
from builder.cli.refs import find_image
from builder.cli.world import World
from builder.export import docker, oci
from builder.export.image import Draft, package
from builder.export.output import Packing
from builder.export.sink import opened
from builder.progress.choose import open_listener
from builder.report import Report
from cache.store import Store
from layers.oci import Descriptor


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
    parser.add_argument("--compression", default="", metavar="KIND", help="gzip, zstd or uncompressed: of all layers")
    parser.add_argument("--compression-level", default="", metavar="N", help="gzip has 0 to 9, zstd 0 to 22")
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
            name, image = find_image(text, store)
            names = (name,) if name in store.layout.names() else ()
            images.append(oci.Named(package([Draft.of(image)], packing, store, report), names))
        with report.running(f"saving to {given.output}") as job, opened(given.output) as stream:

            def progress(blob: Descriptor, done: int) -> None:
                report.progress(job, blob.digest, done, blob.size)

            write(images, store.layout, stream, progress)
    return 0
