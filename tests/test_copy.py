"""COPY and ADD: what lands where. The rules were measured on BuildKit."""

import pytest
from copies import NOW, changes_of, copied, folder, link

from builder.errors import ContextError
from layers.entry import Entry, Kind


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
    changes = copied({"a": b"x"}, "a", "/x/y/a", owner=(7, 8), chmod="700")

    assert [(c.entry.uid, c.entry.gid, c.entry.mode) for c in changes.values()] == [(7, 8, 0o700)] * 3


def test_parents_that_are_made_have_the_time_of_the_build() -> None:
    changes = copied({"a": b"x"}, "a", "/x/a")

    assert changes["x"].entry.mtime_ns == NOW


def test_a_directory_over_a_directory_keeps_the_mode_of_the_uppermost_alone() -> None:
    changes = copied({"s/t/a": b"1"}, "s", "/d", folder("d", mode=0o700), folder("d/t", mode=0o700))

    assert changes["d"].entry.mode == 0o700
    assert changes["d/t"].entry.mode == 0o755


def test_a_directory_that_is_there_keeps_its_owner_and_those_below_do_not() -> None:
    """COPY --chown into the WORKDIR of somebody else leaves the directory itself theirs."""
    base = (folder("d", uid=5), folder("d/t", uid=5))

    changes = copied({"s/t/a": b"1"}, "s", "/d", *base, owner=(7, 8), chmod="711")

    assert (changes["d"].entry.uid, changes["d"].entry.mode) == (5, 0o755)
    assert (changes["d/t"].entry.uid, changes["d/t"].entry.mode) == (7, 0o711)


def test_the_uppermost_directory_has_the_time_of_the_source() -> None:
    changes = copied({"s": folder("", mtime_ns=3), "s/a": b""}, "s", "/d")

    assert changes["d"].entry.mtime_ns == 3


def test_the_root_of_a_context_has_no_time_of_its_own() -> None:
    """A clone of a repository gives it another one each time."""
    changes = copied({"": folder("", mtime_ns=3), "a": b""}, ".", "/d")

    assert changes["d"].entry.mtime_ns == NOW


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


def test_a_link_as_the_destination_of_a_file_has_what_it_leads_to_made() -> None:
    changes = copied({"a": b"x"}, "a", "/lnk", link("lnk", "/nope/b"))

    assert list(changes) == ["nope", "nope/b"]


def test_a_link_in_a_directory_is_replaced_by_a_file_of_its_name() -> None:
    changes = copied({"a": b"x"}, "a", "/d/", folder("d"), link("d/a", "/elsewhere"))

    assert changes["d/a"].entry.kind is Kind.FILE


@pytest.mark.parametrize("source", [("a", "b"), "[ab]"])
def test_of_several_files_of_one_name_the_last_is_left_and_told(source: str | tuple[str, ...]) -> None:
    told: list[str] = []

    changes = copied({"a": b"1", "b": b"2"}, source, "/c", warn=told.append)

    assert {path: change.content for path, change in changes.items()} == {"c": b"2"}
    assert ["several files become /c, and only the last" in line for line in told] == [True]


def test_several_files_go_into_a_directory_that_is_there_without_a_slash() -> None:
    changes = copied({"a": b"1", "b": b"2"}, ("a", "b"), "/c", folder("c"))

    assert list(changes) == ["c", "c/a", "c/b"]


def test_one_file_of_a_pattern_may_become_the_destination() -> None:
    assert list(copied({"a.txt": b"1"}, "*.txt", "/c")) == ["c"]


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


def test_devices_and_fifos_are_copied_and_keep_what_they_are() -> None:
    files = {
        "s/null": Entry("", Kind.CHARACTER, 0o666, device=(1, 3)),
        "s/disk": Entry("", Kind.BLOCK, 0o660, device=(8, 0)),
        "s/pipe": Entry("", Kind.FIFO, 0o600),
    }

    changes = copied(files, "s", "/d")

    found = {path: (change.entry.kind, change.entry.device) for path, change in changes.items() if path != "d"}
    assert found == {
        "d/null": (Kind.CHARACTER, (1, 3)),
        "d/disk": (Kind.BLOCK, (8, 0)),
        "d/pipe": (Kind.FIFO, (0, 0)),
    }


def test_a_source_that_leads_out_of_the_context_stays_inside() -> None:
    assert list(copied({"a": b"x"}, "../../a", "/b")) == ["b"]


def test_a_layer_names_each_path_once() -> None:
    """The destination was listed twice where it ended in a slash, and so were folders that two sources have."""
    changes = changes_of({"one/sub/same": b"1", "two/sub/same": b"2"}, ("one", "two"), "/new/")

    assert [change.entry.path for change in changes] == ["new", "new/sub", "new/sub/same"]


def test_of_two_sources_with_the_same_file_the_last_one_wins() -> None:
    changes = copied({"one/same": b"1", "two/same": b"2"}, ("one", "two"), "/new/")

    assert changes["new/same"].content == b"2"


# --- attributes


@pytest.mark.parametrize(
    ("chmod", "file", "directory"),
    [("600", 0o600, 0o600), ("go-rx", 0o644 & ~0o55, 0o700), ("a=rX", 0o444, 0o555), ("+x", 0o755, 0o755)],
)
def test_chmod_goes_for_files_and_directories_alike(chmod: str, file: int, directory: int) -> None:
    changes = copied({"s/t/a": b""}, "s", "/d", chmod=chmod)

    assert (changes["d/t/a"].entry.mode, changes["d/t"].entry.mode) == (file, directory)


def test_a_symbolic_mode_says_nothing_of_directories_that_are_made() -> None:
    changes = copied({"a": b""}, "a", "/x/a", chmod="go-rx")

    assert (changes["x"].entry.mode, changes["x/a"].entry.mode) == (0o755, 0o600)


def test_chmod_leaves_links_alone() -> None:
    changes = copied({"s/ln": link("", "a")}, "s", "/d", chmod="600")

    assert changes["d/ln"].entry.mode == 0o777


def test_extended_attributes_are_copied() -> None:
    files = {"s/a": Entry("", Kind.FILE, xattrs=(("user.note", b"x"),))}

    assert copied(files, "s", "/d")["d/a"].entry.xattrs == (("user.note", b"x"),)
