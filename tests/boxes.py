"""Sandboxes for tests, entered as some user.

Entering changes the process for good, so each test forks, becomes the user, enters, and sends back what it found.
"""

import os
import pickle
import pwd
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from grants import NAMESPACES, USER_NAMESPACES, demand
from users import RANGES, ROOT, SINGLE

from builder.errors import CancelledError
from builder.sandbox import terminal  # noqa: F401 - the forked users may not be able to read our modules
from builder.sandbox.overlay import OverlayBackend
from builder.sandbox.plan import RootSpec
from builder.sandbox.process import Finished, Process
from builder.sandbox.recorder import watch  # noqa: F401 - the same
from builder.sandbox.syscalls import capabilities, set_capabilities
from layers.entry import Entry, Kind
from layers.index import LayerIndex
from layers.view import View

CONTAINED = "root of a container"
"""Real root without CAP_SYS_ADMIN, as in a container whose seccomp filter is off."""
EVERYONE = pytest.mark.parametrize("user", [ROOT, RANGES, SINGLE])
WITH_IDS = pytest.mark.parametrize("user", [ROOT, RANGES, CONTAINED])
CAP_SYS_ADMIN = 21
APPLETS = (
    "sh",
    "true",
    "cat",
    "ls",
    "id",
    "grep",
    "touch",
    "sleep",
    "env",
    "ip",
    "mkdir",
    "rm",
    "stat",
    "tty",
    "stty",
    "chown",
    "mknod",
)
KINDS = {0o040000: Kind.DIRECTORY, 0o100000: Kind.FILE, 0o120000: Kind.SYMLINK}


def view_of(folder: str) -> View:
    entries = [Entry("", Kind.DIRECTORY, 0o755)]
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            kind = KINDS[status.st_mode & 0o170000]
            target = os.readlink(path) if kind is Kind.SYMLINK else ""
            entries.append(Entry(os.path.relpath(path, folder), kind, status.st_mode & 0o7777, target=target))
    return View([LayerIndex({entry.path: entry for entry in entries})])


@dataclass
class Box:
    """An entered sandbox with a small image, inside the forked process of a test."""

    folder: str
    backend: OverlayBackend = field(default_factory=OverlayBackend)

    def __post_init__(self) -> None:
        self.backend.enter()
        self.image = f"{self.folder}/image"
        for name in ("bin", "etc", "tmp"):
            os.makedirs(f"{self.image}/{name}")
        os.chmod(f"{self.image}/tmp", 0o1777)
        shutil.copy("/usr/bin/busybox", f"{self.image}/bin/busybox")
        for name in APPLETS:
            os.symlink("busybox", f"{self.image}/bin/{name}")

    def spec(self, *more: str) -> RootSpec:
        scratch = tempfile.mkdtemp(dir=self.folder)
        return RootSpec((self.image, *more), view_of(self.image), scratch)

    def run(self, *argv: str, **rest: Any) -> tuple[Finished, str]:
        output: list[bytes] = []
        environment = rest.pop("environment", (("PATH", "/bin"),))
        finished = self.backend.run(Process(argv, environment, **rest), self.spec(), output.append)
        return finished, os.fsdecode(b"".join(output))

    def sh(self, script: str, **rest: Any) -> str:
        """The output of a script that has to succeed."""
        finished, output = self.run("sh", "-c", script, **rest)
        assert finished.status == 0, output
        return output.strip()

    def background(self, script: str) -> tuple[threading.Thread, int, list[object]]:
        """Start a script in a thread and wait for its first output; gives an eventfd to cancel it, and what came."""
        came: list[object] = []
        started = threading.Event()
        cancel = os.eventfd(0, os.EFD_CLOEXEC)

        def output(data: bytes) -> None:
            came.append(data)
            started.set()

        def work() -> None:
            process = Process(("sh", "-c", script), (("PATH", "/bin"),))
            try:
                came.append(self.backend.run(process, self.spec(), output, cancelled=cancel))
            except CancelledError as error:
                came.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert started.wait(60)
        return thread, cancel, came


Body = Callable[[Box], Any]
Inside = Callable[[str, Body], Any]
"""Runs a function with a box as some user; what the fixture `inside` gives."""


def start(user: str, folder: str, body: Body) -> tuple[int, int]:
    """Fork the process; gives its pid and a pipe from it."""
    person = ROOT if user == CONTAINED else user
    demand(NAMESPACES if user == ROOT else USER_NAMESPACES, person)
    account = pwd.getpwnam(person)
    os.chown(folder, account.pw_uid, account.pw_gid)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        os.close(reader)
        os.setgroups([])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        if user == CONTAINED:
            lesser = capabilities()[1] & ~(1 << CAP_SYS_ADMIN)
            set_capabilities(lesser, lesser)
        answer: tuple[bool, Any] = (True, run_body(folder, body))
    except BaseException as error:  # noqa: BLE001 - told to the test
        answer = (False, f"{type(error).__name__}: {error} {getattr(error, 'hint', '')}")
    try:
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe)
    finally:
        os._exit(0)


def run_body(folder: str, body: Body) -> Any:
    box = Box(folder)
    try:
        return body(box)
    finally:
        box.backend.close()


def outcome(pid: int, reader: int) -> Any:
    with os.fdopen(reader, "rb") as pipe:
        fine, value = pickle.load(pipe)
    os.waitpid(pid, 0)
    assert fine, value
    return value
