"""The calls that ask and say who a process is."""

import errno
import os
import stat
from collections.abc import Callable
from functools import partial

from builder.sandbox.recorder.call import Call, Handler
from builder.sandbox.recorder.identity import LEAVE, Identity, Ids, refused
from builder.sandbox.recorder.tasks import AT_FDCWD, pack_ids, unpack_ids
from layers.owners import attributes, noted

_MOST_GROUPS = 65536
"""NGROUPS_MAX of linux/limits.h."""
_AT_EMPTY_PATH, _AT_SYMLINK_NOFOLLOW = 0x1000, 0x100


def _get(call: Call, field: str, which: int) -> int:
    ids: Ids = getattr(call.tasks.identity(call.pid), field)
    value = ids[which]
    return value if not call.narrow or value < 1 << 16 else 65534


def _get_three(call: Call, field: str) -> int:
    ids: Ids = getattr(call.tasks.identity(call.pid), field)
    for index in range(3):
        call.tasks.write(call.pid, call.address(index), pack_ids((ids[index],), narrow=call.narrow))
    return 0


def _get_groups(call: Call) -> int:
    groups = call.tasks.identity(call.pid).more_groups
    if call.word(0):
        if call.word(0) < len(groups):
            raise OSError(errno.EINVAL, "too few places")
        if groups:
            call.tasks.write(call.pid, call.address(1), pack_ids(groups, narrow=call.narrow))
    return len(groups)


def _set(call: Call, field: str, change: Callable[[Ids, bool], Ids]) -> int:
    identity = call.tasks.identity(call.pid)
    ids: Ids = getattr(identity, field)
    changed = change(ids, identity.privileged)
    if changed != ids:
        call.tasks.become(call.pid, _with_ids(identity, field, changed))
    return 0


def _with_ids(identity: Identity, field: str, ids: Ids) -> Identity:
    return identity._replace(users=ids) if field == "users" else identity._replace(groups=ids)


def _set_one(call: Call, field: str) -> int:
    if call.id(0) == LEAVE:
        raise OSError(errno.EINVAL, "no id")
    return _set(call, field, lambda ids, privileged: ids.set(call.id(0), privileged=privileged))


def _set_two(call: Call, field: str) -> int:
    return _set(call, field, lambda ids, privileged: ids.set_two(call.id(0), call.id(1), privileged=privileged))


def _set_three(call: Call, field: str) -> int:
    wanted = call.id(0), call.id(1), call.id(2)
    return _set(call, field, lambda ids, privileged: ids.set_three(*wanted, privileged=privileged))


def _set_files(call: Call, field: str) -> int:
    before: Ids = getattr(call.tasks.identity(call.pid), field)
    if call.id(0) != LEAVE:
        _set(call, field, lambda ids, privileged: ids.set_files(call.id(0), privileged=privileged))
    return before.files


def _set_groups(call: Call) -> int:
    identity = call.tasks.identity(call.pid)
    if not identity.privileged:
        raise refused()
    count = call.word(0)
    if count > _MOST_GROUPS:
        raise OSError(errno.EINVAL, "too many groups")
    data = call.tasks.read(call.pid, call.address(1), count * (2 if call.narrow else 4)) if count else b""
    groups = tuple(sorted(unpack_ids(data, narrow=call.narrow)))  # as the kernel keeps them
    call.tasks.become(call.pid, identity._replace(more_groups=groups))
    return 0


def _execute(call: Call, folder: int, path: bytes, flags: int) -> None:
    """Give a program that is about to start the ids of its setuid and setgid bits; the kernel has no others to give.

    Whether it will start is not known yet, but little can go wrong with a file that may be executed.
    """
    call.tasks.forget_memories()
    if not path and not flags & _AT_EMPTY_PATH:
        return
    name = call.name(folder, path)
    try:
        status = os.stat(name, follow_symlinks=not flags & _AT_SYMLINK_NOFOLLOW)
    except OSError:
        return
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return
    identity = call.tasks.identity(call.pid)
    user, group = _bits(call, name, status)
    users, groups = identity.users.after_exec(user), identity.groups.after_exec(group)
    changed = Identity(users, groups, identity.more_groups)
    if changed != identity:
        call.tasks.become(call.pid, changed)


def _bits(call: Call, name: bytes, status: os.stat_result) -> tuple[int | None, int | None]:
    """User and group that a program runs as, where it says so; scripts do not (execve(2))."""
    gives_group = status.st_mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID | stat.S_IXGRP
    if not status.st_mode & stat.S_ISUID and not gives_group:
        return None, None
    if call.tasks.status(call.pid).gains_nothing or os.statvfs(name).f_flag & os.ST_NOSUID:
        return None, None
    with open(name, "rb") as file:
        if file.read(2) == b"#!":
            return None, None
    user, group = noted(attributes(name, follow=True)) or (0, 0)
    return user if status.st_mode & stat.S_ISUID else None, group if gives_group else None


def _execve(call: Call) -> None:
    _execute(call, AT_FDCWD, call.text(0), 0)


def _execveat(call: Call) -> None:
    _execute(call, call.number(0), call.text(1), call.word(4))


def _keep_rights(call: Call) -> None:
    identity = call.tasks.identity(call.pid)
    changed = identity._replace(keeps_rights=bool(call.word(1)) and identity.privileged)
    if changed != identity:
        call.tasks.become(call.pid, changed)


def _limit(call: Call, index: int) -> int | None:
    """Say that the limit which we use has been set, and leave it alone."""
    return 0 if call.address(index) else None


def _with_wide_forms(handlers: dict[str, Handler]) -> dict[str, Handler]:
    return handlers | {f"{name}32": handler for name, handler in handlers.items()}


HANDLERS: dict[str, Handler] = {
    **_with_wide_forms(
        {
            "getuid": partial(_get, field="users", which=0),
            "geteuid": partial(_get, field="users", which=1),
            "getgid": partial(_get, field="groups", which=0),
            "getegid": partial(_get, field="groups", which=1),
            "getresuid": partial(_get_three, field="users"),
            "getresgid": partial(_get_three, field="groups"),
            "getgroups": _get_groups,
            "setuid": partial(_set_one, field="users"),
            "setgid": partial(_set_one, field="groups"),
            "setreuid": partial(_set_two, field="users"),
            "setregid": partial(_set_two, field="groups"),
            "setresuid": partial(_set_three, field="users"),
            "setresgid": partial(_set_three, field="groups"),
            "setfsuid": partial(_set_files, field="users"),
            "setfsgid": partial(_set_files, field="groups"),
            "setgroups": _set_groups,
        }
    ),
    "prctl": _keep_rights,
    "execve": _execve,
    "execveat": _execveat,
    "setrlimit": partial(_limit, index=1),
    "prlimit64": partial(_limit, index=2),
}
