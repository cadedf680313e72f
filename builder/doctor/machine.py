"""What this machine is, as far as it can be read: who we are, where, on which kernel and file system."""

import os
import pwd
from collections.abc import Mapping

from layers.data import dataclass

_BINFMT = "/proc/sys/fs/binfmt_misc"
_BY_QEMU = {"aarch64": "arm64", "arm": "arm", "i386": "386", "x86_64": "amd64"}
"""Docker's names for processors whose names differ from those that qemu-user gives its handlers."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts, in words for people."""

    user: str
    container: str
    """What sort of container this is; empty if it is none."""
    kernel: str
    processor: str
    file_system: str
    """That the store is on, or would be: `ext4`."""
    handlers: tuple[str, ...]
    """Architectures beside our own whose programs the kernel hands to an interpreter (binfmt_misc)."""


def machine(place: str, environment: Mapping[str, str]) -> Machine:
    """The facts; `place` is an existing folder on the file system of the store."""
    system = os.uname()
    return Machine(
        user=_user(),
        container=_container(environment),
        kernel=system.release,
        processor=system.machine,
        file_system=file_system(place, _read("/proc/self/mountinfo")),
        handlers=_handlers(),
    )


def existing(path: str) -> str:
    """The folder itself, or the nearest above it that is there."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def file_system(folder: str, mounts: str) -> str:
    """The type of the file system that a folder is on, by `/proc/self/mountinfo`, proc(5)."""
    path = f"{os.path.realpath(folder).rstrip('/')}/"
    found, longest = "unknown", -1
    for line in mounts.splitlines():
        words, _, rest = line.partition(" - ")
        place = words.split()[4].replace("\\040", " ").rstrip("/") + "/"
        if path.startswith(place) and len(place) >= longest:  # of two at the same place the later one is on top
            found, longest = rest.split()[0], len(place)
    return found


def _user() -> str:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "without a name"
    return f"{name} (uid {uid}, gid {os.getegid()})"


def _container(environment: Mapping[str, str]) -> str:
    """As far as containers tell: each engine leaves a mark of its own."""
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "Kubernetes"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    if os.path.exists("/.dockerenv"):
        return "docker"
    return environment.get("container", "")


def _handlers() -> tuple[str, ...]:
    try:
        names = sorted(os.listdir(_BINFMT))
    except OSError:
        return ()
    enabled = (name for name in names if _read(f"{_BINFMT}/{name}").startswith("enabled"))
    machines = (name.removeprefix("qemu-") for name in enabled if name.startswith("qemu-"))
    return tuple(_BY_QEMU.get(machine, machine) for machine in machines)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
