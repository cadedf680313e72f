"""The recorder of a step with a single id: how it begins and ends, what it costs nobody, and calls that it answers."""

import errno
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from itertools import product

import pytest
from boxes import CONTAINED, Box, Inside
from grants import LISTENER, demand
from machine_code import DATA, I386, PROCESSORS, Call, Processor, program
from users import RANGES, ROOT, SINGLE

from builder.errors import SandboxError
from builder.sandbox import syscalls
from builder.sandbox.recorder.identity import LEAVE, Identity, Ids
from builder.sandbox.recorder.program import DEVICES, OWNERS, can_listen, recording
from builder.sandbox.seccomp import abi
from builder.sandbox.seccomp.profile import ALLOW, NOTIFY

MACHINE = os.uname().machine
NATIVE = PROCESSORS[MACHINE]
NUMBERS = {name: number for number, name in abi.ABIS[MACHINE][0].calls().items()}
NUMBERS_32 = {name: number for number, name in abi.I386.calls().items()}
RUNS_I386 = pytest.mark.skipif(MACHINE != "x86_64", reason="other processors run no programs of i386")


# --- who a process is

KERNEL = """
import os, sys
for line in sys.stdin:
    before, call, wanted = line.split(";")
    before, wanted = [tuple(map(int, ids.split())) for ids in (before, wanted)]
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setresuid(*before)
        try:
            getattr(os, call)(*wanted)
            answer = " ".join(map(str, os.getresuid()))
        except OSError as error:
            answer = error.errno
        print(answer, flush=True)
        os._exit(0)
    os.wait()
"""
BEFORE = [(0, 0, 0), (0, 5, 5), (5, 0, 5), (5, 5, 0), (5, 6, 7), (5, 5, 5)]
QUESTIONS = [
    *((before, "setuid", (new,)) for before in BEFORE for new in (0, 5, 6, 7, 8)),
    *((before, "setreuid", new) for before in BEFORE for new in product((LEAVE, 0, 5, 6), (LEAVE, 0, 5, 7, 8))),
    *((before, "setresuid", new) for before in BEFORE for new in product((LEAVE, 0, 6), (LEAVE, 5, 7), (LEAVE, 5, 8))),
]


def test_ids_change_as_the_kernel_changes_them() -> None:
    changes: dict[str, Callable[..., Ids]] = {"setuid": Ids.set, "setreuid": Ids.set_two, "setresuid": Ids.set_three}

    def answer(before: tuple[int, int, int], call: str, wanted: tuple[int, ...]) -> str:
        try:
            after = changes[call](Ids(*before, before[1]), *wanted, privileged=before[1] == 0)
        except PermissionError:
            return str(errno.EPERM)
        assert after.files == after.effective
        return " ".join(map(str, after[:3]))

    asked = "\n".join(f"{' '.join(map(str, b))};{call};{' '.join(map(str, w))}" for b, call, w in QUESTIONS)
    told = subprocess.run([sys.executable, "-c", KERNEL], input=asked, capture_output=True, text=True, check=True)

    assert told.stdout.splitlines() == [answer(*question) for question in QUESTIONS]


def test_ids_of_files_change_alone_and_never_fail() -> None:
    ids = Ids(5, 6, 7, 6)

    assert ids.set_files(7, privileged=False) == Ids(5, 6, 7, 7)
    assert ids.set_files(8, privileged=False) == ids
    assert ids.set_files(8, privileged=True) == Ids(5, 6, 7, 8)


def test_a_program_starts_with_its_effective_id_saved() -> None:
    assert Ids(5, 6, 7, 7).after_exec(None) == Ids(5, 6, 6, 6)
    assert Ids(5, 5, 5, 5).after_exec(0) == Ids(5, 0, 0, 0)


def test_rights_are_kept_by_those_who_say_so() -> None:
    somebody = Identity(Ids.all(5), Ids.all(5))

    assert not somebody.privileged
    assert somebody._replace(keeps_rights=True).privileged
    assert Identity(Ids(5, 0, 5, 0), Ids.all(5)).privileged


