"""`pybuild run`: a command in an image, in the sandbox that RUN has."""

from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser, add_platform_option, pair, platform_of
from builder.cli.run_options import add_backend_option, add_limit_options, backend_of, limits_of, run_settings_of
from builder.cli.world import World
from builder.images import find_named
from builder.run import RunOptions, run
from cache.store import Store


def main(arguments: Sequence[str], world: World) -> int:
    """Run a command in a copy of the image's file system, which is thrown away; its exit status is ours."""
    parser = Parser(prog="pybuild run", description="Run a command in an image. What it changes is gone when it ends.")
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    add_platform_option(parser)
    parser.add_argument("-i", "--interactive", action="store_true", help="hand standard input on")
    parser.add_argument("-t", "--tty", action="store_true", help="give the command a terminal")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable")
    parser.add_argument("-u", "--user", default="", metavar="USER", help="run as this user of the image")
    parser.add_argument("-w", "--workdir", default="", metavar="DIR", help="run in this directory")
    parser.add_argument("--entrypoint", default=None, metavar="PROGRAM", help="instead of the image's; empty: none")
    add_backend_option(parser)
    add_limit_options(parser)
    parser.add_argument("image", metavar="IMAGE", help="a name, or the beginning of an image id or digest")
    parser.add_argument("command", nargs="...", metavar="COMMAND", help="instead of the image's CMD")
    given = parser.parse_args(arguments)
    options = RunOptions(
        command=tuple(given.command),
        entrypoint=given.entrypoint,
        environment=tuple(pair("--env", text) for text in given.env),
        user=given.user,
        directory=given.workdir,
        interactive=given.interactive,
        terminal=given.tty,
        backend=backend_of(given, world.environment),
        settings=run_settings_of(given),
        limits=limits_of(given),
    )
    with closing(Store(given.root or world.default_root())) as store:
        _, image = find_named(store.layout, given.image, platform_of(given.platform))
        return run(image, options, store, lambda text: print(f"WARNING: {text}", file=world.err))
