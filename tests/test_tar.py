"""Tars: written in one form, read in all, and never an error that is not ours."""

import io
import os
import random
import subprocess
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layers.entry import Change, Content, Entry, Kind, whiteout
from layers.errors import PybuildError
from layers.tar import TarError, TarWriter, read_tar

SECOND = 1_000_000_000


def written(changes: Iterable[Change]) -> bytes:
    out = io.BytesIO()
    tar = TarWriter(out.write)
    for entry, content in changes:
        tar.add(entry, content)
    tar.close()
    return out.getvalue()


def written_one(entry: Entry, content: Content = None) -> bytes:
    return written([Change(entry, content)])


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    return [(entry, stream.read()) for entry, stream in read_tar(io.BytesIO(data))]


def read_one(data: bytes) -> Entry:
    [(entry, _)] = read(data)
    return entry


def by_tarfile(member: tarfile.TarInfo, content: bytes = b"", *, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


# -- writing ----------------------------------------------------------------------------------------------------------


def test_an_ordinary_file_is_a_header_and_padded_content() -> None:
    entry = Entry("usr/bin/true", Kind.FILE, 0o755, 1, 2, 5, 7 * SECOND)

    data = written_one(entry, b"hello")

    assert len(data) == 512 + 512 + 1024
    assert data[:12] == b"usr/bin/true"
    assert data[100:156] == b"0000755\x000000001\x000000002\x0000000000005\x0000000000007\x00" + data[148:156]
    assert data[257:265] == b"ustar\x0000"
    assert data[512:517] == b"hello"


def test_no_name_of_a_user_or_group_is_written() -> None:
    data = written_one(Entry("f", Kind.FILE, size=1), b"x")

    assert data[265:329] == bytes(64)


def test_a_directory_has_a_trailing_slash() -> None:
    data = written_one(Entry("usr/bin", Kind.DIRECTORY))

    assert data[:9] == b"usr/bin/\0"


def test_the_root_is_a_dot_and_a_slash() -> None:
    data = written_one(Entry("", Kind.DIRECTORY, 0o755))

    assert data[:3] == b"./\0"
    assert read_one(data).path == ""


def test_the_time_is_cut_to_seconds() -> None:
    data = written_one(Entry("f", Kind.FILE, mtime_ns=5 * SECOND + 999_999_999))

    assert read_one(data).mtime_ns == 5 * SECOND


@pytest.mark.parametrize(
    ("path", "name", "prefix"),
    [
        ("a" * 100, b"a" * 100, b""),
        ("p" * 155 + "/" + "n" * 100, b"n" * 100, b"p" * 155),
        ("p/" + "n" * 99, b"n" * 99, b"p"),
    ],
)
def test_a_long_path_is_split_as_ustar_can(path: str, name: bytes, prefix: bytes) -> None:
    data = written_one(Entry(path, Kind.FILE))

    assert (data[:100].rstrip(b"\0"), data[345:500].rstrip(b"\0")) == (name, prefix)


@pytest.mark.parametrize(
    ("entry", "record"),
    [
        (Entry("n" * 101, Kind.FILE), b"111 path=" + b"n" * 101 + b"\n"),
        (Entry("p" * 156 + "/n", Kind.FILE), b"path=" + b"p" * 156),
        (Entry("é", Kind.FILE), "11 path=é\n".encode()),
        (Entry("d" * 101, Kind.DIRECTORY), b"path=" + b"d" * 101 + b"/\n"),
        (Entry("l", Kind.SYMLINK, target="t" * 101), b"linkpath=" + b"t" * 101),
        (Entry("l", Kind.HARDLINK, target="é"), "linkpath=é".encode()),
        (Entry("f", Kind.FILE, uid=2097152), b"15 uid=2097152\n"),
        (Entry("f", Kind.FILE, gid=2097152), b"15 gid=2097152\n"),
        (Entry("f", Kind.FILE, mtime_ns=-1), b"12 mtime=-1\n"),
        (Entry("f", Kind.FILE, mtime_ns=8**11 * SECOND), b"mtime=8589934592\n"),
        (
            Entry("f", Kind.FILE, xattrs=(("security.capability", b"\0\1\n="),)),
            b"SCHILY.xattr.security.capability=\0\1\n=\n",
        ),
        (Entry(os.fsdecode(b"\xff"), Kind.FILE), b"21 hdrcharset=BINARY\n9 path=\xff\n"),
    ],
)
def test_what_ustar_cannot_say_is_said_by_pax(entry: Entry, record: bytes) -> None:
    data = written_one(entry)

    assert data[156:157] == b"x"
    assert record in data[512:1536]


def test_a_file_of_eight_gibibytes_has_a_pax_size() -> None:
    headers = io.BytesIO()
    tar = TarWriter(headers.write)

    with pytest.raises(PybuildError):
        tar.add(Entry("f", Kind.FILE, size=8 << 30), b"")

    assert b"19 size=8589934592\n" in headers.getvalue()


@pytest.mark.parametrize(
    "entry",
    [
        Entry("n" * 100, Kind.FILE, uid=2097151, gid=2097151, mtime_ns=(8**11 - 1) * SECOND),
        Entry("l", Kind.SYMLINK, target="t" * 100),
        Entry("dev/null", Kind.CHARACTER, device=(1, 3)),
    ],
)
def test_what_ustar_can_say_needs_no_pax(entry: Entry) -> None:
    data = written_one(entry)

    assert data[156:157] != b"x"
    assert read_one(data) == entry


def test_a_whiteout_is_an_empty_file_of_mode_nought() -> None:
    data = written([whiteout("etc/passwd")])

    assert read_one(data) == Entry("etc/.wh.passwd", Kind.FILE, mode=0)


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        (Entry("a/.wh.b", Kind.FILE, mode=0), b""),
        (Entry("a/.wh.b", Kind.FILE, mode=0), "/dev/null"),
        (Entry(".wh.b", Kind.FILE, mode=0o644), None),
        (Entry(".wh.b", Kind.DIRECTORY, mode=0), None),
        (Entry(".wh.b", Kind.SYMLINK, mode=0, target="x"), None),
        (Entry(".wh..wh..opq", Kind.FILE, mode=0), b""),
    ],
)
def test_a_real_file_cannot_pass_for_a_whiteout(entry: Entry, content: Content) -> None:
    with pytest.raises(PybuildError, match="cannot be stored in a layer"):
        written_one(entry, content)


