"""From an errno to a sentence for the person: what this place refuses, and what an administrator can change."""

import errno
import os

from builder.errors import SandboxError
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """A file of /proc/sys that forbids user namespaces when it has this value."""

    name: str
    forbids: str
    better: str
    """The value that allows them."""

    def in_force(self) -> bool:
        """Whether it forbids them here."""
        try:
            with open("/proc/sys/" + self.name.replace(".", "/"), encoding="utf-8") as file:
                return file.read().strip() == self.forbids
        except OSError:
            return False


SETTINGS = (
    Setting("user.max_user_namespaces", "0", "65536"),
    Setting("kernel.unprivileged_userns_clone", "0", "1"),  # Debian's kernels
    Setting("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu's: namespaces without any capability
)


def refused(what: str, error: OSError) -> SandboxError:
    """The error for a sandbox that cannot be entered."""
    return SandboxError(f"this place does not allow {what}: {name_of(error.errno)} ({error})", hint=remedy(error))


def remedy(error: OSError) -> str:
    """What is in the way, as far as it can be seen from here."""
    forbidding = [setting for setting in SETTINGS if setting.in_force()]
    if forbidding:
        return "user namespaces are forbidden: " + ", ".join(
            f"{setting.name} is {setting.forbids}" for setting in forbidding
        )
    if error.errno == errno.ENOSPC:
        return "too many user namespaces: raise user.max_user_namespaces"
    if "newuidmap" in str(error):
        return (
            "its message is above; newuidmap and newgidmap need the setuid bit or capabilities (install the package"
            " uidmap anew), and the ranges of /etc/subuid and /etc/subgid must be this user's alone"
        )
    if error.errno in {errno.EPERM, errno.EACCES} and _filtered():
        return (
            "a seccomp filter is active, as in most containers: run this container with"
            " --security-opt seccomp=unconfined (Kubernetes: seccompProfile Unconfined, or hostUsers: false)"
        )
    if error.errno == errno.EINVAL:
        return "inside a chroot, and in a process that has threads, user namespaces cannot be entered"
    return "a security module (AppArmor, SELinux) may forbid it: see the kernel's log"


def setup_refused(doing: str, number: int, fault: str, *, single_id: str) -> SandboxError:
    """The error for a step whose preparation failed; `single_id` says why we have but one id, or is empty."""
    message = f"cannot {doing}: {fault or name_of(number)}"
    if doing.startswith("stack") and number == errno.EINVAL:
        return SandboxError(
            message,
            hint="the store must be on a file system that can carry an overlay: not on an overlay itself"
            " (a container's own files), nor on NFS; put it on a volume with --root",
        )
    if doing.startswith("stack") and number == errno.ENODEV:
        return SandboxError(message, hint="the kernel has no overlay file system: modprobe overlay")
    if doing.startswith("stack") and number == errno.EPERM:
        return SandboxError(message, hint=f"overlays in user namespaces need Linux 5.11; this is {os.uname().release}")
    if doing.startswith("set the ulimit"):
        return SandboxError(message, hint="only root can raise a hard limit above that of pybuild itself: ulimit -H -a")
    if doing.startswith(("become", "prepare")) and number in {errno.EINVAL, errno.EPERM}:
        return SandboxError(message, hint=single_id)
    return SandboxError(message)


def remedy_of(mechanism: str, error: OSError) -> str:
    """What could be changed about a mechanism that was tried."""
    if mechanism.startswith("chroot"):
        return "run as root of a container, with the capabilities that containers have by default"
    return remedy(error)


def name_of(number: int | None) -> str:
    """An errno as people look it up: `EPERM, operation not permitted`."""
    if not number:
        return "unknown error"
    return f"{errno.errorcode.get(number, number)}, {os.strerror(number).lower()}"


def _filtered() -> bool:
    """Whether this process runs under a seccomp filter (proc(5), status)."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return any(line.split() == ["Seccomp:", "2"] for line in file)
    except OSError:
        return False
