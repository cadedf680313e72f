"""The builders that are compared, each with a store of its own."""

import glob
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from workloads import Workload

_ASIDE = "-aside-"


@dataclass(frozen=True, slots=True)
class Job:
    """One build that is asked for."""

    workload: Workload
    context: str
    """The folder."""
    archive: str = ""
    """Where the image archive goes, if one is wanted."""
    tag: str = "bench:latest"
    """The image's name; it says the registry where it is to be pushed."""
    cache: str = ""
    """A reference in a registry for what is cached."""


Commands = list[list[str]]


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
        """Forget everything.

        What there was is put aside: ext4 without a journal gives away no inode that was freed within the last minute,
        and looks at each of those again for every file that is made.
        """
        self.stop()
        if os.path.exists(self.folder):
            os.rename(self.folder, f"{self.folder}{_ASIDE}{os.urandom(4).hex()}")
        os.makedirs(self.folder)
        self.start()

    def clean(self) -> None:
        """Remove what was put aside."""
        for folder in glob.glob(f"{self.folder}{_ASIDE}*"):
            shutil.rmtree(folder, ignore_errors=True)

    @abstractmethod
    def build(self, job: Job) -> Commands:
        """What a person would type to build; a job's cache is used."""

    @abstractmethod
    def fill(self, job: Job) -> Commands:
        """Build, and leave a cache in the registry."""

    @abstractmethod
    def push(self, job: Job) -> Commands:
        """What a person would type to push what was built."""


class Pybuild(Builder):
    """This program."""

    def _places(self) -> list[str]:
        return ["--root", f"{self.folder}/store", "--insecure-registry", self.registry]

    def _build(self, job: Job, *more: str) -> Commands:
        options = ["-q", "-t", job.tag, *self._places(), *more]
        if job.archive:
            compression = ",compression=zstd" if job.workload.compression == "zstd" else ""
            options += ["-o", f"type=oci,dest={job.archive}{compression}"]
        return [[*self.program, "build", *options, job.context]]

    def build(self, job: Job) -> Commands:
        return self._build(job, *(["--cache-from", f"type=registry,ref={job.cache}"] if job.cache else []))

    def fill(self, job: Job) -> Commands:
        return self._build(job, "--cache-to", f"type=registry,ref={job.cache},mode=max")

    def push(self, job: Job) -> Commands:
        return [[*self.program, "push", "--progress", "quiet", *self._places(), job.tag]]


class Buildah(Builder):
    """Buildah with its layer cache, an overlay store, and the isolation that needs least."""

    def _base(self) -> list[str]:
        places = ["--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run"]
        return [*self.program, *places, "--storage-driver", "overlay"]

    def _build(self, job: Job, *more: str) -> Commands:
        build = ["bud", "-q", "--layers", "--isolation", "chroot", "--network", "host", "--tls-verify=false"]
        found = [[*self._base(), *build, "--jobs", "4", "-t", job.tag, *more, job.context]]
        if job.archive:
            compression = ["--compression-format", "zstd"] if job.workload.compression == "zstd" else []
            found.append([*self._base(), "push", "-q", *compression, job.tag, f"oci-archive:{job.archive}"])
        return found

    def build(self, job: Job) -> Commands:
        return self._build(job, *(["--cache-from", job.cache.rpartition(":")[0]] if job.cache else []))

    def fill(self, job: Job) -> Commands:
        return self._build(job, "--cache-to", job.cache.rpartition(":")[0])

    def push(self, job: Job) -> Commands:
        return [[*self._base(), "push", "-q", "--tls-verify=false", job.tag, f"docker://{job.tag}"]]


