"""Mounts as values: each says what it is (`describe`) and does it (`apply`).

The root comes first: an `Overlay`, made while the process still sees the host. All others are applied by a process
that has changed its root to the new one, so that a symlink of a hostile image (/proc -> /etc) leads nowhere but into
the image itself. What they need of the host they reach through `host`, a descriptor of the host's root folder.
"""

import contextlib
import errno
import os
import stat
from functools import cache
from typing import Protocol

from builder.sandbox.calls import Call, call, make_all
from builder.sandbox.process import SHARED_MEMORY
from builder.sandbox.syscalls import (
    AT_FDCWD,
    CLONE_NEWNS,
    CLONE_NEWPID,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    clone,
    mount,
    move_mount,
    open_tree,
    set_mount_attributes,
)
from layers.data import dataclass, field, replace
from layers.owners import has_one_id, may_make_devices

OVERLAY_LIMIT = 500
"""Lower folders that one overlay takes (OVL_MAX_STACK of the kernel's fs/overlayfs/super.c)."""

DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
"""Names and numbers (kernel: admin-guide/devices.txt)."""

_EVERYBODY, _SHARED = 0o666, 0o1777
_MISSING = (errno.ENOENT,)
_ROOM = 1 << 20
"""Bytes that a step may write to the files of names, more or less."""

_DATA_ONLY = MS_NOSUID | MS_NODEV | MS_NOEXEC
_INERT = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


class Mount(Protocol):
    """One mount of a step."""

    def describe(self) -> str:
        """What `apply` does, as the end of the sentence "cannot ..."."""
        ...

    def apply(self, host: int) -> None:
        """Mount it, in the current mount namespace; OSError if the kernel refuses."""
        ...


class Later(Protocol):
    """A mount that can be laid out for a process that does nothing else, in the root of the step."""

    def calls(self, host: int, opened: list[int]) -> tuple[Call, ...]:
        """The same as calls; `opened` gets the descriptors that they need."""
        ...


@dataclass(frozen=True, slots=True)
class Overlay:
    """The root of a step: folders stacked on `target`, the lowest first, changes going to `upper`."""

    lowers: tuple[str, ...]
    target: str
    """An absolute path of the host, as are all paths of this class."""
    upper: str = ""
    """Empty for a root that cannot be written."""
    work: str = ""
    """An empty folder on the file system of `upper`, fresh for every mount (`volatile` leaves a mark in it)."""

    def describe(self) -> str:
        return f"stack {len(self.lowers)} layers as an overlay on {self.target}"

    def apply(self, host: int) -> None:
        if not self.upper and len(self.lowers) == 1:  # which overlay refuses
            _bind(host, self.lowers[0], self.target, attributes=MOUNT_ATTR_RDONLY)
            return
        with contextlib.ExitStack() as opened:
            # The options have to fit into one page. Descriptors are the shortest names that a folder can have, and
            # /proc/self/fd is the folder in which they are names.
            lowers = [_descriptor(path, opened) for path in reversed(self.lowers)]
            options = ["lowerdir=" + ":".join(lowers), "userxattr", "index=off"]
            if self.upper:
                options += [f"upperdir={_descriptor(self.upper, opened)}", f"workdir={_descriptor(self.work, opened)}"]
                options += ["volatile"]  # an upper that outlived a crash is thrown away: fsync would protect nothing
            os.chdir("/proc/self/fd")
            mount("overlay", self.target, "overlay", 0, ",".join(options))
            os.chdir("/")


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the host, without what is mounted below it."""

    source: str
    """An absolute path of the host without symlinks."""
    target: str
    read_only: bool = False
    inert: bool = False
    """Nothing in it can be run, gain rights or be a device."""

    def describe(self) -> str:
        return f"bind {self.source} to {self.target}" + (" (read-only)" if self.read_only else "")

    def apply(self, host: int) -> None:
        _make(self, host)

    def calls(self, host: int, opened: list[int]) -> tuple[Call, ...]:
        """See `Later`."""
        attributes = (MOUNT_ATTR_RDONLY if self.read_only else 0) | (_INERT if self.inert else 0)
        return (_moving(_tree(host, self.source, attributes=attributes, opened=opened), self.target),)


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """An empty folder in memory."""

    target: str
    mode: int = _SHARED
    size: int | None = 64 << 20
    """Most bytes that it holds; None is half of the machine's memory."""
    flags: int = _DATA_ONLY
    """MS_* flags."""

    def describe(self) -> str:
        return f"mount a tmpfs on {self.target}"

    def apply(self, host: int) -> None:
        _make(self, host)

    def calls(self, host: int, opened: list[int]) -> tuple[Call, ...]:  # noqa: ARG002 - part of the protocol
        """See `Later`."""
        size = "" if self.size is None else f",size={self.size}"
        return (_mounting("tmpfs", self.target, "tmpfs", self.flags, f"mode={self.mode:o}{size}"),)


