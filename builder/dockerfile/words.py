r"""Words of a Dockerfile: quotes, escapes and `$NAME`, as BuildKit's shell lexer reads them.

An instruction keeps its words as they are written; the graph hands each to `expand_word` with a lookup that knows the
variables of that place. `lookup(name)` gives the value, or None where the name is not set: unset and empty differ in
`${name-word}` and `${name:-word}`. The escape character is the one of the file's `# escape=` directive.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

from builder.dockerfile.patterns import PatternError, replace, trim_prefix, trim_suffix
from builder.dockerfile.texts import BLANKS, quoted
from builder.errors import DockerfileError
from layers.data import dataclass

Lookup = Callable[[str], str | None]

_DEEPEST = 50
"""Levels of `${a:-${b:-...}}`. Far more than people write, far less than the stack of the interpreter holds."""

_LONGEST = 1 << 24
"""Characters that one word may expand to; the kernel takes 128 KiB for one variable (MAX_ARG_STRLEN)."""

_SPACED = dict.fromkeys(map(ord, BLANKS), " ")
"""What makes every blank the same one. A pattern of all takes half a millisecond to compile."""

_SPECIAL_NAMES = frozenset("@*#?-$!0")
"""Special parameters of POSIX shells (XCU 2.5.2): names of one character, which a build never sets."""


def expand_word(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """Variables replaced and quotes taken off; blanks stay, so that one word stays one word.

    DockerfileError, without a location, for a quote that is not closed and for a substitution that is none.
    """
    return "".join(piece.text for piece in _pieces(text, _Lexer(text, lookup, escape)))


def expand_words(text: str, lookup: Lookup, escape: str = "\\") -> tuple[str, ...]:
    """As `expand_word`, then split at the blanks that were not quoted, those of values included (EXPOSE)."""
    return _split_pieces(_pieces(text, _Lexer(text, lookup, escape)))


def expand_body(text: str, lookup: Lookup, escape: str = "\\") -> str:
    """The body of a here-document of COPY and ADD: variables replaced and escapes undone, quotes stay."""
    return "".join(piece.text for piece in _pieces(text, _Lexer(text, lookup, escape, quotes=False)))


def shell_words(text: str) -> tuple[str, ...]:
    """The words of a text as a shell would split it, nothing expanded or taken off.

    Blanks after `<<` belong to the word, as in `<< EOF`. A text that no shell could read has no words.
    """
    lexer = _Lexer(text, lambda _: None, "\\", keep_quotes=True, keep_escapes=True, keep_unset=True)
    try:
        return _split_pieces(_pieces(text, lexer))
    except DockerfileError:
        return ()


def unquoted_words(text: str, *, keep_quotes: bool = False) -> tuple[str, ...]:
    """The words of a text, quotes and escapes taken off unless `keep_quotes`; variables stay as they are written."""
    lexer = _Lexer(text, lambda _: None, "\\", keep_quotes=keep_quotes, keep_unset=True)
    return _split_pieces(_pieces(text, lexer))


def split_words(text: str, escape: str = "\\") -> tuple[str, ...]:
    """The words of ENV, LABEL and ARG: blanks within quotes do not split, quotes and escapes stay for `expand_word`."""
    words: list[str] = []
    at = 0
    while True:
        at = _after_blanks(text, at)
        if at == len(text):
            return tuple(words)
        start, at = at, _end_of_word(text, at, escape)
        word = text[start:at]
        if at == len(text) and _ends_in_lone_escape(word, escape):
            word = word[:-1]
        if word:
            words.append(word)


def _after_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in BLANKS:
        at += 1
    return at


def _end_of_word(text: str, at: int, escape: str) -> int:
    quote = ""
    while at < len(text):
        character = text[at]
        if quote:
            if character == quote:
                quote = ""
            elif character == escape and quote == '"':
                at += 1
        elif character in BLANKS:
            return at
        elif character in "'\"":
            quote = character
        elif character == escape:
            at += 1
        at += 1
    return len(text)


def _ends_in_lone_escape(word: str, escape: str) -> bool:
    """An escape character at the very end of a statement escapes nothing, and is dropped."""
    return (len(word) - len(word.rstrip(escape))) % 2 == 1


class _Piece(NamedTuple):
    """A tuple, since a long text has hundreds of thousands."""

    text: str
    whole: bool
    """Came from quotes or an escape: its blanks do not split."""


def _pieces(text: str, lexer: "_Lexer") -> list[_Piece]:
    try:
        return lexer.pieces(stop="", keep_escapes=lexer.keep_escapes)
    except (PatternError, _SyntaxError) as error:
        raise DockerfileError(f"cannot read {quoted(text)}: {error}", hint=error.hint, span=text) from error


def _split_pieces(pieces: list[_Piece]) -> tuple[str, ...]:
    words: list[str] = []
    word: list[str] = []

    def end_word() -> None:
        if any(word):
            words.append("".join(word))
        word.clear()

    for piece in pieces:
        if piece.whole:
            word.append(piece.text)
            continue
        for number, part in enumerate(piece.text.translate(_SPACED).split(" ")):
            if number:
                end_word()
            word.append(part)
    end_word()
    return tuple(words)


@functools.cache
def _plain_run(escape: str, stop: str) -> re.Pattern[str]:
    """Characters that mean only themselves; one class, repeated, so that matching takes linear time."""
    return re.compile(f"[^$'\"<{re.escape(escape + stop)}]*")


class _SyntaxError(ValueError):
    """A word is not well formed."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(slots=True)
