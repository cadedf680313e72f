"""Text for people out of bytes from programs: nothing that a RUN prints can command the terminal."""

import re

# Both are texts, which re compiles when they are first used: most builds never need them.
# ECMA-48: control sequences (5.4), control strings up to their terminator (5.6), and two-character escapes (5.3).
_SEQUENCES = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
)
# Controls except tab; marks that turn the direction of text around; line separators; lone surrogates.
_UNSAFE = "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"

LONGEST_LINE = 16384
"""Characters of output without a line end that are kept before they count as a line."""


def clean(text: str) -> str:
    """The text without control sequences, and with U+FFFD for any control character that is left, tabs excepted."""
    if text.isascii() and text.isprintable():
        return text
    return re.sub(_UNSAFE, "\ufffd", re.sub(_SEQUENCES, "", text))


def title(text: str) -> str:
    """A title in one line: each run of white space, such as the line ends of a heredoc, is one blank."""
    return clean(" ".join(text.split()))


class LineBuffer:
    """Cuts the output of a program into clean lines; a carriage return starts a line over, as on a terminal."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete with these bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        # Of a progress bar that rewrites its line a thousand times, the last state is enough.
        body = self._rest.rstrip(b"\r")
        self._rest = self._rest[body.rfind(b"\r") + 1 :]
        if len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        return [_line(line) for line in lines]

    def peek(self) -> str:
        """The line that is still incomplete."""
        return _line(self._rest)

    def finish(self) -> list[str]:
        """The line that never ended, if there is one."""
        rest, self._rest = self._rest, b""
        return [_line(rest)] if rest.rstrip(b"\r") else []


def _line(data: bytes) -> str:
    data = data.rstrip(b"\r")
    return clean(data[data.rfind(b"\r") + 1 :].decode("utf-8", "replace"))


def amount(count: int) -> str:
    """Bytes in decimal units, as Docker writes them: `12.3MB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f}{unit}" if unit == "B" else f"{size:.1f}{unit}"


def transfer(part: str, done: int, total: int) -> str:
    """How far one part is: `sha256:0123456789ab 12.3MB / 40.1MB`."""
    algorithm, colon, rest = part.partition(":")
    if colon and len(rest) >= 64:
        part = f"{algorithm}:{rest[:12]}"
    of_total = f" / {amount(total)}" if total else ""
    return f"{title(part)} {amount(done)}{of_total}"


def columns_of(text: str) -> int:
    """Columns that a terminal needs for clean text."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    import unicodedata  # most texts are ASCII

    if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """The text if it fits into so many columns, else its beginning and `…`."""
    if columns_of(text) <= columns:
        return text
    kept, used = [], 0
    for character in text:
        used += _columns(character)
        if used > columns - 1:
            break
        kept.append(character)
    return "".join(kept) + "…" if columns > 0 else ""


def two_sides(left: str, right: str, columns: int) -> str:
    """One line with `right` at its right end; `left` is cut where they would meet."""
    room = columns - columns_of(right) - 1
    if room < 8:  # a narrower title says nothing; then the title alone is worth more than the time
        return cut(left, columns)
    left = cut(left, room)
    return left + " " * (columns - columns_of(left) - columns_of(right)) + right
