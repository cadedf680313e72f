"""`pybuild export`: the root file system of an image, as a tar or in a folder."""

import os
from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser, add_platform_option, platform_of
from builder.cli.outputs import refuse_terminal
from builder.cli.refs import find_image
from builder.cli.world import World
from builder.errors import UsageError
from builder.export.image import Draft
from builder.export.output import Form, Output, Packing
from builder.export.outputs import Places, deliver
from builder.progress.choose import open_listener
from builder.report import Report
from cache.store import Store


def main(arguments: Sequence[str], world: World) -> int:
    """Write the files of an image, and nothing of its configuration."""
    parser = Parser(prog="pybuild export", description="Write the root file system of an image.")
    parser.add_argument("image", metavar="IMAGE", help="a name, an id, or oci-layout://DIR[:TAG]")
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="a tar; standard output if left out")
    parser.add_argument("-C", "--directory", default="", metavar="DIR", help="into a folder instead")
    add_platform_option(parser)
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    given = parser.parse_args(arguments)
    if given.directory and given.output:
        raise UsageError("pybuild export: -o and -C are two places", hint="name one of them")
    output = Output(Form.LOCAL, given.directory) if given.directory else Output(Form.TAR, given.output or "-")
    if output.is_stdout:
        refuse_terminal("pybuild export")
    with (
        closing(Store(given.root or world.default_root())) as store,
        open_listener("auto", world.err, world.monotonic) as listener,
    ):
        _, image = find_image(given.image, store, platform_of(given.platform))
        places = Places(store, Report(listener, world.monotonic), keep_owners=os.geteuid() == 0)
        deliver([Draft.of(image)], (), (output,), Packing(), places)
    return 0
