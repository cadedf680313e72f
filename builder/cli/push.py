"""`pybuild push`: an image of the store into registries."""

from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser, add_platform_option, add_store_options, platform_of
from builder.cli.refs import find_image
from builder.cli.registries import add_login_options, registry_settings
from builder.cli.world import World
from builder.errors import UsageError
from builder.export.outputs import full_names, write_text
from builder.progress.choose import open_listener
from builder.report import Report
from builder.stored import find_stored
from cache.store import Store
from layers.parts import is_whole
from layers.registry.reference import Reference


def main(arguments: Sequence[str], world: World) -> int:
    """Push one image under one or several names; each is printed with the digest that it has from now on."""
    parser = Parser(prog="pybuild push", description="Push an image of the store to registries.")
    parser.add_argument("image", metavar="NAME", help="a name, or the beginning of an image id or digest")
    parser.add_argument("names", nargs="*", metavar="DEST", help="the names to push it to: NAME itself")
    parser.add_argument(
        "--digestfile", default="", metavar="FILE", help="write the digest of what was pushed to a file"
    )
    add_platform_option(parser)
    parser.add_argument("--progress", default="auto", choices=["auto", "tty", "plain", "quiet"])
    add_login_options(parser)
    add_store_options(parser)
    given = parser.parse_args(arguments)
    with (
        closing(Store(given.root or world.default_root())) as store,
        open_listener(given.progress, world.err, world.monotonic) as listener,
    ):
        stored = find_stored(store.layout, given.image)
        names = full_names(given.names, option="push") or stored.names
        if any("@" in name for name in names):
            raise UsageError(f"push {names[0]}: a digest cannot be chosen", hint="say under which name to push it")
        references = [Reference.parse(name) for name in names]
        image = stored.image
        if given.platform or not is_whole(store.layout, image):
            image = find_image(given.image, store, platform_of(given.platform))[1].descriptor
        from builder.export.registry import push_image  # what is wrong up to here is told without HTTP

        report = Report(listener, world.monotonic)
        report.entered()
        if not given.platform and image != stored.image:
            report.warn(f"the store has not all platforms of {given.image}: one image is pushed, and not the index")
        registries = registry_settings(given, world, places=tuple(reference.name for reference in references))
        push_image(image, references, layout=store.layout, registries=registries, report=report)
    if given.digestfile:
        write_text(given.digestfile, image.digest)
    for reference in references:
        world.out.write(f"{reference}@{image.digest}\n")
    return 0
