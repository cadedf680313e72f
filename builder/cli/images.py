"""`pybuild images`: what the store has names for."""

from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser
from builder.cli.world import World
from builder.images import images_at
from cache.store import Store
from layers.oci import Image
from layers.registry.reference import Reference


def main(arguments: Sequence[str], world: World) -> int:
    """List the images, one a line, sorted by name; a name for several platforms has a line for each that is there."""
    parser = Parser(prog="pybuild images", description="List the images of the store.")
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    parser.add_argument("-q", "--quiet", action="store_true", help="print image ids alone")
    given = parser.parse_args(arguments)
    with closing(Store(given.root or world.default_root())) as store:
        rows = [
            _row(name, image)
            for name, descriptor in sorted(store.layout.names().items())
            for image in images_at(store.layout, descriptor)
        ]
    if given.quiet:
        rows = [(row[2],) for row in rows]
    else:
        rows.insert(0, ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "PLATFORM"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        world.out.write(line.rstrip() + "\n")
    return 0


def _row(name: str, image: Image) -> tuple[str, ...]:
    reference = Reference.parse(name)
    repository = Reference(reference.host, reference.repository).familiar
    # Sizes are those of the blobs, as a registry would count them: what a container needs is more.
    size = image.descriptor.size + image.manifest.config.size + sum(layer.size for layer in image.manifest.layers)
    created = image.config.created.replace("T", " ")[:19] or "-"
    short = image.manifest.config.digest.hex[:12]
    return repository, reference.tag or "-", short, created, human_size(size), str(image.config.platform)


def human_size(size: int) -> str:
    """Bytes as people read them, in powers of 1000 as Docker counts."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g}{unit}"
