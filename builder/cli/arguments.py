"""Options that several commands share, and how a wrong command line is told."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from builder.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would exit; options are not abbreviated, so that new ones break no script."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

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
