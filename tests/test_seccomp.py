"""The filter of system calls: what it says to each, by an interpreter of ours, and that the kernel agrees."""

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from boxes import EVERYONE, Box, Inside
from hypothesis import given
from hypothesis import strategies as st
from machine_code import DATA, I386, PROCESSORS, Call, Processor, program
from users import CHECKOUT, ROOT

from builder.sandbox import syscalls
from builder.sandbox.process import ALL_CAPABILITIES
from builder.sandbox.seccomp import abi
from builder.sandbox.seccomp.bpf import LIMIT, NUMBER, Program, decide
from builder.sandbox.seccomp.filter import default_filter, filter_for
from builder.sandbox.seccomp.profile import ALLOW, ALLOWED, KILL, REFUSE, SPECIAL, UNKNOWN, Among, fail

MACHINE = os.uname().machine
FILTERS = {machine: default_filter(machine) for machine in abi.ABIS}
EACH_ABI = pytest.mark.parametrize(
    ("machine", "each"), [(machine, each) for machine, abis in abi.ABIS.items() for each in abis]
)
X32 = 0x40000000
CLONE_NEWUSER, CLONE_THREADS = 0x10000000, 0x3D0F00
PR_SET_NO_NEW_PRIVS = 38
AF_UNIX, AF_INET, AF_NETLINK, AF_ALG, AF_VSOCK = 1, 2, 16, 38, 40

NUMBERS = {name: number for number, name in abi.ABIS[MACHINE][0].calls().items()}
NUMBERS_32 = {name: number for number, name in abi.I386.calls().items()}
REFUSED: Mapping[str, Call] = {
    name: (NUMBERS[name],)
    for name in (
        *("mount", "umount2", "pivot_root", "fsopen", "open_tree", "mount_setattr", "unshare", "setns", "swapon"),
        *("add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup"),
        *("init_module", "finit_module", "syslog", "sethostname", "settimeofday", "quotactl"),
        *("open_by_handle_at", "fanotify_init", "kcmp", "pidfd_getfd", "process_madvise", "mbind", "vhangup"),
    )
} | {
    "kexec_load": (NUMBERS["kexec_load"], 0, 0, 0, 0xFFFFFFFF),  # flags that it would not take either
    "a user namespace": (NUMBERS["clone"], CLONE_NEWUSER | 17),
    "AF_ALG": (NUMBERS["socket"], AF_ALG, 5, 0),
    "AF_VSOCK": (NUMBERS["socket"], AF_VSOCK, 1, 0),
    "ADDR_NO_RANDOMIZE": (NUMBERS["personality"], 0x40000),
}


def interpret(code: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter answers to a call."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *(0,) * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("=HBBI", code))
    at = word = 0
    while True:
        operation, then, otherwise, value = instructions[at]
        at += 1
        match operation:
            case 0x20:
                (word,) = struct.unpack_from("=I", data, value)
            case 0x54:
                word &= value
            case 0x05:
                at += value
            case 0x15:
                at += then if word == value else otherwise
            case 0x35:
                at += then if word >= value else otherwise
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"the kernel's bitmap knows no {operation:#x}")


def expected(each: abi.Abi, number: int, *arguments: int) -> int:
    """The profile, read without a tree."""
    name = each.calls().get(number)
    special = SPECIAL.get(name or "")
    if name is None:
        return UNKNOWN
    if isinstance(special, Among):
        return ALLOW if arguments[special.argument] & special.mask in special.values else REFUSE
    return special or (ALLOW if name in ALLOWED else REFUSE)


@EACH_ABI
def test_each_number_gets_what_the_profile_says_of_its_name(machine: str, each: abi.Abi) -> None:
    numbers = [*range(1200), *range(0xF0000, 0xF0010), *range(X32, X32 + 600), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]

    wrong = [n for n in numbers if interpret(FILTERS[machine], each.architecture, n, 0) != expected(each, n, 0)]

    assert wrong == []


