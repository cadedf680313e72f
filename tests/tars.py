"""Tars for tests: made by the standard library, which writes whatever it is told, however hostile."""

import io
import os
import tarfile
from collections.abc import Iterable, Mapping

from hypothesis import strategies as st

from layers.entry import Entry, Kind
from layers.index import LayerIndex
from layers.indexing import IndexBuilder
from layers.tar import read_tar

_TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.CHARACTER: tarfile.CHRTYPE,
    Kind.BLOCK: tarfile.BLKTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
    Kind.HARDLINK: tarfile.LNKTYPE,
}


def tar_of(*entries: Entry, contents: Mapping[str, bytes] | None = None) -> io.BytesIO:
    """A tar of these entries; a file without `contents` for its path has its own path as content."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for entry in entries:
            content = content_of(entry, contents)
            info = tarfile.TarInfo(entry.path or "./")
            info.type, info.mode, info.size = _TYPES[entry.kind], entry.mode, len(content)
            info.uid, info.gid, info.linkname = entry.uid, entry.gid, entry.target
            info.mtime = entry.mtime_ns // 10**9
            info.devmajor, info.devminor = entry.device
            info.pax_headers = {
                f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs
            }
            tar.addfile(info, io.BytesIO(content))
    data.seek(0)
    return data


def content_of(entry: Entry, contents: Mapping[str, bytes] | None = None) -> bytes:
    """The content of an entry in `tar_of`."""
    if entry.kind is not Kind.FILE or ".wh." in entry.path:
        return b""
    return (contents or {}).get(entry.path, entry.path.encode("utf-8", "surrogateescape"))


def index_of(*entries: Entry, contents: Mapping[str, bytes] | None = None) -> LayerIndex:
    """The index of `tar_of` the same."""
    builder = IndexBuilder()
    for entry, stream in read_tar(tar_of(*entries, contents=contents)):
        builder.add(entry, stream)
    return builder.finish()


def file(path: str, mode: int = 0o644, *, uid: int = 0, gid: int = 0, mtime: int = 0) -> Entry:
    """A file."""
    return Entry(path, Kind.FILE, mode, uid, gid, mtime_ns=mtime * 10**9)


def folder(path: str, mode: int = 0o755, *, uid: int = 0, gid: int = 0, mtime: int = 0) -> Entry:
    """A folder."""
    return Entry(path, Kind.DIRECTORY, mode, uid, gid, mtime_ns=mtime * 10**9)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, Kind.SYMLINK, 0o777, target=target)


def hard_link(path: str, target: str) -> Entry:
    """A further name of `target`."""
    return Entry(path, Kind.HARDLINK, target=target)


_NAMES = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "b/b", "a/b/a", "a/b/b", "b/a/b"])
_TARGETS = st.sampled_from(["a", "b", "/a/b", "../b", "b/a", "/", "../../b", "nowhere/x"])


_MODES = st.sampled_from([0o600, 0o755, 0o2755, 0o4755, 0o1777])
_FOLDERS = st.builds(folder, _NAMES, _MODES, uid=st.integers(0, 2), mtime=st.integers(1, 9))
_ENTRIES = st.one_of(
    st.builds(file, _NAMES, _MODES, uid=st.integers(0, 2), mtime=st.integers(1, 9)),
    _FOLDERS,
    _FOLDERS,
    st.builds(symlink, _NAMES, _TARGETS),
    st.builds(hard_link, _NAMES, _NAMES),
    st.builds(lambda path: file(os.path.join(os.path.dirname(path), ".wh." + os.path.basename(path)), 0), _NAMES),
    st.builds(lambda path: file(f"{path}/.wh..wh..opq", 0), _NAMES),
    st.builds(lambda path, mode: Entry(path, Kind.FIFO, mode, 3, 4), _NAMES, _MODES),
)


def layers() -> st.SearchStrategy[list[list[Entry]]]:
    """Stacks of layers, lowest first, with few names so that much meets much. Many are broken in some way."""
    return st.lists(st.lists(_ENTRIES, max_size=6), min_size=1, max_size=4)


def walk(listing: Iterable[Entry]) -> dict[str, Entry]:
    """Entries by path, without `inode`: two descriptions of one tree tell its hard links in different ways."""
    return {entry.path: entry._replace(inode=None) for entry in listing}
