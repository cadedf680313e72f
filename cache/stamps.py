"""What stat says of a file, as bytes to compare: the same stamp is the same file, as git's index takes it.

A file whose times lie within a clock tick of its reading may change once more without its times changing (git calls
such an entry racy): what was read of it must not be remembered under its stamp.

Nothing is imported here that the interpreter has not loaded anyway: a build with nothing to do begins with this.
"""

import os
from stat import S_ISDIR
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_TICK_NS = 10_000_000
"""Linux stamps files with the time of the last timer tick, which comes every 1 to 10 ms."""

_COARSE_TICK_NS = 2_000_000_000
"""File systems that keep whole seconds only; FAT even every second one."""

_SECOND_NS = 1_000_000_000

ABSENT = b"-"
"""The stamp of what is not there."""

_FILE = Struct("<QQqqq")
STAMP_SIZE = _FILE.size
"""Bytes of the stamp of a file."""
_TIMES = Struct("<24xqq")
"""Of a stamp of a file."""
_DIRECTORY = Struct("<QQL")


def stamp_of(stat: os.stat_result) -> bytes:
    """What must be the same for a file to be unchanged: device, inode, size, times of content and of inode."""
    return _FILE.pack(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def size_of(stamp: bytes) -> int:
    """How many bytes the file of a stamp has."""
    return int.from_bytes(stamp[16:24], "little")


def look_of(stat: os.stat_result) -> bytes:
    """The stamp of anything; of a directory it is what it is by itself, since its times tell of what is in it."""
    if S_ISDIR(stat.st_mode):
        return _DIRECTORY.pack(stat.st_dev, stat.st_ino, stat.st_mode)
    return _FILE.pack(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)  # as `stamp_of`


def look_at(path: str) -> bytes:
    """The stamp of what stands at a path; no symbolic link is followed at its end."""
    try:
        return look_of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT


def is_racy(stamp: bytes, now: int) -> bool:
    """Whether a change after `now`, nanoseconds since 1970, could leave a file as its stamp has it."""
    if len(stamp) != _FILE.size:
        return False
    _, _, _, mtime, ctime = _FILE.unpack(stamp)
    whole_seconds = mtime % _SECOND_NS == 0 == ctime % _SECOND_NS
    latest: int = max(mtime, ctime)
    return latest > now - (_COARSE_TICK_NS if whole_seconds else _TICK_NS)


def any_is_racy(stamps: "Iterable[bytes]", now: int) -> bool:
    """Whether one of them `is_racy`; at a tenth of the time for the many that are old."""
    files = [stamp for stamp in stamps if len(stamp) == STAMP_SIZE]
    since = now - _COARSE_TICK_NS
    times = _TIMES.iter_unpack(b"".join(files))
    young = [n for n, (mtime, ctime) in enumerate(times) if mtime > since or ctime > since]
    return any(is_racy(files[n], now) for n in young)