@pytest.mark.parametrize("path", ["../a", "a/../b", "..", "/etc/passwd"])
def test_a_name_that_leads_out_is_not_written(path: str) -> None:
    with pytest.raises(PybuildError, match="leads out"):
        written_one(Entry(path, Kind.FILE))


@pytest.mark.parametrize("size", [0, 1, 511, 512, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_content_comes_from_a_file_bytes_or_a_stream_alike(tmp_path: os.PathLike[str], size: int) -> None:
    content = random.Random(size).randbytes(size)
    path = os.path.join(tmp_path, "file")
    with open(path, "wb") as file:
        file.write(content)
    entry = Entry("f", Kind.FILE, size=size)

    data = written_one(entry, content)

    assert read(data) == [(entry, content)]
    assert written_one(entry, path) == data
    assert written_one(entry, io.BytesIO(content + b"of the next")) == data


@pytest.mark.parametrize("size", [0, 1, 4, 6, 2 << 20])
def test_a_file_of_another_size_than_it_had_is_refused(tmp_path: os.PathLike[str], size: int) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "wb") as file:
        file.write(b"12345")

    with pytest.raises(PybuildError, match="changed while it was read"):
        written_one(Entry("f", Kind.FILE, size=size), path)


def test_a_file_that_has_become_a_symlink_is_refused(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "link")
    os.symlink("/etc/passwd", path)

    with pytest.raises(PybuildError, match="changed while it was read"):
        written_one(Entry("f", Kind.FILE, size=5), path)


def test_a_file_that_is_gone_is_named(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(PybuildError, match="gone cannot be read: no such file"):
        written_one(Entry("f", Kind.FILE, size=5), os.path.join(tmp_path, "gone"))


@pytest.mark.parametrize("content", [b"1234", b"123456", io.BytesIO(b"1234"), None])
def test_bytes_of_another_size_than_the_entry_says_are_refused(content: Content) -> None:
    with pytest.raises(PybuildError, match="size"):
        written_one(Entry("f", Kind.FILE, size=5), content)


# -- reading what we write --------------------------------------------------------------------------------------------

NAMES = st.one_of(
    st.text("ab.é-=% \n", min_size=1, max_size=160).map(os.fsencode),
    st.binary(min_size=1, max_size=60),
).map(lambda name: os.fsdecode(name.replace(b"/", b"_").replace(b"\0", b"0")))
PATHS = st.lists(
    NAMES.filter(lambda name: name not in {".", ".."} and not name.startswith(".wh.")), min_size=1, max_size=6
).map("/".join)
SIZES = st.integers(0, 1500)
IDS = st.one_of(st.integers(0, 70000), st.integers(0, 2**32 - 2))
TIMES = st.one_of(st.integers(0, 2**31), st.integers(-(10**12), 10**12)).map(lambda seconds: seconds * SECOND)
XATTRS = st.dictionaries(NAMES, st.binary(max_size=40), max_size=3).map(lambda pairs: tuple(sorted(pairs.items())))
COMMON = {"mode": st.integers(0, 0o7777), "uid": IDS, "gid": IDS, "mtime_ns": TIMES, "xattrs": XATTRS}
DEVICES = st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1))


