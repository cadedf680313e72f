"""Paths inside a root file system that is not this process's own."""

from collections.abc import Callable

from layers.entry import Entry, Kind
from layers.errors import ImageError

MOST_LINKS = 40
"""Symlinks followed for one path; the kernel's limit (path_resolution(7))."""


def resolve(lookup: Callable[[str], Entry | None], path: str, *, follow_last: bool = True) -> str:
    """The path without symlinks, as a process whose root this is would walk it; `lookup` says what stands where.

    `..` stays within the root; components that are not there stay as they are. ImageError after 40 symlinks.
    """
    here = ""
    ahead = _parts(path)
    links = 0
    while ahead:
        name = ahead.pop()
        if name == "..":
            here = here.rpartition("/")[0]
            continue
        step = f"{here}/{name}" if here else name
        entry = lookup(step) if ahead or follow_last else None
        if entry is None or entry.kind is not Kind.SYMLINK:
            here = step
            continue
        links += 1
        if links > MOST_LINKS:
            raise ImageError(f"{path!r} leads through more than {MOST_LINKS} symbolic links")
        here = "" if entry.target.startswith("/") else here
        ahead += _parts(entry.target)
    return here


def _parts(path: str) -> list[str]:
    """The components of a path, last one first."""
    return [part for part in path.split("/") if part not in {"", "."}][::-1]
