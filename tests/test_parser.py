"""Parsing: the golden folders of testdata/dockerfiles, and what a table of files would not show.

A case is a folder with a Dockerfile, byte for byte, and expected.txt: its instructions with every field that is not the
default, or the error. To add one, add the folder; the failing test shows what it would expect.
"""

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.instructions import Add, Cmd, Copy, Dockerfile, Instruction, OnBuild, Run, ShellForm, Volume
from builder.dockerfile.parser import parse, parse_trigger
from builder.dockerfile.reader import read
from builder.errors import DockerfileError, Location
from layers.data import fields, replace

CASES = Path(__file__).parent.parent / "testdata" / "dockerfiles"

PIECES = st.sampled_from(
    [
        *(
            "FROM a",
            "FROM",
            "ARG",
            "RUN",
            "run",
            "CMD",
            "ENTRYPOINT",
            "COPY",
            "ADD",
            "ENV",
            "LABEL",
            "EXPOSE",
            "VOLUME",
        ),
        *("USER", "WORKDIR", "SHELL", "STOPSIGNAL", "HEALTHCHECK", "ONBUILD", "Onbuild", "MAINTAINER", "FRM"),
        *("\n", "\n", "\n", " ", " ", "\t", "\\\n", "`\n", "\r\n", "# c", "# escape=`\n", "# syntax=a\n", "\ufeff"),
        *(
            "<<E",
            "<<-'E'",
            "\nE\n",
            "--from=a",
            "--mount=",
            'type=bind,"a"',
            "--interval=1s",
            "CMD",
            "NONE",
            "--",
            "AS",
        ),
        *('["a"]', "[", "]", '"', "'", "\\", "`", "$a", "${a:-", "}", "=", "a=b", "/", "80", "\0", "\xa0", "é", "[[1"),
    ]
)


def parsed(text: str | bytes) -> Dockerfile:
    return parse(read(text.encode() if isinstance(text, str) else text, "Dockerfile"))


def only(statement: str) -> Instruction:
    """The one instruction of a stage."""
    [instruction] = parsed(f"FROM scratch\n{statement}\n").stages[0].instructions
    return instruction


def place_of(error: DockerfileError) -> Location:
    """Where an error stands; each has to know."""
    assert error.location is not None
    return error.location


def told(data: bytes) -> str:
    """A Dockerfile as expected.txt tells it."""
    try:
        dockerfile = parsed(data)
    except DockerfileError as error:
        location = place_of(error)
        lines = [f"error on line {location.first}: {error.message}"]
        lines += [f"    hint: {error.hint}"] if error.hint else []
        lines += [f"    span: {location.span}"] if location.span else []
        return "\n".join(lines) + "\n"
    parts: list[Instruction] = [*dockerfile.global_args]
    for stage in dockerfile.stages:
        parts += [stage.from_, *stage.instructions]
    lines = [line for part in parts for line in lines_of(part)]
    lines += [f"note on line {note.location.first}: {note.rule}" for note in dockerfile.notes]
    return "\n".join(lines) + "\n"


def lines_of(part: Instruction) -> list[str]:
    lines = [f"{part.location.first}-{part.location.last} {type(part).__name__}"]
    for field in fields(part):
        value = getattr(part, field.name)
        if field.name not in {"location", "original"} and value != field.default:
            lines += value_lines(field.name, value)
    return lines


def value_lines(name: str, value: object) -> list[str]:
    if isinstance(value, Instruction):
        return [f"    {name}:", *(f"        {line}" for line in lines_of(value))]
    if isinstance(value, tuple) and value and not isinstance(value[0], str):
        return [f"    {name}:", *(f"        {item!r}" for item in value)]
    return [f"    {name}: {value!r}"]


@pytest.mark.parametrize("case", sorted(CASES.iterdir()), ids=lambda case: case.name)
def test_a_dockerfile_parses_as_its_folder_says(case: Path) -> None:
    assert told((case / "Dockerfile").read_bytes()) == (case / "expected.txt").read_text()


def test_every_error_of_the_parser_carries_the_lines_of_its_statement() -> None:
    text = "FROM a\nRUN x\nCOPY \\\n  # why\n  --foo a b\nRUN y\n"

    with pytest.raises(DockerfileError) as caught:
        parsed(text)

    assert caught.value.location == Location("Dockerfile", 3, 5, tuple(text.splitlines()), span="--foo")


