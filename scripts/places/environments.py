"""The environments that pybuild has to work in, and what each of them grants."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Protocol

import users

NOBODYS = "65532:65532"
"""An id of containers that no account has, as orchestrators give them."""


class Forbidden(StrEnum):
    """How a place refuses user namespaces to a user of this machine."""

    NOT = ""
    LIMIT = "their number is limited to 0: ENOSPC"
    FILTER = "a filter of system calls refuses them: EPERM"


@dataclass(frozen=True, slots=True)
class Environment:
    """A place to build in: a user of this machine, or a container."""

    name: str
    meaning: str
    user: str = users.ROOT
    """Of this machine, or UID:GID of a container."""
    container: tuple[str, ...] | None = None
    """Arguments of `docker run`; None is this machine itself."""
    privileged: bool = False
    forbidden: Forbidden = Forbidden.NOT
    runs: bool = True
    """Whether RUN can work here; where it cannot, it has to be refused clearly."""
    own_disk: bool = False
    """Whether the store is on the container's own file system, and not on a volume."""


_UNCONFINED = ("--security-opt=seccomp=unconfined",)

DEFAULT_CONTAINER = Environment("E4", "root in a default `docker run`", "0:0", (), own_disk=True)
ENVIRONMENTS = (
    Environment("E1", "root"),
    Environment("E2", "a user with subordinate ids", users.RANGES),
    Environment("E3", "a user with a single id", users.SINGLE),
    DEFAULT_CONTAINER,
    Environment(
        "E5",
        "a user in a container without any capability",
        NOBODYS,
        ("--cap-drop=ALL", "--security-opt=no-new-privileges"),
        runs=False,
    ),
    Environment("E6r", "root in a container, seccomp=unconfined", "0:0", _UNCONFINED),
    Environment("E6u", "a user in a container, seccomp=unconfined", NOBODYS, _UNCONFINED),
    Environment("E7", "root in a privileged container", "0:0", (), privileged=True),
    Environment("E8", "a user, user.max_user_namespaces=0", users.SINGLE, forbidden=Forbidden.LIMIT, runs=False),
    Environment("E8e", "a user, namespaces refused by a filter", users.SINGLE, forbidden=Forbidden.FILTER, runs=False),
)
REFERENCE = ENVIRONMENTS[0]
"""What all others have to equal."""


class Place(Protocol):
    """Where programs run in an environment."""

    environment: Environment
    folder: str
    """For the store, as it is called there."""
    python: str
    """The interpreter that is used there."""

    def run(
        self, program: Sequence[str], variables: Mapping[str, str], out: BinaryIO | int
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a Python program to its end."""
        ...
