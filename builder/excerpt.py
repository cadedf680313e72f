"""The lines of a Dockerfile that an error is about, as a person reads them.

    Dockerfile:3
    --------------------
       1 |     FROM busybox
       2 |     ENV A=1
       3 | >>> COPY --foo=1 a b
         |          ^^^^^
    --------------------

Whatever the file holds, what comes out is printable: no control characters, no bytes that are not text.
"""

import unicodedata
from collections.abc import Iterator

from builder.dockerfile.texts import printable
from builder.errors import Location

_AROUND = 2
"""Lines shown before and after the marked ones."""

_MOST_MARKED = 12
"""Of a longer statement the middle is left out."""

_WIDEST = 160
"""Columns of text; a longer line is cut around the span."""

_RULE = "-" * 20


def excerpt(location: Location) -> str:
    """The place as `file:line`, then the lines with the statement's marked and a caret line under the span."""
    place = f"{location.file}:{location.first}"
    if not location.source:
        return place
    return "\n".join([place, _RULE, *_lines(location), _RULE])


def _lines(location: Location) -> Iterator[str]:
    first = max(1, location.first)
    last = min(len(location.source), max(location.last, first))
    end = min(len(location.source), last + _AROUND)
    gutter = max(4, len(str(end)))
    left_out = range(first + _MOST_MARKED // 2, last - _MOST_MARKED // 2)
    span_line, column = _find_span(location, first, last)
    for number in range(max(1, first - _AROUND), end + 1):
        line = location.source[number - 1]
        mark = ">>>" if first <= number <= last else "   "
        if number == span_line:
            line, column = _cut_around(line, column)
            yield f"{number:{gutter}} | {mark} {_shown(line)}"
            yield f"{'':{gutter}} |     {_carets(line, column, len(location.span))}"
        elif number not in left_out:
            yield f"{number:{gutter}} | {mark} {_shown(line)}".rstrip()
        elif number - 1 in {left_out.start - 1, span_line}:
            yield f"{'':{gutter}} | {mark} …"


def _find_span(location: Location, first: int, last: int) -> tuple[int, int]:
    """The line and column where the span stands; (0, 0) if it is empty or not to be found, as after joining lines."""
    span = location.span
    if not span:
        return 0, 0
    for number in range(first, last + 1):
        column = location.source[number - 1].find(span)
        if column >= 0:
            return number, column
    return 0, 0


def _cut_around(line: str, column: int) -> tuple[str, int]:
    """A long line without what is far from the column, and the column in what is left."""
    if len(line) <= _WIDEST:
        return line, column
    start = max(0, column - _WIDEST // 4)
    end = start + _WIDEST - 2
    head, tail = "…" * (start > 0), "…" * (end < len(line))
    return f"{head}{line[start:end]}{tail}", column - start + len(head)


def _carets(line: str, column: int, length: int) -> str:
    """The line below a line, with carets below `length` characters from the column on."""
    return " " * _width(line[:column]) + "^" * max(1, _width(line[column : column + length]))


def _shown(line: str) -> str:
    """The line as a terminal may get it, cut where it is far too long."""
    text = "".join("    " if character == "\t" else printable(character) for character in line[: _WIDEST + 1])
    return text + "…" if len(line) > _WIDEST + 1 else text


def _width(text: str) -> int:
    """Columns that a terminal takes for a text, as it is shown."""
    return sum(map(_columns, _shown(text)))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
