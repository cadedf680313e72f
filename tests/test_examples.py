"""The examples: real applications, built as root and as an ordinary user, give the same layers, and answer.

They need Debian's package mirror, and the indexes of Python's and Node's packages.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import users
from containers import docker_daemon, page_of, tool, unpacked
from grants import USER_NAMESPACES, demand, refusal
from images import ImageRead, Result, command, environment, statements, validate
from processes import answer, free_port

pytestmark = pytest.mark.kernel

EPOCH = "1700000000"
EXAMPLES = users.CHECKOUT / "examples"
BASE = users.CHECKOUT / ".cache/debian-12"
EVERYONE = pytest.mark.parametrize("user", [users.ROOT, users.RANGES])
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.fixture(scope="module")
def debian() -> Path:
    """The base image, which is made once for a checkout."""
    script = str(users.CHECKOUT / "scripts/base_image.py")
    environ = {**os.environ, "PYTHONPATH": str(users.CHECKOUT)}
    done = subprocess.run([sys.executable, script, BASE], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return BASE


@pytest.fixture(scope="module")
def places() -> Iterator[Mapping[str, Path]]:
    """A folder of each user's, whose store all examples share; of those users who can build here."""
    builders = [users.ROOT, *([] if refusal(USER_NAMESPACES, users.RANGES) else [users.RANGES])]
    with ExitStack() as stack:
        yield {user: stack.enter_context(users.place_of(user)) for user in builders}


@pytest.fixture
def folder() -> Iterator[Path]:
    """For what is large: pytest keeps its own folders."""
    with users.place_of(users.ROOT) as place:
        yield place


class Example:
    """One example, built by each user."""

    def __init__(self, name: str, debian: Path, places: Mapping[str, Path]) -> None:
        self.name = name
        self.somebody = [*places][-1]
        """The one with the least rights of those who can build."""
        self._debian = debian
        self._places = places

    def build(self, user: str, *more: str) -> Result:
        place = self._places[user]
        proxies = {name: os.environ[name] for name in PROXIES if name in os.environ}
        options = [f"--build-context=debian:12=oci-layout://{self._debian}", "--progress=plain", "-t", self.name]
        options += [*(f"--build-arg={name}" for name in proxies), *more]
        arguments = ["build", f"--root={place}/store", *options, str(self._context(user))]
        variables = {**proxies, "SOURCE_DATE_EPOCH": EPOCH}
        done = users.run_as(user, command(*arguments), cwd=place, env=environment(place, **variables))
        assert done.returncode == 0, done.stderr.decode()
        return Result(0, "", done.stderr.decode())

    def _context(self, user: str) -> Path:
        """A copy of the example of this user's, whose files are of another age than those of others."""
        context = self._places[user] / self.name
        if not context.exists():
            shutil.copytree(EXAMPLES / self.name, context)
            age = 1_750_000_000 if user == users.ROOT else 1_760_000_000
            for path in (context, *context.rglob("*")):
                os.utime(path, (age, age))
            users.hand_over(context, user)
        return context

    def said(self, user: str, *words: str) -> list[str]:
        """The lines that a command in a container of the image prints."""
        place = self._places[user]
        arguments = command("run", f"--root={place}/store", self.name, *words)
        done = users.run_as(user, arguments, cwd=place, env=environment(place))
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()

    def sbom(self, user: str) -> set[tuple[str, ...]]:
        """Type, name and version of each package in the SBOM; of Python's those of the application alone."""
        place = self._places[user] / f"{self.name}-layout"
        self.build(user, "--sbom=true", f"--output=type=oci,tar=false,dest={place}")
        found: set[tuple[str, ...]] = set()
        for package in statements(place)["https://spdx.dev/Document"]["packages"]:
            for reference in package.get("externalRefs", ()):
                kind = re.split("[:/]", reference["referenceLocator"])[1]
                if kind != "pypi" or package["sourceInfo"].startswith("listed in /opt/venv/"):
                    found.add((kind, package["name"], package["versionInfo"]))
        return found

    def image(self, user: str) -> ImageRead:
        """What a user has built."""
        if user != users.ROOT:
            demand(USER_NAMESPACES, user)
        return validate(self.layout(user), self.full_name)

    @property
    def full_name(self) -> str:
        return f"docker.io/library/{self.name}:latest"

    def layout(self, user: str) -> Path:
        return self._places[user] / "store/images"

    def page(self, user: str) -> str:
        """What a container of the image answers."""
        if user != users.ROOT:
            demand(USER_NAMESPACES, user)
        place, port = self._places[user], free_port()
        arguments = command("run", f"--root={place}/store", "-e", f"PORT={port}", self.name)
        with subprocess.Popen(
            arguments,
            env=environment(place),
            stdin=subprocess.DEVNULL,
            preexec_fn=users.becoming(user, str(place)),  # noqa: PLW1509 - it takes no lock
        ) as process:
            try:
                return answer(port)
            finally:
                process.terminate()


