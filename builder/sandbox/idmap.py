"""Who we are, and how we become the root that a RUN needs.

Four ways, the first that fits: real root only leaves the host's mount namespace; root of a container maps its own ids
into a user namespace; a user with ranges in /etc/subuid and /etc/subgid has them mapped by newuidmap and newgidmap; any
other user maps one id, its own, to root. user_namespaces(7) and newuidmap(1) have the rules.
"""

import errno
import os
import pwd
from collections.abc import Iterable
from enum import StrEnum
from typing import NoReturn

from builder.sandbox import syscalls
from builder.sandbox.refusal import refused
from layers.data import dataclass

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"


class Way(StrEnum):
    """How ids inside relate to ids outside."""

    ROOT = "root"
    CONTAINER_ROOT = "all ids of the container"
    SUBORDINATE = "subordinate ids"
    SINGLE = "single id"


@dataclass(frozen=True, slots=True)
class Range:
    """`length` ids from `inside` on are the ids from `outside` on."""

    inside: int
    outside: int
    length: int

    def words(self) -> list[str]:
        """As uid_map and newuidmap want it."""
        return [str(self.inside), str(self.outside), str(self.length)]


@dataclass(frozen=True, slots=True)
class Identity:
    """The way to take, and its maps; none for real root."""

    way: Way
    uids: tuple[Range, ...] = ()
    gids: tuple[Range, ...] = ()
    lacks: str = ""
    """Why a single id is all there is."""


def identity() -> Identity:
    """Find out who we are; changes nothing."""
    if os.geteuid() == 0:
        if syscalls.capabilities()[0] >> syscalls.CAP_SYS_ADMIN & 1:
            return Identity(Way.ROOT)
        return Identity(Way.CONTAINER_ROOT, own_ids(_read("/proc/self/uid_map")), own_ids(_read("/proc/self/gid_map")))
    uid, gid = os.geteuid(), os.getegid()
    owners = {str(uid), _user_name(uid)}
    uids = subordinate_ranges(_read(SUBUID), owners, uid)
    gids = subordinate_ranges(_read(SUBGID), owners, gid)
    lacks = _missing(uids, gids)
    if lacks:
        return Identity(Way.SINGLE, (Range(0, uid, 1),), (Range(0, gid, 1),), lacks)
    return Identity(Way.SUBORDINATE, uids, gids)


def own_ids(id_map: str) -> tuple[Range, ...]:
    """All ids of the namespace whose map this is, each mapped to itself."""
    lines = (line.split() for line in id_map.splitlines())
    return tuple(Range(int(inside), int(inside), int(length)) for inside, _, length in lines)


def subordinate_ranges(text: str, owners: Iterable[str], own: int) -> tuple[Range, ...]:
    """Root is `own`; the ids from 1 on are those that lines of /etc/subuid (subuid(5)) grant to one of `owners`.

    Empty if no line does. Lines that are no good are passed over, as newuidmap does.
    """
    ranges = [Range(0, own, 1)]
    for line in text.splitlines():
        owner, *numbers = line.strip().split(":")
        if owner in owners and len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            start, length = map(int, numbers)
            inside = ranges[-1].inside + ranges[-1].length
            ranges += [Range(inside, start, length)] if length else []
    return tuple(ranges) if len(ranges) > 1 else ()


def _missing(uids: tuple[Range, ...], gids: tuple[Range, ...]) -> str:
    """What a user needs for a range of ids and does not have; empty if nothing."""
    if not uids or not gids:
        return f"{SUBGID if uids else SUBUID} has no line for this user"
    if not (_tool("newuidmap") and _tool("newgidmap")):
        return "newuidmap and newgidmap are not installed (package uidmap)"
    if syscalls.prctl(syscalls.PR_GET_NO_NEW_PRIVS):
        return "no_new_privs is set, so newuidmap cannot gain the right to map ids"
    return ""


def enter(who: Identity) -> None:
    """Become root, in a mount namespace of our own. Once, in the main thread of a process that has no other.

    SandboxError names what was refused, by which errno, and what could be changed; the process may then be in a half
    made namespace, and should end.
    """
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # else, after a change of ids, our /proc/self/uid_map is root's
    try:
        if who.way is Way.ROOT:
            syscalls.unshare(syscalls.CLONE_NEWNS)
        else:
            _enter_user_namespace(who)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    except OSError as error:
        raise refused(f"a sandbox as {who.way}", error) from error


def _enter_user_namespace(who: Identity) -> None:
    """Unshare; the maps are written by a child that stays outside, where the right to do so is."""
    reader, writer = os.pipe()
    mapper = os.fork() if who.way is not Way.SINGLE else 0
    if who.way is not Way.SINGLE and mapper == 0:
        os.close(writer)  # so that our own end does not keep the pipe from ending
        _map_parent(who, reader)
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        os.write(writer, b"!")
    finally:
        os.close(reader)
        os.close(writer)
        status = os.waitstatus_to_exitcode(os.waitpid(mapper, 0)[1]) if mapper else 0
    if who.way is Way.SINGLE:
        _write("/proc/self/setgroups", "deny")  # before gid_map, or that is refused
        _write("/proc/self/uid_map", _map_text(who.uids))
        _write("/proc/self/gid_map", _map_text(who.gids))
        return
    if status:
        raise OSError(status, f"{'newuidmap' if who.way is Way.SUBORDINATE else 'writing uid_map'} was refused")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _map_parent(who: Identity, reader: int) -> NoReturn:
    """Write the maps of the parent process once it has said that it is in its namespace; ends with an errno."""
    status = errno.EPERM
    try:
        parent = os.getppid()
        if not os.read(reader, 1):  # it never got there
            status = 0
        elif who.way is Way.SUBORDINATE:
            status = errno.EPERM if _run_mappers(who, parent) else 0
        else:
            _write(f"/proc/{parent}/uid_map", _map_text(who.uids))
            _write(f"/proc/{parent}/gid_map", _map_text(who.gids))
            status = 0
    except OSError as error:
        status = error.errno or errno.EPERM
    finally:
        os._exit(status)


def _run_mappers(who: Identity, parent: int) -> bool:
    """Run newuidmap and newgidmap at the same time; True if one failed. They say why on stderr, which is ours."""
    pids = []
    for tool, ranges in (("newuidmap", who.uids), ("newgidmap", who.gids)):
        words = [tool, str(parent), *(word for each in ranges for word in each.words())]
        pids.append(os.posix_spawn(_tool(tool), words, os.environ))
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]  # of both, before judging
    return any(statuses)


def _tool(name: str) -> str:
    """The path of a program, or nothing; also where users' PATHs do not look."""
    folders = (*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/sbin", "/bin")
    paths = (f"{folder}/{name}" for folder in folders if folder)
    return next((path for path in paths if os.access(path, os.X_OK)), "")


def _map_text(ranges: tuple[Range, ...]) -> str:
    return "".join(" ".join(each.words()) + "\n" for each in ranges)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # containers run as ids without a name
        return str(uid)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    """In one write, as the files of /proc want it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