# --- which calls are picked out


def test_calls_that_say_nothing_of_owners_are_not_told() -> None:
    told = {name for each in abi.ABIS["x86_64"] for name in each.calls().values() if OWNERS.get(name, ALLOW) == NOTIFY}

    assert not told & {"read", "write", "close", "mmap", "access", "readlink", "rename", "unlink", "chmod", "clone"}
    assert {"chown", "chown32", "setuid", "getuid32", "execve", "statx", "mkdirat"} <= told
    assert {"mknod", "mknodat", "setxattr"} <= DEVICES.keys()
    assert not DEVICES.keys() & {"chown", "newfstatat", "execve", "openat", "mkdir"}


@pytest.mark.parametrize("machine", abi.ABIS)
def test_each_processor_has_its_programs(machine: str) -> None:
    demand(LISTENER)
    for owners in (True, False):
        found = recording(machine, owners=owners)
        assert found is not None
        assert found.owners == owners
        assert len(found.program) % 8 == 0


def test_a_place_that_asks_somebody_already_is_found_out() -> None:
    """As in containers whose runtime answers system calls: the kernel takes one such program only."""
    demand(LISTENER)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            before = can_listen()
            syscalls.listen(struct.pack("=HBBI", 0x06, 0, 0, ALLOW))
            os.write(writer, repr((before, can_listen())).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)

    assert answer == b"(True, False)"


# --- beginning and end