def entries(paths: st.SearchStrategy[str], kinds: tuple[Kind, ...], **fields: st.SearchStrategy[Any]) -> Any:
    nothing = {"size": st.just(0), "target": st.just(""), "device": st.just((0, 0)), "inode": st.none()}
    return st.builds(Entry, paths, st.sampled_from(kinds), **(nothing | COMMON | fields))


ENTRIES: st.SearchStrategy[Entry] = st.one_of(
    entries(PATHS, (Kind.FILE,), size=SIZES),
    entries(st.one_of(PATHS, st.just("")), (Kind.DIRECTORY,)),
    entries(PATHS, (Kind.SYMLINK,), target=PATHS.map("../".__add__)),
    entries(PATHS, (Kind.HARDLINK,), target=PATHS),
    entries(PATHS, (Kind.CHARACTER, Kind.BLOCK), device=DEVICES),
    entries(PATHS, (Kind.FIFO,)),
)


def content_of(entry: Entry) -> bytes:
    return (bytes(range(251)) * 6)[: entry.size]


@pytest.mark.property
@given(st.lists(ENTRIES, max_size=4))
def test_what_is_written_is_read(entries: list[Entry]) -> None:
    data = written(Change(entry, content_of(entry)) for entry in entries)

    assert read(data) == [(entry, content_of(entry)) for entry in entries]


@pytest.mark.property
@given(st.lists(ENTRIES, min_size=1, max_size=4))
def test_python_reads_what_is_written(entries: list[Entry]) -> None:
    data = written(Change(entry, content_of(entry)) for entry in entries)

    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        seen = [(info.name.encode(errors="surrogateescape"), info.mode, info.uid, info.gid, info.size) for info in tar]
    assert seen == [(os.fsencode(it.path or "."), it.mode, it.uid, it.gid, it.size) for it in entries]


