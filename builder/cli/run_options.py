"""The options of a build that are about RUN: what it lends to commands, and what they may do."""

import argparse
from collections.abc import Mapping, Sequence

from builder.credentials import Credentials
from builder.dockerfile.suggest import closest
from builder.errors import UsageError
from builder.evaluation.run import ENTITLEMENTS, NETWORK_HOST


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """--secret, --ssh, --network and --allow."""
    parser.add_argument(
        "--secret", action="append", default=[], metavar="id=ID,src=FILE|env=NAME", help="lend a secret; repeatable"
    )
    parser.add_argument(
        "--ssh", action="append", default=[], metavar="ID[=SOCKET|KEY[,KEY]]", help="lend an SSH agent, or keys"
    )
    parser.add_argument(
        "--network",
        default="default",
        choices=["default", "none", "host"],
        help="of a RUN that does not say which; default and host are both the network of this machine",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="RIGHT",
        help=f"let RUN ask for {' or '.join(sorted(ENTITLEMENTS))}",
    )


def credentials_of(given: argparse.Namespace, environment: Mapping[str, str]) -> Credentials:
    """What --secret and --ssh lend."""
    if not given.secret and not given.ssh:
        return Credentials()
    from builder.cli.credentials import credentials  # most builds lend nothing

    return credentials(given.secret, given.ssh, environment)


def allowed_by(given: argparse.Namespace) -> frozenset[str]:
    """What RUN may ask for; --network=host says it for all of them, as with docker."""
    return frozenset(map(_entitlement, _words(given.allow))) | ({NETWORK_HOST} if given.network == "host" else set())


def _words(texts: Sequence[str]) -> list[str]:
    return [word for text in texts for word in text.split(",")]


def _entitlement(word: str) -> str:
    if word not in ENTITLEMENTS:
        near = closest(word, ENTITLEMENTS)
        hint = f"did you mean {near}?" if near else "there is " + " and ".join(sorted(ENTITLEMENTS))
        raise UsageError(f"--allow {word}: pybuild knows no such right", hint=hint)
    return word
