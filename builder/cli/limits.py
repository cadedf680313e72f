"""Options about the limits of RUN: what is written becomes a value, or a UsageError that says how it is written.

The forms are those of `docker build`, and of `docker run` and `buildah build` for what the former lacks.
"""

import argparse
import ipaddress
import re
from collections.abc import Callable, Sequence

from builder.dockerfile import values
from builder.dockerfile.suggest import closest
from builder.errors import UsageError
from builder.sandbox.process import UNLIMITED, Host, Limits, Ulimit

HOST_GATEWAY = "host-gateway"
"""Docker's word for the address at which a container reaches the machine. Steps share its network: it is loopback."""

ULIMITS = (
    *("core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime"),
    *("sigpending", "stack"),
)
"""Those of docker but for `locks`, which Linux has not had since 2.4."""

_PERIOD = 100_000
_NAME = r"[^\s#=:]+"
_LIST = r"(?a)\d+(-\d+)?(,\d+(-\d+)?)*"
_CPUS = r"(?a)\d{1,6}(\.\d{1,9})?"


def host(text: str) -> Host:
    """`NAME:IP` or `NAME=IP`; an IPv6 address may stand in brackets."""
    separator = "=" if "=" in text else ":"
    name, _, address = text.partition(separator)
    if not re.fullmatch(_NAME, name) or not address:
        raise UsageError(f"--add-host {text!r}: it is written NAME:IP, or NAME=IP")
    if address == HOST_GATEWAY:
        address = "127.0.0.1"
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise UsageError(f"--add-host {text!r}: {address!r} is not an IP address") from None
    if getattr(parsed, "scope_id", None):
        raise UsageError(f"--add-host {text!r}: an address with a zone cannot stand in /etc/hosts")
    plain = getattr(parsed, "ipv4_mapped", None) or parsed
    return Host(name.lower(), str(plain))


def size(option: str, text: str) -> int:
    """Bytes; 0 where nothing is said."""
    try:
        return values.size(text) if text else 0
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def ulimits(texts: Sequence[str]) -> tuple[Ulimit, ...]:
    """`TYPE=SOFT[:HARD]`, in alphabetical order; the last of each type counts."""
    found = {each.name: each for each in map(_ulimit, texts)}
    return tuple(found[name] for name in sorted(found))


def _ulimit(text: str) -> Ulimit:
    name, _, bounds = text.partition("=")
    if name not in ULIMITS:
        near = closest(name, ULIMITS)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(ULIMITS)}"
        raise UsageError(f"--ulimit {text}: there is no limit {name!r} to set", hint=hint)
    soft, colon, hard = bounds.partition(":")
    first = _ulimit_number(soft, text)
    second = _ulimit_number(hard, text) if colon else first
    if second != UNLIMITED and (first == UNLIMITED or first > second):
        raise UsageError(f"--ulimit {text}: the soft limit is above the hard one")
    return Ulimit(name, first, second)


def _ulimit_number(text: str, whole: str) -> int:
    if text == "-1":
        return UNLIMITED
    if re.fullmatch(r"\d{1,18}", text, re.ASCII):
        return int(text)
    raise UsageError(f"--ulimit {whole}: it is written TYPE=SOFT[:HARD], in numbers; -1 is no limit")


def limits(given: argparse.Namespace) -> Limits:
    """What the options say together."""
    memory = size("--memory", given.memory) or None
    total = _or_unlimited(given.memory_swap, lambda text: size("--memory-swap", text))
    if total is not None and memory is None:
        raise UsageError("--memory-swap means nothing without --memory: it is memory and swap together")
    if total is not None and memory is not None and UNLIMITED < total < memory:
        raise UsageError(f"--memory-swap {given.memory_swap} is less than --memory {given.memory}, which is part of it")
    period, quota = _cpu_time(given)
    return Limits(
        memory=memory,
        memory_and_swap=total,
        cpu_period=period,
        cpu_quota=quota,
        cpu_shares=_number("--cpu-shares", given.cpu_shares),
        cpus=_list("--cpuset-cpus", given.cpuset_cpus),
        memory_nodes=_list("--cpuset-mems", given.cpuset_mems),
        processes=_or_unlimited(given.pids_limit, lambda text: _number("--pids-limit", text)),
        parent=_parent(given.cgroup_parent),
    )


def _cpu_time(given: argparse.Namespace) -> tuple[int | None, int | None]:
    """Period and quota, which --cpus says in one number."""
    period = _number("--cpu-period", given.cpu_period)
    quota = _or_unlimited(given.cpu_quota, lambda text: _number("--cpu-quota", text))
    if not given.cpus:
        return period, quota
    if period is not None or quota is not None:
        raise UsageError("--cpus says the same as --cpu-period and --cpu-quota: choose one")
    if not re.fullmatch(_CPUS, given.cpus):
        raise UsageError(f"--cpus {given.cpus}: it is a number, such as 2 or 0.5")
    return (_PERIOD, int(float(given.cpus) * _PERIOD)) if float(given.cpus) else (None, None)


def _or_unlimited(text: str, read: Callable[[str], int | None]) -> int | None:
    """Docker's -1; 0 and nothing leave a limit as it is."""
    return UNLIMITED if text == "-1" else read(text) or None


def _number(option: str, text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise UsageError(f"{option} {text}: it is a number")
    return int(text) or None


def _list(option: str, text: str) -> str:
    if text and not re.fullmatch(_LIST, text):
        raise UsageError(f"{option} {text}: it is a list such as 0-2,7")
    return text


def _parent(text: str) -> str:
    """A path from the root of a tree of cgroups, without a way out of it."""
    parts = [part for part in text.split("/") if part]
    if "\0" in text or any(part in {".", ".."} for part in parts):
        raise UsageError(f"--cgroup-parent {text}: it is a path from the root of the cgroups, such as /ci/builds")
    if text and not parts:
        raise UsageError("--cgroup-parent: every cgroup is below /; name another")
    return "/".join(parts)


def step_timeout(text: str) -> float:
    """Seconds of a duration as Go writes it."""
    try:
        seconds = values.duration(text) / 1e9
    except ValueError as error:
        raise UsageError(f"--step-timeout: {error}") from None
    if seconds <= 0:
        raise UsageError(f"--step-timeout {text}: it has to be longer than nothing")
    return seconds
