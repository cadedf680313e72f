"""Options that several commands share, and how a wrong command line is told."""

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import NoReturn

from builder.errors import UsageError
from layers.errors import ImageError
from layers.oci import Platform

# Else argparse looks for translations of its words, of which there are none, and reads the names of all locales first.
argparse._ = str  # type: ignore[attr-defined]  # its own name for gettext

_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
"""As Go reads them, or nearly."""


def _formatter(prog: str) -> argparse.HelpFormatter:
    """As wide as the terminal. Each option that is added makes one, and argparse's own would import shutil for that."""
    try:
        columns = os.get_terminal_size().columns
    except OSError:
        columns = 80
    return argparse.HelpFormatter(prog, width=columns - 2)


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would exit; options are not abbreviated, so that new ones break no script."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, formatter_class=_formatter)

    def parse_known_args(  # type: ignore[override]  # it has overloads that say the same
        self, args: Iterable[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """What argparse does; an option that is there or not may have a boolean, as with docker: `--pull=false`."""
        return super().parse_known_args(None if args is None else self._without_booleans(list(args)), namespace)

    def _without_booleans(self, arguments: Sequence[str]) -> list[str]:
        switches = {name for name, action in self._option_string_actions.items() if action.const is True}
        plain: list[str] = []
        for place, argument in enumerate(arguments):
            if argument == "--":
                return [*plain, *arguments[place:]]
            name, equals, value = argument.partition("=")
            if not equals or name not in switches or value.lower() not in _BOOLEANS:
                plain.append(argument)
            elif _BOOLEANS[value.lower()]:
                plain.append(name)
        return plain

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help")


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Where the store is, and how registries are spoken to."""
    parser.add_argument("--root", default="", metavar="DIR", help="the store; else $PYBUILD_ROOT, else the data folder")
    parser.add_argument(
        "--insecure-registry",
        action="append",
        default=[],
        metavar="HOST",
        help="a registry that may be spoken to without TLS or with any certificate",
    )
    parser.add_argument(
        "--registry-mirror", action="append", default=[], metavar="HOST=MIRROR[/PREFIX]", help="ask MIRROR before HOST"
    )


def add_platform_option(parser: argparse.ArgumentParser) -> None:
    """Which image of several in an index."""
    parser.add_argument(
        "--platform", default="", metavar="OS/ARCH", help="of an image for several: this one; else this machine's"
    )


def platforms_of(texts: Sequence[str]) -> tuple[Platform, ...]:
    """What --platform names, in that order and each once; each text may be a list with commas."""
    words = (word for text in texts for word in text.split(",") if word.strip())
    try:
        return tuple(dict.fromkeys(map(Platform.parse, words)))
    except ImageError as error:
        raise UsageError(f"--platform: {error.message}", hint=error.hint) from error


def platform_of(text: str) -> Platform | None:
    """The one platform that --platform names; None if it was not given."""
    platforms = platforms_of([text])
    if len(platforms) > 1:
        raise UsageError(f"--platform {text}: one platform is chosen here")
    return platforms[0] if platforms else None


def pair(option: str, text: str) -> tuple[str, str]:
    """`NAME=VALUE` in two; UsageError names the option."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{option} {text!r}: it is written NAME=VALUE")
    return name, value


def registry_mirrors(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The mirrors of each registry, in the order given."""
    mirrors: dict[str, tuple[str, ...]] = {}
    for text in texts:
        host, mirror = pair("--registry-mirror", text)
        mirrors[host] = (*mirrors.get(host, ()), mirror)
    return mirrors