class _Lexer:
    """One walk over a text. It never goes back, so its time is that of the text and of what it expands to."""

    text: str
    lookup: Lookup
    escape: str
    quotes: bool = True
    """Quotes quote; in a here-document they are characters as any other."""
    keep_quotes: bool = False
    keep_escapes: bool = False
    keep_unset: bool = False
    """Leave `$name` as it is where the name is not set."""
    at: int = 0
    depth: int = 0
    produced: int = 0

    def pieces(self, *, stop: str, keep_escapes: bool) -> list[_Piece]:
        """What stands before the next `stop`, which is consumed; "" stops at the end of the text only."""
        found: list[_Piece] = []
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == stop:
                self.at += 1
                return found
            found.append(self._piece(character, stop, keep_escapes=keep_escapes))
            self._count(found[-1].text)
        if stop:
            raise _SyntaxError(f"missing {stop!r}")
        return found

    def _piece(self, character: str, stop: str, *, keep_escapes: bool) -> _Piece:
        if character == "$":
            return _Piece(self._dollar(), whole=False)
        if self.quotes and character == "'":
            return _Piece(self._single_quoted(), whole=True)
        if self.quotes and character == '"':
            return _Piece(self._double_quoted(keep_escapes=keep_escapes), whole=True)
        if character == self.escape:
            return _Piece(self._escaped(keep_escapes=keep_escapes), whole=True)
        if self.text.startswith("<<", self.at):
            return _Piece(self._here(), whole=True)
        return _Piece(self._plain(stop), whole=False)

    def _plain(self, stop: str) -> str:
        start = self.at
        run = _plain_run(self.escape, stop).match(self.text, start + 1)
        assert run is not None
        self.at = run.end()
        return self.text[start : self.at]

    def _here(self) -> str:
        start = self.at
        self.at = _after_blanks(self.text, self.at + 2)
        return self.text[start : self.at]

    def _escaped(self, *, keep_escapes: bool) -> str:
        start = self.at
        self.at = min(start + 2, len(self.text))
        return self.text[start if keep_escapes else start + 1 : self.at]

    def _single_quoted(self) -> str:
        start = self.at
        end = self.text.find("'", start + 1)
        if end < 0:
            raise _SyntaxError(
                "unexpected end of statement while looking for matching single-quote",
                hint="close the quote, or write \\' for a plain one",
            )
        self.at = end + 1
        return self.text[start : end + 1] if self.keep_quotes else self.text[start + 1 : end]

    def _double_quoted(self, *, keep_escapes: bool) -> str:
        self.at += 1
        parts = ['"'] if self.keep_quotes else []
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == '"':
                self.at += 1
                return "".join([*parts, '"'] if self.keep_quotes else parts)
            if character == "$":
                parts.append(self._dollar())
            elif character == self.escape:
                parts.append(self._escaped_in_quotes(keep_escapes=keep_escapes))
            else:
                parts.append(self._plain('"'))
        raise _SyntaxError(
            "unexpected end of statement while looking for matching double-quote",
            hint='close the quote, or write \\" for a plain one',
        )

    def _escaped_in_quotes(self, *, keep_escapes: bool) -> str:
        following = self.text[self.at + 1 : self.at + 2]
        kept = self.escape if keep_escapes else ""
        if following in {'"', "$", self.escape}:
            self.at += 2
            return kept + following
        self.at += 1
        return kept + self.escape if following else kept

    def _dollar(self) -> str:
        self.at += 1
        if not self.text.startswith("{", self.at):
            name = self._name()
            return self._value(name, written=f"${name}") if name else "$"
        self.at += 1
        if self.at == len(self.text):
            raise _SyntaxError("missing '}'")
        if self.text[self.at] in "{}:":
            raise _SyntaxError("bad substitution")
        if self.depth == _DEEPEST:
            raise _SyntaxError(f"substitutions nested more than {_DEEPEST} deep")
        self.depth += 1
        value = self._substitution(self._name())
        self.depth -= 1
        return value

    def _name(self) -> str:
        start = self.at
        if start == len(self.text):
            return ""
        first = self.text[start]
        if first.isdecimal():
            while self.at < len(self.text) and self.text[self.at].isdecimal():
                self.at += 1
        elif first in _SPECIAL_NAMES:
            self.at += 1
        else:
            while self.at < len(self.text) and _in_name(self.text[self.at]):
                self.at += 1
        return self.text[start : self.at]

    def _value(self, name: str, written: str) -> str:
        value = self.lookup(name)
        if value is None:
            return written if self.keep_unset else ""
        self._count(value)
        return value

    def _substitution(self, name: str) -> str:
        """What follows `${name`, up to and with its brace."""
        if self.at == len(self.text):
            raise _SyntaxError("missing '}'")
        modifier = self.text[self.at]
        self.at += 1
        if modifier == "}":
            return self._value(name, written=f"${{{name}}}")
        if modifier == "/":
            return self._replacement(name)
        if modifier == ":":
            modifier += self.text[self.at : self.at + 1]
            self.at += 1
        if modifier not in {"-", "+", "?", "#", "%", ":-", ":+", ":?"}:
            raise _SyntaxError(
                f"unsupported modifier ({modifier}) in substitution",
                hint="modifiers are :- - :+ + :? ? # ## % %% / //",
            )
        return self._modified(name, modifier)

    def _modified(self, name: str, modifier: str) -> str:
        kind = modifier[-1]
        word = self._until("}", keep_escapes=kind in "#%")
        value = self.lookup(name)
        if value is None and self.keep_unset:
            return f"${{{name}{modifier}{word}}}"
        missing = value is None or (modifier[0] == ":" and not value)
        if kind == "-":
            return word if missing else value or ""
        if kind == "+":
            return "" if missing else word
        if kind == "?":
            if missing:
                state = "unset" if value is None else "empty"
                raise _SyntaxError(f"{name}: {word or f'is not allowed to be {state}'}")
            return value or ""
        longest = word.startswith(kind)
        trim = trim_prefix if kind == "#" else trim_suffix
        return trim(word[1:] if longest else word, value or "", longest=longest)

    def _replacement(self, name: str) -> str:
        every = self.text.startswith("/", self.at)
        self.at += every
        pattern = self._until("/", keep_escapes=True)
        replacement = self._until("}", keep_escapes=True)
        value = self.lookup(name)
        if value is None and self.keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        return replace(pattern, replacement, value or "", every=every, longest=_LONGEST)

    def _until(self, stop: str, *, keep_escapes: bool) -> str:
        return "".join(piece.text for piece in self.pieces(stop=stop, keep_escapes=keep_escapes))

    def _count(self, text: str) -> None:
        """Values within values can double with each line of a file; this is where it ends."""
        self.produced += len(text)
        if self.produced > _LONGEST + len(self.text):
            raise _SyntaxError(f"expands to more than {_LONGEST >> 20} million characters")


def _in_name(character: str) -> bool:
    return character == "_" or character.isalpha() or character.isdecimal()
