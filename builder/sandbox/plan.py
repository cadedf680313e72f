"""What has to be mounted, and what has to exist to mount it on: a pure function of the image's view and the step.

Where the image lacks /dev, /proc or /sys, the folder is made in the upper, and so becomes part of the layer, as with
BuildKit. The places of /etc/resolv.conf, /etc/hosts and all that RUN --mount names must never become part of it: they
are made in a "stub", a lower folder of its own right above the image.
"""

import os
from collections.abc import Mapping

from builder.errors import SandboxError
from builder.sandbox.attached import Attached, attach
from builder.sandbox.mount_points import MountPoints, RootView
from builder.sandbox.mounts import OVERLAY_LIMIT, Bind, Devices, Masks, Mount, Overlay, Proc, Queues, Sys
from builder.sandbox.process import SHARED_MEMORY
from layers.data import dataclass
from layers.entry import Entry

# The paths that Docker masks (moby, daemon/pkg/oci/defaults.go), below the places where proc and sysfs are mounted.
_PROC_FILES = ("kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug")
_PROC_FOLDERS = ("acpi", "asound", "scsi")
_PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_SYS_FOLDERS = ("firmware", "devices/virtual/powercap")


@dataclass(frozen=True, slots=True)
class RootSpec:
    """The root file system of a step."""

    lowers: tuple[str, ...]
    """Unpacked layers, the lowest first; none for `FROM scratch`."""
    view: RootView
    """What these layers hold together."""
    scratch: str
    """An empty private folder on the file system of the store, an absolute path without symlinks; the caller removes
    it after the step."""
    attached: tuple[Attached, ...] = ()
    """What the step sees beside its image."""
    privileged: bool = False
    """Nothing of /proc and /sys is hidden, and /sys can be written."""
    shared_memory: int = SHARED_MEMORY
    """Bytes of /dev/shm."""
    shared: str = ""
    """A folder as `scratch`, but for any number of steps, with empty folders `root` and `names`: each step mounts there
    for itself. Without one, they are in `scratch`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a step mounts, and the entries that have to stand in two folders before."""

    root: Overlay
    before: tuple[Mount, ...]
    """To be mounted while the process still sees the host."""
    mounts: tuple[Mount, ...]
    folders: tuple[tuple[str, tuple[Entry, ...]], ...]
    """Further folders to be made, absolute paths, with what has to stand in them."""
    stub: tuple[Entry, ...]
    """For the lower folder of mount points; parents first."""
    upper: tuple[Entry, ...]
    """For the upper; begins with the root's own attributes, parents first."""


def mount_plan(spec: RootSpec) -> Plan:
    """Plan a step; SandboxError if the image has something else where a mount has to go."""
    if len(spec.lowers) >= OVERLAY_LIMIT:
        raise SandboxError(f"the image has {len(spec.lowers)} layers; RUN can stack {OVERLAY_LIMIT - 1} at most")
    scratch, shared = spec.scratch, spec.shared or spec.scratch
    points = MountPoints(spec.view)
    at = {name: points.folder(name, stays=True) for name in ("dev", "proc", "sys")}
    files = [
        Bind(f"{shared}/names/{os.path.basename(name)}", points.file(name)) for name in ("etc/resolv.conf", "etc/hosts")
    ]
    attachments = attach(spec.attached, points, scratch)
    return Plan(
        root=Overlay(
            lowers=(*spec.lowers, f"{scratch}/stub"),
            target=f"{shared}/root",
            upper=f"{scratch}/upper",
            work=f"{scratch}/work",
        ),
        before=attachments.before,
        # The files first: an image may have them as links that lead into /proc or /dev. What is after /proc has to be
        # mounted by the step's own process.
        mounts=(*files, *_system(at, spec), *attachments.mounts),
        folders=attachments.folders,
        stub=tuple(points.stub.values()),
        upper=tuple(points.upper.values()),
    )


def _system(at: Mapping[str, str], spec: RootSpec) -> tuple[Mount, ...]:
    """/dev, /proc and /sys, at the places where the image has them."""
    devices, queues = Devices(at["dev"], spec.shared_memory), Queues(f"{at['dev']}/mqueue")
    if spec.privileged:
        return devices, Sys(at["sys"], Masks(), read_only=False), Proc(at["proc"], Masks()), queues
    masks = Masks(
        files=_below(at["proc"], _PROC_FILES),
        folders=_below(at["proc"], _PROC_FOLDERS),
        read_only=_below(at["proc"], _PROC_READ_ONLY),
        null=f"{at['dev']}/null",
    )
    sys = Sys(at["sys"], Masks(folders=_below(at["sys"], _SYS_FOLDERS)))
    return devices, sys, Proc(at["proc"], masks), queues


def _below(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)