WORDS = st.one_of(
    st.integers(0, 50),
    st.builds(lambda bit, more: 1 << bit | more, st.integers(0, 31), st.sampled_from([0, 8, 17, 0x20000])),
    st.integers(0, 0xFFFFFFFF),
)


@pytest.mark.property
@EACH_ABI
@given(name=st.sampled_from(sorted(SPECIAL)), word=WORDS, high=st.sampled_from([0, 1, 0xFFFFFFFF]))
def test_arguments_decide_as_the_profile_says(machine: str, each: abi.Abi, name: str, word: int, high: int) -> None:
    (number,) = (number for number, call in each.calls().items() if call == name)

    answer = interpret(FILTERS[machine], each.architecture, number, high << 32 | word)

    assert answer == expected(each, number, word)


@pytest.mark.property
@EACH_ABI
@given(number=st.integers(0, 0xFFFFFFFF))
def test_any_number_gets_an_answer(machine: str, each: abi.Abi, number: int) -> None:
    assert interpret(FILTERS[machine], each.architecture, number, 0) == expected(each, number, 0)


@EACH_ABI
@pytest.mark.parametrize(
    ("name", "argument", "answer"),
    [
        ("clone", CLONE_THREADS, ALLOW),
        ("clone", CLONE_THREADS | CLONE_NEWUSER, REFUSE),
        ("clone3", 0, fail(errno.ENOSYS)),
        ("socket", AF_UNIX, ALLOW),
        ("socket", AF_INET, ALLOW),
        ("socket", AF_NETLINK, ALLOW),
        ("socket", AF_ALG, REFUSE),
        ("socket", AF_VSOCK, REFUSE),
        ("socket", 46, REFUSE),
        ("personality", 0xFFFFFFFF, ALLOW),
        ("personality", 0x0008, ALLOW),
        ("personality", 0x40000, REFUSE),
        ("ptrace", 0, ALLOW),
        ("chroot", 0, ALLOW),
        ("mknodat", 0, ALLOW),
        ("mount", 0, REFUSE),
        ("io_uring_setup", 0, REFUSE),
        ("removexattrat", 0, ALLOW),
    ],
)
def test_the_profile_is_dockers(machine: str, each: abi.Abi, name: str, argument: int, answer: int) -> None:
    (number,) = (number for number, call in each.calls().items() if call == name)

    assert interpret(FILTERS[machine], each.architecture, number, argument) == answer


@pytest.mark.parametrize("machine", FILTERS)
def test_a_foreign_abi_is_killed(machine: str) -> None:
    own = {each.architecture for each in abi.ABIS[machine]}
    foreign = {each.architecture for abis in abi.ABIS.values() for each in abis} - own | {0}

    assert {interpret(FILTERS[machine], architecture, 0) for architecture in foreign} == {KILL}


@pytest.mark.parametrize(
    ("each", "numbers"),
    [
        (abi.X86_64, {0: "read", 56: "clone", 59: "execve", 231: "exit_group", 334: "rseq", 434: "pidfd_open"}),
        (abi.I386, {1: "exit", 4: "write", 120: "clone", 359: "socket", 403: "clock_gettime64", 439: "faccessat2"}),
        (abi.AARCH64, {56: "openat", 94: "exit_group", 198: "socket", 220: "clone", 291: "statx", 452: "fchmodat2"}),
        (abi.ARM, {1: "exit", 120: "clone", 281: "socket", 422: "futex_time64", 0xF0002: "cacheflush"}),
    ],
)
def test_numbers_are_those_of_the_kernel(each: abi.Abi, numbers: Mapping[int, str]) -> None:
    calls = each.calls()

    assert {number: calls[number] for number in numbers} == numbers
    assert calls[466] == "removexattrat"
    assert len(set(calls.values())) == len(calls)


def test_every_call_of_the_profile_has_a_number_somewhere() -> None:
    named = {name for abis in abi.ABIS.values() for each in abis for name in each.calls().values()}

    assert (ALLOWED | set(SPECIAL)) - named == set()


