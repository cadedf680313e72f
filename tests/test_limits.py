"""What the options that bound RUN mean, how mistakes in them are told, and what the kernel is given: nothing runs."""

from collections.abc import Callable

import pytest

from builder.cli import limits
from builder.cli.arguments import Parser
from builder.cli.run_options import add_run_options, limits_of, step_timeout_of
from builder.errors import UsageError
from builder.sandbox.cgroups.places import Hierarchy, hierarchies, parents
from builder.sandbox.cgroups.settings import controllers, settings, weight
from builder.sandbox.names import hosts
from builder.sandbox.process import UNLIMITED, Host, Limits, Ulimit

MEGABYTE = 1 << 20


def read(function: Callable[..., object], *options: str) -> object:
    parser = Parser(prog="pybuild", description="")
    add_run_options(parser)
    return function(parser.parse_args(options))


# --- names and addresses


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("db:10.0.0.5", "db", "10.0.0.5"),
        ("db=10.0.0.5", "db", "10.0.0.5"),
        ("DB.Example:10.0.0.5", "db.example", "10.0.0.5"),
        ("db:::1", "db", "::1"),
        ("db=[2001:db8:0::1]", "db", "2001:db8::1"),
        ("db:::ffff:10.0.0.5", "db", "10.0.0.5"),
        ("host.docker.internal:host-gateway", "host.docker.internal", "127.0.0.1"),
    ],
)
def test_a_host_has_a_name_and_an_address(text: str, name: str, address: str) -> None:
    assert limits.host(text) == Host(name, address)


@pytest.mark.parametrize(
    "text", ["db", ":10.0.0.5", "db:", "db:x", "db:10.0.0", "d b:10.0.0.5", "db=fe80::1%eth0", "d\nb=::1"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--add-host"):
        limits.host(text)


def test_further_hosts_stand_below_those_of_every_step() -> None:
    text = hosts("buildkitsandbox", [Host("db", "10.0.0.5"), Host("db", "10.0.0.6")])

    assert text.decode().splitlines()[2:] == ["10.0.0.5\tdb", "10.0.0.6\tdb"]


# --- what each process may do


@pytest.mark.parametrize(
    ("text", "soft", "hard"),
    [("nofile=5", 5, 5), ("nofile=5:6", 5, 6), ("nofile=-1", UNLIMITED, UNLIMITED), ("nofile=5:-1", 5, UNLIMITED)],
)
def test_a_ulimit_is_soft_and_hard(text: str, soft: int, hard: int) -> None:
    assert limits.ulimits([text]) == (Ulimit("nofile", soft, hard),)


def test_the_last_ulimit_of_a_type_counts() -> None:
    assert limits.ulimits(["nproc=7", "core=1", "nproc=8"]) == (Ulimit("core", 1, 1), Ulimit("nproc", 8, 8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nofiles=1", "did you mean nofile?"),
        ("locks=1", "there are core, cpu, data"),
        ("nofile", "TYPE=SOFT"),
        ("nofile=x", "TYPE=SOFT"),
        ("nofile=1:2:3", "TYPE=SOFT"),
        ("nofile=2:1", "above the hard one"),
        ("nofile=-1:1", "above the hard one"),
    ],
)
def test_what_is_no_ulimit_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        limits.ulimits([text])

    assert message in f"{caught.value.message} {caught.value.hint}"


# --- what they may use together


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], Limits()),
        (["--memory=64m"], Limits(memory=64 * MEGABYTE)),
        (["--memory=1.5k", "--memory-swap=2k"], Limits(memory=1536, memory_and_swap=2048)),
        (["--memory=64m", "--memory-swap=-1"], Limits(memory=64 * MEGABYTE, memory_and_swap=UNLIMITED)),
        (["--cpus=1.5"], Limits(cpu_period=100_000, cpu_quota=150_000)),
        (["--cpu-period=50000", "--cpu-quota=-1"], Limits(cpu_period=50_000, cpu_quota=UNLIMITED)),
        (["--cpu-shares=512", "--cpuset-cpus=0-2,7"], Limits(cpu_shares=512, cpus="0-2,7")),
        (["--cpuset-mems=0", "--pids-limit=100"], Limits(memory_nodes="0", processes=100)),
        (["--memory=0", "--cpus=0", "--pids-limit=0"], Limits()),
        (["--pids-limit=-1", "--cgroup-parent=/ci//builds/"], Limits(processes=UNLIMITED, parent="ci/builds")),
    ],
)
def test_limits_are_read_as_docker_reads_them(options: list[str], expected: Limits) -> None:
    assert read(limits_of, *options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory=much"], '--memory: invalid size "much"'),
        (["--memory-swap=1g"], "--memory-swap means nothing without --memory"),
        (["--memory=2g", "--memory-swap=1g"], "--memory-swap 1g is less than --memory 2g"),
        (["--cpus=1", "--cpu-quota=5"], "choose one"),
        (["--cpus=one"], "--cpus one: it is a number"),
        (["--cpu-shares=-1"], "--cpu-shares -1: it is a number"),
        (["--cpuset-cpus=0;1"], "it is a list"),
        (["--pids-limit=-2"], "--pids-limit -2: it is a number"),
        (["--cgroup-parent=/ci/../.."], "--cgroup-parent"),
        (["--cgroup-parent=/"], "--cgroup-parent"),
    ],
)
def test_what_is_no_limit_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        read(limits_of, *options)


