"""Programs that make a list of system calls: run by this processor, and by an emulator of the other one."""

import errno
import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Sequence

import pytest

from builder.sandbox import launcher
from builder.sandbox.calls import Call, call, make_all

HERE = os.uname().machine
MACHINES = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
pytestmark = pytest.mark.kernel


def run(machine: str, *calls: Call, argv: Sequence[str] = ("/bin/busybox", "true")) -> tuple[int, bytes, bytes]:
    """Make the calls, and become a command; gives the status, what was written to 1, and what to 3."""
    command = call("execve", argv[0].encode(), (*map(str.encode, argv), 0), (b"NAME=value", 0))
    told = [(launcher.message("doing", f"make call {number}"), each) for number, each in enumerate(calls)]
    program = launcher.program([*told, (launcher.message("program", argv[0]), command)], machine)
    emulator = [] if machine == HERE else [f"/usr/bin/qemu-{machine}-static"]
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as told_to,
    ):
        path = f"{folder}/program"
        with open(path, "wb") as file:
            file.write(program)
        os.chmod(path, 0o755)
        words = [*emulator, path]
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, told_to.fileno(), 3)]
        pid = os.posix_spawn(words[0], words, {}, file_actions=actions)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        told_to.seek(0)
        return status, output.read(), told_to.read()


def says(text: str) -> Call:
    return call("write", 1, text.encode(), len(text))


@MACHINES
def test_the_calls_are_made_in_order_and_then_the_command_runs(machine: str) -> None:
    done = run(machine, says("one "), says("two "), argv=("/bin/busybox", "sh", "-c", "echo $NAME"))

    assert done == (0, b"one two value\n", b"")


@MACHINES
def test_a_call_that_fails_is_told_with_its_errno_and_nothing_follows(machine: str) -> None:
    status, output, told = run(machine, says("one "), call("chdir", b"/nowhere"), says("two "))

    assert (status, output) == (125, b"one ")
    assert json.loads(told) == {"errno": errno.ENOENT, "doing": "make call 1"}


@MACHINES
def test_a_command_that_cannot_be_executed_is_told(machine: str) -> None:
    status, _, told = run(machine, argv=("/etc", "word"))

    assert status == 125
    assert json.loads(told) == {"errno": errno.EACCES, "program": "/etc"}


@MACHINES
@pytest.mark.parametrize("tolerated", [errno.ENOENT, errno.EDQUOT], ids=["ENOENT", "EDQUOT"])
def test_only_errnos_that_are_tolerated_are_passed_over(machine: str, tolerated: int) -> None:
    nowhere = Call("chdir", (b"/nowhere",), tolerated=(errno.EPERM, tolerated), skips=1)

    status, output, _ = run(machine, nowhere, says("left out "), says("after"))

    assert (status, output) == ((0, b"after") if tolerated == errno.ENOENT else (125, b""))


@MACHINES
def test_calls_are_left_out_after_success(machine: str) -> None:
    fine = Call("chdir", (b"/",), passes=2)

    _, output, _ = run(machine, fine, says("one "), says("two "), says("three"))

    assert output == b"three"


@MACHINES
def test_numbers_have_all_their_bits(machine: str) -> None:
    """As that of no limit, which most have for the size of cores."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limits = subprocess.run(["/bin/busybox", "sh", "-c", "ulimit -Hc"], stdout=subprocess.PIPE, check=True).stdout
    same = call("prlimit64", 0, resource.RLIMIT_CORE, (0, hard), None)

    done = run(machine, same, argv=("/bin/busybox", "sh", "-c", "ulimit -Sc; ulimit -Hc"))

    assert done == (0, b"0\n" + limits, b"")


@MACHINES
def test_no_stack_can_be_executed(machine: str) -> None:
    """What the header of the program says counts for the program alone, but it says it."""
    program = launcher.program([(b"", call("setsid"))], machine)

    assert (0x6474E551).to_bytes(4, "little") + (6).to_bytes(4, "little") in program[:0x100]


def test_python_makes_the_same_calls() -> None:
    reader, writer = os.pipe()
    nowhere = Call("chdir", (b"/nowhere",), tolerated=(errno.ENOENT,), skips=1)

    make_all([nowhere, call("write", writer, b"a", 1), call("write", writer, b"b", 1)])
    os.close(writer)

    with open(reader, "rb") as pipe:
        assert pipe.read() == b"b"


def test_python_raises_what_is_not_tolerated() -> None:
    with pytest.raises(FileNotFoundError, match="chdir"):
        call("chdir", b"/nowhere", subject="/nowhere").make()
