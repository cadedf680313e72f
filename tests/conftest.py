"""What tests are given: an image to build from, a project that builds on it, and sandboxes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest
import users
from boxes import Body, Inside, outcome, start
from grants import NAMESPACES, USER_NAMESPACES, demand
from hypothesis import HealthCheck, settings
from images import Project, make_base

from cache.store import Store

# How long something takes decides no test: the machine may be busy.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """An OCI layout with busybox, which every user may read."""
    with users.place_of(users.ROOT) as place:
        make_base(place / "busybox")
        yield place / "busybox"


@pytest.fixture
def project_of(base: Path) -> Iterator[Callable[[str], Project]]:
    """Makes a new project of a user."""
    with ExitStack() as stack:

        def make(user: str) -> Project:
            if user != users.ROOT:
                demand(USER_NAMESPACES, user)
            project = Project(stack.enter_context(users.place_of(user)), base, user)
            project.context.mkdir()
            return project

        yield make


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store."""
    store = Store(str(tmp_path / "state"))
    yield store
    store.close()


@pytest.fixture
def project(project_of: Callable[[str], Project]) -> Project:
    """A new project of root's."""
    return project_of(users.ROOT)


@pytest.fixture
def namespaces() -> None:
    """For what commands have in namespaces only: mounts that are read-only or limited, /proc, networks of their own."""
    demand(NAMESPACES)


@pytest.fixture
def inside() -> Iterator[Inside]:
    """Run a function with a box as some user, in a process of its own; gives what it returns."""
    users.users()
    folder = mkdtemp(dir="/var/tmp")

    def run(user: str, body: Body) -> Any:
        return outcome(*start(user, folder, body))

    yield run
    rmtree(folder)
