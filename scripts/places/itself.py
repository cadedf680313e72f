"""pybuild's own image: built in a default container, and again by a container of the image that came of it."""

import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import users
from cases import BASE, EPOCH, PYBUILD
from compare import Difference, differences
from daemon import Daemon
from environments import Place
from reading import read_archive

NAME = "pybuild-environments:itself"
PYTHON = "python:3-slim"
"""The base that the Dockerfile names; here it is made of Debian's packages."""


def build_itself(place: Place, docker: Daemon, folder: Path, proxies: Mapping[str, str]) -> tuple[Difference, ...]:
    """How the image that the image builds differs from itself. SystemExit with what was said, if a build fails."""
    variables = {"SOURCE_DATE_EPOCH": EPOCH, **proxies}
    options = ["--progress=plain", "--output=type=docker,dest=-", *(f"--build-arg={name}" for name in proxies)]
    ours = [*PYBUILD, "build", f"--root={place.folder}/store", *options]
    debian, python = f"--build-context=debian:12=oci-layout://{BASE}", f"--build-context={PYTHON}=oci-layout:///python"
    base, first, second = (folder / f"{name}.tar" for name in ("python", "first", "second"))

    with _written(f"{PYTHON} of Debian's packages", base) as out:
        _check(
            place.run(
                [*ours, debian, "--output=type=image", f"--tag={PYTHON}", "testdata/environments/python"],
                variables,
                out,
            )
        )
    with _written(f"the image, in {place.environment.name}", first) as out:
        _check(place.run([*ours, f"--tag={NAME}", "."], variables, out))
    docker.docker("load", "--input", str(first))
    with tarfile.open(base) as archive:  # which is a layout as well
        archive.extractall(folder / "python", filter="data")
    with _written("the image, in a container of it", second) as out:
        mounts = [f"--volume={users.CHECKOUT}:/workspace:ro", f"--volume={folder}/python:/python:ro"]
        given = [f"--env={name}={value}" for name, value in variables.items()]
        run = [*docker.command, "run", "--rm", "--network=host", *mounts, *given, NAME]
        build = [*run, "build", *options, python, f"--tag={NAME}", "."]
        _check(subprocess.run(build, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, check=False))
    return tuple(differences(read_archive(first), read_archive(second)))


def _check(done: subprocess.CompletedProcess[bytes]) -> None:
    if done.returncode:
        sys.exit(done.stderr.decode(errors="replace"))


@contextmanager
def _written(what: str, archive: Path) -> Iterator[BinaryIO]:
    """The open archive; says in the end how long it took to fill it."""
    started = time.monotonic()
    with archive.open("wb") as out:
        yield out
    print(f"{what}: built ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)
