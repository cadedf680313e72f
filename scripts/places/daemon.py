"""Containers to build in, from a Docker daemon that is given or started here."""

import contextlib
import os
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import containers
import users
from base_image import bootstrap
from environments import Environment

from builder.sandbox.syscalls import prctl

_PR_CAPBSET_READ = 23
IMAGE = "pybuild-environments:debian-12"
PYTHON = "3.11"
"""What Debian 12 has."""
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
    " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN"
    " SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE"
    " MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
"""By number, as in linux/capability.h."""


class Daemon:
    """A Docker daemon, with the image of the containers in it."""

    def __init__(self, address: str, cache: Path) -> None:
        self.command = ("docker", "--host", address)
        self._cache = cache

    def docker(self, *arguments: str) -> str:
        """What the client prints; it has to succeed."""
        return containers.tool(*self.command, *arguments).strip()

    def prepare(self) -> None:
        """Import the image of Debian and Python, and install what pybuild needs beside it."""
        if not self.docker("image", "ls", "--quiet", IMAGE):
            rootfs = self._cache / "container-12.tar"
            if not rootfs.exists():
                print(f"making {rootfs} from Debian's packages", file=sys.stderr)
                bootstrap(f"{rootfs}.new.tar", "ca-certificates,python3")
                os.rename(f"{rootfs}.new.tar", rootfs)
            self.docker("import", str(rootfs), IMAGE)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
        pip += ["--only-binary=:all:", f"--python-version={PYTHON}", f"--target={self.packages}"]
        if not self.packages.exists():
            subprocess.run([*pip, *_dependencies()], check=True)

    @property
    def packages(self) -> Path:
        """The packages that pybuild depends on, for the Python of the image."""
        return self._cache / f"packages-{zlib.crc32(repr(_dependencies()).encode()):08x}"

    @contextlib.contextmanager
    def container(self, environment: Environment, folder: Path) -> Iterator["Container"]:
        """A container that waits for commands; it is removed in the end."""
        name = f"pybuild-{environment.name}-{os.getpid()}"
        options = ["--name", name, "--network=host", "--user", environment.user, *(environment.container or ())]
        options += ["-v", f"{users.CHECKOUT}:/pybuild:ro", "-v", f"{self.packages}:/packages:ro", "-w", "/pybuild"]
        if environment.privileged:
            options += privileged()
        if not environment.own_disk:
            os.chown(folder, *map(int, environment.user.split(":")))
            options += ["-v", f"{folder}:/home"]
        self.docker("run", "--detach", *options, IMAGE, "sleep", "infinity")
        try:
            yield Container(environment, name, self.command)
        finally:
            self.docker("rm", "--force", "--volumes", name)


class Container:
    """An environment in a container."""

    folder = "/home"
    python = "/usr/bin/python3"

    def __init__(self, environment: Environment, name: str, command: Sequence[str]) -> None:
        self.environment = environment
        self.name = name
        self._command = command

    def run(
        self, program: Sequence[str], variables: Mapping[str, str], out: BinaryIO | int
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a Python program to its end, in the checkout."""
        variables = {"HOME": self.folder, "PYTHONPATH": "/pybuild:/packages", **variables}
        options = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        command = [*self._command, "exec", *options, self.name, self.python, "-P", "-B", *program]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, check=False)


def _dependencies() -> list[str]:
    """What pybuild says that it needs."""
    project = tomllib.loads((users.CHECKOUT / "pyproject.toml").read_text())["project"]
    return [str(dependency) for dependency in project["dependencies"]]


def privileged() -> list[str]:
    """`--privileged`, or, where this machine itself lacks a capability and so cannot give it away, all but that."""
    lacking = [name for number, name in enumerate(CAPABILITIES.split()) if not _grants(number)]
    if not lacking:
        return ["--privileged"]
    unconfined = [f"--security-opt={what}=unconfined" for what in ("seccomp", "apparmor", "systempaths")]
    without = [f"--cap-drop={name}" for name in lacking]
    return ["--cap-add=ALL", *without, "--device-cgroup-rule=a *:* rwm", *unconfined]


def _grants(number: int) -> bool:
    """Whether a capability is in the bounding set; one that the kernel does not know is no loss."""
    try:
        return bool(prctl(_PR_CAPBSET_READ, number))
    except OSError:
        return True


@contextlib.contextmanager
def daemon(folder: Path, cache: Path) -> Iterator[Daemon]:
    """The daemon of DOCKER_HOST; without one, a daemon of our own, which ends with this."""
    if address := os.environ.get("DOCKER_HOST"):
        yield Daemon(address, cache)
        return
    with containers.docker_daemon(folder):
        yield Daemon(f"unix://{folder}/docker.sock", cache)
