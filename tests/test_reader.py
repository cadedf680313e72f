"""Reading: from bytes to statements, whatever the lines hold."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.reader import Source, Statement, read
from builder.errors import DockerfileError, Location
from cache.db import Database
from cache.records import Records
from layers.layout import Layout

LINES = st.lists(
    st.sampled_from(
        [
            "FROM a",
            "RUN b \\",
            "  c",
            "\\",
            "",
            " \t",
            "# d",
            " # e \\",
            "RUN <<E",
            "E",
            "COPY <<E <<-F \\",
            "\tF",
            "\\\\",
        ]
    ),
    min_size=1,
    max_size=25,
)


def source(text: str) -> Source:
    return read(text.encode(), "Dockerfile")


def only(text: str) -> Statement:
    [statement] = source(text).statements
    return statement


def test_a_statement_is_a_keyword_as_written_and_the_text_after_it() -> None:
    statement = only("run   a  b  \n")

    assert (statement.keyword, statement.text, statement.original) == ("run", "a  b", "run   a  b")


def test_continuations_join_with_nothing_in_between() -> None:
    assert only("RUN a\\\nb \\\n  c").text == "ab   c"


def test_blanks_after_the_escape_character_do_not_matter() -> None:
    assert only("RUN a \\ \t \nb").text == "a b"


def test_a_doubled_escape_character_does_not_continue_a_line() -> None:
    assert [statement.text for statement in source("RUN a \\\\\nRUN b").statements] == ["a \\\\", "b"]


def test_comments_vanish_from_within_a_statement() -> None:
    assert only("RUN a \\\n# b\n  # c \\\nd").text == "a d"


def test_a_hash_within_a_line_is_text() -> None:
    assert only("RUN a # b").text == "a # b"


def test_an_empty_line_does_not_end_a_continuation_and_leaves_a_note() -> None:
    read_source = source("RUN a \\\n\n \t\n\n  b \\\n\n  c\n")

    assert [statement.text for statement in read_source.statements] == ["a   b   c"]
    assert {note.rule for note in read_source.notes} == {"NoEmptyContinuation"}
    assert [(note.location.first, note.location.last) for note in read_source.notes] == [(7, 7)]


def test_a_continuation_at_the_end_of_the_file_loses_nothing() -> None:
    for text in ("FROM a\nRUN b \\", "FROM a\nRUN b \\\n", "FROM a\nRUN b \\\n# c", "FROM a\nRUN b \\\n\n\n"):
        assert [statement.text for statement in source(text).statements] == ["a", "b"]


def test_the_lines_of_a_statement_are_counted_with_all_that_is_dropped() -> None:
    read_source = source("\n# a\nFROM \\\n\n# b\n a\n\nRUN <<E\n# c\nE\nRUN d")

    assert [(part.location.first, part.location.last) for part in read_source.statements] == [(3, 6), (8, 10), (11, 11)]


def test_the_escape_directive_changes_what_continues_a_line() -> None:
    read_source = source("# escape=`\nRUN a `\n  b\\\nRUN c")

    assert [statement.text for statement in read_source.statements] == ["a   b\\", "c"]


def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_statements() -> None:
    data = b"\xef\xbb\xbf# escape=`\r\nRUN a `\r\n b\r\nRUN c\r\n"

    read_source = read(data, "Dockerfile")

    assert [statement.text for statement in read_source.statements] == ["a  b", "c"]
    assert read_source.lines == ("# escape=`", "RUN a `", " b", "RUN c")


def test_a_body_keeps_its_carriage_returns() -> None:
    [heredoc] = read(b"COPY <<E /x\r\na\r\n\r\nE\r\n", "Dockerfile").statements[0].heredocs

    assert heredoc.text == "a\r\n\r\n"


def test_a_body_may_look_like_anything() -> None:
    body = "FROM b\nRUN c \\\n# d\n\n COPY <<F\nE \n E\nEE\n"

    statements = source(f"RUN <<E\n{body}E\nRUN f").statements

    assert [statement.text for statement in statements] == ["<<E", "f"]
    assert statements[0].heredocs[0].text == body


def test_tabs_are_stripped_only_where_the_announcement_says_so() -> None:
    [kept, stripped] = source("COPY <<A <<-B /d/\n\ta\n\tA\nA\n\t\tb\n\t c\n\tB").statements[0].heredocs

    assert kept.text == "\ta\n\tA\n"
    assert stripped.text == "b\n c\n"


@pytest.mark.parametrize(
    ("announcement", "name", "expand"),
    [
        ("<<EOF", "EOF", True),
        ("<<'EOF'", "EOF", False),
        ('<<"EOF"', "EOF", False),
        ("<<eo'f'", "eof", False),
        ("<<eo\\'f", "eo'f", True),
        ("<<'e'o\\'f", "eo'f", False),
        ("<<'one two'", "one two", False),
        ("<<$EOF", "$EOF", True),
        ("<<  EOF", "EOF", True),
        ("<< -EOF", "-EOF", True),
        ("4<<EOF", "EOF", True),
        ("<<file.txt", "file.txt", True),
        ("<<EOF;", "EOF;", True),
    ],
)
def test_a_here_document_is_announced_by_a_word(announcement: str, name: str, expand: bool) -> None:  # noqa: FBT001 - a table
    [heredoc] = only(f"RUN cat {announcement} > x\n{name}\n").heredocs

    assert (heredoc.name, heredoc.expand) == (name, expand)


@pytest.mark.parametrize(
    "statement",
    [
        'RUN "<<E"',
        "RUN '<<E'",
        "RUN a<<E",
        "RUN <<<E",
        "RUN \\<\\<E",
        "USER <<E",
        'RUN ["<<E"]',
        "RUN <<",
        "RUN 'a <<E",
    ],
)
def test_what_only_looks_like_an_announcement_is_none(statement: str) -> None:
    assert only(statement).heredocs == ()


def test_an_unterminated_here_document_is_told_with_the_line_that_opens_it() -> None:
    with pytest.raises(DockerfileError, match="unterminated heredoc") as caught:
        source("FROM a\nRUN <<E\nb\nE \n")

    assert caught.value.location == Location("Dockerfile", 2, 2, ("FROM a", "RUN <<E", "b", "E "), span="<<")


def test_comments_above_a_statement_are_kept_with_it() -> None:
    [first, second] = source("# syntax=x\n# gone\n#\n#a b \n  # c\nFROM a\n#d\n\nRUN x").statements

    assert first.comments == ("a b", "c")
    assert second.comments == ("d",)


def test_directives_know_their_line() -> None:
    directives = source("# check=skip=all\n#  SYNTAX = docker/dockerfile:1 \nFROM a").directives

    assert directives.check is not None
    assert directives.syntax is not None
    assert (directives.check.value, directives.check.location.first) == ("skip=all", 1)
    assert (directives.syntax.value, directives.syntax.location.first) == ("docker/dockerfile:1", 2)


@pytest.mark.parametrize(("data", "line"), [(b"", 1), (b"\n\n", 2), (b"# a", 1), (b"\xef\xbb\xbf", 1)])
def test_a_file_without_statements_is_an_error(data: bytes, line: int) -> None:
    with pytest.raises(DockerfileError, match="file with no instructions") as caught:
        read(data, "Dockerfile")

    assert caught.value.location is not None
    assert caught.value.location.first == line


def test_reading_neither_looks_for_a_dockerfile_on_disk_nor_writes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dockerfile_parse does both unless it is given a file object."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM other")
    before = (tmp_path / "Dockerfile").stat()

    statement = only("FROM a")

    assert statement.text == "a"
    assert (tmp_path / "Dockerfile").stat() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "Dockerfile"]


@pytest.mark.parametrize(
    "text",
    [
        "RUN a\\\n" + "b\\\n" * 100_000,
        "RUN <<E\n" + "b\\\n" * 100_000 + "E\n",
        "RUN " + "\\ " * 500_000,
        "RUN " + "<<" * 500_000,
        "RUN a " + " " * 1_000_000 + "\\x",
        "\\\n" * 100_000,
        "RUN a \\\n" + "\n" * 100_000,
    ],
    ids=["continuations", "body", "escapes", "arrows", "blanks", "escapes only", "empty lines"],
)
def test_time_grows_with_the_length_only(text: str) -> None:
    """dockerfile_parse alone needs time by the square of the lines of one statement."""
    started = time.process_time()
    source("FROM a\n" + text)

    assert time.process_time() - started < 10


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Records:
    folder = tmp_path_factory.mktemp("memory")
    return Records(Database(str(folder / "cache.db")), Layout(str(folder / "images")))


@pytest.mark.property
@given(LINES)
def test_a_file_is_read_the_same_whoever_remembers_it(memory: Records, lines: list[str]) -> None:
    data = "\n".join(lines).encode()
    try:
        plain = read(data, "Dockerfile")
    except DockerfileError:
        return

    assert read(data, "Dockerfile", memory) == plain
    assert read(data, "Dockerfile", memory) == plain


@pytest.mark.property
@given(LINES)
def test_every_line_belongs_to_one_statement_or_says_nothing(lines: list[str]) -> None:
    try:
        read_source = source("\n".join(lines))
    except DockerfileError:
        return

    covered: set[int] = set()
    for statement in read_source.statements:
        of_statement = set(range(statement.location.first, statement.location.last + 1))
        assert not covered & of_statement
        covered |= of_statement
    for number in set(range(1, len(lines) + 1)) - covered:
        assert lines[number - 1].strip().startswith("#") or not lines[number - 1].strip()
