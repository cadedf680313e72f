"""COPY and ADD: what lands where. The rules were measured on BuildKit."""

import io
import tarfile
from collections.abc import Mapping

import pytest
from fakes import MemoryTree

from builder.errors import ContextError
from builder.steps.attributes import Attributes
from builder.steps.copy import copy_changes
from builder.steps.sources import find_sources
from builder.steps.step import Copy, FromContext
from builder.steps.target import Target
from layers.entry import Change, Entry, Kind
from layers.index import IndexBuilder
from layers.view import View

NOW = 5_000_000_000


def view(*entries: Entry) -> View:
    builder = IndexBuilder()
    for entry in entries:
        builder.add(entry)
    return View([builder.finish()])


def folder(path: str, **attributes: int) -> Entry:
    return Entry(path, Kind.DIRECTORY, **{"mode": 0o755, **attributes})  # type: ignore[arg-type]  # numbers all


def link(path: str, target: str) -> Entry:
    return Entry(path, Kind.SYMLINK, 0o777, target=target)


def copied(
    files: Mapping[str, bytes | Entry],
    source: str | tuple[str, ...],
    destination: str,
    *base: Entry,
    owner: tuple[int, int] | None = None,
    mode: int | None = None,
    unpack: bool = False,
) -> dict[str, Change]:
    """The changes of one instruction, by path."""
    sources = (source,) if isinstance(source, str) else source
    action = Copy(FromContext(), sources, destination, unpack=unpack)
    tree = MemoryTree(files)
    attributes = Attributes(owner, mode, NOW)
    changes = copy_changes(action, find_sources(action, tree), tree, Target(view(*base)), attributes)
    return {change.entry.path: change for change in changes}


def test_a_file_is_copied_under_the_name_of_the_destination() -> None:
    changes = copied({"a": b"x"}, "a", "/b")

    assert list(changes) == ["b"]
    assert changes["b"].content == b"x"


def test_a_trailing_slash_makes_the_destination_a_directory() -> None:
    changes = copied({"a": b"x"}, "a", "/b/")

    assert list(changes) == ["b", "b/a"]


def test_a_file_goes_into_a_directory_that_is_there() -> None:
    changes = copied({"a": b"x"}, "a", "/d", folder("d"))

    assert list(changes) == ["d", "d/a"]


def test_a_directory_gives_its_contents() -> None:
    changes = copied({"s/a": b"1", "s/t/b": b"2"}, "s", "/d")

    assert list(changes) == ["d", "d/a", "d/t", "d/t/b"]


def test_parents_that_are_there_are_listed_as_they_are() -> None:
    changes = copied({"a": b"x"}, "a", "/tmp/x/a", folder("tmp", mode=0o1777, uid=3))

    assert changes["tmp"].entry.mode == 0o1777
    assert changes["tmp"].entry.uid == 3


def test_parents_that_are_made_belong_to_the_chosen_owner_and_have_the_chosen_mode() -> None:
    changes = copied({"a": b"x"}, "a", "/x/y/a", owner=(7, 8), mode=0o700)

    assert [(c.entry.uid, c.entry.gid, c.entry.mode) for c in changes.values()] == [(7, 8, 0o700)] * 3


def test_parents_that_are_made_have_the_time_of_the_build() -> None:
    changes = copied({"a": b"x"}, "a", "/x/a")

    assert changes["x"].entry.mtime_ns == NOW


def test_a_directory_over_a_directory_keeps_the_mode_of_the_uppermost_alone() -> None:
    changes = copied({"s/t/a": b"1"}, "s", "/d", folder("d", mode=0o700), folder("d/t", mode=0o700))

    assert changes["d"].entry.mode == 0o700
    assert changes["d/t"].entry.mode == 0o755


def test_a_directory_does_not_replace_a_link() -> None:
    with pytest.raises(ContextError, match="cannot copy to non-directory: /d/t"):
        copied({"s/t/a": b"1"}, "s", "/d", folder("d"), link("d/t", "/other"))


def test_a_file_does_not_replace_a_directory() -> None:
    with pytest.raises(ContextError, match="cannot replace the directory /d/a"):
        copied({"s/a": b"1"}, "s", "/d", folder("d"), folder("d/a"))


def test_a_link_in_the_destination_is_followed() -> None:
    changes = copied({"a": b"x"}, "a", "/lnk/", folder("real"), link("lnk", "/real"))

    assert "real/a" in changes


def test_a_dangling_link_in_the_destination_has_its_target_made() -> None:
    changes = copied({"a": b"x"}, "a", "/lnk/", link("lnk", "/nope"))

    assert list(changes) == ["nope", "nope/a"]


