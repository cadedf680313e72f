"""`pybuild pull`: images out of registries into the store."""

from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser, add_store_options, platforms_of
from builder.cli.registries import add_login_options, registry_settings
from builder.cli.world import World
from builder.context.named import NamedContexts
from builder.images import Images
from builder.progress.choose import open_listener
from builder.report import Report
from builder.supply import Supply
from cache.store import Store
from layers.oci import Platform
from layers.registry.reference import Reference


def main(arguments: Sequence[str], world: World) -> int:
    """Pull images; each is printed with its digest."""
    parser = Parser(prog="pybuild pull", description="Pull images from their registries into the store.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="HOST/REPOSITORY[:TAG][@DIGEST]")
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH[,...]",
        help="the images for these: by default for this machine",
    )
    parser.add_argument("--progress", default="auto", choices=["auto", "tty", "plain", "quiet"])
    add_login_options(parser)
    add_store_options(parser)
    given = parser.parse_args(arguments)
    references = [Reference.parse(text) for text in given.names]
    registries = registry_settings(given, world, places=tuple(reference.name for reference in references))
    platforms = platforms_of(given.platform) or (Platform.host(),)
    with (
        closing(Store(given.root or world.default_root())) as store,
        open_listener(given.progress, world.err, world.monotonic) as listener,
    ):
        report = Report(listener, world.monotonic)
        report.entered()
        store.sweep()
        supply = Supply(store, report)
        with closing(Images(store, NamedContexts({}), registries, report, supply, pull=True)) as images:
            for reference in references:
                for platform in platforms:
                    base = images.find(str(reference), platform, any_single=False)
                    images.fetch(base, f"pulling {reference}")
                    # Not before its layers are here; and also if they all had been here, under another name.
                    store.layout.tag(base.name, base.index or base.image.descriptor)
                    world.out.write(f"{base.name.partition('@')[0]}@{base.image.descriptor.digest}\n")
    return 0
