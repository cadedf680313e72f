"""The back-end for root without namespaces, as in a default container: commands run in a tree that is made their root.

Nothing can be stacked, mounted or hidden there. Each stage has a whole tree of its own, never the container's own root;
what a command changed is found by looking at the tree before and after it; what others would mount is moved into place
and away again (`furniture`). Commands are kept from nothing that they do on purpose, of which a warning tells.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from builder.errors import CancelledError, SandboxError
from builder.sandbox.attached import Attached
from builder.sandbox.client import Server, SetupError, Step, follow
from builder.sandbox.furniture import furnished
from builder.sandbox.jail import JailRequest
from builder.sandbox.live_tree import LiveTree, LiveTrees
from builder.sandbox.process import Demands, Finished, Process
from builder.sandbox.refusal import setup_refused
from builder.sandbox.syscalls import CAP_SYS_ADMIN, capabilities, supported
from cache.store import Store
from layers.entry import Change
from layers.layer import Layer
from layers.view import View


class ChrootBackend:
    """Runs steps in changed roots, as real root."""

    name = "chroot"
    unpacks = False
    warning = (
        "RUN is not isolated: no namespaces and mounts can be had here, so commands are root of this container, without"
        " /proc and /sys, and could reach its files and processes"
    )
    caveat = "there is no /proc, and nothing is mounted: that is all that this place allows (the back-end is chroot)"

    def __init__(self) -> None:
        self._filter = b""
        self._server: Server | None = None
        self._trees = LiveTrees()

    def enter(self) -> None:
        """See `Backend.enter`."""
        if not supported():
            raise SandboxError(f"pybuild does not know the system calls of this processor ({os.uname().machine})")
        self._server = Server.start()
        if capabilities()[0] >> CAP_SYS_ADMIN & 1:
            from builder.sandbox.seccomp.filter import filter_for

            # Else the container's own filter is in force; another one would cost sudo and su their rights.
            self._filter, _ = filter_for(os.uname().machine)

    def admit(self, demands: Demands) -> None:
        """See `Backend.admit`."""
        if demands.network == "none":
            raise _impossible("--network=none", "commands share the network of all that is in this container")
        if demands.privileged:
            raise _impossible("--security=insecure", "commands have no more rights than this container has")
        if demands.limits_memory:
            raise _impossible(
                "the size of a folder in memory (tmpfs, /dev/shm)",
                "it is a folder on the disk of the store, as nothing can be mounted",
            )

    @contextmanager
    def ground(self, layers: Sequence[Layer], view: View, store: Store) -> Iterator["ChrootGround"]:
        """See `Backend.ground`."""
        tree = self._trees.take(layers, store)
        with store.scratch("run") as scratch:
            ground = ChrootGround(self, tree, layers, view, store, os.path.realpath(scratch))
            yield ground
        if ground.is_known:
            self._trees.give_back(tree)
        else:
            store.release(tree.folder)

    def launch(
        self, root: str, process: Process, stdio: tuple[int, int, int], window: tuple[int, int] = (0, 0)
    ) -> Step:
        """Start a step."""
        if not self._server:
            raise SandboxError("the sandbox has not been entered")
        request = JailRequest(root, process, window, self._filter if process.seccomp else b"")
        return self._server.launch(request, *stdio)

    def close(self) -> None:
        """See `Backend.close`."""
        if self._server:
            self._server.close()
            self._server = None


class ChrootGround:
    """A tree that holds the layers."""

    moves = True

    def __init__(
        self, backend: ChrootBackend, tree: LiveTree, layers: Sequence[Layer], view: View, store: Store, scratch: str
    ) -> None:
        self.scratch = scratch
        self.folder = tree.root
        self.is_known = True
        """Whether the tree is what its layers say."""
        self._backend = backend
        self._tree = tree
        self._layers = layers
        self._view = view
        self._store = store

    def run(
        self,
        process: Process,
        attached: Sequence[Attached],
        on_output: Callable[[bytes], None],
        *,
        privileged: bool = False,  # noqa: ARG002 - `admit` refuses it
        cancelled: int | None = None,
    ) -> Finished:
        """See `Ground.run`."""
        started = time.monotonic()
        with self._furnished(process, attached) as devices:
            # A pipe with a name, since without /proc that is the only form in which /dev/stdout can lead to it.
            reader = os.open(f"{devices}/stdout", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.set_blocking(reader, True)
            writer = os.open(f"{devices}/stdout", os.O_WRONLY | os.O_CLOEXEC)
            null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            try:
                with (
                    open(reader, "rb", buffering=0),
                    self._backend.launch(self.folder, process, (null, writer, writer)) as step,
                ):
                    if not follow(step, reader, on_output, cancelled):
                        raise CancelledError("the step was cancelled")
            finally:
                os.close(null)
                os.close(writer)
        return _finished(step, started)

    def attach(self, process: Process) -> Finished:
        """See `Ground.attach`."""
        from builder.sandbox import terminal  # a build has no use for it

        window = terminal.window(0) if process.terminal else (0, 0)
        started = time.monotonic()
        with (
            self._furnished(process, (), pipe=False),
            self._backend.launch(self.folder, process, (0, 1, 2), window) as step,
        ):
            if process.terminal:
                terminal.relay(step, 0, 1)
            else:
                while step.receive():
                    pass
        return _finished(step, started)

    def changes(self) -> Iterator[Change]:
        """See `Ground.changes`."""
        return self._tree.changes(self._layers, self._view, self._store)

    def keep(self, layer: Layer) -> None:
        """See `Ground.keep`."""
        self._tree.keep(layer.diff_id)
        self.is_known = True

    @contextmanager
    def _furnished(self, process: Process, attached: Sequence[Attached], *, pipe: bool = True) -> Iterator[str]:
        self.is_known = False
        try:
            with furnished(self.folder, self._view, self.scratch, process, attached, pipe=pipe) as devices:
                yield devices
        except OSError as error:
            raise setup_refused(f"prepare a step in {self.folder}", error.errno or 0, "", single_id="") from error


def _finished(step: Step, started: float) -> Finished:
    try:
        status, signal = step.outcome()
    except SetupError as failure:
        raise setup_refused(failure.doing, failure.errno, failure.fault, single_id="") from failure
    return Finished(status, signal, time.monotonic() - started)


def _impossible(what: str, why: str) -> SandboxError:
    return SandboxError(
        f"{what} cannot be had here: {why}",
        hint="leave it away, or build where namespaces can be had: the back-end here is chroot",
    )