def test_the_kernel_gets_them_in_the_words_of_its_version() -> None:
    some = Limits(memory=MEGABYTE, cpu_quota=50_000, cpu_shares=1024, processes=9)

    old = {each.file: each.text for each in settings(some, unified=False)}
    new = {each.file: each.text for each in settings(some, unified=True)}

    assert controllers(some) == ("memory", "cpu", "pids")
    assert old == {
        "memory.limit_in_bytes": "1048576",
        "memory.memsw.limit_in_bytes": "2097152",
        "cpu.cfs_quota_us": "50000",
        "cpu.shares": "1024",
        "pids.max": "9",
    }
    assert new == {
        "memory.max": "1048576",
        "memory.swap.max": "1048576",
        "cpu.max": "50000 100000",
        "cpu.weight": "39",
        "pids.max": "9",
    }


def test_no_limit_is_said_too() -> None:
    some = Limits(memory=MEGABYTE, memory_and_swap=UNLIMITED, cpu_quota=UNLIMITED, processes=UNLIMITED)

    assert [each.text for each in settings(some, unified=True)] == ["1048576", "max", "max 100000", "max"]
    assert [each.text for each in settings(some, unified=False)] == ["1048576", "-1", "-1", "max"]


@pytest.mark.parametrize(("shares", "expected"), [(2, 1), (1024, 39), (262_144, 10_000), (1, 1), (1 << 40, 10_000)])
def test_shares_become_weights_as_in_the_runtimes(shares: int, expected: int) -> None:
    assert weight(shares) == expected


# --- where there are cgroups

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_the_trees_of_a_hybrid_machine_are_found() -> None:
    found = hierarchies(HYBRID, "4:memory:/a/b\n3:cpu,cpuacct:/\n2:name=systemd:/s\n0::/u\n")

    assert found == (
        Hierarchy("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", frozenset({"cpu", "cpuacct"})),
        Hierarchy("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b", frozenset({"memory"})),
        Hierarchy("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd/s", frozenset({"name=systemd"})),
        Hierarchy("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/u", frozenset()),
    )


def test_a_container_sees_its_own_cgroup_as_the_root() -> None:
    mounts = "35 31 0:32 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"

    (found,) = hierarchies(mounts, "4:memory:/docker/1/x\n")

    assert found.own == "/sys/fs/cgroup/memory/x"


def test_a_cgroup_that_is_not_mounted_here_is_nobodys() -> None:
    mounts = "35 31 0:32 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"

    assert hierarchies(mounts, "4:memory:/docker/2\n") == ()


def test_a_controller_that_is_nowhere_is_named() -> None:
    with pytest.raises(Exception, match="there is no cgroup controller 'pids'"):
        parents(["pids"], hierarchies(HYBRID, "4:memory:/\n"))


# --- time


def test_a_timeout_is_a_duration() -> None:
    assert read(step_timeout_of, "--step-timeout=1m30s") == 90
    assert read(step_timeout_of) is None


@pytest.mark.parametrize("text", ["90", "0s", "-5s", "soon"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--step-timeout"):
        read(step_timeout_of, f"--step-timeout={text}")
