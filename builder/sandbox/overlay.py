"""The back-end for every place that grants namespaces: steps run on an overlay over the unpacked layers."""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from builder.errors import CancelledError, SandboxError
from builder.sandbox import idmap, names
from builder.sandbox.attached import Attached
from builder.sandbox.client import Server, SetupError, Step, follow
from builder.sandbox.mount_points import NEW
from builder.sandbox.mounts import Names, Overlay
from builder.sandbox.plan import Plan, RootSpec, mount_plan
from builder.sandbox.preparation import Request
from builder.sandbox.probe import try_overlay
from builder.sandbox.process import Demands, Finished, Process
from builder.sandbox.recorder.program import Recording
from builder.sandbox.refusal import setup_refused
from builder.sandbox.seccomp.filter import filter_for
from builder.sandbox.syscalls import MNT_DETACH, MS_NODEV, MS_NOSUID, mount, supported, umount
from cache.store import Store
from cache.trees import remove
from layers.data import replace
from layers.diff import overlay_changes
from layers.entry import Change, Entry, Kind
from layers.errors import StoreError
from layers.layer import Layer
from layers.owners import give
from layers.view import View


class OverlayBackend:
    """Runs steps on overlays: as root, as a user with subordinate ids, or, within limits, with a single id."""

    name = "overlay"
    unpacks = True

    def __init__(self) -> None:
        self.caveat = ""
        self.warning = ""
        self._filter = b""
        self._recording: Recording | None = None
        self._server: Server | None = None
        self._memory = ""
        """A folder in memory for what commands change, if the store's file system cannot carry it."""
        self._shared = ""
        """A folder for what steps have in common."""
        self._stubs: dict[tuple[Entry, ...], str] = {}
        """The folders of mount points, by what is in them."""
        self._lock = threading.Lock()

    def enter(self, store: Store | None = None) -> None:
        """Become root in namespaces of our own, and find out whether the file system of a store can carry overlays.

        SandboxError says what is refused and what to do about it.
        """
        if not supported():
            raise SandboxError(f"pybuild does not know the system calls of this processor ({os.uname().machine})")
        who = idmap.identity()
        idmap.enter(who)
        if who.way is not idmap.Way.ROOT:
            self._recording = _recording(owners=who.way is idmap.Way.SINGLE)
        if who.way is idmap.Way.SINGLE and not self._recording:
            self.caveat = (
                f"only one id could be had here, since {who.lacks}: chown, USER and programs that change their"
                " user cannot work; ask for subordinate ids: usermod --add-subuids 100000-165535"
                " --add-subgids 100000-165535 NAME, and the package uidmap"
            )
        warnings = [self._find_place(store)] if store else []
        self._server = Server.start()
        self._filter, warning = filter_for(os.uname().machine)
        self.warning = "; ".join(filter(None, (*warnings, warning)))

    def admit(self, demands: Demands) -> None:
        """See `Backend.admit`: there is nothing that cannot be had."""

    @contextmanager
    def ground(self, layers: Sequence[Layer], view: View, store: Store) -> Iterator["OverlayGround"]:
        """See `Backend.ground`."""
        lowers = store.trees.stack(layers, store.layout)
        with self._scratch() as scratch:
            spec = RootSpec(lowers, view, scratch, shared=self._shared)
            yield OverlayGround(self, spec, view, store, keeps=not self._memory)

    def run(
        self,
        process: Process,
        root: RootSpec,
        on_output: Callable[[bytes], None],
        *,
        cancelled: int | None = None,
    ) -> Finished:
        """See `Ground.run`; `Finished.upper` is the folder of the changes."""
        plan = self._prepare(process, root)
        started = time.monotonic()
        reader, writer = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            step = self._launch(self._request(plan, process), null, writer, writer)
        finally:
            os.close(null)
            os.close(writer)
        with open(reader, "rb", buffering=0), step:
            if not follow(step, reader, on_output, cancelled):
                raise CancelledError("the step was cancelled")
        return self._finished(step, plan, started)

    def attach(self, process: Process, root: RootSpec) -> Finished:
        """See `Ground.attach`."""
        from builder.sandbox import terminal  # a build has no use for it

        window = terminal.window(0) if process.terminal else (0, 0)
        plan = self._prepare(process, root)
        started = time.monotonic()
        with self._launch(self._request(plan, process, window), 0, 1, 2) as step:
            if process.terminal:
                terminal.relay(step, 0, 1)
            else:
                while step.receive():
                    pass
        os.write(2, step.complaint())
        return self._finished(step, plan, started)

    def close(self) -> None:
        """See `Backend.close`."""
        if self._server:
            self._server.close()
            self._server = None
        if self._memory:
            umount(self._memory, MNT_DETACH)
            self._memory = ""

    def _find_place(self, store: Store) -> str:
        """Choose where commands write; gives a warning if that is in memory. Before the server is a copy of us."""
        folder = self._shared = os.path.realpath(store.temporary("overlay"))
        try:
            try_overlay(folder)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise setup_refused("stack a trial layer as an overlay", error.errno or 0, "", single_id="") from error
        else:
            return self._furnish()
        try:
            mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700")
            try_overlay(folder)
        except OSError as error:
            raise setup_refused("stack a trial layer as an overlay", errno.EINVAL, "", single_id="") from error
        self._memory = folder
        status = os.statvfs(folder)
        return self._furnish() or (
            "the store is on a file system that cannot carry overlays, such as that of a container: what a RUN changes"
            f" is kept in memory, at most {status.f_blocks * status.f_frsize >> 20} MiB, and takes longer to keep; put"
            " the store on a volume with --root"
        )

    def _furnish(self) -> str:
        for name in ("root", "names"):
            os.mkdir(f"{self._shared}/{name}")
        return ""

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        """A folder for one step: in memory, if what it changes has to be there."""
        folder = f"{self._shared}/{os.urandom(6).hex()}"
        os.mkdir(folder, 0o700)
        try:
            yield folder
        finally:
            with suppress(StoreError):
                remove(folder)

    def _prepare(self, process: Process, root: RootSpec) -> Plan:
        plan = mount_plan(replace(root, shared_memory=process.shared_memory))
        try:
            stub = self._stub(plan, root)
            _lay_out(plan, root)
        except OSError as error:
            raise setup_refused(
                f"prepare a step in {root.scratch}", error.errno or 0, "", single_id=self.caveat
            ) from error
        upmost = replace(plan.root, lowers=(*plan.root.lowers[:-1], stub))
        named = Names(
            f"{root.shared or root.scratch}/names", names.resolver(), names.hosts(process.hostname, process.hosts)
        )
        return replace(plan, root=upmost, before=(named, *plan.before))

    def _stub(self, plan: Plan, root: RootSpec) -> str:
        """The lower folder of mount points, which steps with the same ones share."""
        if not root.shared:
            return _made_stub(plan.root.lowers[-1], plan.stub)
        with self._lock:
            if plan.stub not in self._stubs:
                self._stubs[plan.stub] = _made_stub(f"{root.shared}/stub{len(self._stubs)}", plan.stub)
            return self._stubs[plan.stub]

    def _request(self, plan: Plan, process: Process, window: tuple[int, int] = (0, 0)) -> Request:
        program = self._filter if process.seccomp else b""
        return Request(plan.root, plan.before, plan.mounts, process, window, program, self._recording)

    def _launch(self, request: Request, stdin: int, stdout: int, stderr: int) -> Step:
        if not self._server:
            raise SandboxError("the sandbox has not been entered")
        return self._server.launch(request, stdin, stdout, stderr)

    def _finished(self, step: Step, plan: Plan, started: float) -> Finished:
        for overlay in (plan.root, *plan.before):
            if isinstance(overlay, Overlay) and overlay.work:
                _remove_work(overlay.work)
        try:
            status, signal = step.outcome()
        except SetupError as failure:
            raise setup_refused(failure.doing, failure.errno, failure.fault, single_id=self.caveat) from failure
        _remove_stubs(plan)
        return Finished(status, signal, time.monotonic() - started, plan.root.upper)


