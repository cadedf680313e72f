"""The Dockerfile of pybuild's own image: what it reads is what an installation needs, and no more."""

import tomllib
from pathlib import Path

import pytest
from builds import Bench
from images import pybuild
from users import CHECKOUT

CONTEXT = str(CHECKOUT)


def test_the_context_has_all_packages_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    setuptools = settings["tool"]["setuptools"]
    packages = {package.replace(".", "/") for package in setuptools["packages"]}
    needed = {*setuptools["script-files"], "README.md", "pyproject.toml"}

    built = Bench(tmp_path).build(CONTEXT, dockerfile=str(tmp_path / "Dockerfile"))

    modules = {path for path in built.contents if path.endswith(".py")}
    assert {path.rpartition("/")[0] for path in modules} == packages
    assert {f"{package}/__init__.py" for package in packages} <= modules
    assert needed <= built.contents.keys() - modules <= {*needed, "LICENSE", "builder/py.typed"}


@pytest.mark.kernel
def test_its_dockerfile_is_without_doubt(base: Path, tmp_path: Path) -> None:
    result = pybuild(
        *("build", "--check", f"--root={tmp_path}/store", f"--build-context=python:3-slim=oci-layout://{base}"),
        CONTEXT,
        cwd=tmp_path,
    )

    assert (result.status, "WARNING" in result.out + result.err) == (0, False), result.out + result.err
