r"""Shell patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`.

`*` is any run of characters and `?` any character, of one line; a backslash makes `*`, `?`, `\`, `}` and `/` plain.
There are no brackets, as in BuildKit. A pattern is kept as its pieces between stars. Matching the pieces one after the
other, each at the first place, is enough for all but the last: a star never needs a second try. So each group of the
expression is atomic, and the time is the length of the value times that of the pattern, which is limited.
"""

import re

from layers.data import dataclass

_LONGEST_PATTERN = 1000


class PatternError(ValueError):
    """A pattern is malformed or too long."""

    hint = "a pattern has * and ?, and a backslash before a plain * ? \\ } or /"


def trim_prefix(pattern: str, value: str, *, longest: bool) -> str:
    """The value without the shortest, or longest, beginning that matches."""
    found = _compile(_pieces(pattern), longest=longest).at(value, 0)
    return value if found is None else value[found:]


def trim_suffix(pattern: str, value: str, *, longest: bool) -> str:
    """The value without the shortest, or longest, end that matches."""
    backwards = [piece[::-1] for piece in reversed(_pieces(pattern))]
    found = _compile(backwards, longest=longest).at(value[::-1], 0)
    return value if found is None else value[: len(value) - found]


def replace(pattern: str, replacement: str, value: str, *, every: bool, longest: int) -> str:
    """The value with the first match, or every match, replaced; PatternError beyond `longest` characters."""
    matcher = _compile(_pieces(pattern), longest=True)
    parts: list[str] = []
    size = done = at = 0
    while at <= len(value) and (found := matcher.search(value, at)) is not None:
        start, end = found
        if start == end == done and parts:  # an empty match right after a match is none
            at = end + 1
            continue
        parts += [value[done:start], replacement]
        size += start - done + len(replacement)
        if size > longest:
            raise PatternError(f"replacing gives more than {longest >> 20} million characters")
        done = end
        at = end + (start == end)
        if not every:
            break
    return "".join([*parts, value[done:]])


_Piece = list[str]
"""Tokens that each match one character: itself, or for "" any of the line."""


def _pieces(pattern: str) -> list[_Piece]:
    if len(pattern) > _LONGEST_PATTERN:
        raise PatternError(f"pattern of more than {_LONGEST_PATTERN} characters in substitution")
    pieces: list[_Piece] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            pieces.append([])
        elif character == "?":
            pieces[-1].append("")
        elif character == "\\":
            escaped = next(characters, "")
            if not escaped or escaped not in "*?\\}/":
                raise PatternError(f"invalid escape '\\{escaped}' in pattern ({pattern})")
            pieces[-1].append(escaped)
        else:
            pieces[-1].append(character)
    return pieces


@dataclass(frozen=True, slots=True)
class _Matcher:
    head: re.Pattern[str]
    """The piece before the first star."""
    width: int
    """Characters that the head matches, always."""
    tail: re.Pattern[str] | None
    """From the first star on."""

    def at(self, value: str, start: int) -> int | None:
        """Where a match that begins at `start` ends."""
        head = self.head.match(value, start)
        return None if head is None else self._end(value, head.end())

    def search(self, value: str, start: int) -> tuple[int, int] | None:
        """The first match that begins at `start` or later.

        Where the tail does not match, it will not match further right on the same line either, as the first star could
        have reached that place. So one try for each line is enough.
        """
        while (head := self.head.search(value, start)) is not None:
            end = self._end(value, head.end())
            if end is not None:
                return head.start(), end
            next_line = value.find("\n", head.end())
            if next_line < 0:
                return None
            start = max(head.start() + 1, next_line + 1 - self.width)
        return None

    def _end(self, value: str, at: int) -> int | None:
        if self.tail is None:
            return at
        found = self.tail.match(value, at)
        return None if found is None else found.end()


def _compile(pieces: list[_Piece], *, longest: bool) -> _Matcher:
    texts = ["".join(re.escape(token) if token else "." for token in piece) for piece in pieces]
    if len(texts) == 1:
        return _Matcher(re.compile(texts[0]), len(pieces[0]), None)
    middle = "".join(f"(?>.*?{text})" for text in texts[1:-1])
    last = f"(?>.*{texts[-1]})" if longest else f"(?>.*?{texts[-1]})"
    return _Matcher(re.compile(texts[0]), len(pieces[0]), re.compile(middle + last))
