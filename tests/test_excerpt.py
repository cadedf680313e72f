"""The excerpt of a Dockerfile that an error shows."""

from hypothesis import given
from hypothesis import strategies as st

from builder.errors import Location
from builder.excerpt import excerpt


def shown(*lines: str, first: int, last: int | None = None, span: str = "") -> str:
    return excerpt(Location("Dockerfile", first, last or first, lines, span))


def test_the_lines_of_the_statement_are_marked_and_the_span_has_carets() -> None:
    text = shown("FROM busybox", "ENV A=1", "COPY --foo=1 a b", "RUN c", "RUN d", "RUN e", first=3, span="--foo")

    assert text == (
        "Dockerfile:3\n"
        "--------------------\n"
        "   1 |     FROM busybox\n"
        "   2 |     ENV A=1\n"
        "   3 | >>> COPY --foo=1 a b\n"
        "     |          ^^^^^\n"
        "   4 |     RUN c\n"
        "   5 |     RUN d\n"
        "--------------------"
    )


def test_without_a_span_the_whole_lines_are_marked() -> None:
    text = shown("FROM a", "RUN b \\", "  c", first=2, last=3)

    assert text.splitlines()[2:-1] == ["   1 |     FROM a", "   2 | >>> RUN b \\", "   3 | >>>   c"]


def test_the_span_is_looked_for_in_all_lines_of_the_statement() -> None:
    text = shown("RUN a \\", "  --b", first=1, last=2, span="--b")

    assert text.splitlines()[3:5] == ["   2 | >>>   --b", "     |       ^^^"]


def test_a_span_that_only_exists_in_the_joined_text_has_no_carets() -> None:
    assert "^" not in shown("RUN a\\", "b", first=1, last=2, span="ab")


def test_carets_stand_below_their_words_after_tabs_wide_and_unprintable_characters() -> None:
    text = shown("\tRUN 漢字 \x1b[31m\udcff é x", first=1, span="x")

    line, carets = text.splitlines()[2:4]
    assert line == "   1 | >>>     RUN 漢字 \\x1b[31m\\xff é x"
    assert len(carets) == len(line) + len("漢字")  # two columns each


def test_a_long_statement_is_shown_by_its_ends_and_the_line_with_the_span() -> None:
    lines = [f"a{number} \\" for number in range(1, 41)]

    text = shown(*lines, first=1, last=40, span="a20 ")

    assert text.count("…") == 2
    assert "  20 | >>> a20 \\\n     |     ^^^^\n     | >>> …" in text
    assert "  30 |" not in text
    assert "  40 | >>> a40 \\" in text


def test_a_long_line_is_cut_around_the_span() -> None:
    text = shown("x" * 100_000 + " here " + "y" * 100_000, first=1, span="here")

    assert " here " in text
    assert max(map(len, text.splitlines())) < 200
    line, carets = text.splitlines()[2:4]
    assert line.index("here") == carets.index("^^^^")


def test_without_the_text_of_the_file_only_the_place_is_told() -> None:
    assert excerpt(Location("Dockerfile", 7, 8)) == "Dockerfile:7"


@given(st.lists(st.text(), max_size=8), st.integers(0, 12), st.integers(0, 12), st.text(max_size=3))
def test_any_place_can_be_shown_on_any_terminal(lines: list[str], first: int, last: int, span: str) -> None:
    text = excerpt(Location("Dockerfile", first, last, tuple(lines), span))

    text.encode()
    assert all(line.isprintable() for line in text.splitlines())
