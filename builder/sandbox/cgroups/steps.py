"""A cgroup for each step of a build, all with the same limits."""

import contextlib
import errno
import os
from collections.abc import Iterator

from builder.errors import SandboxError
from builder.sandbox.cgroups.group import Group, sweep
from builder.sandbox.cgroups.places import Hierarchy, mounted, parents
from builder.sandbox.cgroups.settings import Setting, controllers, settings
from builder.sandbox.process import Limits
from builder.sandbox.refusal import name_of
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class Reached:
    """Which limits the processes of a step have run into."""

    memory: bool = False
    """The kernel has killed one of them."""
    processes: bool = False
    """It has refused them to start more."""


@dataclass(frozen=True, slots=True)
class StepGroups:
    """The cgroups of one step: one for each tree."""

    groups: tuple[Group, ...]

    @property
    def procs(self) -> tuple[str, ...]:
        """For `Process.cgroups`."""
        return tuple(group.procs for group in self.groups)

    def reached(self) -> Reached:
        """To be asked when the step has ended."""
        return Reached(
            memory=any(
                group.count(name, "oom_kill")
                for group in self.groups
                for name in ("memory.events", "memory.oom_control")
            ),
            processes=any(group.count("pids.events", "max") for group in self.groups),
        )


class LimitedSteps:
    """Where the cgroups of a build's steps are."""

    def __init__(self, limits: Limits) -> None:
        """Find places for them, while this process has one thread; SandboxError if this machine gives none.

        What builds have left there that were killed is removed.
        """
        self._limits = limits
        needed = controllers(limits) or ("memory", "pids")  # only a parent was asked for
        self._parents = parents(needed, mounted(), limits.parent)
        for parent in self._parents:
            sweep(parent)

    @contextlib.contextmanager
    def step(self) -> Iterator[StepGroups]:
        """Make the cgroups of a step; they are gone when the block ends, and with them must be the step."""
        with contextlib.ExitStack() as stack:
            groups = []
            for parent, tree in self._parents.items():
                group = _made(parent)
                stack.callback(group.remove)
                groups.append(group)
                _prepare(group, tree)
                for setting in settings(self._limits, unified=tree.unified):
                    if tree.unified or setting.controller in tree.controllers:
                        _set(group, setting)
            yield StepGroups(tuple(groups))


def _made(parent: str) -> Group:
    try:
        return Group.make(parent)
    except OSError as error:
        raise SandboxError(f"cannot make a cgroup in {parent}: {name_of(error.errno)}") from error


def _prepare(group: Group, tree: Hierarchy) -> None:
    """In version 1 a new cgroup has no CPU and no memory node: give it what the one above has."""
    if "cpuset" in tree.controllers:
        above = Group(os.path.dirname(group.folder), -1)
        for name in ("cpuset.cpus", "cpuset.mems"):
            group.write(name, above.read(name).strip())


def _set(group: Group, setting: Setting) -> None:
    try:
        group.write(setting.file, setting.text)
    except OSError as error:
        if not setting.needed and error.errno in {errno.ENOENT, errno.EINVAL}:
            return
        raise SandboxError(
            f"cannot set {setting.file} to {setting.text}: {name_of(error.errno)}",
            hint="the kernel has no such limit" if error.errno == errno.ENOENT else "",
        ) from error
