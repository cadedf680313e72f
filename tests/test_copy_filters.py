"""--exclude and --parents: which part of a source is copied. The rules were measured on BuildKit."""

import pytest
from copies import NOW, Files, copied, folder, link
from fakes import MemoryTree

from builder.errors import ContextError
from builder.steps.sources import find_sources
from builder.steps.step import Copy, FromContext
from builder.steps.tree import digest_of

FILES = {"a.txt": b"a", "c.md": b"c", "d/x": b"x", "d/a.txt": b"", "d/sub/y": b"y", "d/sub/z": b"z", "e/sub/y": b"y"}


def paths(source: str, *excludes: str, parents: bool = False) -> set[str]:
    """What of `FILES` lands below the destination."""
    changes = copied(FILES, source, "/o/", excludes=excludes, parents=parents)
    return {path.removeprefix("o/") for path in changes if path != "o"}


# --- excludes


def test_an_excluded_folder_goes_with_all_that_is_in_it() -> None:
    assert paths(".", "d") == {"a.txt", "c.md", "e", "e/sub", "e/sub/y"}


def test_a_pattern_is_relative_to_the_source_and_not_to_the_context() -> None:
    assert paths("d", "sub", "d/x") == {"x", "a.txt"}


def test_a_pattern_does_not_float() -> None:
    assert paths(".", "*.txt", "e", "d/sub") == {"c.md", "d", "d/x", "d/a.txt"}


def test_two_stars_reach_any_depth() -> None:
    assert paths("d", "**/y", "**/*.txt") == {"x", "sub", "sub/z"}


def test_a_leading_slash_means_the_source() -> None:
    assert paths("d", "/sub") == {"x", "a.txt"}


def test_an_exclamation_mark_brings_back_and_the_folder_with_it() -> None:
    assert paths("d", "*", "!sub/z") == {"sub", "sub/z"}


def test_a_hash_is_part_of_a_pattern() -> None:
    changes = copied({"s/#a": b"", "s/b": b""}, "s", "/o", excludes=("#*",))

    assert list(changes) == ["o", "o/b"]


def test_a_file_that_is_named_is_copied_whatever_is_excluded() -> None:
    assert list(copied(FILES, "d/x", "/o/", excludes=("x", "*"))) == ["o", "o/x"]


def test_files_that_a_wildcard_matches_count_as_named() -> None:
    assert paths("*.*", "a.*") == {"a.txt", "c.md"}


def test_a_broken_pattern_is_an_error_that_names_the_flag() -> None:
    with pytest.raises(ContextError, match=r"--exclude: \[a is a broken pattern") as caught:
        paths("d", "[a")

    assert caught.value.location is None


# --- parents


def test_the_path_of_a_file_stays() -> None:
    assert paths("d/sub/y", parents=True) == {"d", "d/sub", "d/sub/y"}


def test_the_path_of_a_folder_stays_and_its_contents_come_along() -> None:
    assert paths("d/sub", parents=True) == {"d", "d/sub", "d/sub/y", "d/sub/z"}


def test_only_what_follows_the_pivot_stays() -> None:
    assert paths("./d/./sub/y", parents=True) == {"sub", "sub/y"}


def test_the_first_pivot_counts() -> None:
    assert paths("d/./sub/./y", parents=True) == {"sub", "sub/y"}


def test_a_pivot_at_the_end_means_everything() -> None:
    assert paths("d/./", parents=True) == {"x", "a.txt", "sub", "sub/y", "sub/z"}


def test_a_dot_means_everything() -> None:
    assert paths(".", parents=True) == {*FILES, "d", "d/sub", "e", "e/sub"}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/y", {"d", "d/sub", "d/sub/y", "e", "e/sub", "e/sub/y"}),
        ("*/sub/y", {"d", "d/sub", "d/sub/y", "e", "e/sub", "e/sub/y"}),
        ("d/**", {"d", "d/x", "d/a.txt", "d/sub", "d/sub/y", "d/sub/z"}),
        ("*/*.txt", {"d", "d/a.txt"}),
        ("[d]/sub", {"d", "d/sub", "d/sub/y", "d/sub/z"}),
        ("*/./sub/y", {"sub", "sub/y"}),
        ("nothing*", set()),
    ],
)
def test_patterns_keep_paths_too(pattern: str, found: set[str]) -> None:
    assert paths(pattern, parents=True) == found


