"""ADD of archives: what is one, and where its entries land. The rules were measured on BuildKit."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

import pytest
import zstandard
from copies import NOW, changes_of, copied, folder, link
from tars import file, hard_link, symlink, tar_of
from tars import folder as packed_folder

from builder.errors import ContextError
from layers.entry import Change, Entry, Kind


def archive(*entries: Entry) -> bytes:
    return tar_of(*entries).read()


def added(entries: tuple[Entry, ...], *base: Entry, owner: tuple[int, int] | None = None) -> dict[str, Change]:
    """The changes of `ADD a.tar /d/`."""
    return copied({"a.tar": archive(*entries)}, "a.tar", "/d/", *base, unpack=True, owner=owner)


def described(changes: dict[str, Change]) -> dict[str, tuple[str, int, int, int]]:
    return {
        path: (str(c.entry.kind), c.entry.mode, c.entry.uid, c.entry.mtime_ns // 10**9) for path, c in changes.items()
    }


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


# --- what is an archive


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
@pytest.mark.parametrize("name", ["a.tar", "a.txt"])
def test_an_archive_is_known_by_its_content(compress: Callable[[bytes], bytes], name: str) -> None:
    changes = copied({name: compress(archive(file("x")))}, name, "/d", unpack=True)

    assert list(changes) == ["d", "d/x"]


@pytest.mark.parametrize("data", [b"", b"no tar", gzip.compress(b"no tar", mtime=0), bytes(10240), b"\x1f\x8b broken"])
def test_what_is_no_archive_is_copied_as_it_is(data: bytes) -> None:
    changes = copied({"a.tar": data}, "a.tar", "/d/", unpack=True)

    assert changes["d/a.tar"].content == data


def test_copy_never_unpacks() -> None:
    assert list(copied({"a.tar": archive(file("x"))}, "a.tar", "/d/")) == ["d", "d/a.tar"]


def test_archives_in_a_folder_stay_archives() -> None:
    assert list(copied({"s/a.tar": archive(file("x"))}, "s", "/d", unpack=True)) == ["d", "d/a.tar"]


def test_an_archive_that_breaks_off_is_an_error_that_names_it() -> None:
    data = archive(file("x"), file("y"))[:1100]

    with pytest.raises(ContextError, match=r"the archive a.tar cannot be unpacked") as caught:
        copied({"a.tar": data}, "a.tar", "/d/", unpack=True)

    assert "--unpack=false" in caught.value.hint


# --- attributes


def test_entries_keep_what_the_archive_says() -> None:
    changes = added((packed_folder("t", 0o750, uid=33, mtime=7), file("t/f", 0o640, uid=33, mtime=8)))

    assert described(changes) == {
        "d": ("d", 0o755, 0, NOW // 10**9),
        "d/t": ("d", 0o750, 33, 7),
        "d/t/f": ("f", 0o640, 33, 8),
    }


def test_chown_goes_for_all_that_the_archive_lists_and_for_the_destination() -> None:
    changes = added((packed_folder("t", uid=33), file("t/f", uid=33), symlink("t/l", "f")), owner=(5, 6))

    assert {(change.entry.uid, change.entry.gid) for change in changes.values()} == {(5, 6)}


def test_folders_that_the_archive_does_not_list_are_roots() -> None:
    changes = added((file("t/f", uid=33),), owner=(5, 6))

    assert described(changes)["d/t"] == ("d", 0o755, 0, NOW // 10**9)


def test_chmod_does_not_touch_what_is_unpacked() -> None:
    data = archive(packed_folder("t", 0o750), file("t/f", 0o640))

    changes = copied({"a.tar": data}, "a.tar", "/d/", unpack=True, chmod="700")

    assert [change.entry.mode for change in changes.values()] == [0o755, 0o750, 0o640]


def test_a_folder_that_is_there_takes_what_the_archive_says() -> None:
    changes = added((packed_folder("t", 0o750, uid=33),), folder("d"), folder("d/t", 0o700))

    assert changes["d/t"].entry.mode == 0o750


# --- what is in the way


@pytest.mark.parametrize("there", [folder("d/x"), link("d/x", "/etc"), Entry("d/x", Kind.FILE)])
def test_a_file_replaces_whatever_is_there(there: Entry) -> None:
    changes = added((file("x"),), folder("d"), there)

    assert changes["d/x"].entry.kind is Kind.FILE


def test_a_folder_replaces_a_link() -> None:
    changes = added((packed_folder("x"), file("x/f")), folder("d"), link("d/x", "/etc"))

    assert list(changes) == ["d", "d/x", "d/x/f"]
    assert changes["d/x"].entry.kind is Kind.DIRECTORY


def test_a_link_on_the_way_is_followed_inside_the_destination() -> None:
    base = (folder("d"), folder("d/etc"), link("d/x", "/etc"))

    assert list(added((file("x/f"),), *base)) == ["d", "d/etc", "d/etc/f"]


def test_a_link_of_the_archive_itself_is_followed_too() -> None:
    entries = (packed_folder("real"), symlink("l", "real"), file("l/f"))

    assert list(added(entries)) == ["d", "d/real", "d/l", "d/real/f"]


def test_a_link_that_leads_nowhere_inside_the_destination_is_an_error() -> None:
    """The link leads to /etc of the image; who unpacks the archive there means the destination's."""
    with pytest.raises(ContextError, match="the link /d/x -> /etc leads nowhere below /d"):
        added((file("x/f"),), folder("etc"), folder("d"), link("d/x", "/etc"))


