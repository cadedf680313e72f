"""Commands really run: as root, as a user with subordinate ids, and as a user with a single id."""

import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from boxes import EVERYONE, WITH_IDS, Box, Inside, start
from processes import free_port, running, soon
from users import ROOT, SINGLE, place_of

from builder.errors import SandboxError
from builder.sandbox.process import Finished, Process
from builder.sandbox.recorder import program

pytestmark = pytest.mark.kernel


@EVERYONE
def test_the_command_is_the_first_process(inside: Inside, user: str) -> None:
    assert inside(user, lambda box: box.sh("echo $$")) == "1"


@EVERYONE
def test_the_host_name_is_fixed(inside: Inside, user: str) -> None:
    assert inside(user, lambda box: box.sh("cat /proc/sys/kernel/hostname")) == "buildkitsandbox"


@EVERYONE
def test_the_command_has_dockers_capabilities_and_cannot_get_more(inside: Inside, user: str) -> None:
    output = inside(user, lambda box: box.sh("grep Cap /proc/self/status"))

    assert dict(line.split(":\t") for line in output.splitlines()) == {
        "CapInh": "0000000000000000",
        "CapPrm": "00000000a80425fb",
        "CapEff": "00000000a80425fb",
        "CapBnd": "00000000a80425fb",
        "CapAmb": "0000000000000000",
    }


@EVERYONE
def test_the_environment_is_what_was_given_and_nothing_else(inside: Inside, user: str) -> None:
    environment = (("B", "2"), ("A", "ä\udcff"), ("EMPTY", ""))

    finished, output = inside(user, lambda box: box.run("/bin/busybox", "env", environment=environment))

    assert (finished.status, output) == (0, "B=2\nA=ä\udcff\nEMPTY=\n")


@EVERYONE
def test_the_command_runs_as_the_user_with_its_groups(inside: Inside, user: str) -> None:
    output = inside(user, lambda box: box.sh("id; grep CapEff /proc/self/status", uid=33, gid=44, groups=(5, 60000)))

    kept = "00000000a80425fb" if user == SINGLE else "0000000000000000"  # the kernel knows nothing of that user
    assert output == f"uid=33 gid=44 groups=5,60000\nCapEff:\t{kept}"


