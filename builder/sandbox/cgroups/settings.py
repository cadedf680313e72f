"""Limits as the kernel reads them: which file of which controller gets which text.

Both versions of cgroups have them, under other names (kernel: admin-guide/cgroup-v1, admin-guide/cgroup-v2).
"""

from collections.abc import Iterator

from builder.sandbox.process import UNLIMITED, Limits
from layers.data import dataclass

_PERIOD = 100_000
"""Microseconds; the kernel's own choice."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A text for a file of a cgroup."""

    controller: str
    file: str
    text: str
    needed: bool = True
    """Without it, where the file is missing, the limits are still what was asked for."""


def controllers(limits: Limits) -> tuple[str, ...]:
    """The controllers that these limits need, in the order in which they are told about."""
    wanted = {
        "memory": limits.memory,
        "cpu": limits.cpu_period or limits.cpu_quota or limits.cpu_shares,
        "cpuset": limits.cpus or limits.memory_nodes,
        "pids": limits.processes,
    }
    return tuple(name for name, value in wanted.items() if value)


def settings(limits: Limits, *, unified: bool) -> tuple[Setting, ...]:
    """What to write, in this order; `unified` is cgroup v2."""
    return tuple(_unified(limits) if unified else _version_1(limits))


def _version_1(limits: Limits) -> Iterator[Setting]:
    if limits.memory is not None:
        yield Setting("memory", "memory.limit_in_bytes", str(limits.memory))
        total = _total(limits)
        # Kernels without accounting of swap have no such file.
        yield Setting("memory", "memory.memsw.limit_in_bytes", str(total), needed=limits.memory_and_swap is not None)
    if limits.cpu_period is not None:
        yield Setting("cpu", "cpu.cfs_period_us", str(limits.cpu_period))
    if limits.cpu_quota is not None:
        yield Setting("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota))
    if limits.cpu_shares is not None:
        yield Setting("cpu", "cpu.shares", str(limits.cpu_shares))
    yield from _common(limits)


def _unified(limits: Limits) -> Iterator[Setting]:
    if limits.memory is not None:
        yield Setting("memory", "memory.max", str(limits.memory))
        total = _total(limits)
        swap = "max" if total == UNLIMITED else str(total - limits.memory)
        yield Setting("memory", "memory.swap.max", swap, needed=limits.memory_and_swap is not None)
    if limits.cpu_period is not None or limits.cpu_quota is not None:
        quota = "max" if limits.cpu_quota in {None, UNLIMITED} else limits.cpu_quota
        yield Setting("cpu", "cpu.max", f"{quota} {limits.cpu_period or _PERIOD}")
    if limits.cpu_shares is not None:
        yield Setting("cpu", "cpu.weight", str(weight(limits.cpu_shares)))
    yield from _common(limits)


def _common(limits: Limits) -> Iterator[Setting]:
    if limits.cpus:
        yield Setting("cpuset", "cpuset.cpus", limits.cpus)
    if limits.memory_nodes:
        yield Setting("cpuset", "cpuset.mems", limits.memory_nodes)
    if limits.processes is not None:
        yield Setting("pids", "pids.max", "max" if limits.processes == UNLIMITED else str(limits.processes))


def _total(limits: Limits) -> int:
    """Memory and swap together: unless somebody says otherwise as much swap as memory, as Docker has it."""
    if limits.memory_and_swap is not None:
        return limits.memory_and_swap
    return 2 * (limits.memory or 0)


def weight(shares: int) -> int:
    """From 2 to 262144 shares of version 1 to 1 to 10000 of version 2, on a straight line as in the OCI runtimes."""
    return 1 + (min(max(shares, 2), 262_144) - 2) * 9999 // 262_142
