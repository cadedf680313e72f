"""Runs a command in an image: the sandbox of RUN, on a file system that is thrown away."""

import os
from collections.abc import Callable
from contextlib import closing

from builder.bounds import Bounds
from builder.emulation import refuse
from builder.errors import UsageError
from builder.options import AUTO
from builder.sandbox.choose import entered
from builder.sandbox.process import DEFAULT_PATH, SHARED_MEMORY, Demands, Limits, Process
from builder.snapshot import Snapshot
from builder.steps.step import RunSettings
from cache.store import Store
from layers.accounts import Accounts
from layers.data import dataclass, replace
from layers.oci import Image, RunConfig

_NEVER = -1
"""Nobody cancels a command that a person runs: signals reach it."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to run, and how; empty fields mean what the image says."""

    command: tuple[str, ...] = ()
    entrypoint: str | None = None
    """"" is none at all, and None that of the image."""
    environment: tuple[tuple[str, str], ...] = ()
    user: str = ""
    directory: str = ""
    interactive: bool = False
    terminal: bool = False
    backend: str = AUTO
    """One of `options.BACKENDS`."""
    settings: RunSettings = RunSettings()
    limits: Limits = Limits()


def run(image: Image, options: RunOptions, store: Store, warn: Callable[[str], None]) -> int:
    """Run on our own standard streams, to the end; the result is the command's exit status."""
    refuse(image.config.platform, "run", UsageError)
    snapshot = Snapshot.of_image(image)
    view = store.view(snapshot.layers)
    process = _process(image.config.config, options, Accounts.from_view(view))
    if not options.interactive:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
    bounds = Bounds(options.limits, None)
    with closing(entered(options.backend, store)) as backend:
        backend.admit(Demands(limits_memory=options.settings.shared_memory is not None))
        if backend.warning:
            warn(backend.warning)
        with backend.ground(snapshot.layers, view, store) as ground, bounds.of_step(_NEVER) as within:
            finished = ground.attach(replace(process, cgroups=within.cgroups))
            for sentence in within.broken():
                warn(sentence)
    return finished.status


def _process(config: RunConfig, options: RunOptions, accounts: Accounts) -> Process:
    user = accounts.user(options.user or config.user)
    environment = {"PATH": DEFAULT_PATH, "HOME": user.home} | config.environment | dict(options.environment)
    return Process(
        argv=_argv(config, options),
        environment=tuple(environment.items()),
        cwd=options.directory or config.working_dir or "/",
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        hostname="pybuild",
        terminal=options.terminal,
        hosts=options.settings.hosts,
        shared_memory=options.settings.shared_memory or SHARED_MEMORY,
        ulimits=options.settings.ulimits,
    )


def _argv(config: RunConfig, options: RunOptions) -> tuple[str, ...]:
    """Docker's rule: arguments replace CMD, and an entry point of one's own drops the CMD of the image too."""
    if options.entrypoint is None:
        entrypoint, command = config.entrypoint or (), options.command or config.cmd or ()
    else:
        entrypoint, command = (options.entrypoint,) if options.entrypoint else (), options.command
    if not entrypoint and not command:
        raise UsageError("the image has neither ENTRYPOINT nor CMD", hint="name a command: pybuild run IMAGE COMMAND")
    return (*entrypoint, *command)