@pytest.mark.kernel
def test_gnu_tar_lists_what_is_written(tmp_path: os.PathLike[str]) -> None:
    changes = [
        Change(Entry("", Kind.DIRECTORY, 0o755)),
        Change(Entry("d" * 120, Kind.DIRECTORY, 0o1777, 3, 4)),
        Change(Entry("d" * 120 + "/f" * 80, Kind.FILE, 0o4755, 2097152, 0, 3), b"abc"),
        Change(Entry("p" * 150 + "/f", Kind.HARDLINK, target="d" * 120 + "/f" * 80)),
        Change(Entry("naïve", Kind.SYMLINK, 0o777, target="t" * 200)),
        Change(Entry("null", Kind.CHARACTER, 0o666, device=(1, 3))),
        Change(Entry("old", Kind.FILE, 0o644, mtime_ns=-86400 * SECOND, xattrs=(("user.a", b"b"),))),
    ]
    path = os.path.join(tmp_path, "test.tar")
    with open(path, "wb") as file:
        file.write(written(changes))

    command = ["tar", "--quoting-style=literal", "--numeric-owner", "--utc", "-tvf", path]
    listing = subprocess.run(command, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": os.defpath})

    assert listing.stderr == b""
    assert [line.split() for line in listing.stdout.decode().splitlines()] == [
        ["drwxr-xr-x", "0/0", "0", "1970-01-01", "00:00", "./"],
        ["drwxrwxrwt", "3/4", "0", "1970-01-01", "00:00", "d" * 120 + "/"],
        ["-rwsr-xr-x", "2097152/0", "3", "1970-01-01", "00:00", "d" * 120 + "/f" * 80],
        ["hrw-r--r--", "0/0", "0", "1970-01-01", "00:00", "p" * 150 + "/f", "link", "to", "d" * 120 + "/f" * 80],
        ["lrwxrwxrwx", "0/0", "0", "1970-01-01", "00:00", "naïve", "->", "t" * 200],
        ["crw-rw-rw-", "0/0", "1,3", "1970-01-01", "00:00", "null"],
        ["-rw-r--r--", "0/0", "0", "1969-12-31", "00:00", "old"],
    ]


@pytest.mark.kernel
def test_gnu_tar_restores_names_that_are_not_utf8_and_attributes(tmp_path: os.PathLike[str]) -> None:
    name = os.fsdecode(b"latin-\xe9")
    xattrs = (("user.a=b%c", b"\0\xff"), ("user.plain", b"x"))
    data = written_one(Entry(name, Kind.FILE, 0o600, size=2, xattrs=xattrs), b"ok")

    command = ["tar", "--xattrs", "--warning=no-unknown-keyword", "-xf", "-", "-C", str(tmp_path)]
    subprocess.run(command, input=data, check=True, capture_output=True)

    path = os.path.join(tmp_path, name)
    assert {key: os.getxattr(path, key) for key in os.listxattr(path)} == dict(xattrs)


# -- reading what others write ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_links_of_others_are_read(form: int) -> None:
    long = "/".join(["directory"] * 40)

    entry = read_one(by_tarfile(member(long, tarfile.SYMTYPE, linkname="../" + long), form=form))

    assert (entry.path, entry.target) == (long, "../" + long)


@pytest.mark.parametrize("number", [2097152, 2**31, 2**32 - 2])
def test_large_ids_in_base_256_are_read(number: int) -> None:
    entry = read_one(by_tarfile(member("f", uid=number, gid=1)))

    assert entry.uid == number


def test_an_id_of_minus_one_is_root() -> None:
    """chown(2) takes -1 for "leave it", and what it leaves is root's."""
    entry = read_one(by_tarfile(member("f", uid=-1, gid=-1)))

    assert (entry.uid, entry.gid) == (0, 0)


def test_times_before_1970_and_parts_of_seconds_are_read() -> None:
    gnu = read_one(by_tarfile(member("f", mtime=-5)))
    pax = read_one(by_tarfile(member("f", mtime=-1.25), form=tarfile.PAX_FORMAT))
    first_year = read_one(by_tarfile(member("f", mtime=-62135596800), form=tarfile.PAX_FORMAT))

    assert (gnu.mtime_ns, pax.mtime_ns) == (-5 * SECOND, -1_250_000_000)
    assert first_year.mtime_ns == -62135596800 * SECOND


@pytest.mark.parametrize(
    ("name", "path"),
    [("./a/b", "a/b"), ("/a", "a"), ("a//b/.", "a/b"), ("../a", "../a"), ("a/../b", "a/../b"), ("./", ""), ("/", "")],
)
def test_names_are_normalised_and_dots_that_lead_up_are_kept(name: str, path: str) -> None:
    entry = read_one(by_tarfile(member(name, tarfile.DIRTYPE)))

    assert entry.path == path


def test_the_target_of_a_hard_link_is_normalised_and_that_of_a_symlink_is_not() -> None:
    hard = read_one(by_tarfile(member("a", tarfile.LNKTYPE, linkname="./b//c")))
    soft = read_one(by_tarfile(member("a", tarfile.SYMTYPE, linkname="./b//c")))

    assert (hard.target, soft.target) == ("b/c", "./b//c")


def test_bits_of_the_type_in_a_mode_are_dropped() -> None:
    assert read_one(by_tarfile(member("f", mode=0o104755))).mode == 0o4755


def test_a_v7_name_with_a_slash_is_a_directory() -> None:
    assert read_one(by_tarfile(member("d/", tarfile.AREGTYPE))).kind is Kind.DIRECTORY


def test_global_records_count_until_they_are_overruled() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "7", "path": "no"}) as tar:
        tar.addfile(member("a"))
        tar.addfile(member("b", pax_headers={"uid": "8"}))

    assert [(entry.path, entry.uid) for entry, _ in read(out.getvalue())] == [("a", 7), ("b", 8)]


@pytest.mark.parametrize("cut", [1024, 1536])
def test_blocks_of_zeros_may_be_missing_at_the_end(cut: int) -> None:
    data = written_one(Entry("f", Kind.FILE, size=5), b"hello")
    assert len(data) == 2048

    assert read(data[:cut])[0][1] == b"hello"


def test_the_padding_of_the_last_file_may_be_missing() -> None:
    data = written_one(Entry("f", Kind.FILE, size=5), b"hello")

    assert read(data[:517])[0][1] == b"hello"


def test_what_follows_the_end_is_left_alone() -> None:
    stream = io.BytesIO(written_one(Entry("f", Kind.FILE)) + b"more")

    assert len(list(read_tar(stream))) == 1
    assert stream.read()[-4:] == b"more"