class OverlayGround:
    """The unpacked layers, and an upper folder above them, which becomes the tree of the new layer."""

    moves = False

    def __init__(self, backend: OverlayBackend, root: RootSpec, view: View, store: Store, *, keeps: bool) -> None:
        self.scratch = root.scratch
        self.folder = ""
        self._backend = backend
        self._root = root
        self._view = view
        self._store = store
        self._keeps = keeps

    def run(
        self,
        process: Process,
        attached: Sequence[Attached],
        on_output: Callable[[bytes], None],
        *,
        privileged: bool = False,
        cancelled: int | None = None,
    ) -> Finished:
        """See `Ground.run`."""
        root = replace(self._root, attached=tuple(attached), privileged=privileged)
        finished = self._backend.run(process, root, on_output, cancelled=cancelled)
        self.folder = finished.upper
        return finished

    def attach(self, process: Process) -> Finished:
        """See `Ground.attach`."""
        return self._backend.attach(process, self._root)

    def changes(self) -> Iterator[Change]:
        """See `Ground.changes`."""
        return overlay_changes(self.folder, self._view, self._root.lowers)

    def keep(self, layer: Layer) -> None:
        """See `Ground.keep`."""
        if self._keeps:
            self._store.trees.adopt(layer.diff_id, self.folder)
        # Else it is in memory, which is needed: the layer is unpacked when a command comes to stand on it.