@dataclass(frozen=True, slots=True)
class MountPoint:
    """An empty file or folder to mount on, unless there is something already; folders above are made too."""

    path: str
    is_folder: bool

    def describe(self) -> str:
        return f"make the mount point {self.path}"

    def apply(self, host: int) -> None:  # noqa: ARG002 - part of the protocol
        if os.path.exists(self.path):
            return
        if self.is_folder:
            os.makedirs(self.path)
        else:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """A file that is on no disk."""

    path: str
    """Relative; its folders are made."""
    data: bytes = field(repr=False)
    mode: int
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Files in memory that is never written to swap (kernel: filesystems/ramfs-rootfs-initramfs.rst).

    They are seen by the mount namespace of one step and are gone with it, however it ends.
    """

    target: str
    """An empty folder of the host."""
    files: tuple[MemoryFile, ...]

    def describe(self) -> str:
        return f"prepare files in memory on {self.target}"

    def apply(self, host: int) -> None:  # noqa: ARG002 - part of the protocol
        mount("ramfs", self.target, "ramfs", MS_NOSUID | MS_NODEV, "mode=755")
        for file in self.files:
            path = f"{self.target}/{file.path}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as stream:
                stream.write(file.data)
            _own(path, file.uid, file.gid)
            os.chmod(path, file.mode)


@dataclass(frozen=True, slots=True)
class Names:
    """The files by which programs turn names into addresses, in memory: a step may write to its own, for nothing."""

    target: str
    """An empty folder of the host."""
    resolver: bytes
    hosts: bytes

    def describe(self) -> str:
        return f"prepare the names of hosts on {self.target}"

    def apply(self, host: int) -> None:  # noqa: ARG002 - part of the protocol
        size = len(self.resolver) + len(self.hosts) + _ROOM
        mount("tmpfs", self.target, "tmpfs", _DATA_ONLY, f"mode=755,size={size}")
        for name, data in (("resolv.conf", self.resolver), ("hosts", self.hosts)):
            file = os.open(f"{self.target}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
            os.write(file, data)
            os.close(file)


@dataclass(frozen=True, slots=True)
class Masks:
    """Paths of /proc or /sys that are hidden, or can only be read, as Docker does it. Missing ones do not matter."""

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    null: str = "/dev/null"
    """What is shown in the place of files: the step's own."""

    def describe(self) -> str:
        return "mask " + " ".join((*self.files, *self.folders, *self.read_only))

    def apply(self, host: int) -> None:
        _make(self, host)

    def calls(self, host: int, opened: list[int]) -> tuple[Call, ...]:  # noqa: ARG002 - part of the protocol
        """See `Later`."""
        found: list[Call] = []
        for path in self.files:
            found += _binding(self.null, path, MS_RDONLY | MS_NOSUID | MS_NOEXEC)
        for path in self.folders:
            found.append(_mounting("tmpfs", path, "tmpfs", MS_RDONLY | _DATA_ONLY, tolerated=_MISSING))
        for path in self.read_only:
            found += _binding(path, path, MS_RDONLY | _DATA_ONLY)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Proc:
    """The process table of the step's own pid namespace.

    In a container whose /proc is masked the kernel refuses a new one: then the outer /proc, masks and all, is shown.
    """

    target: str
    masks: Masks

    def describe(self) -> str:
        return f"mount proc on {self.target}"

    def apply(self, host: int) -> None:
        _make(self, host)

    def calls(self, host: int, opened: list[int]) -> tuple[Call, ...]:
        """See `Later`."""
        if _is_refused("proc", self.target):
            return (_moving(_tree(host, "/proc", recursive=True, opened=opened), self.target),)
        return (_mounting("proc", self.target, "proc", _DATA_ONLY), *self.masks.calls(host, opened))


@dataclass(frozen=True, slots=True)
class Sys:
    """/sys: a new one where we own the network namespace, else what the host has there."""

    target: str
    masks: Masks
    read_only: bool = True

    def describe(self) -> str:
        return f"mount sysfs on {self.target}"

    def apply(self, host: int) -> None:
        _make(self, host)

    def calls(self, host: int, opened: list[int]) -> tuple[Call, ...]:
        """See `Later`."""
        attributes, flags = (MOUNT_ATTR_RDONLY, MS_RDONLY) if self.read_only else (0, 0)
        new = _mounting("sysfs", self.target, "sysfs", _DATA_ONLY | flags)
        if _is_refused("sysfs", self.target):
            outer = _tree(host, "/sys", recursive=True, attributes=attributes, opened=opened)
            # In a network namespace of its own the step may have a new one.
            new = replace(new, tolerated=(errno.EPERM, errno.EACCES), passes=1)
            return (new, _moving(outer, self.target), *self.masks.calls(host, opened))
        return (new, *self.masks.calls(host, opened))