def test_content_that_nobody_reads_is_skipped() -> None:
    data = written([Change(Entry(name, Kind.FILE, size=3000), bytes(3000)) for name in "abc"])

    names = [entry.path for entry, _ in read_tar(io.BytesIO(data))]

    assert names == ["a", "b", "c"]


def test_content_can_be_read_in_pieces_and_ends() -> None:
    data = written_one(Entry("f", Kind.FILE, size=1300), content_of(Entry("f", Kind.FILE, size=1300)))

    _, stream = next(read_tar(io.BytesIO(data)))

    pieces = [stream.read(1000), stream.read(1000), stream.read(1000)]
    assert [len(piece) for piece in pieces] == [1000, 300, 0]


def test_a_stream_that_gives_a_few_bytes_at_a_time_is_read() -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 7))

    data = written_one(Entry("f", Kind.FILE, size=1000), bytes(1000))

    [(entry, stream)] = [(entry, stream.read()) for entry, stream in read_tar(Dripping(data))]

    assert (entry.size, len(stream)) == (1000, 1000)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"not a tar" * 200, "no tar"),
        (b"x", "cut off"),
        (by_tarfile(member("f"), b"hello")[:514], "cut off"),
        (by_tarfile(member("n" * 101))[:1024], "should be"),
        (by_tarfile(member("f", tarfile.GNUTYPE_SPARSE)), "sparse"),
        (by_tarfile(member("f", pax_headers={"GNU.sparse.major": "1"}), form=tarfile.PAX_FORMAT), "sparse"),
        (by_tarfile(member("f", b"M")), "type 'M'"),
        (by_tarfile(member("f", pax_headers={"path": "a\0b"}), form=tarfile.PAX_FORMAT), "NUL"),
        (by_tarfile(member("f", pax_headers={"comment": "x" * (1 << 20)}), form=tarfile.PAX_FORMAT), "1048576 bytes"),
        (by_tarfile(member("f", pax_headers={"size": "1_0"}), form=tarfile.PAX_FORMAT), "number"),
        (by_tarfile(member("f", pax_headers={"mtime": "1e9"}), form=tarfile.PAX_FORMAT), "time"),
        (by_tarfile(member("./")), "without a name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "tar",
)
def test_what_is_no_sound_tar_is_an_error_that_says_so(data: bytes, says: str) -> None:
    with pytest.raises(TarError, match=says):
        read(data)


def test_many_headers_before_one_entry_are_refused() -> None:
    header = by_tarfile(member("f", pax_headers={"comment": "x"}), form=tarfile.PAX_FORMAT)[:1024]

    with pytest.raises(TarError, match="before one entry"):
        read(header * 2000)


def test_a_huge_size_takes_no_memory() -> None:
    data = by_tarfile(member("f", pax_headers={"size": str(2**62)}), form=tarfile.PAX_FORMAT)

    with pytest.raises(TarError, match="cut off"):
        read(data)


SOUND = written(Change(entry, content_of(entry)) for entry in [
    Entry("etc", Kind.DIRECTORY),
    Entry("etc/" + "x" * 120, Kind.FILE, size=700, xattrs=(("user.a", b"b"),)),
    Entry("etc/y", Kind.SYMLINK, target="é", mtime_ns=-SECOND),
])  # fmt: skip


@pytest.mark.property
@given(st.binary(max_size=3000))
@example(b"\0" * 512)
def test_any_bytes_are_entries_or_a_tar_error(data: bytes) -> None:
    with suppress(TarError):
        read(data)


@pytest.mark.property
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(SOUND)))
def test_a_damaged_tar_is_entries_or_a_tar_error(damages: list[tuple[int, int]], end: int) -> None:
    """Checksums are made right again, so that the damage gets past them."""
    data = bytearray(SOUND)
    for place, byte in damages:
        data[place] = byte
    for start in range(0, len(data), 512):
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])

    with suppress(TarError):
        read(bytes(data[:end]))


@pytest.mark.property
@given(st.binary(max_size=200))
@example(b"0 a=b\n")
@example(b"-1 a=b\n")
@example(b"6 a=b\n99 c=d\n")
def test_any_pax_header_is_taken_or_a_tar_error(content: bytes) -> None:
    header = by_tarfile(member("pax", b"x"), content)[: 512 + -(-len(content) // 512) * 512]

    with suppress(TarError):
        read(header + by_tarfile(member("f")))
