"""What a build needs of a sandbox, whichever way this machine makes one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from builder.sandbox.attached import Attached
from builder.sandbox.process import Demands, Finished, Process
from cache.store import Store
from layers.entry import Change
from layers.layer import Layer
from layers.view import View


class Ground(Protocol):
    """Layers made ready for one command: what it runs on, what it changed, and what becomes of that.

    In this order: `run` or `attach`, once; then, if a layer shall come of it, `changes` to its end, and `keep`.
    """

    @property
    def moves(self) -> bool:
        """Whether what is attached is moved into place, not mounted: so a folder for each thing, and for it alone."""
        ...

    @property
    def scratch(self) -> str:
        """A private folder on the file system of the store, for what the command sees beside its image."""
        ...

    @property
    def folder(self) -> str:
        """Where, after `run`, the disk has all that the command changed, at its path from the root."""
        ...

    def run(
        self,
        process: Process,
        attached: Sequence[Attached],
        on_output: Callable[[bytes], None],
        *,
        privileged: bool = False,
        cancelled: int | None = None,
    ) -> Finished:
        """Run a command to its end; `on_output` gets what it writes, stdout and stderr in one stream.

        `privileged` hides nothing of the kernel from it. A status other than 0 is no error here. Raises SandboxError if
        the command could not be started, and CancelledError once the descriptor `cancelled` is readable (an eventfd
        serves any number of steps). However it returns, no process of the step is left.
        """
        ...

    def attach(self, process: Process) -> Finished:
        """Run a command on our own standard streams, through a terminal of its own if `process.terminal`."""
        ...

    def changes(self) -> Iterator[Change]:
        """What the command changed, in the order of a layer's tar. All back-ends give the same for the same command."""
        ...

    def keep(self, layer: Layer) -> None:
        """Keep what is on the disk for commands to come: it is what the layer says."""
        ...


class Backend(Protocol):
    """A way to run commands on stacked layers.

    It is entered once, while the process has one thread (`choose.entered`). Then the process is root of its ids, and
    the store has to be written from inside. `ground` may be called from any thread, several at the same time; `close`
    ends what still runs.
    """

    name: str
    caveat: str
    """What cannot work in this place, as a hint for a command that failed; empty if everything can."""
    warning: str
    """What protects less here than it should, to be said once; empty if nothing does."""
    unpacks: bool
    """Whether a ground stands on a tree for each of its layers."""

    def admit(self, demands: Demands) -> None:
        """Raise SandboxError if a command cannot have here what it asks for; before anything is done for it."""
        ...

    def ground(self, layers: Sequence[Layer], view: View, store: Store) -> AbstractContextManager[Ground]:
        """Make layers ready, lowest first, for one command; `view` is what they hold together.

        What is not kept by the end of the block is gone after it.
        """
        ...

    def close(self) -> None:
        """End everything; idempotent."""
        ...
