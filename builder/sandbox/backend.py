"""What a build needs of a sandbox, whichever way this machine makes one."""

from collections.abc import Callable
from typing import Protocol

from builder.errors import CancelledError, SandboxError
from builder.sandbox.plan import RootSpec
from builder.sandbox.process import Finished, Process

__all__ = ["Backend", "CancelledError", "choose"]


class Backend(Protocol):
    """A way to run commands on stacked layers.

    `enter` comes first, once, while the process has one thread; `run` may then be called from any thread, several at
    the same time; `close` ends what still runs. After `enter` the process is root of its ids, and the store has to be
    written from inside.
    """

    name: str
    caveat: str
    """What cannot work in this place, as a hint for a command that failed; empty if everything can."""
    warning: str
    """What protects less here than it should, to be said once; empty if nothing does."""

    def enter(self) -> None:
        """Become what running needs; SandboxError says what is refused and what to do about it."""
        ...

    def run(
        self,
        process: Process,
        root: RootSpec,
        on_output: Callable[[bytes], None],
        *,
        cancelled: int | None = None,
    ) -> Finished:
        """Run a command to its end; `on_output` gets what it writes, stdout and stderr in one stream.

        A status other than 0 is no error here. Raises SandboxError if the command could not be started, and
        CancelledError once the descriptor `cancelled` is readable (an eventfd serves any number of steps). However it
        returns, no process of the step is left.
        """
        ...

    def attach(self, process: Process, root: RootSpec) -> Finished:
        """Run a command on our own standard streams, through a terminal of its own if `process.terminal`."""
        ...

    def close(self) -> None:
        """End everything; idempotent."""
        ...


def choose(name: str = "auto") -> Backend:
    """The back-end of this name, or the best for this place; nothing is entered yet."""
    from builder.sandbox.overlay import OverlayBackend  # not before something has to run

    if name not in {"auto", OverlayBackend.name}:
        raise SandboxError(f"there is no back-end {name!r}", hint=f"the back-ends are: auto, {OverlayBackend.name}")
    return OverlayBackend()
