"""What tests are given: an image to build from, and a project that builds on it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import users
from images import Project, make_base


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
            project = Project(stack.enter_context(users.place_of(user)), base, user)
            project.context.mkdir()
            return project

        yield make


@pytest.fixture
def project(project_of: Callable[[str], Project]) -> Project:
    """A new project of root's."""
    return project_of(users.ROOT)