def test_excludes_are_relative_to_the_pivot() -> None:
    assert paths("d/./**", "sub/y", parents=True) == {"x", "a.txt", "sub", "sub/z"}


def test_folders_that_were_not_named_have_the_modes_of_the_source_and_the_time_of_the_build() -> None:
    files: Files = {"d": folder("", 0o750, mtime_ns=3), "d/sub": folder("", 0o700, mtime_ns=3), "d/sub/y": b""}

    changes = copied(files, "d/sub", "/o/", parents=True)

    assert (changes["o/d"].entry.mode, changes["o/d"].entry.mtime_ns) == (0o750, NOW)
    assert (changes["o/d/sub"].entry.mode, changes["o/d/sub"].entry.mtime_ns) == (0o700, 3)


def test_folders_that_were_not_named_keep_their_owner_where_they_are() -> None:
    base = (folder("o"), folder("o/d", 0o755, uid=5))

    changes = copied({"d": folder("", 0o750), "d/x": b""}, "d/x", "/o/", *base, owner=(7, 7), parents=True)

    assert (changes["o/d"].entry.uid, changes["o/d"].entry.mode) == (5, 0o750)
    assert changes["o/d/x"].entry.uid == 7


def test_a_plain_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ContextError, match="'d/nothing' is not there"):
        paths("d/nothing", parents=True)


def test_a_plain_file_before_the_pivot_is_an_error() -> None:
    with pytest.raises(ContextError, match=r"'a\.txt/\./x' is not there"):
        paths("a.txt/./x", parents=True)


def test_a_path_through_a_link_is_refused_and_not_silently_empty() -> None:
    files: Files = {"d/x": b"", "ln": link("", "d")}

    with pytest.raises(ContextError, match="leads through a symbolic link"):
        copied(files, "ln/x", "/o/", parents=True)


def test_a_link_before_the_pivot_is_followed() -> None:
    files: Files = {"d/x": b"", "ln": link("", "d")}

    assert list(copied(files, "ln/./x", "/o/", parents=True)) == ["o", "o/x"]


def test_a_link_that_is_named_stays_a_link() -> None:
    changes = copied({"d/ln": link("", "x")}, "d/ln", "/o/", parents=True)

    assert changes["o/d/ln"].entry.target == "x"


class Watched(MemoryTree):
    """Remembers which folders were looked into."""

    def __init__(self) -> None:
        super().__init__(FILES)
        self.visited: list[str] = []

    def children(self, path: str) -> list:  # type: ignore[type-arg]  # as its parent
        self.visited.append(path)
        return super().children(path)


@pytest.mark.parametrize(
    ("source", "visited"),
    [("d/sub/y", ["", "d", "d/sub"]), ("e/*/y", ["", "e", "e/sub"]), ("d/./sub", ["d", "d/sub"])],
)
def test_folders_that_cannot_match_are_not_looked_into(source: str, visited: list[str]) -> None:
    tree = Watched()
    (found,) = find_sources(Copy(FromContext(), (source,), "/o", parents=True), tree)
    tree.visited.clear()

    list(found.chosen(tree))

    assert tree.visited == visited


# --- what the key says


def digest(files: dict[str, bytes], source: str, *excludes: str, parents: bool = False) -> str:
    tree = MemoryTree(files)
    (found,) = find_sources(Copy(FromContext(), (source,), "/o", parents=parents, excludes=excludes), tree)
    return digest_of(tree, found.entry, found.chosen(tree), owners=False)


@pytest.mark.parametrize("changed", ["c.md", "d/sub/y"])
def test_what_is_left_out_is_no_part_of_the_key(changed: str) -> None:
    before = digest(FILES, ".", "*.md", "d/sub")

    assert digest({**FILES, changed: b"new"}, ".", "*.md", "d/sub") == before


def test_what_is_taken_is_part_of_the_key() -> None:
    before = digest(FILES, ".", "*.md")

    assert digest({**FILES, "d/x": b"new"}, ".", "*.md") != before


def test_patterns_that_take_the_same_have_the_same_key() -> None:
    assert digest(FILES, "d", "sub") == digest(FILES, "d", "sub/**", "sub")


def test_a_folder_that_is_only_implied_shows_in_the_key() -> None:
    """It has another time in the layer, and over a folder that is there another owner."""
    assert digest({"d/x": b""}, "d/x", parents=True) != digest({"d/x": b""}, "d", parents=True)
