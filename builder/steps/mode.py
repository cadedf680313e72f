"""What --chmod asks for: a number in octal, or changes as chmod(1) has them, such as `u=rwX,go=rX`, `+x` and `g=u`."""

import re

from layers.data import dataclass

_CLAUSE = r"([ugoa]*)((?:[-+=][rwxXstugo]*)+)"
_ACTION = r"([-+=])([rwxXstugo]*)"

_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
"""The bits that each class of users has a say in. The sticky bit is nobody's: it changes only where `t` names it."""
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_STICKY = 0o1000
_OTHERS = _WHO["o"]
_EXECUTE = 0o111


@dataclass(frozen=True, slots=True)
class Action:
    """One operator with what stands before and after it."""

    operator: str
    """`+`, `-` or `=`."""
    who: int
    """The bits that may change."""
    bits: int
    """The bits that letters name."""
    execute_if_any: bool = False
    """`X`: execute, for folders and for what somebody could execute before."""
    like: str = ""
    """The classes whose bits are taken over: some of `ugo`."""

    def applied(self, mode: int, *, executable: bool) -> int:
        """The mode after it."""
        bits = self.bits | (_EXECUTE if self.execute_if_any and executable else 0)
        for name in self.like:
            bits |= ((mode >> _SHIFTS[name]) & 7) * 0o111
        if self.operator == "+":
            return mode | (bits & self.who)
        kept = mode & ~(bits & self.who if self.operator == "-" else self.who)
        return kept | (bits & self.who) if self.operator == "=" else kept


@dataclass(frozen=True, slots=True)
class SymbolicMode:
    """Changes to the mode that a file has already. No umask takes part: without a class before it, `+x` is for all."""

    text: str
    actions: tuple[Action, ...]

    def applied(self, mode: int, *, is_folder: bool) -> int:
        """The mode that a file or folder of this mode gets."""
        executable = is_folder or mode & _EXECUTE != 0
        for action in self.actions:
            mode = action.applied(mode, executable=executable)
        return mode


Mode = int | SymbolicMode


def parse_mode(text: str) -> Mode:
    """The mode of a --chmod; ValueError with a message for people."""
    if text[:1].isdecimal():
        if not re.fullmatch("[0-7]+", text) or int(text, 8) > 0o7777:
            raise ValueError(f"invalid chmod parameter: {text!r}: it should be an octal number between 0 and 07777")
        return int(text, 8)
    actions = []
    for clause in text.split(","):
        parts = re.fullmatch(_CLAUSE, clause)
        if parts is None:
            raise ValueError(f"invalid chmod parameter: {text!r}: {clause!r} is no change of a mode")
        who = 0
        for name in parts[1] or "a":
            who |= _WHO[name]
        actions += [_action(operator, who, letters) for operator, letters in re.findall(_ACTION, parts[2])]
    return SymbolicMode(text, tuple(actions))


def _action(operator: str, who: int, letters: str) -> Action:
    bits = 0
    for letter in letters:
        bits |= _PERMISSIONS.get(letter, 0)
    if bits & _STICKY and who != _OTHERS:
        who |= _STICKY
    like = "".join(letter for letter in letters if letter in _SHIFTS)
    return Action(operator, who, bits, execute_if_any="X" in letters, like=like)