def test_add_is_a_copy_that_unpacks_unless_told_not_to() -> None:
    plain, kept, all_of_them = (only(f"ADD {flag} a b") for flag in ("", "--unpack=false", "--unpack"))

    assert isinstance(plain, Copy)
    assert isinstance(plain, Add)
    assert isinstance(kept, Add)
    assert isinstance(all_of_them, Add)
    assert (plain.unpack, plain.unpack_remote) == (True, False)
    assert (kept.unpack, kept.unpack_remote) == (False, False)
    assert (all_of_them.unpack, all_of_them.unpack_remote) == (True, True)


def test_a_statement_keeps_its_text_on_one_line() -> None:
    instruction = only("  run   a \\\n  # comment\n   b")

    assert instruction.original == "run   a    b"


@pytest.mark.parametrize(
    "trigger",
    [
        "RUN make",
        'COPY ["a b", "/c"]',
        "RUN <<EOF\nmake\nmake install\nEOF",
        "RUN <<A cat <<-'B'\nx\nA\n\ty\nB",
        "COPY <<a <<b /d/\n1\na\n2\nb",
    ],
)
def test_the_text_of_a_trigger_parses_to_the_trigger_again(trigger: str) -> None:
    onbuild = only(f"ONBUILD {trigger}")
    assert isinstance(onbuild, OnBuild)

    again = parse_trigger(onbuild.text, onbuild.location)

    assert onbuild.text == trigger
    assert replace(again, location=onbuild.location) == replace(only(trigger), location=onbuild.location)


@pytest.mark.parametrize("text", ["", "# nothing", "RUN a\nRUN b", "ONBUILD RUN a", "FROM x", "RUN <<E\na", "FOO"])
def test_a_bad_trigger_is_an_error_at_the_place_that_uses_it(text: str) -> None:
    location = Location("Dockerfile", 7, 7)

    with pytest.raises(DockerfileError) as caught:
        parse_trigger(text, location)

    location = place_of(caught.value)
    assert (location.file, location.first, location.last) == ("Dockerfile", 7, 7)


def test_json_that_python_would_take_but_nobody_else_is_the_shell_form() -> None:
    for text in ("[NaN]", "[" * 100_000):
        instruction = only(f"CMD {text}")

        assert isinstance(instruction, Cmd)
        assert instruction.command == ShellForm(text)


def test_numbers_of_any_length_in_a_json_list_are_refused_with_the_line() -> None:
    with pytest.raises(DockerfileError, match="comprised of strings only"):
        only("CMD [" + "1" * 10_000 + "]")


def test_bytes_that_are_not_text_survive() -> None:
    volume = parsed(b"FROM scratch\nVOLUME /\xff\n").stages[0].instructions[0]

    assert isinstance(volume, Volume)
    assert volume.paths[0].encode("utf-8", "surrogateescape") == b"/\xff"


def test_time_grows_with_the_length_only() -> None:
    heavy = [
        "FROM a\nRUN " + "--mount=type=bind " * 20_000,
        "FROM a\nENV " + 'a=\'b\\\' "c\\"d" ' * 20_000,
        "FROM a\nCOPY " + "<<a " * 5_000 + "/d/\n" + "a\n" * 5_000,
        "FROM a\nRUN " + "x" * 3_000_000,
        "FROM a\n" + "RUN x\n" * 20_000,
        "# c\n" * 100_000 + "FROM a",
    ]

    started = time.process_time()
    for text in heavy:
        try:
            parsed(text)
        except DockerfileError:
            continue

    assert time.process_time() - started < 20


def test_a_run_with_a_script_needs_no_shell() -> None:
    run = only("RUN <<EOF\n#!/usr/bin/python3\nprint()\nEOF")

    assert isinstance(run, Run)
    assert not isinstance(run.command, ShellForm)


@pytest.mark.property
@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_text_is_a_dockerfile_or_an_error_with_its_place(text: str) -> None:
    check_any(text.encode())


@pytest.mark.property
@given(st.binary(max_size=200))
def test_any_bytes_are_a_dockerfile_or_an_error_with_its_place(data: bytes) -> None:
    check_any(b"FROM a\n" + data)


def check_any(data: bytes) -> None:
    try:
        dockerfile = parsed(data)
    except DockerfileError as error:
        location = place_of(error)
        in_order = [0, location.first, location.last + 1, max(1, len(location.source)) + 2]
    else:
        places = [statement.location for statement in dockerfile.source.statements]
        in_order = [number for place in places for number in (place.first * 2, place.last * 2 + 1)]

    assert all(one < other for one, other in pairwise(in_order))
