"""Flags of an instruction: the words after the keyword that begin with `--`."""

from collections.abc import Mapping, Sequence
from enum import Enum, auto

from builder.dockerfile.suggest import closest
from builder.dockerfile.texts import BLANKS, quoted
from layers.data import dataclass, field


class FlagError(ValueError):
    """A flag is unknown, or is not used as it should be. `span` is its text as it can be found in the line."""

    def __init__(self, message: str, *, span: str, hint: str = "") -> None:
        super().__init__(message)
        self.span = span
        self.hint = hint


class FlagKind(Enum):
    """What may follow the name of a flag."""

    SWITCH = auto()
    """Nothing, `=true` or `=false`."""
    TEXT = auto()
    """`=value`, once."""
    LIST = auto()
    """`=value`, as often as one likes."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags that an instruction has. A flag that is not there is "", (), or None for a switch."""

    _values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        return self._values.get(name, ("",))[0]

    def texts(self, name: str) -> tuple[str, ...]:
        return self._values.get(name, ())

    def switch(self, name: str) -> bool | None:
        return self.text(name) == "true" if name in self._values else None


def split_flags(text: str) -> tuple[tuple[str, ...], str]:
    r"""The flags that a statement's text begins with, their quotes and escapes taken off, and the rest, stripped.

    `--` alone ends the flags. The escape character is `\` here, whatever the file's directive says (so in BuildKit).
    """
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at] in BLANKS:
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:].strip(BLANKS)
        flag, at = _flag_word(text, at)
        if flag == "--":
            return tuple(flags), text[at:].strip(BLANKS)
        flags.append(flag)


def _flag_word(text: str, start: int) -> tuple[str, int]:
    """The word that begins at `start`, and where it ends."""
    letters = []
    quote = ""
    at = start
    while at < len(text):
        character = text[at]
        if character == "\\":
            letters.append(text[at + 1 : at + 2])
            at += 1
        elif quote:
            if character == quote:
                quote = ""
            else:
                letters.append(character)
        elif character in "'\"":
            quote = character
        elif character in BLANKS:
            break
        else:
            letters.append(character)
        at += 1
    if quote:
        raise FlagError(f"a quote in the flag {quoted(text[start:])} is never closed", span=text[start:])
    return "".join(letters), at


def parse_flags(words: Sequence[str], allowed: Mapping[str, FlagKind]) -> Flags:
    """The flags by name; FlagError for one that is not allowed, is there twice or lacks its value."""
    values: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, equals, value = word[2:].partition("=")
        kind = allowed.get(name)
        if kind is None:
            raise _unknown(name, allowed)
        if name in values and kind is not FlagKind.LIST:
            raise FlagError(f"flag --{name} is given twice", span=f"--{name}")
        if kind is FlagKind.SWITCH:
            value = _switch(name, value.lower() if equals else "true")
        elif not equals:
            raise FlagError(f"missing a value on flag: --{name}", span=f"--{name}", hint=f"write --{name}=VALUE")
        values[name] = (*values.get(name, ()), value)
    return Flags(values)


def _switch(name: str, value: str) -> str:
    if value in {"true", "false"}:
        return value
    raise FlagError(f"flag --{name} takes true or false, not {quoted(value)}", span=f"--{name}")


def _unknown(name: str, allowed: Mapping[str, FlagKind]) -> FlagError:
    near = closest(name, allowed)
    if near:
        hint = f"did you mean --{near}?"
    elif allowed:
        hint = "there is " + ", ".join(f"--{known}" for known in sorted(allowed))
    else:
        hint = "this instruction has no flags; -- ends the flags where a word begins with --"
    return FlagError(f"unknown flag: --{name}", span=f"--{name}", hint=hint)
