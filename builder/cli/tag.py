"""`pybuild tag`: a further name for an image of the store."""

from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser
from builder.cli.world import World
from builder.export.outputs import full_names
from builder.stored import find_stored
from cache.store import Store


def main(arguments: Sequence[str], world: World) -> int:
    """Give an image further names; an image that had one of them before loses it."""
    parser = Parser(prog="pybuild tag", description="Give an image of the store further names.")
    parser.add_argument("image", metavar="IMAGE", help="a name, or the beginning of an image id or digest")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a name that it is to have as well")
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    given = parser.parse_args(arguments)
    names = full_names(given.names, option="tag")
    with closing(Store(given.root or world.default_root())) as store:
        image = find_stored(store.layout, given.image).image
        for name in names:
            store.layout.tag(name, image)
    return 0