@pytest.fixture(scope="module", params=["static-c", "flask", "node"])
def example(request: pytest.FixtureRequest, debian: Path, places: Mapping[str, Path]) -> Example:
    """An example that all have built, at the same time: most of it is waiting for packages."""
    example = Example(request.param, debian, places)
    with ThreadPoolExecutor() as pool:
        list(pool.map(example.build, places))
    return example


def test_root_and_a_user_with_subordinate_ids_build_the_same(example: Example) -> None:
    ours, theirs = example.image(users.ROOT), example.image(users.RANGES)

    assert ours.layers == theirs.layers
    assert ours.config == theirs.config
    assert ours.digest == theirs.digest


@EVERYONE
def test_the_second_build_runs_nothing(example: Example, user: str) -> None:
    image = example.image(user)

    result = example.build(user)

    assert set(result.steps.values()) == {"CACHED"}
    assert example.image(user).digest == image.digest


def test_the_sbom_lists_what_package_managers_list(example: Example) -> None:
    expected: set[tuple[str, ...]] = set()
    if example.name != "static-c":  # which is a single file
        rows = example.said(example.somebody, "dpkg-query", "-W", "-f", "${Package} ${Version}\\n")
        expected |= {("deb", *row.split(" ", 1)) for row in rows}
    if example.name == "flask":
        rows = example.said(example.somebody, "pip", "--disable-pip-version-check", "list", "--format=freeze")
        expected |= {("pypi", *row.split("==", 1)) for row in rows}
    if example.name == "node":
        locked = json.loads((EXAMPLES / "node/package-lock.json").read_text())["packages"]
        kept = [(path, row["version"]) for path, row in locked.items() if path and "dev" not in row]
        expected |= {("npm", path.rpartition("node_modules/")[2], version) for path, version in kept}

    assert example.sbom(example.somebody) == expected


@EVERYONE
def test_the_application_answers(example: Example, user: str) -> None:
    assert "It works" in example.page(user)


def test_other_tools_unpack_the_image_and_it_answers(example: Example, folder: Path) -> None:
    bundle = unpacked(example.layout(users.ROOT), example.full_name, folder / "bundle")

    assert "It works" in page_of(bundle, "crun")


def test_docker_takes_the_image(example: Example, folder: Path) -> None:
    source = f"oci:{example.layout(users.ROOT)}:{example.full_name}"
    seen = json.loads(tool("skopeo", "inspect", source))
    tool("skopeo", "copy", source, f"docker-archive:{folder}/image.tar:{example.name}:latest")

    with docker_daemon(folder) as docker:
        docker("load", "-i", f"{folder}/image.tar")
        loaded = docker("image", "inspect", "--format", "{{.Id}}", example.name).strip()

    image = example.image(users.ROOT)
    assert (seen["Digest"], loaded) == (image.digest, image.id)
