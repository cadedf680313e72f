"""A registry on loopback, and the base images in it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

IMAGES = {"BUSYBOX": "busybox:latest", "DEBIAN": "debian:12", "PYTHON": "python:3.11"}
"""What the words in the workloads' Dockerfiles stand for."""

HERE = os.path.dirname(os.path.abspath(__file__))
APPLETS = ("sh", "echo", "sleep", "true", "cat")
PACKAGES = "python3 python3-pip python3-venv"


@contextmanager
def registry(work: str) -> Iterator[str]:
    """A registry with a folder of its own, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": f"{work}/registry"}},
        "http": {"addr": address},
    }
    with open(f"{work}/registry.yml", "w", encoding="utf-8") as file:
        json.dump(config, file)
    with open(f"{work}/registry.log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", f"{work}/registry.yml"], stdout=log, stderr=log)
    try:
        yield address
    finally:
        process.terminate()
        process.wait()


def fill(work: str, address: str, pybuild: Sequence[str], wanted: set[str]) -> None:
    """Push the base images that are wanted, by the words that stand for them. Each is made once."""
    if wanted & {"DEBIAN", "PYTHON"}:
        _make_debian(f"{work}/debian-12")
        _push(f"{work}/debian-12", "docker.io/library/debian:12", address, IMAGES["DEBIAN"])
    if "BUSYBOX" in wanted:
        _make(f"{work}/busybox", _busybox(f"{work}/busybox-context"), pybuild, work, address)
        _push(f"{work}/busybox", "docker.io/library/bench:latest", address, IMAGES["BUSYBOX"])
    if "PYTHON" in wanted:
        _make(f"{work}/python", _python(f"{work}/python-context", address), pybuild, work, address)
        _push(f"{work}/python", "docker.io/library/bench:latest", address, IMAGES["PYTHON"])


def _make_debian(folder: str) -> None:
    if not os.path.exists(f"{folder}/index.json"):
        subprocess.run([sys.executable, f"{HERE}/../scripts/base_image.py", folder], check=True)


def _busybox(context: str) -> str:
    """The context of an image of one static program and links to it."""
    os.makedirs(f"{context}/bin", exist_ok=True)
    shutil.copy("/bin/busybox", f"{context}/bin/busybox")
    for applet in APPLETS:
        if not os.path.lexists(f"{context}/bin/{applet}"):
            os.symlink("busybox", f"{context}/bin/{applet}")
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write('FROM scratch\nCOPY bin /bin\nWORKDIR /etc\nCMD ["sh"]\n')
    return context


def _python(context: str, address: str) -> str:
    """The context of Debian with Python: a layer of thousands of files above one of thousands."""
    os.makedirs(context, exist_ok=True)
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        install = f"apt-get install -qy --no-install-recommends {PACKAGES}"
        file.write(f"FROM {address}/debian:12\nRUN apt-get update -q && {install}\n")
    return context


def _make(layout: str, context: str, pybuild: Sequence[str], work: str, address: str) -> None:
    if not os.path.exists(f"{layout}/index.json"):
        options = ["-o", f"type=oci,dest={layout},tar=false", "-t", "bench", "--root", f"{work}/fill"]
        options += ["--network=host", "--insecure-registry", address]
        subprocess.run([*pybuild, "build", "-q", *options, context], check=True)


def _push(layout: str, name: str, address: str, image: str) -> None:
    command = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:{name}", f"docker://{address}/{image}"]
    for _ in range(50):
        if not subprocess.run(command, check=False).returncode:
            return
        time.sleep(0.1)  # the registry has only just been started
    raise SystemExit(f"{image} cannot be pushed to the benchmark's registry")
