"""Other people's tools, and the containers that they run."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from grants import NAMESPACES, demand
from processes import answer, free_port, soon

# crun refuses a machine that has cgroups of both versions. It need not manage any here, and sees a machine of version 2
# in a mount namespace of its own.
_CRUN = 'umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec crun --cgroup-manager=disabled "$@"'
RUNTIMES = {"runc": ["runc"], "crun": ["unshare", "--mount", "sh", "-c", _CRUN, "crun"]}


def tool(*command: str | Path) -> str:
    """What another program prints; it has to succeed."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def unpacked(layout: Path, name: str, folder: Path) -> Path:
    """A bundle for runtimes, which umoci makes of an image in a layout."""
    tool("umoci", "unpack", "--image", f"{layout}:{name}", folder)
    return folder


def page_of(bundle: Path, runtime: str) -> str:
    """What the application of a bundle answers on the port that it is told by PORT."""
    demand(NAMESPACES)
    port, name, state = free_port(), f"pybuild-tests-{os.getpid()}", bundle.parent / f"{runtime}-state"
    _adapt(bundle / "config.json", port)
    command = [*RUNTIMES[runtime], "--root", str(state), "run", "-b", str(bundle), name]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            page = answer(port)
            tool(runtime, "--root", state, "kill", name, "KILL")
            process.wait(60)
        finally:
            process.kill()
    tool(runtime, "--root", state, "delete", "--force", name)
    return page


def _adapt(path: Path, port: int) -> None:
    """Change a runtime's configuration: the host's network, this port, no terminal."""
    config = json.loads(path.read_text())
    process, linux = config["process"], config["linux"]
    process["terminal"] = False
    process["env"] = [line for line in process["env"] if not line.startswith("PORT=")] + [f"PORT={port}"]
    linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] != "network"]
    path.write_text(json.dumps(config))


@contextmanager
def docker_daemon(folder: Path) -> Iterator[Callable[..., str]]:
    """A Docker daemon of our own, without a network; gives its command line. What it mounts ends with it."""
    demand(NAMESPACES)
    host = f"unix://{folder}/docker.sock"
    command = ["unshare", "--mount", "dockerd", f"--host={host}", "--bridge=none", "--iptables=false"]
    command += ["--ip6tables=false", f"--data-root={folder}/data", f"--pidfile={folder}/pid"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}

    def answers() -> bool:
        done = subprocess.run(["docker", "--host", host, "version"], capture_output=True, check=False)
        return done.returncode == 0 or daemon.poll() is not None

    with (
        # Sockets are deep in it, and a path to a socket has at most 107 bytes (unix(7)).
        TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True) as exec_root,
        open(folder / "log", "wb") as log,
        subprocess.Popen(
            [*command, f"--exec-root={exec_root}"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as daemon,
    ):
        try:
            assert soon(answers), (folder / "log").read_text()
            yield lambda *arguments: tool("docker", "--host", host, *arguments)
        finally:
            daemon.terminate()