def _recording(*, owners: bool) -> Recording | None:
    """What to record, after all has been imported that the server and its forks will need for it."""
    from builder.sandbox.recorder import watch  # noqa: F401 - real root records nothing
    from builder.sandbox.recorder.program import recording

    return recording(os.uname().machine, owners=owners)


def _made_stub(folder: str, entries: tuple[Entry, ...]) -> str:
    os.mkdir(folder)
    _make(folder, entries)
    return folder


def _lay_out(plan: Plan, root: RootSpec) -> None:
    """Make the folders and files that the plan stands on; the scratch folder must be empty."""
    for name in ("upper", "work") if root.shared else ("upper", "work", "root", "names"):
        os.mkdir(f"{root.scratch}/{name}")
    _make(f"{root.scratch}/upper", plan.upper)
    for folder, entries in plan.folders:
        os.mkdir(folder)
        _make(folder, entries)


def _remove_stubs(plan: Plan) -> None:
    """Remove mount points that the step brought into its changes without leaving anything there.

    BuildKit does the same (executor/stubs.go): what is empty is taken for a mount point. The folder above keeps its
    time, as if nothing had ever stood in it.
    """
    for entry in reversed(plan.stub):
        path = f"{plan.root.upper}/{entry.path}"
        if entry.mtime_ns == NEW and _is_empty(path):
            above = os.path.dirname(path)
            times = os.stat(above)
            (os.rmdir if os.path.isdir(path) else os.unlink)(path)
            os.utime(above, ns=(times.st_atime_ns, times.st_mtime_ns))


def _is_empty(path: str) -> bool:
    """Whether an empty file or folder stands there, reached by no symlink of the step's making."""
    try:
        status = os.lstat(path)
        if os.path.realpath(path) != path:
            return False
        return (
            not os.listdir(path)
            if stat.S_ISDIR(status.st_mode)
            else stat.S_ISREG(status.st_mode) and not status.st_size
        )
    except OSError:
        return False


def _make(folder: str, entries: tuple[Entry, ...]) -> None:
    """Make files and folders, parents first, with the attributes of their entries; the folder itself is entry ""."""
    for entry in entries:
        path = os.path.join(folder, entry.path)
        if entry.kind is not Kind.DIRECTORY:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        elif entry.path:
            os.mkdir(path)
        if (entry.uid, entry.gid) != (0, 0):
            give(path, entry.uid, entry.gid)
        os.chmod(path, entry.mode)
        for name, value in entry.xattrs:
            os.setxattr(path, name, value)
    for entry in reversed(entries):  # what is made in a folder changes its time
        if entry.mtime_ns != NEW:
            os.utime(os.path.join(folder, entry.path), ns=(entry.mtime_ns, entry.mtime_ns))


def _remove_work(folder: str) -> None:
    """Remove overlay's own workshop, whose usual content is known (overlayfs.rst, "Volatile mount")."""
    inner = os.path.join(folder, "work")
    try:
        os.unlink(f"{inner}/incompat/volatile/dirty")
        for path in (f"{inner}/incompat/volatile", f"{inner}/incompat", inner, folder):
            os.rmdir(path)
    except OSError:  # there is more in it, such as whiteouts
        with suppress(StoreError):
            remove(folder)
