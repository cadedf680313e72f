"""The command line: picks the command, shows errors, and is the only place that exits."""

# The module signal is this one and names for its numbers, which take more than a millisecond to make.
import _signal  # type: ignore[import-not-found]  # typeshed has none
import gc
import os
import sys
from collections.abc import Sequence

from builder.cli.show import show_error
from builder.cli.world import World
from cache.receipts import Question
from layers.errors import PybuildError

COMMANDS = {
    "build": "build an image from a Dockerfile; the default, so that `pybuild -t name .` works",
    "run": "run a command in an image",
    "images": "list the images of the store",
    "inspect": "print what an image says of itself, as JSON",
    "history": "list the instructions that made an image",
    "diff": "tell what differs between two images, and what made it so",
    "verify": "build again without the cache, and tell whether an image is the same",
    "save": "write images to an archive",
    "load": "read images from an archive, such as docker save writes",
    "export": "write the root file system of an image",
    "doctor": "tell what RUN can have on this machine, and what would help",
    "push": "push an image to registries",
    "pull": "pull images from registries into the store",
    "imagetools": "make an index of images, or look at what a name stands for",
    "login": "log in to a registry",
    "logout": "forget the login of a registry",
    "tag": "give an image further names",
    "rm": "take names of images away",
}

USAGE = """usage: pybuild [build] [OPTIONS] CONTEXT
       pybuild COMMAND ...

commands:
{commands}

`pybuild COMMAND --help` explains the options of each.
"""


def entry(question: Question | None = None) -> None:
    """Run the command line of this process; `question` is what a receipt may be kept for."""
    # A build makes hundreds of thousands of tuples that live to its end; the collector would walk them over and over.
    gc.set_threshold(200_000, 50, 50)
    # Whoever ends us politely gets the same clean end as a person at the keyboard.
    _signal.signal(_signal.SIGTERM, _signal.default_int_handler)
    status = main(sys.argv[1:], World.of_process(question))
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(status)
    # All is written and closed. To take modules and objects apart one by one is a fifth of a build with nothing to do.
    os._exit(status)


def main(arguments: Sequence[str], world: World) -> int:
    """Run one command line; the exit status is by the table in README."""
    if not arguments or arguments[0] in {"help", "--help", "-h"}:
        rows = "\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items())
        world.out.write(USAGE.format(commands=rows))
        return 0 if arguments else 2
    if arguments[0] in {"--version", "version"}:
        from importlib.metadata import version  # costs more than all else here

        world.out.write(f"pybuild {version('pybuild')}\n")
        return 0
    if arguments[0] in COMMANDS:
        return _execute(arguments[0], arguments[1:], world)
    return _execute("build", arguments, world)


def _execute(command: str, arguments: Sequence[str], world: World) -> int:
    """Run one command, and tell what ends it."""
    try:
        # Only the one command is imported: what people run most, a build with nothing to do, should start at once.
        # And not by import_module, for which importlib would have to be imported.
        __import__(module := f"builder.cli.{command}")
        status: int = sys.modules[module].main(arguments, world)
        world.out.flush()
    except PybuildError as error:
        show_error(error, world.err)
        return error.exit_status
    except KeyboardInterrupt:
        world.err.write("interrupted\n")
        return 128 + int(_signal.SIGINT)
    except OSError as error:
        # The interpreter would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 128 + int(_signal.SIGPIPE)
        show_error(PybuildError(str(error)), world.err)
        return PybuildError.exit_status
    return status