def test_a_destination_cannot_leave_the_root() -> None:
    changes = copied({"a": b"x"}, "a", "/lnk/a", link("lnk", "../../../../etc"))

    assert list(changes) == ["etc", "etc/a"]


def test_a_link_that_is_named_is_followed_and_keeps_its_name() -> None:
    changes = copied({"real": b"x", "ln": link("", "real")}, "ln", "/d/")

    assert changes["d/ln"].content == b"x"


def test_a_link_inside_a_directory_stays_a_link() -> None:
    changes = copied({"s/ln": link("", "/etc/passwd")}, "s", "/d")

    assert changes["d/ln"].entry.target == "/etc/passwd"


def test_a_link_out_of_the_context_finds_nothing() -> None:
    with pytest.raises(ContextError, match="nothing to copy"):
        copied({"ln": link("", "/etc/passwd")}, "ln", "/d")


def test_a_pattern_that_matches_nothing_copies_nothing() -> None:
    assert copied({"a": b"x"}, "*.txt", "/d/") == {}


def test_matched_directories_give_their_contents_flat() -> None:
    changes = copied({"s/t/y": b"1", "s/x": b"2"}, "s/*", "/d/")

    assert list(changes) == ["d", "d/y", "d/x"]


def test_hard_links_hold_within_one_source_alone() -> None:
    twins = {name: Entry("", Kind.FILE, inode=1) for name in ("s/a", "s/b", "c")}

    changes = copied(twins, ("s", "c"), "/d/")

    assert changes["d/a"].entry.inode == changes["d/b"].entry.inode
    assert changes["d/c"].entry.inode != changes["d/a"].entry.inode


def test_a_source_that_leads_out_of_the_context_stays_inside() -> None:
    assert list(copied({"a": b"x"}, "../../a", "/b")) == ["b"]


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.uid, info.size = 33, 2
            tar.addfile(info, io.BytesIO(b"hi"))
    return buffer.getvalue()


def test_an_archive_is_unpacked_with_its_owners() -> None:
    changes = copied({"a.tgz": archive("x/y")}, "a.tgz", "/d/", unpack=True)

    assert list(changes) == ["d", "d/x", "d/x/y"]
    assert changes["d/x/y"].entry.uid == 33


def test_an_archive_cannot_leave_its_destination() -> None:
    with pytest.raises(ContextError, match=r"a.tgz cannot be unpacked: ../../etc/passwd leads out of the archive"):
        copied({"a.tgz": archive("../../etc/passwd")}, "a.tgz", "/d/", unpack=True)


def test_what_is_no_archive_is_copied_as_it_is() -> None:
    changes = copied({"a.tgz": b"no tar"}, "a.tgz", "/d/", unpack=True)

    assert changes["d/a.tgz"].content == b"no tar"


def test_copy_never_unpacks() -> None:
    assert list(copied({"a.tgz": archive("x")}, "a.tgz", "/d/")) == ["d", "d/a.tgz"]


def paths(source: tuple[str, ...], *, unpack: bool) -> list[str]:
    """The paths in the order and number in which the layer has them."""
    tree = MemoryTree(
        {
            "one/sub/same": b"1",
            "two/sub/same": b"2",
            "1.tar": packed("sub", "sub/same"),
            "2.tar": packed("sub", "sub/b"),
        }
    )
    action = Copy(FromContext(), source, "/new/", unpack=unpack)
    attributes = Attributes(None, None, NOW)
    changes = copy_changes(action, find_sources(action, tree), tree, Target(view()), attributes)
    return [change.entry.path for change in changes]


def packed(folder_name: str, file_name: str) -> bytes:
    """An archive of a folder and a file in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in ((folder_name, tarfile.DIRTYPE), (file_name, tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(("sources", "unpack"), [(("one", "two"), False), (("one", "two"), True), (("1.tar",), True)])
def test_a_layer_names_each_path_once(*, sources: tuple[str, ...], unpack: bool) -> None:
    """The destination was listed twice where it ended in a slash, and so were folders that two sources have."""
    assert paths(sources, unpack=unpack) == ["new", "new/sub", "new/sub/same"]


def test_two_archives_with_the_same_folder_list_it_once() -> None:
    assert paths(("1.tar", "2.tar", "1.tar"), unpack=True) == ["new", "new/sub", "new/sub/b", "new/sub/same"]


def test_of_two_sources_with_the_same_file_the_last_one_wins() -> None:
    changes = copied({"one/same": b"1", "two/same": b"2"}, ("one", "two"), "/new/")

    assert changes["new/same"].content == b"2"
