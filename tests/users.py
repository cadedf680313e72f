"""The users that tests run as, and a way to run things as one of them wherever Python and this checkout are."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from builder.sandbox import syscalls

ROOT, RANGES, SINGLE = "root", "pbsub", "pbsingle"
"""Root; a user with a range of subordinate ids; one without."""
CHECKOUT = Path(__file__).resolve().parent.parent
_NEEDED = {sys.base_prefix, sys.prefix, str(CHECKOUT)}


def users() -> None:
    """Make the two users, where they are missing."""
    for name, grant in ((RANGES, True), (SINGLE, False)):
        try:
            pwd.getpwnam(name)
        except KeyError:
            subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True, capture_output=True)
        for path in ("/etc/subuid", "/etc/subgid"):
            with open(path, "a+", encoding="utf-8") as file:
                file.seek(0)
                lines = file.read().splitlines()
                others = [line for line in lines if not line.startswith(f"{name}:")]
                if grant == (len(others) < len(lines)):
                    continue
                file.truncate(0)
                file.write("".join(f"{line}\n" for line in (*others, *([f"{name}:1048576:65536"] if grant else []))))


@contextmanager
def place_of(user: str, parent: str = "/var/tmp") -> Iterator[Path]:
    """A new folder of this user's, which others may look into; pytest's own are closed to all but root."""
    users()
    account = pwd.getpwnam(user)
    folder = os.path.join(parent, f"pybuild-tests-{secrets.token_hex(8)}")  # buildah takes no name with "_" at its end
    os.mkdir(folder)
    os.chmod(folder, 0o755)
    os.chown(folder, account.pw_uid, account.pw_gid)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


def hand_over(folder: Path, user: str) -> None:
    """Make a folder and all in it the user's."""
    account = pwd.getpwnam(user)
    for parent, _, files in os.walk(folder):
        for path in (parent, *(os.path.join(parent, name) for name in files)):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def run_as(
    user: str, argv: Sequence[str], *, cwd: str | Path, env: Mapping[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end as a user, with all that Python and this project need within reach."""
    return subprocess.run(
        argv, env=env, input=stdin, capture_output=True, check=False, preexec_fn=becoming(user, str(cwd))
    )


def becoming(user: str, cwd: str) -> Callable[[], None]:
    """What a forked child does to become a user and to stand in a folder."""
    account = pwd.getpwnam(user)
    groups = os.getgrouplist(user, account.pw_gid)
    open_up = opening(user)

    def become() -> None:
        # Shells let what they start in the background ignore this, and tests may run there.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        open_up()
        os.setgroups(groups)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        os.chdir(cwd)

    return become


def opening(user: str) -> Callable[[], None]:
    """What a forked child of root's does so that a user can come to Python and this project."""
    closed = closed_to(user)
    return lambda: _open_up(closed) if closed else None


def closed_to(user: str) -> set[str]:
    """The topmost folders above Python and this project that a user cannot enter."""
    return {gate for path in _NEEDED if pwd.getpwnam(user).pw_uid and (gate := _closed_ancestor(path))}


def _closed_ancestor(path: str) -> str:
    """The topmost folder above a path that others cannot enter, or nothing."""
    parents = [str(parent) for parent in reversed(Path(path).parents)]
    return next((parent for parent in parents if not os.stat(parent).st_mode & 0o001), "")


def _open_up(closed: set[str]) -> None:
    """In mounts that only this process sees, replace closed folders by ones that hold what is needed and no more."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    below = {path: os.open(path, os.O_PATH) for path in sorted(_NEEDED) if _closed_ancestor(path)}
    for gate in closed:
        syscalls.mount("tmpfs", gate, "tmpfs", 0, "mode=755")
    umask = os.umask(0o022)
    for path, descriptor in below.items():
        os.makedirs(path, exist_ok=True)
        syscalls.mount(f"/proc/self/fd/{descriptor}", path, None, syscalls.MS_BIND | syscalls.MS_REC)
        os.close(descriptor)
    os.umask(umask)
