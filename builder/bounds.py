"""How far a step may go: how long it may take, and how much of the machine. What it broke is told in sentences."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from builder.deadline import Deadline, deadline
from builder.dockerfile.values import go_duration
from builder.errors import CommandError
from builder.sandbox.cgroups.steps import LimitedSteps, StepGroups
from builder.sandbox.process import Limits
from layers.data import dataclass

TIMED_OUT = 124
"""The status of a command that took too long, as timeout(1) has it."""


@dataclass(frozen=True, slots=True)
class StepBounds:
    """The bounds of a step that runs."""

    _deadline: Deadline
    _groups: StepGroups | None
    _limits: Limits
    _seconds: float | None

    @property
    def cancelled(self) -> int:
        """Readable when the step is to be ended, for whatever reason."""
        return self._deadline.cancelled

    @property
    def cgroups(self) -> tuple[str, ...]:
        """What its first process joins."""
        return self._groups.procs if self._groups else ()

    def check_time(self, command: str, output: tuple[str, ...]) -> None:
        """Raise CommandError if it is because of the time that the step was ended."""
        if self._deadline.passed:
            time = go_duration(int((self._seconds or 0) * 1e9))
            message = f"the command took longer than {time} and was killed: {command}"
            error = CommandError(message, status=TIMED_OUT, output=output)
            error.hint = "--step-timeout is the limit of every RUN"
            raise error

    def broken(self) -> tuple[str, ...]:
        """The limits that the step, which has ended, ran into."""
        if not self._groups:
            return ()
        reached = self._groups.reached()
        found = []
        if reached.memory:
            limit = f"{_binary(self._limits.memory)} (--memory)" if self._limits.memory else "its cgroup"
            found.append(f"out of memory: at the limit of {limit} the kernel killed a process")
        if reached.processes:
            limit = f"{self._limits.processes} (--pids-limit)" if self._limits.processes else "its cgroup"
            found.append(f"too many processes: at the limit of {limit} no more could be started")
        return tuple(found)


class Bounds:
    """The bounds of all steps of a build."""

    def __init__(self, limits: Limits, seconds: float | None) -> None:
        """Find out whether this machine can keep them; SandboxError if it cannot.

        While the process is what the person started, and has one thread.
        """
        self._seconds = seconds
        self._limits = limits
        self._steps = LimitedSteps(limits) if limits else None

    @contextmanager
    def of_step(self, cancelled: int) -> Iterator[StepBounds]:
        """Those of a step that starts now and has ended when the block does."""
        with ExitStack() as stack:
            until = stack.enter_context(deadline(cancelled, self._seconds))
            groups = stack.enter_context(self._steps.step()) if self._steps else None
            yield StepBounds(until, groups, self._limits, self._seconds)


def _binary(size: int) -> str:
    """Bytes for people; a number that is not round stays as it is."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size % 1024**power == 0:
            return f"{size // 1024**power} {unit}"
    return f"{size} bytes"
