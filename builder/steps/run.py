"""RUN: from what the step says to the process in the sandbox."""

import collections
from collections.abc import Sequence

from builder.sandbox.process import (
    ALL_CAPABILITIES,
    DOCKER_CAPABILITIES,
    HOSTNAME,
    SHARED_MEMORY,
    Demands,
    Network,
    Process,
)
from builder.steps.step import Run, TmpfsMount
from layers.accounts import Accounts

KEPT_LINES = 20
"""How many of the last lines of a failed command its error shows."""
KEPT_BYTES = 16384
"""A line may be of any length; more than this of the end of the output is not kept."""


def process_of(run: Run, accounts: Accounts, variables: Sequence[tuple[str, str]] = ()) -> Process:
    """The process of a step; `variables` are those that its mounts bring, and go before all others.

    HOME is that of the user in the image's passwd, unless the environment sets it.
    """
    user = accounts.user(run.user)
    environment = dict(run.proxies) | dict(run.environment) | dict(variables)
    environment["HOME"] = environment.get("HOME") or user.home
    return Process(
        argv=run.argv,
        environment=tuple(environment.items()),
        cwd=run.directory,
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        hostname=run.hostname or HOSTNAME,
        network=_network_of(run),
        capabilities=ALL_CAPABILITIES if run.insecure else DOCKER_CAPABILITIES,
        seccomp=not run.insecure,
        hosts=run.settings.hosts,
        shared_memory=run.settings.shared_memory or SHARED_MEMORY,
        ulimits=run.settings.ulimits,
    )


def demands_of(run: Run) -> Demands:
    """What a step asks of the back-end that not every one can give."""
    sizes = [mount.size for mount in run.mounts if isinstance(mount, TmpfsMount)] + [run.settings.shared_memory]
    limits_memory = any(size is not None for size in sizes)
    return Demands(_network_of(run), privileged=run.insecure, limits_memory=limits_memory)


def _network_of(run: Run) -> Network:
    return "none" if run.network == "none" else "host"


def shown(argv: tuple[str, ...]) -> str:
    """A command on one line, as the error names it; the text of a shell form stands as written."""
    if len(argv) == 3 and argv[1] == "-c":
        return argv[2].strip()
    return " ".join(argv)


class LastLines:
    """Keeps the end of a command's output."""

    def __init__(self) -> None:
        self._blocks: collections.deque[bytes] = collections.deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take a piece; what is far from the end is forgotten."""
        self._blocks.append(data)
        self._size += len(data)
        while self._size - len(self._blocks[0]) >= KEPT_BYTES:
            self._size -= len(self._blocks.popleft())

    def lines(self) -> tuple[str, ...]:
        """The last lines, decoded as well as they can be."""
        text = b"".join(self._blocks)[-KEPT_BYTES:].decode("utf-8", "replace")
        return tuple(text.splitlines()[-KEPT_LINES:])
