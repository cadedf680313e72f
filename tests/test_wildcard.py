"""Wildcards of COPY and ADD."""

import pytest
from fakes import MemoryTree

from builder.steps.wildcard import compile_component, has_wildcard, matches


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", ".txt", True),
        ("*", ".hidden", True),
        ("?", "é", True),
        ("?", "ab", False),
        ("[ab].c", "a.c", True),
        ("[^ab].c", "a.c", False),
        ("[!a]", "!", True),
        ("[!a]", "b", False),
        ("[a-c]x", "bx", True),
        ("[c-a]x", "bx", False),
        ("[^c-a]x", "bx", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"[\]]", "]", True),
        ("a.tx[t]", "a.txt", True),
        ("[", "[", False),
        ("[]a]", "a", False),
        ("[a-]", "a", False),
        ("a\\", "a", False),
        ("a**b", "axxb", True),
        ("(a|b)+$", "(a|b)+$", True),
        ("*", "new\nline", True),
    ],
)
def test_component_matches_as_in_go(pattern: str, name: str, *, expected: bool) -> None:
    assert bool(compile_component(pattern).fullmatch(name)) is expected


def test_an_escaped_star_is_no_wildcard() -> None:
    assert not has_wildcard(r"a\*b")
    assert has_wildcard(r"a\\*b")


def test_a_star_does_not_cross_directories() -> None:
    tree = MemoryTree({"a/x.txt": b"", "b/c/x.txt": b"", "x.txt": b""})

    found = [entry.path for entry in matches(tree, "*/x.txt") or ()]

    assert found == ["a/x.txt"]


def test_matches_come_in_the_order_of_a_sorted_walk() -> None:
    tree = MemoryTree({"b/2": b"", "b/1": b"", "a/3": b""})

    found = [entry.path for entry in matches(tree, "*/*") or ()]

    assert found == ["a/3", "b/1", "b/2"]


def test_the_folder_before_a_wildcard_must_be_there() -> None:
    assert matches(MemoryTree({"a/x": b""}), "b/*") is None


def test_many_stars_take_linear_time() -> None:
    pattern = compile_component("*a" * 30 + "b")

    assert not pattern.fullmatch("a" * 40)
