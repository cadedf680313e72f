"""Does what a step says, and makes a layer of what it left."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from builder.bounds import Bounds
from builder.credentials import Credentials
from builder.emulation import caveat, refuse
from builder.epoch import clamped, clamped_on_disk
from builder.errors import CancelledError, CommandError, DockerfileError
from builder.events import Job
from builder.origins import Selection
from builder.report import Report
from builder.sandbox.backend import Backend
from builder.sandbox.process import Finished, Limits, Process
from builder.snapshot import Snapshot
from builder.steps.attributes import Attributes
from builder.steps.bound import Bound
from builder.steps.copy import copy_changes
from builder.steps.mounts import ContextChangedError, Occasion, Opener
from builder.steps.run import LastLines, process_of, shown
from builder.steps.step import Action, Copy, FromContext, Run, origins_of
from builder.steps.target import Target
from builder.steps.workdir import directory_changes
from cache.store import Store
from layers.accounts import Accounts
from layers.blob import BlobWriter
from layers.compress import Compression
from layers.data import dataclass, replace
from layers.entry import Change
from layers.index import LayerIndex
from layers.layer import Layer, fill_layer
from layers.view import View

_NEXT_TO_NOTHING = 1 << 20
"""Bytes; with less than that left on the disk of the store, a full disk is what a command fails for."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a step has made."""

    layer: Layer
    index: LayerIndex
    """What the layer holds: the store knows it, and has not kept it."""
    blob: BlobWriter
    """Of the layer: complete, and not committed."""


