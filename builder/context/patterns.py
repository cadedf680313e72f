"""The patterns of .dockerignore, for pathspec.

They are Go's `filepath.Match` with `**` added, as moby's patternmatcher reads them: anchored at the root of the
context, `*` and `?` stop at a slash, `[^a]` negates and `[!a]` does not. pathspec's own patterns are git's, which
differ in all of this. Import it only when a path is judged for the first time: pathspec takes 50 ms to import.
"""

import re
from typing import AnyStr

from pathspec.pattern import RegexPattern

_SPECIAL = re.compile(r"[*?\[\]\\]")

_ESCAPES = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
"""What Go's regexp, to which moby hands escapes as they are, makes of letters."""


class BrokenPatternError(ValueError):
    """A pattern that Go's `filepath.Match` calls bad."""


class DockerPattern(RegexPattern):
    """One line of a .dockerignore, cleaned; `include` is False for a line that begins with `!`."""

    __slots__ = ()

    @classmethod
    def pattern_to_regex(cls, pattern: AnyStr) -> tuple[AnyStr, bool]:
        """The regular expression, and whether what it matches is ignored; BrokenPatternError."""
        assert isinstance(pattern, str)
        text = pattern.removeprefix("!")
        return rf"(?s)\A{translate(text)}\Z", text == pattern


def translate(pattern: str) -> str:
    """A pattern as a Python regular expression of whole paths; BrokenPatternError."""
    if pattern.startswith("**") and not pattern.startswith("**/") and not _SPECIAL.search(pattern, 2):
        # moby asks for the end of the path here, in whatever folder and in the midst of a name: **.txt is any .txt.
        return ".*" + re.escape(pattern[2:])
    parts = []
    position = 0
    while position < len(pattern):
        part, position = _next_part(pattern, position)
        parts.append(part)
    return "".join(parts)


def _next_part(pattern: str, start: int) -> tuple[str, int]:
    """The expression for what begins at `start`, and where the next thing begins."""
    if pattern.startswith("**", start):
        end = start + (3 if pattern.startswith("**/", start) else 2)
        return (".*" if end == len(pattern) else "(?:.*/)?"), end
    character = pattern[start]
    if character == "*":
        return "[^/]*", start + 1
    if character == "?":
        return "[^/]", start + 1
    if character == "[":
        return _class(pattern, start + 1)
    if character == "\\":
        return _escape(pattern, start + 1)
    return re.escape(character), start + 1


def _escape(pattern: str, start: int) -> tuple[str, int]:
    if start == len(pattern):
        raise BrokenPatternError("it ends in a backslash")
    character = pattern[start]
    if character in _ESCAPES:
        return re.escape(_ESCAPES[character]), start + 1
    if character.isalnum():
        raise BrokenPatternError(f"a backslash before {character!r} means nothing")
    return re.escape(character), start + 1


def _class(pattern: str, start: int) -> tuple[str, int]:
    """The expression for the class whose first character, after the bracket, is at `start`."""
    position = start
    negation = pattern[position : position + 1] == "^"
    position += negation
    ranges: list[str] = []
    while pattern[position : position + 1] != "]" or not ranges:
        low, position = _class_character(pattern, position)
        high = low
        if pattern[position : position + 1] == "-":
            high, position = _class_character(pattern, position + 1)
        if high < low:
            raise BrokenPatternError(f"the range {low}-{high} is the wrong way round")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"[{'^' * negation}{''.join(ranges)}]", position + 1


def _class_character(pattern: str, position: int) -> tuple[str, int]:
    if pattern[position : position + 1] == "\\":
        position += 1
    elif pattern[position : position + 1] in {"-", "]"}:
        raise BrokenPatternError(f"{pattern[position]!r} cannot stand there in brackets")
    if position >= len(pattern):
        raise BrokenPatternError("a bracket is not closed")
    return pattern[position], position + 1
