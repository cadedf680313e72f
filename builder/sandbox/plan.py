"""What has to be mounted, and what has to exist to mount it on: a pure function of the image's view and the step.

Where the image lacks /dev, /proc or /sys, the folder is made in the upper, and so becomes part of the layer, as with
BuildKit. The places of /etc/resolv.conf and /etc/hosts must never become part of it: they are made in a "stub", a
lower folder of its own right above the image.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from builder.errors import SandboxError
from builder.sandbox.mounts import OVERLAY_LIMIT, Bind, Devices, Masks, Mount, Overlay, Proc, Sys
from layers.entry import Entry, Kind

NEW = -1
"""As `mtime_ns`: the image has no such path; the file system decides."""

# The paths that Docker masks (moby, daemon/pkg/oci/defaults.go), below the places where proc and sysfs are mounted.
_PROC_FILES = ("kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug")
_PROC_FOLDERS = ("acpi", "asound", "scsi")
_PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_SYS_FOLDERS = ("firmware", "devices/virtual/powercap")


class RootView(Protocol):
    """The two questions that `layers.view.View` answers here."""

    def lookup(self, path: str) -> Entry | None: ...

    def resolve(self, path: str, *, follow_last: bool = True) -> str: ...


@dataclass(frozen=True, slots=True)
class RootSpec:
    """The root file system of a step."""

    lowers: tuple[str, ...]
    """Unpacked layers, the lowest first; none for `FROM scratch`."""
    view: RootView
    """What these layers hold together."""
    scratch: str
    """An empty private folder on the file system of the store; the caller removes it after the step."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a step mounts, and the entries that have to stand in two folders before."""

    root: Overlay
    mounts: tuple[Mount, ...]
    stub: tuple[Entry, ...]
    """For the lower folder of mount points; parents first."""
    upper: tuple[Entry, ...]
    """For the upper; begins with the root's own attributes, parents first."""


def mount_plan(spec: RootSpec) -> Plan:
    """Plan a step; SandboxError if the image has something else where a mount has to go."""
    if len(spec.lowers) >= OVERLAY_LIMIT:
        raise SandboxError(f"the image has {len(spec.lowers)} layers; RUN can stack {OVERLAY_LIMIT - 1} at most")
    scratch, view = os.path.realpath(spec.scratch), spec.view
    upper = {"": view.lookup("") or Entry("", Kind.DIRECTORY, 0o755)}
    at = {name: _folder(view, name, upper) for name in ("dev", "proc", "sys")}
    stub: dict[str, Entry] = {}
    files = [
        Bind(f"{scratch}/{os.path.basename(name)}", _file(view, name, stub))
        for name in ("etc/resolv.conf", "etc/hosts")
    ]
    return Plan(
        root=Overlay(
            lowers=(*spec.lowers, f"{scratch}/stub"),
            target=f"{scratch}/root",
            upper=f"{scratch}/upper",
            work=f"{scratch}/work",
        ),
        # The files first: an image may have them as links that lead into /proc or /dev.
        mounts=(
            *files,
            Devices(at["dev"]),
            Proc(
                at["proc"],
                Masks(
                    files=_below(at["proc"], _PROC_FILES),
                    folders=_below(at["proc"], _PROC_FOLDERS),
                    read_only=_below(at["proc"], _PROC_READ_ONLY),
                ),
            ),
            Sys(at["sys"], Masks(folders=_below(at["sys"], _SYS_FOLDERS))),
        ),
        stub=tuple(stub.values()),
        upper=tuple(upper.values()),
    )


def _folder(view: RootView, name: str, made: dict[str, Entry]) -> str:
    """Where a folder is to be mounted; what is missing on the way goes to `made`."""
    path = view.resolve(name)
    entry = view.lookup(path)
    if entry is None:
        made.update((each.path, each) for each in _parents(view, path))
        made[path] = Entry(path, Kind.DIRECTORY, 0o755, mtime_ns=NEW)
    elif entry.kind is not Kind.DIRECTORY or not path:
        raise SandboxError(f"/{name} of the image is no folder, so nothing can be mounted there")
    return f"/{path}"


def _file(view: RootView, name: str, made: dict[str, Entry]) -> str:
    """Where a file is to be mounted; what is missing on the way goes to `made`."""
    path = view.resolve(name)
    entry = view.lookup(path)
    if entry is None:
        made.update((each.path, each) for each in _parents(view, path))
        made[path] = Entry(path, Kind.FILE, 0o644, mtime_ns=NEW)
    elif entry.kind is Kind.DIRECTORY:
        raise SandboxError(f"/{name} of the image is a folder, so no file can be mounted there")
    return f"/{path}"


def _parents(view: RootView, path: str) -> Iterator[Entry]:
    """The folders above a path, the highest first, with the attributes they have in the image."""
    names = path.split("/")
    for depth in range(1, len(names)):
        parent = "/".join(names[:depth])
        entry = view.lookup(parent) or Entry(parent, Kind.DIRECTORY, 0o755, mtime_ns=NEW)
        if entry.kind is not Kind.DIRECTORY:
            raise SandboxError(f"/{parent} of the image is no folder, so nothing can be mounted on /{path}")
        yield entry


def _below(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)