@dataclass(frozen=True, slots=True)
class Devices:
    """A minimal /dev of its own: six devices, the usual links, terminals, shared memory, and a place for `Queues`.

    In a user namespace nobody may make a device: then those of the host are shown.
    """

    target: str
    shared_memory: int = SHARED_MEMORY
    """Bytes of /dev/shm."""

    def describe(self) -> str:
        return f"make devices in {self.target}"

    def apply(self, host: int) -> None:
        mount("tmpfs", self.target, "tmpfs", MS_NOSUID, "mode=755,size=64k")
        for name, *numbers in DEVICES:
            path = f"{self.target}/{name}"
            try:
                os.mknod(path, stat.S_IFCHR, os.makedev(*numbers))
                os.chmod(path, _EVERYBODY)
            except PermissionError:
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
                _bind(host, f"/dev/{name}", path)
        os.symlink("/proc/self/fd", f"{self.target}/fd")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"/proc/self/fd/{number}", f"{self.target}/{name}")
        os.symlink("pts/ptmx", f"{self.target}/ptmx")
        self._terminals(f"{self.target}/pts")
        os.mkdir(f"{self.target}/shm")
        Tmpfs(f"{self.target}/shm", size=self.shared_memory).apply(host)
        queues = f"{self.target}/mqueue"
        os.mkdir(queues)
        os.chmod(queues, _SHARED)

    def _terminals(self, target: str) -> None:
        """Mount a devpts instance whose terminals belong to group 5 (tty), where that id exists."""
        os.mkdir(target)
        options = "newinstance,ptmxmode=0666,mode=620"
        try:
            mount("devpts", target, "devpts", MS_NOSUID | MS_NOEXEC, f"{options},gid=5")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            mount("devpts", target, "devpts", MS_NOSUID | MS_NOEXEC, options)


@dataclass(frozen=True, slots=True)
class Queues:
    """The message queues of the step's own IPC namespace; an empty folder where the kernel has or grants none."""

    target: str

    def describe(self) -> str:
        return f"mount message queues on {self.target}"

    def apply(self, host: int) -> None:
        _make(self, host)

    def calls(self, host: int, opened: list[int]) -> tuple[Call, ...]:  # noqa: ARG002 - part of the protocol
        """See `Later`."""
        refusals = (errno.ENODEV, errno.EPERM, errno.EACCES)
        return (_mounting("mqueue", self.target, "mqueue", _DATA_ONLY, tolerated=refusals),)


def _make(mount: Later, host: int) -> None:
    opened: list[int] = []
    try:
        make_all(mount.calls(host, opened))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _mounting(
    source: str | None,
    target: str,
    kind: str | None,
    flags: int,
    options: str | None = None,
    *,
    tolerated: tuple[int, ...] = (),
) -> Call:
    names = [None if name is None else os.fsencode(name) for name in (source, target, kind, options)]
    return call("mount", *names[:3], flags, names[3], subject=target, tolerated=tolerated)


def _binding(source: str, target: str, flags: int) -> tuple[Call, Call]:
    """To show something in another place, or the same, with MS_* flags; a place that is missing does not matter."""
    bound = replace(_mounting(source, target, None, MS_BIND | MS_REC, tolerated=_MISSING), skips=1)
    return bound, _mounting(None, target, None, MS_REMOUNT | MS_BIND | flags)


@cache
def in_first_namespace() -> bool:
    """Whether this process is in no user namespace but the first; to be asked as long as it sees the host's /proc."""
    return may_make_devices()


@cache
def _is_refused(kind: str, target: str) -> bool:
    """Whether the kernel refuses a new file system of this kind: in a user namespace, if parts of others are covered.

    It is tried once, by a process in namespaces of its own: for processes it shows those.
    """
    if in_first_namespace():
        return False
    pid = clone(CLONE_NEWNS | CLONE_NEWPID)
    if pid == 0:
        status = 1
        try:
            mount(kind, target, kind, _DATA_ONLY)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] != 0


def _moving(tree: int, target: str, *, tolerated: tuple[int, ...] = ()) -> Call:
    path = os.fsencode(target)
    flags = MOVE_MOUNT_F_EMPTY_PATH
    return call("move_mount", tree, b"", AT_FDCWD, path, flags, subject=target, tolerated=tolerated)


LATER = (Proc, Sys, Queues, Bind, Tmpfs)
"""Mounts that can be laid out as calls."""


def _own(path: str, uid: int, gid: int) -> None:
    """Change an owner. With a single id it is left: nothing can be noted in memory, and that id may read everything."""
    try:
        os.chown(path, uid, gid)
    except OSError as error:
        if error.errno != errno.EINVAL or not has_one_id():
            raise


def _bind(host: int, source: str, target: str, *, recursive: bool = False, attributes: int = 0) -> None:
    opened: list[int] = []
    try:
        move_mount(_tree(host, source, recursive=recursive, attributes=attributes, opened=opened), target)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _tree(host: int, source: str, *, recursive: bool = False, attributes: int = 0, opened: list[int]) -> int:
    """A detached copy of what the host has mounted at a path; it is among `opened`."""
    tree = open_tree(source.lstrip("/") or ".", folder=host, recursive=recursive)
    opened.append(tree)
    if attributes:
        set_mount_attributes(tree, attributes)
    return tree


def _descriptor(folder: str, opened: contextlib.ExitStack) -> str:
    """Open a folder and give its descriptor as text."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    return str(descriptor)