@dataclass
class Served(Builder):
    """A builder that is a daemon of its own with a client."""

    daemon: str = ""
    _process: subprocess.Popen[bytes] | None = None

    def missing(self) -> str:
        return super().missing() or ("" if shutil.which(self.daemon) else f"{self.daemon} is not installed")

    @abstractmethod
    def command(self) -> list[str]:
        """What starts the daemon; its socket is `socket`, below its folder."""

    @abstractmethod
    def question(self) -> list[str]:
        """A command of the client that succeeds when the daemon answers."""

    def start(self) -> None:
        os.makedirs(self.folder, exist_ok=True)
        command = self.command()
        with open(f"{self.folder}/log", "wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(200):
            if os.path.exists(f"{self.folder}/socket") and self._ask(self.question()):
                return
            time.sleep(0.1)
        raise SystemExit(f"{self.daemon} does not start; see {self.folder}/log")

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
            self._process = None

    def daemons(self) -> list[int]:
        return [self._process.pid] if self._process else []

    def _ask(self, command: Sequence[str]) -> bool:
        environment = {**os.environ, **self.environment}
        return not subprocess.run(command, env=environment, capture_output=True, check=False).returncode


class Docker(Served):
    """Docker with the BuildKit that is part of its daemon. Its archives hold layers that are not compressed."""

    def supports(self, workload: Workload) -> bool:
        return workload.compression == "gzip"

    def command(self) -> list[str]:
        self.environment |= {"DOCKER_HOST": f"unix://{self.folder}/socket", "DOCKER_BUILDKIT": "1"}
        places = ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        sockets = ["-H", self.environment["DOCKER_HOST"], "--pidfile", f"{self.folder}/pid"]
        return [self.daemon, *places, *sockets, "--iptables=false", "--ip6tables=false", "--bridge=none"]

    def question(self) -> list[str]:
        return [*self.program, "version"]

    def _build(self, job: Job, *more: str) -> Commands:
        found = [[*self.program, "build", "-q", "--network=host", "-t", job.tag, *more, job.context]]
        if job.archive:
            found.append([*self.program, "save", "-o", job.archive, job.tag])
        return found

    def build(self, job: Job) -> Commands:
        return self._build(job, *(["--cache-from", job.cache] if job.cache else []))

    def fill(self, job: Job) -> Commands:
        inline = [*self.program, "build", "-q", "--network=host", "--build-arg", "BUILDKIT_INLINE_CACHE=1"]
        return [[*inline, "-t", job.cache, job.context], [*self.program, "push", "-q", job.cache]]

    def push(self, job: Job) -> Commands:
        return [[*self.program, "push", "-q", job.tag]]


class Buildkit(Served):
    """BuildKit's own daemon; an image that is not exported is only in its cache."""

    def command(self) -> list[str]:
        with open(f"{self.folder}/config.toml", "w", encoding="utf-8") as file:
            file.write(f"[registry.{json.dumps(self.registry)}]\nhttp = true\ninsecure = true\n")
        places = ["--root", f"{self.folder}/root", "--addr", f"unix://{self.folder}/socket"]
        worker = ["--config", f"{self.folder}/config.toml", "--oci-worker-net=host", "--containerd-worker=false"]
        return [self.daemon, *places, *worker]

    def _client(self) -> list[str]:
        return [*self.program, "--addr", f"unix://{self.folder}/socket"]

    def question(self) -> list[str]:
        return [*self._client(), "debug", "workers"]

    def _build(self, job: Job, *more: str) -> Commands:
        sources = ["--local", f"context={job.context}", "--local", f"dockerfile={job.context}"]
        command = [*self._client(), "build", "--progress", "plain", "--frontend", "dockerfile.v0", *sources, *more]
        if job.archive:
            command += ["--output", f"type=oci,dest={job.archive},compression={job.workload.compression}"]
        return [command]

    def build(self, job: Job) -> Commands:
        return self._build(job, *(["--import-cache", f"type=registry,ref={job.cache}"] if job.cache else []))

    def fill(self, job: Job) -> Commands:
        return self._build(job, "--export-cache", f"type=registry,ref={job.cache},mode=max")

    def push(self, job: Job) -> Commands:
        return self._build(job, "--output", f"type=image,name={job.tag},push=true")


class Kaniko(Builder):
    """Kaniko's executor, in a container that runc makes. It keeps nothing: bases are pulled in every build."""

    CAPABILITIES = (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
    )

    def supports(self, workload: Workload) -> bool:
        return workload.name in {"W1", "W3", "W4", "W4z", "W5", "W6", "W7", "W9u"}  # it has neither store nor push

    def build(self, job: Job) -> Commands:
        insecure = ["--insecure", "--insecure-pull", "--insecure-registry", self.registry]
        options = ["--force", "--context", "dir:///workspace", "--no-push", "--destination", job.tag]
        options += [*insecure, "--compression", job.workload.compression]
        if job.archive:
            options += ["--tar-path", f"/out/{os.path.basename(job.archive)}"]
        self._bundle(job.context, os.path.dirname(job.archive) or self.folder, ["/kaniko/executor", *options])
        state = ["--root", f"{self.folder}/state"]
        return [["runc", *state, "run", "--bundle", f"{self.folder}/bundle", f"bench-{os.getpid()}"]]

    def fill(self, job: Job) -> Commands:
        raise NotImplementedError

    def push(self, job: Job) -> Commands:
        raise NotImplementedError

    def _bundle(self, context: str, out: str, argv: Sequence[str]) -> None:
        folder = f"{self.folder}/bundle"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(f"{folder}/rootfs")
        binds = (("/sys", "/sys"), ("/etc/resolv.conf", "/etc/resolv.conf"), (context, "/workspace"), (out, "/out"))
        binds += ((shutil.which(self.program[0]) or self.program[0], "/kaniko/executor"),)
        mounts = [{"type": "bind", "source": a, "destination": b, "options": ["rbind"]} for a, b in binds]
        mounts += [
            {"type": kind, "source": kind, "destination": at} for kind, at in (("proc", "/proc"), ("tmpfs", "/dev"))
        ]
        granted = [f"CAP_{name}" for name in self.CAPABILITIES.split()]
        config = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "mounts": mounts,
            "process": {
                "args": argv,
                "cwd": "/workspace",
                "user": {"uid": 0, "gid": 0},
                "env": ["PATH=/usr/local/bin:/usr/bin:/bin:/sbin", "HOME=/root", "DOCKER_CONFIG=/kaniko/.docker/"],
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), granted),
            },
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
        }
        with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)


def choose(work: str, registry: str, pybuild: str, docker: str, others: dict[str, str]) -> list[Builder]:
    """All builders there may be; `others` are the commands of those that no distribution ships."""
    found: list[Builder] = [
        Pybuild("pybuild", f"{work}/pybuild", registry, shlex.split(pybuild)),
        Buildah("buildah", f"{work}/buildah", registry, ["buildah"]),
        Docker("docker", f"{work}/docker", registry, [docker], daemon="dockerd"),
    ]
    if others.get("buildkitd"):
        client = [others.get("buildctl") or "buildctl"]
        found.append(Buildkit("buildkit", f"{work}/buildkit", registry, client, daemon=others["buildkitd"]))
    if others.get("kaniko"):
        found.append(Kaniko("kaniko", f"{work}/kaniko", registry, [others["kaniko"]]))
    return found
