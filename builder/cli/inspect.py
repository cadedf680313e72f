"""`pybuild inspect`: an image's manifest and configuration."""

import json
from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser, add_platform_option, platform_of
from builder.cli.world import World
from builder.images import find_named
from cache.store import Store


def main(arguments: Sequence[str], world: World) -> int:
    """Print one JSON object with the two documents and their digests."""
    parser = Parser(prog="pybuild inspect", description="Print what an image says of itself, as JSON.")
    parser.add_argument("image", metavar="IMAGE", help="a name, or the beginning of an image id or digest")
    add_platform_option(parser)
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    given = parser.parse_args(arguments)
    with closing(Store(given.root or world.default_root())) as store:
        name, image = find_named(store.layout, given.image, platform_of(given.platform))
        document = {
            "Name": name,
            "Id": image.manifest.config.digest,
            "Digest": image.descriptor.digest,
            "Manifest": json.loads(store.layout.read(image.descriptor)),
            "Config": json.loads(store.layout.read(image.manifest.config)),
        }
    world.out.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return 0