def test_a_call_is_in_one_place_of_the_profile() -> None:
    assert ALLOWED & set(SPECIAL) == set()


def test_a_tree_is_right_where_jumps_are_too_long_for_a_byte() -> None:
    tree = Program()
    ranges = [(3 * number, partial(tree.returns, number % 300)) for number in range(900)]
    start = decide(tree, ranges)
    tree.load(0, start)

    code = tree.assembled()

    assert [interpret(code, 0, number) for number in range(2700)] == [number // 3 % 300 for number in range(2700)]


def test_what_follows_may_be_elsewhere() -> None:
    tree = Program()
    end = tree.returns(7)
    tree.returns(8)
    tree.load(0, end)

    assert interpret(tree.assembled(), 0, 0) == 7


def test_a_program_that_the_kernel_would_not_take_is_not_made() -> None:
    tree = Program()
    for value in range(LIMIT + 1):
        tree.returns(value)

    with pytest.raises(ValueError, match="too many"):
        tree.assembled()


def test_an_unknown_processor_has_no_filter_and_a_warning_says_so() -> None:
    code, warning = filter_for("vax")

    assert code == b""
    assert warning == "RUN has no seccomp filter: the system calls of this processor (vax) are not known"


@pytest.mark.kernel
def test_a_kernel_without_filters_is_warned_of() -> None:
    tree = Program()
    allow = tree.returns(ALLOW)
    tree.load(NUMBER, tree.if_equal(NUMBERS["seccomp"], tree.returns(UNKNOWN), allow))
    script = "import os; from builder.sandbox.seccomp.filter import filter_for; print(*filter_for(os.uname().machine))"

    ran = confined(tree.assembled(), script)

    assert ran.stdout == f"b'' RUN has no seccomp filter: this kernel ({os.uname().release}) has none\n"


def confined(filter_: bytes, script: str) -> subprocess.CompletedProcess[str]:
    """Run Python under a filter, outside of any sandbox."""

    def confine() -> None:
        syscalls.prctl(PR_SET_NO_NEW_PRIVS, 1)  # for root of a container, who may set none otherwise
        syscalls.set_filter(filter_)

    return subprocess.run(
        [sys.executable, "-c", script],
        preexec_fn=confine,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )


def errnos(
    box: Box, calls: Mapping[str, Call], processor: Processor = PROCESSORS[MACHINE], **rest: Any
) -> dict[str, int]:
    """What each call fails with in a step; 0 if it does not."""
    for number, call in enumerate(calls.values()):
        with open(f"{box.image}/bin/probe{number}", "wb") as file:
            file.write(program(processor, call))
        os.chmod(f"{box.image}/bin/probe{number}", 0o755)
    script = "i=0; while test $i -lt $1; do probe$i; echo $?; i=$((i + 1)); done"
    _, output = box.run("sh", "-c", script, "sh", str(len(calls)), **rest)
    assert output.replace("\n", "").isdigit(), output
    statuses = [int(line) for line in output.split()]
    return {name: 0 if status > 133 else status for name, status in zip(calls, statuses, strict=True)}


@pytest.mark.kernel
@EVERYONE
def test_the_kernel_refuses_what_docker_refuses(inside: Inside, user: str) -> None:
    assert inside(user, lambda box: errnos(box, REFUSED)) == dict.fromkeys(REFUSED, errno.EPERM)


@pytest.mark.kernel
def test_it_is_the_filter_that_refuses_and_not_a_missing_capability(inside: Inside) -> None:
    came = inside(ROOT, lambda box: errnos(box, REFUSED, capabilities=ALL_CAPABILITIES))

    assert came == dict.fromkeys(REFUSED, errno.EPERM)


@pytest.mark.kernel
@EVERYONE
def test_calls_without_a_name_are_unknown(inside: Inside, user: str) -> None:
    unknown: Mapping[str, Call] = {
        "clone3": (NUMBERS["clone3"],),
        "newer than all": (1000,),
        "x32's getpid": (X32 + NUMBERS["getpid"],),
    }

    assert inside(user, lambda box: errnos(box, unknown)) == dict.fromkeys(unknown, errno.ENOSYS)


@pytest.mark.kernel
@EVERYONE
def test_calls_with_harmless_arguments_are_made(inside: Inside, user: str) -> None:
    allowed: Mapping[str, Call] = {
        "fork": (NUMBERS["clone"], 17),
        "be traced": (NUMBERS["ptrace"], 0),
        "ask the personality": (NUMBERS["personality"], 0xFFFFFFFF),
        "be a 32-bit machine": (NUMBERS["personality"], 0x0008),
        "AF_UNIX": (NUMBERS["socket"], AF_UNIX, 1, 0),
        "AF_NETLINK": (NUMBERS["socket"], AF_NETLINK, 3, 0),
    }

    assert inside(user, lambda box: errnos(box, allowed)) == dict.fromkeys(allowed, 0)


@pytest.mark.kernel
@EVERYONE
def test_a_filter_is_on_and_setuid_programs_still_work(inside: Inside, user: str) -> None:
    output = inside(user, lambda box: box.sh("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status"))

    assert output == "NoNewPrivs:\t0\nSeccomp:\t2"


@pytest.mark.kernel
@EVERYONE
def test_a_process_without_the_filter_may_call_everything(inside: Inside, user: str) -> None:
    calls: Mapping[str, Call] = {"unshare": (NUMBERS["unshare"], 0), "AF_VSOCK": REFUSED["AF_VSOCK"]}

    came = inside(user, lambda box: errnos(box, calls, seccomp=False))

    assert came["unshare"] == 0
    assert came["AF_VSOCK"] != errno.EPERM


@pytest.mark.kernel
def test_programs_of_32_bits_run_and_are_filtered_too(inside: Inside) -> None:
    if MACHINE != "x86_64":
        pytest.skip(f"not every {MACHINE} processor has 32-bit programs")

    def body(box: Box) -> tuple[str, object]:
        with open(f"{box.image}/bin/hello", "wb") as file:
            file.write(program(I386, (4, 1, DATA, 6), (NUMBERS_32["getuid32"],), data=b"hello\n"))
        os.chmod(f"{box.image}/bin/hello", 0o755)
        return box.sh("hello"), errnos(box, calls, I386)

    calls: Mapping[str, Call] = {
        "mount": (NUMBERS_32["mount"],),
        "unshare": (NUMBERS_32["unshare"],),
        "clone": (NUMBERS_32["clone"], CLONE_NEWUSER | 17),
        "clone3": (NUMBERS_32["clone3"],),
        "AF_VSOCK": (NUMBERS_32["socket"], AF_VSOCK, 1, 0),
        "AF_INET": (NUMBERS_32["socket"], AF_INET, 1, 0),
    }
    refused = dict.fromkeys(calls, errno.EPERM) | {"clone3": errno.ENOSYS, "AF_INET": 0}

    assert inside(ROOT, body) == ("hello", refused)


@pytest.mark.kernel
def test_python_with_threads_processes_and_sockets_notices_nothing() -> None:
    script = """
import asyncio, multiprocessing, socket, subprocess, sys, tempfile, threading

async def echo():
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    return (await process.communicate(b"async "))[0].decode()

with tempfile.TemporaryDirectory() as folder, open(folder + "/x", "w") as file:
    thread = threading.Thread(target=file.write, args=("x",))
    thread.start(); thread.join()
    process = multiprocessing.get_context("fork").Process(target=print, args=("fork",), kwargs={"flush": True})
    process.start(); process.join()
    left, right = socket.socketpair()
    left.send(b"socket")
    print(asyncio.run(echo()) + subprocess.check_output(["echo", "-n", "spawn "], text=True) + right.recv(9).decode())
"""

    ran = confined(FILTERS[MACHINE], script)

    assert (ran.stdout, ran.stderr) == ("fork\nasync spawn socket\n", "")