def recorders(box: Box) -> list[int]:
    """The children of the server that are in its own process namespace: not the first ones of steps."""
    server = box.backend._server
    assert server is not None
    with open(f"/proc/{server._pid}/task/{server._pid}/children", encoding="utf-8") as file:
        children = [int(pid) for pid in file.read().split()]
    return [pid for pid in children if os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")]


@pytest.mark.kernel
@pytest.mark.parametrize("user", [ROOT, RANGES, CONTAINED, SINGLE])
def test_only_a_single_id_costs_a_process(inside: Inside, user: str) -> None:
    def body(box: Box) -> tuple[int, int]:
        thread, cancel, _ = box.background("echo; sleep 60")
        during = len(recorders(box))
        os.eventfd_write(cancel, 1)
        thread.join()
        return during, len(recorders(box))

    assert inside(user, body) == (int(user == SINGLE), 0)


@pytest.mark.kernel
@pytest.mark.parametrize("user", [RANGES, CONTAINED, SINGLE])
def test_a_device_is_recorded_where_none_can_be_made(inside: Inside, user: str) -> None:
    def body(box: Box) -> bytes:
        finished, output = box.run("sh", "-c", "mknod /tmp/null c 1 3")
        assert finished.status == 0, output
        return os.getxattr(f"{finished.upper}/tmp/null", "user.pybuild.dev")

    assert inside(user, body) == b"c 1 3"


@pytest.mark.kernel
@pytest.mark.parametrize("user", [RANGES, SINGLE])
def test_users_make_no_devices(inside: Inside, user: str) -> None:
    output = inside(user, lambda box: box.sh("mknod /tmp/null c 1 3 2>&1; ls /tmp", uid=33))

    assert output == "mknod: /tmp/null: Operation not permitted"


@pytest.mark.kernel
def test_a_step_that_loses_its_recorder_ends_and_says_so(inside: Inside) -> None:
    def body(box: Box) -> str:
        killer = threading.Timer(1, lambda: os.kill(recorders(box)[0], signal.SIGKILL))
        killer.start()
        with pytest.raises(SandboxError) as caught:
            box.run("sh", "-c", "while :; do id; done > /dev/null")
        return caught.value.message

    assert inside(SINGLE, body) == "cannot record owners: the process that does it has ended"


@pytest.mark.kernel
def test_a_step_that_is_cancelled_leaves_no_process(inside: Inside) -> None:
    """Many of them wait for answers at any time."""
    busy = "echo; for i in 1 2 3 4 5 6 7 8; do (while :; do id; done) & done > /dev/null; wait"

    def body(box: Box) -> tuple[str, bool]:
        thread, cancel, came = box.background(busy)
        time.sleep(0.2)
        os.eventfd_write(cancel, 1)
        thread.join(20)
        return type(came[-1]).__name__, thread.is_alive()

    assert inside(SINGLE, body) == ("CancelledError", False)


@pytest.mark.kernel
def test_steps_beside_each_other_have_a_recorder_each(inside: Inside) -> None:
    def body(box: Box) -> list[str]:
        outputs: list[str] = [""] * 4

        def work(number: int) -> None:
            script = f"for i in 1 2 3 4 5 6; do echo > /tmp/$i; chown {number} /tmp/$i; done; stat -c %u /tmp/6; id -u"
            outputs[number] = box.sh(script, uid=number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outputs[1:]

    assert inside(SINGLE, body) == [f"{number}\n{number}" for number in range(1, 4)]


@pytest.mark.kernel
@pytest.mark.parametrize("start", ["/proc/self/..", "/proc/self/fd/9", "/dev/fd/../..", "/proc/thread-self/../.."])
def test_names_lead_nowhere_out_of_the_step(inside: Inside, start: str) -> None:
    """The recorder's own /proc has processes whose root is the host's."""

    def body(box: Box) -> list[str]:
        server = box.backend._server
        assert server is not None
        os.mkdir(f"{box.folder}/host")
        out = f"{start}/{server._pid}/root{box.folder}/host"
        script = (
            f"exec 9< /proc; mkdir {out}/made; echo > {out}/file; ln -s x {out}/link; cd {start}/{server._pid}/root"
        )
        for uid in (0, 33):
            box.run("sh", "-c", script, uid=uid)
            status_of(box, (NUMBERS["chown"], DATA, 5, 5), data=f"{out}\0".encode()[-127:])
        return [*os.listdir(f"{box.folder}/host"), *os.listxattr(f"{box.folder}/host")]

    assert inside(SINGLE, body) == []


@pytest.mark.kernel
def test_no_call_fails_since_an_orphan_ends(inside: Inside) -> None:
    script = "i=0; while test $i -lt 200; do hash -r; (true &); ls / > /dev/null || exit; i=$((i + 1)); done"

    assert inside(SINGLE, lambda box: box.sh(script)) == ""


# --- calls that no program of the image makes


def status_of(
    box: Box, *calls: Call, processor: Processor = NATIVE, data: bytes = b"", groups: tuple[int, ...] = ()
) -> int:
    """How a program ends that makes these calls: with the errno of the last, or 256 less its result."""
    with open(f"{box.image}/bin/calls", "wb") as file:
        file.write(program(processor, *calls, data=data))
    os.chmod(f"{box.image}/bin/calls", 0o755)
    return box.run("/bin/calls", groups=groups)[0].status


@pytest.mark.kernel
def test_numbers_that_make_no_sense_are_refused(inside: Inside) -> None:
    def body(box: Box) -> list[int]:
        path = DATA
        calls: list[Call] = [
            (NUMBERS["setuid"], 0xFFFFFFFF),
            (NUMBERS["setgroups"], 70000, path),
            (NUMBERS["setgroups"], 2, 0xFFFFF000),
            (NUMBERS["getresuid"], 1, 1, 1),
            (NUMBERS["fchownat"], 99, path + 1, 1, 1),
            (NUMBERS["fchown"], 99, 1, 1),
            (NUMBERS["mkdirat"], 0xFFFFFF9C, 0, 0o755),
            (NUMBERS["getgroups"], 1, path),
        ]
        kept, user, group = (NUMBERS["prctl"], 8, 1), (NUMBERS["setuid"], 33), (NUMBERS["setgid"], 44)
        assert status_of(box, user, group) == errno.EPERM
        assert status_of(box, kept, user, group) == 0
        return [status_of(box, call, data=b"/x\0", groups=(5, 6)) for call in calls]

    assert inside(SINGLE, body) == [
        *(errno.EINVAL, errno.EINVAL, errno.EFAULT, errno.EFAULT, errno.EBADF, errno.EBADF, errno.EFAULT, errno.EINVAL)
    ]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("processor", "numbers", "mmap", "word"),
    [
        pytest.param(NATIVE, NUMBERS, "mmap", "Q", id="native"),
        pytest.param(
            *(I386, NUMBERS_32, "mmap2", "I"),
            marks=RUNS_I386,
            id="32 bits",
        ),
    ],
)
def test_a_handler_for_children_lets_calls_begin_again(
    inside: Inside, processor: Processor, numbers: Mapping[str, int], mmap: str, word: str
) -> None:
    memory, handler, action = 0x10000000, 0x1234, numbers["rt_sigaction"]
    readable, private, restart = 3, 0x32, 0x10000000

    def handlers(box: Box) -> dict[str, tuple[int, ...]]:
        """Handler and flags, as the kernel has them afterwards."""
        found = {}
        for signum in (signal.SIGCHLD, signal.SIGALRM):
            calls = [
                (numbers[mmap], memory, 0x1000, readable, private),
                (action, signum, DATA, 0, 8),
                (action, signum, 0, memory, 8),
                (numbers["write"], 1, memory, struct.calcsize(f"={word}{word}")),
            ]
            data = struct.pack(f"={word}{word}", handler, 0) + bytes(32)
            with open(f"{box.image}/bin/calls", "wb") as file:
                file.write(program(processor, *calls, data=data))
            os.chmod(f"{box.image}/bin/calls", 0o755)
            output = os.fsencode(box.run("/bin/calls")[1])
            found[signum.name] = struct.unpack(f"={word}{word}", output)
        return found

    assert inside(SINGLE, handlers) == {"SIGCHLD": (handler, restart), "SIGALRM": (handler, 0)}


@pytest.mark.kernel
@pytest.mark.parametrize("user", [RANGES, SINGLE])
def test_notes_can_be_neither_seen_nor_written(inside: Inside, user: str) -> None:
    words = b"/tmp/x\0user.pybuild.dev\0c 1 3"
    path, name, value = DATA, DATA + words.index(b"user"), DATA + words.index(b"c 1")
    here = 0xFFFFFF9C  # AT_FDCWD

    def body(box: Box) -> list[int]:
        device = (NUMBERS["mknodat"], here, path, 0o020644, 0x103)
        given = (NUMBERS["fchownat"], here, path, 5)
        file = (NUMBERS["openat"], here, path, os.O_CREAT)
        written = (NUMBERS["setxattr"], path, name, value)
        listed = (NUMBERS["listxattr"], path, 0, 0)
        steps: list[tuple[Call, ...]] = [(device, given, listed), (file, written), (file, written, listed)]
        return [status_of(box, *calls, data=words) for calls in steps]

    assert inside(user, body) == [0, 0, 0]


@pytest.mark.kernel
@RUNS_I386
def test_programs_with_32_bits_are_answered_too(inside: Inside) -> None:
    def body(box: Box) -> list[int]:
        def status(*calls: Call) -> int:
            return status_of(box, *calls, processor=I386, data=b"/bin/x\0")

        open(f"{box.image}/bin/x", "wb").close()
        chown, chown32, stat64 = NUMBERS_32["chown"], NUMBERS_32["chown32"], NUMBERS_32["stat64"]
        return [
            status((NUMBERS_32["setuid32"], 33), (NUMBERS_32["getuid32"],)),
            status((NUMBERS_32["setuid"], 33), (NUMBERS_32["getuid"],)),
            status((NUMBERS_32["setuid32"], 33), (NUMBERS_32["setuid32"], 0)),
            status((chown32, DATA, 70000, 5)),
            status((chown, DATA, 0xFFFF, 5)),
            status((NUMBERS_32["setuid32"], 33), (chown32, DATA, 5, 5)),
            status((chown32, DATA, 7, 5), (stat64, DATA, 0xFFFFF000)),
        ]

    assert inside(SINGLE, body) == [256 - 33, 256 - 33, errno.EPERM, 0, 0, errno.EPERM, errno.EFAULT]
