"""What this place grants: tests that need more are skipped, with the system call that was refused, and its errno.

Containers forbid mounts and namespaces by default. Nothing is concluded from settings: the call is really made, in a
process of its own.
"""

import errno
import functools
import os
import pwd
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import users

from builder.sandbox import syscalls

_ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
NAMESPACES = "unshare(CLONE_NEWNS)"
"""What containers of any kind are made with, and so all that runs some."""
USER_NAMESPACES = "unshare(CLONE_NEWUSER)"
"""What an ordinary user needs to be root of something."""


LISTENER = "seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)"
"""What asks another process about system calls; without CAP_SYS_ADMIN only for processes that can gain no rights."""
CGROUPS = "mkdir(/sys/fs/cgroup)"
"""What limits are set by."""


def demand(call: str, user: str = users.ROOT) -> None:
    """Skip the test that runs, if this place refuses a call to a user."""
    if number := refusal(call, user):
        pytest.skip(f"{call} by {user}: {errno.errorcode[number]}")


def demand_reach(user: str) -> None:
    """Skip the test that runs, if a user cannot come to this checkout, nor can it be mounted where the user can."""
    if users.closed_to(user):
        demand(NAMESPACES)


@functools.cache
def refusal(call: str, user: str) -> int:
    """The errno of a call by a user, or 0."""
    users.users()
    account = pwd.getpwnam(user)
    process = os.fork()
    if not process:
        status = errno.EIO
        try:
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
            _CALLS[call]()
            status = 0
        except OSError as error:
            status = error.errno or errno.EIO
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _make_a_cgroup() -> None:
    """Below each mount of cgroups, be it of version 1 or 2."""
    kinds = {"cgroup", "cgroup2"}
    rows = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    folders = {row[1] for row in rows if row[2] in kinds}
    if not folders:
        raise FileNotFoundError(errno.ENOENT, "no cgroups are mounted")
    for folder in folders:
        place = f"{folder}/tests-of-pybuild-{os.getpid()}"
        os.mkdir(place)
        os.rmdir(place)


_CALLS: dict[str, Callable[[], object]] = {
    NAMESPACES: lambda: syscalls.unshare(syscalls.CLONE_NEWNS),
    USER_NAMESPACES: lambda: syscalls.unshare(syscalls.CLONE_NEWUSER),
    LISTENER: lambda: syscalls.listen(_ALLOW_ALL),
    CGROUPS: _make_a_cgroup,
}


@contextmanager
def mounted(kind: str, folder: Path, options: str) -> Iterator[Path]:
    """A file system on a folder, until the end; the test is skipped where root may not mount one."""
    try:
        syscalls.mount("none", str(folder), kind, 0, options)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EACCES} and not _on_an_overlay(folder):
            raise
        pytest.skip(f"mount({kind}) by root: {errno.errorcode[error.errno or 0]}")
    try:
        yield folder
    finally:
        syscalls.umount(str(folder))


def _on_an_overlay(folder: Path) -> bool:
    """Whether a folder is on an overlay, as the files of a container are: none can be stacked on it (EINVAL)."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        kind = subprocess.run(["stat", "-f", "-c", "%T", place], capture_output=True, text=True, check=True).stdout
    return kind.strip() == "overlayfs"
