"""Where this process may make cgroups: found out by trying, since nothing else tells.

Version 1 has a tree for each controller, and any cgroup may have children: ours go below the one that we are in, so
that what limits us limits them. In version 2 only a cgroup without processes can pass controllers on to its children,
except at the root, and who moves a process needs the right to the cgroup above both places (kernel:
admin-guide/cgroup-v2, "No Internal Process Constraint", "Delegation Containment"). So we look from our own cgroup up
for one that has the controllers, and that we may write. If it is our own and nobody else is in it, we make room by
moving down ourselves.
"""

import errno
import os
from collections.abc import Iterable, Iterator

from builder.errors import SandboxError
from builder.sandbox.cgroups.group import Group
from builder.sandbox.refusal import name_of
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A tree of cgroups, as far as it is mounted here."""

    top: str
    """Where it is mounted."""
    own: str
    """The folder of the cgroup that we are in."""
    controllers: frozenset[str]
    """Those that are bound to it; none for version 2, whose cgroups differ in what they have."""

    @property
    def unified(self) -> bool:
        """Whether it is that of version 2."""
        return not self.controllers

    def has(self, controller: str) -> bool:
        """Whether the controller could limit anything in this tree."""
        if self.unified:
            return controller in _words(f"{self.top}/cgroup.controllers") + _words(f"{self.own}/cgroup.controllers")
        return controller in self.controllers


def hierarchies(mounts: str, memberships: str) -> tuple[Hierarchy, ...]:
    """The trees of `/proc/self/mountinfo` with our places in them by `/proc/self/cgroup`: proc(5), cgroups(7)."""
    paths = dict(line.split(":", 2)[1:] for line in memberships.splitlines())
    found = []
    for line in mounts.splitlines():
        words, _, rest = line.partition(" - ")
        root, top = words.split()[3:5]
        kind, _, options = rest.split(" ", 2)
        if kind not in {"cgroup", "cgroup2"}:
            continue
        for names, path in paths.items():
            bound = frozenset(names.split(",")) if names else frozenset()
            if (kind == "cgroup2") == (not bound) and bound <= set(options.split(",")):
                relative = os.path.relpath(path, root)
                if not relative.startswith(".."):  # else our cgroup cannot be seen from here
                    found.append(Hierarchy(_text(top), os.path.normpath(_text(f"{top}/{relative}")), bound))
    return tuple(found)


def mounted() -> tuple[Hierarchy, ...]:
    """The trees of this process."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts, open("/proc/self/cgroup", encoding="utf-8") as own:
        return hierarchies(mounts.read(), own.read())


def parents(needed: Iterable[str], trees: Iterable[Hierarchy], parent: str = "") -> dict[str, Hierarchy]:
    """The folders below which steps get their cgroups, so that all these controllers are had.

    `parent` is a cgroup that was asked for, made if it is missing. SandboxError says what is refused, and why.
    """
    trees = tuple(trees)
    wanted: dict[Hierarchy, list[str]] = {}
    for controller in needed:
        wanted.setdefault(_tree_with(controller, trees), []).append(controller)
    return {_place(tree, names, parent): tree for tree, names in wanted.items()}


def _tree_with(controller: str, trees: Iterable[Hierarchy]) -> Hierarchy:
    for tree in trees:
        if tree.has(controller):
            return tree
    raise SandboxError(
        f"this place does not allow limits: there is no cgroup controller {controller!r}",
        hint="the kernel lacks it, or who manages cgroups does not pass it on: see /proc/cgroups, and for systemd"
        " Delegate= in systemd.resource-control(5)",
    )


def _place(tree: Hierarchy, controllers: list[str], parent: str) -> str:
    if parent:
        candidates: Iterable[str] = [os.path.normpath(f"{tree.top}/{parent}")]
    elif tree.unified:
        candidates = _upwards(tree.own, tree.top)
    else:
        candidates = [tree.own]
    first: OSError | None = None
    for folder in candidates:
        try:
            if parent:
                os.makedirs(folder, exist_ok=True)
            if tree.unified:
                _pass_on(controllers, folder, tree.own)
            Group.make(folder).remove()
        except OSError as error:
            first = first or error
        else:
            return folder
    assert first is not None
    raise _refusal(tree, controllers, first)


def _upwards(folder: str, top: str) -> Iterator[str]:
    yield folder
    while folder != top:
        folder = os.path.dirname(folder)
        yield folder


def _pass_on(controllers: list[str], folder: str, own: str) -> None:
    """Let the children of a cgroup of version 2 have controllers; OSError if that cannot be."""
    if not os.access(f"{folder}/cgroup.procs", os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{folder}/cgroup.procs")
    missing = set(controllers) - set(_words(f"{folder}/cgroup.subtree_control"))
    if not missing:
        return
    request = " ".join(f"+{name}" for name in sorted(missing)).encode()
    try:
        _write(f"{folder}/cgroup.subtree_control", request)
    except OSError as error:
        if error.errno != errno.EBUSY or folder != own or _words(f"{own}/cgroup.procs") != [str(os.getpid())]:
            raise
        # It stays until we are gone; a later build takes it away.
        Group.make(own).join()
        _write(f"{folder}/cgroup.subtree_control", request)


def _refusal(tree: Hierarchy, controllers: list[str], error: OSError) -> SandboxError:
    what = f"this place does not allow limits of {' and '.join(controllers)}"
    if error.errno == errno.EROFS:
        hint = "cgroups can only be read here, as in most containers: limit the container itself"
    elif error.errno == errno.EBUSY:
        hint = "other processes are in this cgroup, so it cannot be divided: start pybuild in one of its own"
    elif tree.unified:
        hint = "start pybuild in a cgroup of your own: systemd-run --user --scope -p Delegate=yes pybuild ..."
    else:
        hint = "with cgroups of version 1, which this machine has, only root can limit"
    return SandboxError(f"{what}: {name_of(error.errno)} ({error.filename or tree.own})", hint=hint)


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split()
    except OSError:
        return []


def _write(path: str, data: bytes) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.write(data)


def _text(escaped: str) -> str:
    """A path of mountinfo, in which blanks are octal numbers."""
    return escaped.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
