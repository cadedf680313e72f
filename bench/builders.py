"""The builders that are compared, each with a store of its own."""

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from workloads import Workload

HOST = {"BUSYBOX": "busybox:latest", "DEBIAN": "debian:12"}


@dataclass
class Builder(ABC):
    """A builder that is a plain program."""

    name: str
    folder: str
    """Its store, and what else it needs; below the benchmark's working folder."""
    registry: str
    """Where base images are: HOST:PORT, plain http."""
    program: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)

    def missing(self) -> str:
        """Why it cannot take part; empty if it can."""
        return "" if shutil.which(self.program[0]) else f"{self.program[0]} is not installed"

    def supports(self, workload: Workload) -> bool:
        """Whether it can do a workload at all."""
        return True

    def start(self) -> None:
        """Start what has to run before."""

    def stop(self) -> None:
        """Stop it again."""

    def daemons(self) -> list[int]:
        """Processes whose work counts as the builder's."""
        return []

    def wipe(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)

    @abstractmethod
    def commands(self, context: str, workload: Workload, archive: str) -> list[list[str]]:
        """What a person would type."""


class Pybuild(Builder):
    """This program."""

    def commands(self, context: str, workload: Workload, archive: str) -> list[list[str]]:
        options = ["-q", "-t", "bench", "--root", f"{self.folder}/store", "--insecure-registry", self.registry]
        if workload.archive:
            options += ["-o", f"type=oci,dest={archive}"]
        return [[*self.program, "build", *options, context]]


class Buildah(Builder):
    """Buildah with its layer cache, an overlay store, and the isolation that needs least."""

    def wipe(self) -> None:
        subprocess.run([*self._base(), "rmi", "-a", "-f"], capture_output=True, check=False)
        super().wipe()

    def _base(self) -> list[str]:
        places = ["--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run"]
        return [*self.program, *places, "--storage-driver", "overlay"]

    def commands(self, context: str, workload: Workload, archive: str) -> list[list[str]]:
        build = ["bud", "-q", "--layers", "--isolation", "chroot", "--tls-verify=false", "--jobs", "4"]
        found = [[*self._base(), *build, "-t", "bench", context]]
        if workload.archive:
            found.append([*self._base(), "push", "-q", "bench", f"oci-archive:{archive}"])
        return found


class Docker(Builder):
    """Docker with the BuildKit that is part of its daemon."""

    _daemon: subprocess.Popen[bytes] | None = None

    def missing(self) -> str:
        return super().missing() or ("" if shutil.which("dockerd") else "dockerd is not installed")

    def supports(self, workload: Workload) -> bool:
        return not workload.archive  # this daemon writes no OCI archive

    def start(self) -> None:
        os.makedirs(self.folder, exist_ok=True)
        self.environment["DOCKER_HOST"] = f"unix://{self.folder}/socket"
        self.environment["DOCKER_BUILDKIT"] = "1"
        places = ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        sockets = ["-H", self.environment["DOCKER_HOST"], "--pidfile", f"{self.folder}/pid"]
        network = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
        with open(f"{self.folder}/log", "wb") as log:
            self._daemon = subprocess.Popen(["dockerd", *places, *sockets, *network], stdout=log, stderr=log)
        for _ in range(200):
            if os.path.exists(f"{self.folder}/socket") and self._ask("version"):
                return
            time.sleep(0.1)
        raise SystemExit(f"dockerd does not start; see {self.folder}/log")

    def stop(self) -> None:
        if self._daemon:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait()
            self._daemon = None

    def daemons(self) -> list[int]:
        return [self._daemon.pid] if self._daemon else []

    def wipe(self) -> None:
        self._ask("builder", "prune", "-a", "-f")
        self._ask("system", "prune", "-a", "-f", "--volumes")

    def _ask(self, *words: str) -> bool:
        environment = {**os.environ, **self.environment}
        return not subprocess.run([*self.program, *words], env=environment, capture_output=True, check=False).returncode

    def commands(self, context: str, workload: Workload, archive: str) -> list[list[str]]:
        return [[*self.program, "build", "-q", "--network=host", "-t", "bench", context]]
