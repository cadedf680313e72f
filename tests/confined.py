"""Places that allow less, made on this machine: there is a reason for every refusal, and it is the kernel's own."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

import users
from grants import NAMESPACES, refusal
from images import Project, Result, command, environment

_IN_A_CHROOT = 'mount --rbind / "$0" && cd "$1" && exec chroot "$0" env -C "$1" setpriv $2 "${@:3}"'
"""No process whose root is not that of its mount namespace gets a user namespace: EPERM (user_namespaces(7))."""
AS_CONTAINER_ROOT = "--bounding-set=-sys_admin --inh-caps=-sys_admin"
"""Root as in a default container: no namespaces and no mounts."""


def as_nobody_special() -> str:
    """An ordinary user, who may not change the root either."""
    users.users()
    account = pwd.getpwnam(users.SINGLE)
    return f"--reuid={account.pw_uid} --regid={account.pw_gid} --clear-groups"


def build(project: Project, rights: str, *options: str) -> Result:
    """Build a project in a changed root with these rights (options of setpriv(1)); RUN gets no user namespace there."""
    return run(project, rights, command(*project.arguments(*options)))


def run(project: Project, rights: str, argv: Sequence[str]) -> Result:
    """Run a command there. Where not even root gets namespaces, the place itself is such a one."""
    if refusal(NAMESPACES, users.ROOT):
        words = ["setpriv", *rights.split(), *argv]
    else:
        root = Path(project.place, "root")
        root.mkdir(exist_ok=True)
        words = ["unshare", "-m", "bash", "-c", _IN_A_CHROOT, str(root), str(project.place), rights, *argv]
    done = subprocess.run(
        words,
        env=environment(project.place),
        cwd=project.place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        preexec_fn=users.opening(project.user),
    )
    return Result(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))