def test_without_a_recorder_a_single_id_is_all_there_is(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on kernels whose filters can ask nobody, and in containers whose filter does."""
    monkeypatch.setattr(program, "can_listen", lambda: False)

    def body(box: Box) -> tuple[str, str, str]:
        with pytest.raises(SandboxError) as caught:
            box.run("true", uid=33)
        return caught.value.message, caught.value.hint, box.sh("chown 33 /tmp 2>&1; id")

    message, hint, output = inside(SINGLE, body)

    assert message == "cannot become user 33: EINVAL, invalid argument"
    assert "/etc/subuid has no line for this user" in hint
    assert output == "chown: /tmp: Invalid argument\nuid=0 gid=0"


@EVERYONE
def test_proc_dev_and_sys_are_there(inside: Inside, user: str) -> None:
    script = """
        set -e
        test -r /proc/self/status; test -d /sys/class
        ls /dev
        echo lost > /dev/null; test -c /dev/zero; echo through > /dev/stdout; cat < /dev/fd/0
        test "$(stat -c %a /dev/shm)" = 1777; touch /dev/shm/x
        test "$(stat -c %a /dev/mqueue)" = 1777; touch /dev/mqueue/x
        test -c /dev/pts/ptmx
    """

    output = inside(user, lambda box: box.sh(script))

    assert output.split("\n") == [
        *("fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
        "through",
    ]


@EVERYONE
@pytest.mark.parametrize("script", ["touch /sys/x", "echo 1 > /proc/sys/kernel/printk"])
def test_sys_and_settings_cannot_be_written(inside: Inside, user: str, script: str) -> None:
    finished, output = inside(user, lambda box: box.run("sh", "-c", script))

    assert finished.status != 0
    assert "Read-only file system" in output


@EVERYONE
def test_the_layer_gets_missing_mount_points_but_no_resolv_conf_and_no_hosts(inside: Inside, user: str) -> None:
    def body(box: Box) -> list[str]:
        finished, _ = box.run("sh", "-c", "echo x >> /etc/resolv.conf; echo y >> /etc/hosts; touch /etc/new")
        return sorted(os.path.relpath(path, finished.upper) for path in everything(finished.upper))

    assert inside(user, body) == ["dev", "etc", "etc/new", "proc", "sys"]


def everything(folder: str) -> list[str]:
    return [os.path.join(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files)]


@EVERYONE
def test_a_folder_under_a_stub_keeps_the_attributes_of_the_image(inside: Inside, user: str) -> None:
    def body(box: Box) -> str:
        os.chmod(f"{box.image}/etc", 0o2711)
        return box.sh("touch /etc/new; stat -c %a /etc")

    assert inside(user, body) == "2711"


@EVERYONE
def test_nothing_is_left_of_the_step_but_what_it_wrote(inside: Inside, user: str) -> None:
    def body(box: Box) -> tuple[list[str], str]:
        finished, _ = box.run("sh", "-c", "rm /bin/tty")
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            return sorted(os.listdir(os.path.dirname(finished.upper))), file.read()

    left, mounts = inside(user, body)

    assert left == ["names", "root", "stub", "upper"]
    assert "overlay" not in [line.split(" - ")[1].split()[0] for line in mounts.splitlines() if "/var/tmp" in line]


@EVERYONE
def test_daemons_die_with_the_command(inside: Inside, user: str) -> None:
    finished, output = inside(user, lambda box: box.run("sh", "-c", "(trap '' TERM HUP; sleep 76543) & echo started"))

    assert (finished.status, output) == (0, "started\n")
    assert running("76543") == []


@EVERYONE
def test_cancelling_leaves_no_process(inside: Inside, user: str) -> None:
    def body(box: Box) -> tuple[list[str], str]:
        thread, cancel, came = box.background("echo ready; trap '' TERM; sleep 76544 & sleep 76544")
        assert soon(lambda: len(running("76544")) == 2)
        os.eventfd_write(cancel, 1)
        thread.join(10)
        return running("76544"), type(came[-1]).__name__

    assert inside(user, body) == ([], "CancelledError")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that users can be given."""
    with place_of(ROOT) as place:
        yield place


@WITH_IDS
def test_the_death_of_the_main_process_ends_its_steps(folder: Path, user: str) -> None:
    reader, writer = os.pipe()

    def body(box: Box) -> None:
        box.background("sleep 76545 & echo ready; wait")
        os.write(writer, b"!")
        time.sleep(60)

    pid, pipe = start(user, str(folder), body)
    assert select.select([reader], [], [], 10)[0]
    assert soon(lambda: len(running("76545")) == 1)

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    assert soon(lambda: running("76545") == [])
    for descriptor in (pipe, reader, writer):
        os.close(descriptor)


@EVERYONE
def test_an_exception_while_handing_on_output_ends_the_step(inside: Inside, user: str) -> None:
    def body(box: Box) -> list[str]:
        def fail(_: bytes) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            box.backend.run(Process(("/bin/sh", "-c", "echo x; sleep 76546")), box.spec(), fail)
        return running("76546")

    assert inside(user, body) == []


@EVERYONE
def test_the_exit_status_is_told(inside: Inside, user: str) -> None:
    finished, _ = inside(user, lambda box: box.run("sh", "-c", "exit 255"))

    assert (finished.status, finished.signal) == (255, 0)


def test_the_signal_that_killed_the_command_is_told(inside: Inside) -> None:
    finished, _ = inside(ROOT, lambda box: box.run("sh", "-c", "ulimit -t 1; while :; do :; done"))

    assert (finished.status, finished.signal) == (137, signal.SIGKILL)


@pytest.mark.parametrize(
    ("argv", "status", "output"),
    [
        (("foo",), 127, 'exec: "foo": executable file not found in $PATH\n'),
        (("/bin/foo",), 127, 'exec: "/bin/foo": no such file or directory\n'),
        (("/etc/plain",), 126, 'exec: "/etc/plain": permission denied\n'),
        (("/etc/garbage",), 126, 'exec: "/etc/garbage": exec format error\n'),
        (("/etc/script",), 127, 'exec: "/etc/script": no such file or directory\n'),
    ],
)
def test_a_command_that_cannot_start_is_told_as_docker_does(
    inside: Inside, argv: tuple[str, ...], status: int, output: str
) -> None:
    def body(box: Box) -> tuple[Finished, str]:
        for name, text, mode in (("plain", "x", 0o644), ("garbage", "\1\2", 0o755), ("script", "#!/nope\n", 0o755)):
            with open(f"{box.image}/etc/{name}", "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(f"{box.image}/etc/{name}", mode)
        return box.run(*argv)

    finished, came = inside(ROOT, body)

    assert (finished.status, came) == (status, output)


@pytest.mark.parametrize("argv", [("/proc/self/exe", "-c", "print(1)"), ("/etc/trap",)])
def test_the_interpreter_of_the_host_cannot_be_run(inside: Inside, argv: tuple[str, ...]) -> None:
    """An image whose command is /proc/self/exe got hold of the program that started it (CVE-2019-5736, in runc)."""

    def body(box: Box) -> tuple[Finished, str]:
        with open(f"{box.image}/etc/trap", "w", encoding="utf-8") as file:
            file.write("#! /proc/self/exe -c print(1)\n")
        os.chmod(f"{box.image}/etc/trap", 0o755)
        return box.run(*argv)

    finished, output = inside(ROOT, body)

    assert (finished.status, output) == (126, f'exec: "{argv[0]}": permission denied\n')


@EVERYONE
def test_a_missing_working_directory_is_made_as_buildkit_does(inside: Inside, user: str) -> None:
    output = inside(user, lambda box: box.sh("pwd; stat -c '%a %u %n' . ..", cwd="/new/deep"))

    assert output.splitlines() == ["/new/deep", "755 0 .", "755 0 .."]


@EVERYONE
def test_a_working_directory_that_is_a_file_is_named(inside: Inside, user: str) -> None:
    def body(box: Box) -> str:
        with pytest.raises(SandboxError) as caught:
            box.run("true", cwd="/bin/busybox/x")
        return caught.value.message

    message = inside(user, body)

    assert message == "cannot enter the working directory /bin/busybox/x: ENOTDIR, not a directory"


@EVERYONE
def test_the_working_directory_umask_and_session_are_set(inside: Inside, user: str) -> None:
    output = inside(user, lambda box: box.sh("pwd; umask; cat /proc/self/stat", cwd="/tmp"))

    cwd, umask, stat = output.splitlines()
    assert (cwd, umask, stat.split()[5]) == ("/tmp", "0022", "1")


@EVERYONE
def test_no_descriptor_is_inherited(inside: Inside, user: str) -> None:
    output = inside(user, lambda box: box.sh("exec ls /proc/self/fd"))

    assert output.split() == ["0", "1", "2", "3"]  # the last is of `ls`


@EVERYONE
def test_two_hundred_layers_are_stacked_in_order(inside: Inside, user: str) -> None:
    def body(box: Box) -> str:
        more = []
        for number in range(200):
            layer = f"{box.folder}/layers/with-a-name-as-long-as-that-of-a-digest-{number:064}"
            os.makedirs(layer)
            for name in ("top", f"only-{number}"):
                with open(f"{layer}/{name}", "w", encoding="utf-8") as file:
                    file.write(str(number))
            more.append(layer)
        output: list[bytes] = []
        process = Process(("/bin/sh", "-c", "cat /top; ls -d /only-* | grep -c only"), (("PATH", "/bin"),))
        box.backend.run(process, box.spec(*more), output.append)
        return b"".join(output).decode()

    assert inside(user, body) == "199200\n"


@EVERYONE
def test_without_network_there_is_only_loopback_and_it_is_up(inside: Inside, user: str) -> None:
    output = inside(user, lambda box: box.sh("ls /sys/class/net; ip -o link", network="none"))

    interfaces, link = output.splitlines()
    assert interfaces == "lo"
    assert "LOOPBACK,UP" in link


def test_two_steps_run_at_the_same_time(inside: Inside) -> None:
    """One waits for a call, and the other calls it."""
    port = free_port()
    scripts = (
        f"echo hello | busybox nc -l -p {port} -w 60",
        f"until busybox nc 127.0.0.1 {port} < /dev/null 2> /dev/null; do sleep 0.1; done",
    )

    def body(box: Box) -> list[str]:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(box.sh, scripts))

    assert inside(ROOT, body)[1] == "hello"


@EVERYONE
def test_links_at_mount_points_lead_nowhere_outside(inside: Inside, user: str) -> None:
    """A hostile image has /proc, /dev and /etc/resolv.conf as links to what is a folder or file of the host."""

    def body(box: Box) -> tuple[list[str], str, str]:
        victims = [f"{box.folder}/victim-{number}" for number in range(4)]
        for victim in victims:
            os.mkdir(victim)
            with open(f"{victim}/file", "w", encoding="utf-8") as file:
                file.write("untouched")
        os.symlink(victims[0], f"{box.image}/proc")
        os.symlink(f"../../..{victims[1]}", f"{box.image}/dev")
        os.symlink(f"{victims[2]}/file", f"{box.image}/etc/resolv.conf")
        os.symlink(f"/proc/1/root{victims[3]}/file", f"{box.image}/etc/hosts")
        output = box.sh("set -e; echo got > /etc/resolv.conf; cat /etc/resolv.conf; ls -d /proc/self /dev/null")
        contents = ""
        for victim in victims:
            with open(f"{victim}/file", encoding="utf-8") as file:
                contents += file.read()
        return sorted(name for victim in victims for name in os.listdir(victim)), contents, output

    assert inside(user, body) == (["file"] * 4, "untouched" * 4, "got\n/dev/null\n/proc/self")


@EVERYONE
def test_large_output_comes_whole_and_in_order(inside: Inside, user: str) -> None:
    def body(box: Box) -> tuple[int, bool]:
        digits = 0
        expected = b"0123456789abcde\n" * 4096
        fine = True

        def check(data: bytes) -> None:
            nonlocal digits, fine
            start = digits % 16
            fine = fine and data == (expected + expected)[start : start + len(data)]
            digits += len(data)

        with open(f"{box.image}/etc/block", "wb") as file:
            file.write(b"0123456789abcde\n" * 65536)
        script = "for i in 0 1 2 3 4 5 6 7 8 9; do cat /etc/block; done"
        box.backend.run(Process(("sh", "-c", script), (("PATH", "/bin"),)), box.spec(), check)
        return digits, fine

    assert inside(user, body) == (10 << 20, True)


@EVERYONE
def test_arguments_larger_than_a_socket_buffer_arrive(inside: Inside, user: str) -> None:
    words = tuple("x" * 100_000 for _ in range(10))

    finished, output = inside(user, lambda box: box.run("sh", "-c", "echo ${#1} $#", "sh", *words))

    assert (finished.status, output) == (0, "100000 10\n")


@WITH_IDS
def test_a_setuid_program_gains_its_owner(inside: Inside, user: str) -> None:
    def body(box: Box) -> str:
        shutil.copy(f"{box.image}/bin/busybox", f"{box.image}/bin/su")
        os.chmod(f"{box.image}/bin/su", 0o4755)
        with open(f"{box.image}/etc/passwd", "w", encoding="utf-8") as file:
            file.write("root::0:0::/:/bin/sh\nwww:x:33:33::/:/bin/sh\n")
        return box.run("/bin/su", "-c", "id -u", uid=33, gid=33)[1]

    assert inside(user, body) == "0\n"


@EVERYONE
def test_an_opaque_folder_is_written_in_the_unprivileged_form(inside: Inside, user: str) -> None:
    def body(box: Box) -> bytes:
        os.mkdir(f"{box.image}/etc/old")
        finished, _ = box.run("sh", "-c", "rm -r /etc/old && mkdir /etc/old")
        return os.getxattr(f"{finished.upper}/etc/old", "user.overlay.opaque")

    assert inside(user, body) == b"y"


@EVERYONE
def test_an_attached_command_has_a_terminal_of_its_own(inside: Inside, user: str) -> None:
    def body(box: Box) -> tuple[int, str]:
        ours, keyboard = os.openpty()
        for descriptor in (0, 1, 2):
            os.dup2(keyboard, descriptor)
        process = Process(("sh", "-c", "tty; read x; echo got $x; exit 3"), (("PATH", "/bin"),), terminal=True)
        os.write(ours, b"word\r")
        finished = box.backend.attach(process, box.spec())
        return finished.status, os.read(ours, 4096).decode()

    status, screen = inside(user, body)

    assert status == 3
    assert "/dev/pts/0\r\n" in screen
    assert screen.endswith("got word\r\n")


@EVERYONE
def test_an_attached_command_without_terminal_has_our_streams(inside: Inside, user: str) -> None:
    def body(box: Box) -> tuple[int, bytes]:
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        finished = box.backend.attach(Process(("sh", "-c", "echo hello"), (("PATH", "/bin"),)), box.spec())
        return finished.status, os.read(reader, 100)

    assert inside(user, body) == (0, b"hello\n")


@EVERYONE
def test_a_command_ignores_and_blocks_no_signal(inside: Inside, user: str) -> None:
    """glibc's posix_spawn leaves two ignored, and Python one."""
    _, masks = inside(user, lambda box: box.run("grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"))

    assert [line.split()[1] for line in masks.splitlines()] == ["0" * 16] * 2


@EVERYONE
def test_a_command_that_is_no_program_ends_with_126(inside: Inside, user: str) -> None:
    def body(box: Box) -> tuple[Finished, str]:
        with open(f"{box.image}/etc/text", "w", encoding="utf-8") as file:
            file.write("true\n")
        os.chmod(f"{box.image}/etc/text", 0o755)
        return box.run("/etc/text")

    finished, output = inside(user, body)

    assert (finished.status, output) == (126, 'exec: "/etc/text": exec format error\n')
