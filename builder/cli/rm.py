"""`pybuild rm`: names of images out of the store."""

from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser
from builder.cli.world import World
from builder.errors import UsageError
from builder.stored import find_stored
from cache.store import Store


def main(arguments: Sequence[str], world: World) -> int:
    """Take names away; each is printed. Layers stay, since the cache and other images may lead to them."""
    parser = Parser(
        prog="pybuild rm", description="Remove names of images from the store. Their layers stay for builds."
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a name, or the beginning of an image id or digest")
    parser.add_argument("-f", "--force", action="store_true", help="with an id: remove all names that the image has")
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    given = parser.parse_args(arguments)
    with closing(Store(given.root or world.default_root())) as store:
        for text in given.images:
            names = find_stored(store.layout, text).names
            if len(names) > 1 and not given.force:
                raise UsageError(f"image {text} has several names: {', '.join(names)}", hint="--force removes them all")
            for name in names:
                store.layout.untag(name)
                world.out.write(f"{name}\n")
    return 0
