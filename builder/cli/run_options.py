"""The options of a build that are about RUN: what it lends to commands, and what they may do."""

import argparse
from collections.abc import Mapping, Sequence

from builder.credentials import Credentials
from builder.dockerfile.suggest import closest
from builder.errors import UsageError
from builder.evaluation.run import ENTITLEMENTS, NETWORK_HOST
from builder.options import AUTO, BACKENDS
from builder.sandbox.process import Limits
from builder.steps.step import RunSettings


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What commands are lent, what they may do, and how much of the machine they may use."""
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
    add_backend_option(parser)
    add_limit_options(parser)
    parser.add_argument("--step-timeout", default="", metavar="DURATION", help="after which a RUN is killed: 90s, 10m")


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """What commands find, and how much of the machine they may use."""
    parser.add_argument(
        "--add-host",
        action="append",
        default=[],
        metavar="NAME:IP",
        help="a further line of /etc/hosts for commands; `host-gateway` is this machine; repeatable",
    )
    for option, metavar, text in _LIMITS:
        parser.add_argument(option, default="", metavar=metavar, help=text)
    parser.add_argument(
        "--ulimit", action="append", default=[], metavar="TYPE=SOFT[:HARD]", help="a limit of each process; repeatable"
    )


_LIMITS = (
    ("--shm-size", "SIZE", "of /dev/shm: 64m"),
    ("--memory", "SIZE", "that the processes of a command may use together: 512m, 2g"),
    ("--memory-swap", "SIZE", "memory and swap together; -1: as much swap as there is"),
    ("--cpus", "NUMBER", "CPUs that they may keep busy: 1.5"),
    ("--cpu-period", "MICROSECONDS", "in which --cpu-quota counts: 100000"),
    ("--cpu-quota", "MICROSECONDS", "of CPU time in each period"),
    ("--cpu-shares", "WEIGHT", "when others want the CPU too; everybody has 1024"),
    ("--cpuset-cpus", "LIST", "the CPUs that they may run on: 0-2,7"),
    ("--cpuset-mems", "LIST", "the NUMA nodes whose memory they may have"),
    ("--pids-limit", "NUMBER", "of their processes and threads"),
    ("--cgroup-parent", "PATH", "the cgroup below which all this is counted"),
)


def run_settings_of(given: argparse.Namespace) -> RunSettings:
    """What --add-host, --shm-size and --ulimit say."""
    if not (given.add_host or given.shm_size or given.ulimit):
        return RunSettings()
    from builder.cli import limits  # few builds say any of it

    return RunSettings(
        hosts=tuple(map(limits.host, given.add_host)),
        shared_memory=limits.size("--shm-size", given.shm_size) or None,
        ulimits=limits.ulimits(given.ulimit),
    )


def limits_of(given: argparse.Namespace) -> Limits:
    """What the options say that are about all processes of a RUN together."""
    names = ("memory", "memory_swap", "cpus", "cpu_period", "cpu_quota", "cpu_shares", "cpuset_cpus", "cpuset_mems")
    if not any(getattr(given, name) for name in (*names, "pids_limit", "cgroup_parent")):
        return Limits()
    from builder.cli.limits import limits

    return limits(given)


def step_timeout_of(given: argparse.Namespace) -> float | None:
    """Seconds."""
    if not given.step_timeout:
        return None
    from builder.cli.limits import step_timeout

    return step_timeout(given.step_timeout)


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    """--backend."""
    parser.add_argument(
        "--backend",
        default="",
        metavar="NAME",
        help=f"how commands are run: {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}; else $PYBUILD_BACKEND",
    )


def backend_of(given: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """How commands are run; UsageError for a way that there is not."""
    name: str = given.backend or environment.get("PYBUILD_BACKEND") or AUTO
    if name not in BACKENDS:
        raise UsageError(f"--backend={name}: there is no such back-end", hint=f"there are {', '.join(BACKENDS)}")
    return name


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
