"""Words: the table of testdata/words.txt, splitting, and what holds for any text."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.words import expand_body, expand_word, expand_words, split_words
from builder.errors import DockerfileError

TABLE = Path(__file__).parent.parent / "testdata" / "words.txt"

TRICKY = st.text(alphabet="ab $\\{}'\"`:-+?#%/*!<\n\t\udc80é", max_size=60)


Row = tuple[str, dict[str, str], str, str]
PATTERNS = st.text(alphabet="ab*?\n", max_size=8)
VALUES = st.text(alphabet="ab\n", max_size=12)


def expand(word: str, **variables: str) -> str:
    return expand_word(word, variables.get)


def rows() -> Iterator[Row]:
    escape = "\\"
    for line in TABLE.read_text().splitlines():
        if line.startswith("ESCAPE "):
            escape = line[-1]
        elif line and not line.startswith("# "):
            word, variables, expected = (field.strip() for field in line.split("|"))
            pairs = dict(pair.split("=", 1) for pair in variables.split("; ") if pair)
            yield word, pairs, escape, expected


def unset(_name: str) -> str | None:
    return None


@pytest.mark.parametrize(("word", "variables", "escape", "expected"), [pytest.param(*row, id=row[0]) for row in rows()])
def test_a_word_expands_as_the_table_says(word: str, variables: dict[str, str], escape: str, expected: str) -> None:
    if expected.startswith("! "):
        with pytest.raises(DockerfileError) as caught:
            expand_word(word, variables.get, escape)

        assert expected.removeprefix("! ") in caught.value.message
    else:
        assert expand_word(word, variables.get, escape) == expected


def test_the_lookup_is_asked_for_each_name_that_is_used() -> None:
    asked: list[str] = []

    def lookup(name: str) -> str | None:
        asked.append(name)
        return None

    expand_word("$a ${b:-$c} ${d+e} '$f'", lookup)

    assert asked == ["a", "c", "b", "d"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("80 443", ("80", "443")),
        ("$many", ("1", "2", "3")),
        ('"$many"', ("1 2  3",)),
        ("a$many", ("a1", "2", "3")),
        ("a\\ b", ("a b",)),
        ("'' x", ("x",)),
        ("$nope", ()),
        ("", ()),
    ],
)
def test_words_split_after_expansion_except_within_quotes(word: str, expected: tuple[str, ...]) -> None:
    assert expand_words(word, {"many": "1 2  3"}.get) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello $name ${nope:-none}", "Hello World none"),
        ("'$name' \"$name\"", "'World' \"World\""),
        ("\\$name \\\\ back \\n", "$name \\ back n"),
        ("it's\n", "it's\n"),
        ("a << b <<c", "a << b <<c"),
    ],
)
def test_a_body_keeps_its_quotes(text: str, expected: str) -> None:
    assert expand_body(text, {"name": "World"}.get) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1 b=2", ("a=1", "b=2")),
        ("a=\"x y\" b='p q'", ('a="x y"', "b='p q'")),
        ("a=x\\ y b", ("a=x\\ y", "b")),
        ('a="\\"x y" b', ('a="\\"x y"', "b")),
        ("a='\\' b", ("a='\\'", "b")),
        ("a=it's b=2", ("a=it's b=2",)),
        ("a\\", ("a",)),
        ("a\\\\", ("a\\\\",)),
        ("\\", ()),
        (" \t\v a \xa0 b\u3000", ("a", "b")),
    ],
)
def test_splitting_keeps_quotes_and_escapes_for_later(text: str, expected: tuple[str, ...]) -> None:
    assert split_words(text) == expected


def test_values_that_double_with_each_use_end_in_an_error_and_not_in_all_memory() -> None:
    big = "x" * (1 << 20)

    with pytest.raises(DockerfileError, match="expands to more than 16 million characters"):
        expand_word("$a" * 40, {"a": big}.get)


def test_deep_nesting_is_a_clear_error() -> None:
    word = "${a:-" * 5000 + "}" * 5000

    with pytest.raises(DockerfileError, match="nested more than 50 deep"):
        expand_word(word, unset)


def test_nesting_within_the_limit_works() -> None:
    word = "${a:-" * 50 + "x" + "}" * 50

    assert expand_word(word, unset) == "x"


def test_a_pattern_of_absurd_length_is_refused() -> None:
    with pytest.raises(DockerfileError, match="pattern of more than 1000 characters"):
        expand_word("${a#" + "x" * 1001 + "}", {"a": "x"}.get)


@pytest.mark.parametrize(
    "word",
    [
        "${v##*a*a*a*a*a*b}",
        "${v%%b*a*a*a*a*a*}",
        "${v//a*b/x}",
        "${v//a*a*a*c/x}",
        "${v//*?*?*c/x}",
        "${v//\n*a/x}",
    ],
)
def test_patterns_take_linear_time(word: str) -> None:
    """A backtracking matcher needs years for these."""
    value = "a" * 100_000 + "\n" + "a" * 100_000

    started = time.process_time()
    expand_word(word, {"v": value}.get)

    assert time.process_time() - started < 5


def test_a_long_word_takes_linear_time() -> None:
    word = "'a'$b\\c\"d${e:-f}\"" * 50_000

    started = time.process_time()
    expand_words(word, unset)
    split_words(word)

    assert time.process_time() - started < 10


@pytest.mark.property
@given(TRICKY, st.sampled_from("\\`"))
def test_any_word_expands_or_is_an_error_of_the_dockerfile(word: str, escape: str) -> None:
    for function in (expand_word, expand_words, expand_body):
        try:
            function(word, {"a": "x y", "b": ""}.get, escape)
        except DockerfileError:
            continue


def matches(pattern: str, text: str) -> bool:
    """The rules of patterns in their plainest form, whatever time it takes."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return matches(pattern[1:], text) or (text[:1] not in {"", "\n"} and matches(pattern, text[1:]))
    fits = text[:1] == pattern[0] or (pattern[0] == "?" and text[:1] not in {"", "\n"})
    return fits and matches(pattern[1:], text[1:])


def replaced(pattern: str, text: str) -> str:
    """Every match replaced by X: the leftmost first, and of those the longest; none empty right after another."""
    result, at, after_match = "", 0, False
    while at <= len(text):
        end = max((end for end in range(at, len(text) + 1) if matches(pattern, text[at:end])), default=-1)
        if end > at or (end == at and not after_match):
            result += "X"
        if end > at:
            at, after_match = end, True
        else:
            result += text[at : at + 1]
            at, after_match = at + 1, False
    return result


@pytest.mark.property
@given(PATTERNS, VALUES)
def test_patterns_match_what_trying_all_finds(pattern: str, value: str) -> None:
    prefixes = [end for end in range(len(value) + 1) if matches(pattern, value[:end])]
    suffixes = [start for start in range(len(value) + 1) if matches(pattern, value[start:])]

    assert expand("${v#" + pattern + "}", v=value) == value[prefixes[0] if prefixes else 0 :]
    assert expand("${v##" + pattern + "}", v=value) == value[prefixes[-1] if prefixes else 0 :]
    assert expand("${v%" + pattern + "}", v=value) == value[: suffixes[-1] if suffixes else None]
    assert expand("${v%%" + pattern + "}", v=value) == value[: suffixes[0] if suffixes else None]
    assert expand("${v//" + pattern + "/X}", v=value) == replaced(pattern, value)


@pytest.mark.property
@given(TRICKY, st.sampled_from("\\`"))
def test_split_words_are_found_in_the_text_in_their_order(text: str, escape: str) -> None:
    at = 0
    for word in split_words(text, escape):
        at = text.index(word, at) + len(word)