class Executor:
    """Executes the actions of one build. Any thread may call it, several at the same time."""

    def __init__(
        self,
        store: Store,
        backend: Backend | None,
        report: Report,
        now_ns: Callable[[], int],
        credentials: Credentials,
        epoch: int | None = None,
        bounds: Bounds | None = None,
        compression: Compression = Compression.GZIP,
    ) -> None:
        """`backend` must have been entered; None will do for a build without RUN."""
        self._epoch = epoch
        self._bounds = bounds or Bounds(Limits(), None)
        self._compression = compression
        self._store = store
        self._opener = Opener(store, credentials, report.warn)
        self._backend = backend
        self._report = report
        self._now_ns = now_ns
        self._cancel = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._cancelled = False

    @property
    def unpacks(self) -> bool:
        """Whether commands stand on the trees of layers."""
        return self._backend is not None and self._backend.unpacks

    def close(self) -> None:
        """End what was started for commands."""
        self._opener.close()
        os.close(self._cancel)

    def cancel(self) -> None:
        """End the commands that run, and let no step begin."""
        self._cancelled = True
        os.eventfd_write(self._cancel, 1)

    def check_cancelled(self) -> None:
        """Raise CancelledError if the build has been."""
        if self._cancelled:
            raise CancelledError("the build was cancelled")

    def execute(
        self, action: Action, snapshot: Snapshot, selection: Selection, job: Job, unchanged: Callable[[], bool]
    ) -> "Made | None":
        """Do it on top of a snapshot. On failure nothing of it is in the store.

        `unchanged` says whether the contexts still hold what was selected; None if they do not, and so the layer would
        not be what its key says.
        """
        layers = () if isinstance(action, Copy) and action.link else snapshot.layers
        view = self._store.view(layers)
        if isinstance(action, Run):
            return self._run(action, snapshot, view, selection.bound, job, unchanged)
        if isinstance(action, Copy):
            attributes = self._attributes(action, view)
            assert selection.tree is not None
            changes = copy_changes(
                action, selection.sources, selection.tree, Target(view), attributes, self._report.warn
            )
        else:
            # BuildKit takes USER for WORKDIR as it takes --chown, and not as for RUN: a number alone is the group, too.
            owner = self._owner(action.user, f"WORKDIR of USER {action.user}", "folders", view)
            changes = directory_changes(action, Target(view), owner, self._now_ns())
        made = self._write(changes if self._epoch is None else clamped(changes, self._epoch))
        reads_context = any(isinstance(origin, FromContext) for origin in origins_of(action))
        with made.blob.removed_on_error():
            changed = reads_context and not unchanged()
        if changed:
            made.blob.close()
        return None if changed else made

    def _run(
        self,
        run: Run,
        snapshot: Snapshot,
        view: View,
        bound: tuple[Bound, ...],
        job: Job,
        unchanged: Callable[[], bool],
    ) -> "Made | None":
        refuse(run.platform, "RUN", DockerfileError)  # which a shared cache might have answered until now
        last = LastLines()

        def output(data: bytes) -> None:
            last.add(data)
            self._report.output(job, data)

        assert self._backend is not None, "a build with a RUN left has entered a back-end"
        with self._backend.ground(snapshot.layers, view, self._store) as ground, ExitStack() as stack:

            def say(message: str) -> None:
                self._report.output(job, os.fsencode(f"{message}\n"))

            try:
                occasion = Occasion(ground.scratch, ground.moves, stack, unchanged, self.check_cancelled, say)
                opened = self._opener.open(run, bound, occasion)
            except ContextChangedError:
                return None
            process = process_of(run, Accounts.from_view(view), opened.variables)

            def start(process: Process, cancelled: int) -> Finished:
                return ground.run(process, opened.attached, output, privileged=run.insecure, cancelled=cancelled)

            self._within_bounds(run, process, start, last)
            changes = ground.changes()
            if self._epoch is not None:
                changes = clamped_on_disk(changes, ground.folder, self._epoch)
            made = self._write(changes)
            with made.blob.removed_on_error():
                ground.keep(made.layer)
        return made

    def _within_bounds(
        self, run: Run, process: Process, start: Callable[[Process, int], Finished], last: LastLines
    ) -> None:
        """Run a command to its end; CommandError if it failed, or took too long."""
        with self._bounds.of_step(self._cancel) as bounds:
            try:
                finished = start(replace(process, cgroups=bounds.cgroups), bounds.cancelled)
            except CancelledError:
                bounds.check_time(shown(run.argv), last.lines())
                raise
            if finished.status:
                raise self._failed(run, finished, bounds.broken(), last.lines())
            for sentence in bounds.broken():
                self._report.warn(f"{sentence}: {shown(run.argv)}")

    def _failed(self, run: Run, finished: Finished, broken: tuple[str, ...], output: tuple[str, ...]) -> CommandError:
        how = f"signal {finished.signal}" if finished.signal else f"exit status {finished.status}"
        error = CommandError(f"the command ended with {how}: {shown(run.argv)}", status=finished.status, output=output)
        stranger = caveat(run.platform, finished.status, output)
        error.hint = "; ".join(broken) or stranger or (self._backend.caveat if self._backend else "")
        if _is_full(self._store.root):
            error.hint = "the disk of the store is full: free some space, or use another place with --root"
        return error

    def _write(self, changes: Iterator[Change]) -> "Made":
        blob = self._store.layout.writer()
        with blob.removed_on_error():
            layer, index = fill_layer(changes, blob, compression=self._compression)
        self._store.learn_index(layer.diff_id, index)
        return Made(layer, index, blob)

    def _attributes(self, action: Copy, view: View) -> Attributes:
        owner = self._owner(action.chown, f"--chown={action.chown}", "files", view) if action.chown else None
        return Attributes(owner, action.mode, self._now_ns())

    def _owner(self, text: str, where: str, what: str, view: View) -> tuple[int, int]:
        """Who a text means as the owner of what is made; a name that is not there is told, and counts as 0."""
        found = Accounts.from_view(view).owner(text)
        for name in found.unknown:
            self._report.warn(f"{where}: the image has no {name!r}; the {what} belong to id 0")
        return found.uid, found.gid


def _is_full(folder: str) -> bool:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < _NEXT_TO_NOTHING