def test_a_file_on_the_way_is_an_error() -> None:
    with pytest.raises(ContextError, match="x/f cannot be written: /d/x is a file"):
        added((file("x"), file("x/f")))


@pytest.mark.parametrize("name", ["../x", "a/../../x"])
def test_an_entry_cannot_leave_the_destination(name: str) -> None:
    """The destination is the root of all names, as BuildKit unpacks in a changed root; this was an error."""
    assert list(added((file(name),))) == ["d", "d/x"]


def test_the_destination_may_be_behind_a_link() -> None:
    changes = added((file("x"),), folder("real"), link("d", "/real"))

    assert list(changes) == ["real", "real/x"]


# --- hard links


def test_hard_links_are_links_to_where_the_file_landed() -> None:
    changes = added((file("f"), hard_link("h", "f")))

    assert changes["d/h"].entry.kind is Kind.HARDLINK
    assert changes["d/h"].entry.target == "d/f"


def test_a_hard_link_may_lead_to_a_file_that_is_there() -> None:
    changes = added((hard_link("h", "f"),), folder("d"), Entry("d/f", Kind.FILE))

    assert changes["d/h"].entry.target == "d/f"


@pytest.mark.parametrize("target", ["nothing", "../etc/passwd", "t"])
def test_a_hard_link_to_no_file_is_an_error(target: str) -> None:
    with pytest.raises(ContextError, match="cannot be unpacked"):
        added((packed_folder("t"), hard_link("h", target)), folder("etc"), Entry("etc/passwd", Kind.FILE))


# --- paths that come again


def test_of_two_entries_with_one_name_the_last_one_is_there_once() -> None:
    changes = list(changes_of({"a.tar": archive(file("x", 0o600), file("x", 0o640))}, "a.tar", "/d", unpack=True))

    assert [(change.entry.path, change.entry.mode) for change in changes] == [("d", 0o755), ("d/x", 0o640)]


def test_two_archives_with_the_same_folder_list_it_once() -> None:
    files = {
        "1.tar": archive(packed_folder("sub"), file("sub/same")),
        "2.tar": archive(packed_folder("sub"), file("sub/b")),
    }

    changes = changes_of(files, ("1.tar", "2.tar", "1.tar"), "/new/", unpack=True)

    assert [change.entry.path for change in changes] == ["new", "new/sub", "new/sub/b", "new/sub/same"]


def test_what_was_in_a_folder_goes_with_it() -> None:
    changes = added((packed_folder("x"), file("x/f"), file("x")))

    assert list(changes) == ["d", "d/x"]


def test_a_folder_that_goes_and_comes_back_is_refused() -> None:
    """A layer could not hide what the image has in it without naming all of that."""
    with pytest.raises(ContextError, match="is a directory, then something else, then a directory again"):
        added((file("x"), packed_folder("x")), folder("d"), folder("d/x"))


def test_archives_and_plain_files_may_stand_side_by_side() -> None:
    files = {"a.tar": archive(file("x")), "b": b"b", "s/c": b"c"}

    assert list(copied(files, ("a.tar", "b", "s"), "/d/", unpack=True)) == ["d", "d/x", "d/b", "d/c"]


def test_bytes_are_those_of_the_archive() -> None:
    read = io.BytesIO()
    for change in changes_of({"a.tar": archive(file("x"), file("y"))}, "a.tar", "/d", unpack=True):
        if change.content is not None:
            assert not isinstance(change.content, str | bytes)
            read.write(change.content.read())

    assert read.getvalue() == b"xy"
