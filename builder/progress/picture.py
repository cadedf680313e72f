"""How the board looks: pure functions from rows to lines that fit a terminal, after BuildKit's live view."""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from builder.progress.board import Board, Row, State, found_by_checks, warning_text
from builder.progress.text import cut, transfer, two_sides

TAIL = 6
"""Lines of output that a running job shows."""


class Tone(Enum):
    """What a line is, so that a painter can colour it."""

    PLAIN = "plain"
    ENDED = "ended"
    FAILED = "failed"
    OUTPUT = "output"
    WARNING = "warning"


class Line(NamedTuple):
    """One line of at most the asked columns, without a line end."""

    text: str
    tone: Tone = Tone.PLAIN


_MARKS = {
    State.RUNNING: "",
    State.DONE: "",
    State.CACHED: "CACHED ",
    State.FAILED: "ERROR ",
    State.CANCELED: "CANCELED ",
}
_TONES = {
    State.RUNNING: Tone.PLAIN,
    State.DONE: Tone.ENDED,
    State.CACHED: Tone.ENDED,
    State.FAILED: Tone.FAILED,
    State.CANCELED: Tone.ENDED,
}


def live(board: Board, *, started: float, now: float, columns: int, lines: int) -> list[Line]:
    """The board in the middle of a build, in at most so many lines.

    What runs comes first, then what it printed, then the jobs that ended last; shown is all in the order of numbers.
    """
    header = Line(cut(f"[+] Building {now - started:.1f}s ({board.ended}/{board.total})", columns))
    room = max(0, lines - 1)
    running = [row for row in board.rows.values() if row.state is State.RUNNING][:room]
    room -= len(running)
    details = {row.number: _details(row, columns, room // len(running)) for row in running}
    room -= sum(map(len, details.values()))
    ended = sorted((row for row in board.rows.values() if row.state is not State.RUNNING), key=lambda row: row.ended)
    shown = sorted(running + ended[max(0, len(ended) - room) :], key=lambda row: row.number)
    body = [line for row in shown for line in (_row(row, now, columns), *details.get(row.number, ()))]
    return [header, *body][:lines]


def final(board: Board, *, started: float, now: float, columns: int) -> list[Line]:
    """The whole board after a build: every job, the warnings, and all that the failed job printed last."""
    finished = " FINISHED" if board.ended == board.total and not board.failed else ""
    header = f"[+] Building {now - started:.1f}s ({board.ended}/{board.total}){finished}"
    rows = sorted(board.rows.values(), key=lambda row: row.number)
    return [
        Line(cut(header, columns)),
        *(_row(row, now, columns, interrupted=True) for row in rows),
        *(Line(f"WARNING: {warning_text(item)}", Tone.WARNING) for item in board.warnings if not item.rule),
        *(Line(text, Tone.OUTPUT) for text in failure(board)),
        *(Line(text, Tone.WARNING) for text in found_by_checks(board.warnings)),
    ]


def failure(board: Board) -> Iterable[str]:
    """What the failed job printed last, between two rules; nothing if none failed, or it printed nothing."""
    row = board.failed
    if row is None or not row.output:
        return
    yield "------"
    yield f" > {row.title}:"
    for seconds, line in row.output:
        yield f"{seconds:.3f} {line}".rstrip()
    yield "------"


def _row(row: Row, now: float, columns: int, *, interrupted: bool = False) -> Line:
    mark = _MARKS[State.CANCELED if interrupted and row.state is State.RUNNING else row.state]
    return Line(two_sides(f" => {mark}{row.title}", f"{row.seconds(now):.1f}s", columns), _TONES[row.state])


def _details(row: Row, columns: int, limit: int) -> list[Line]:
    """Transfers that go on and the end of the output of a running job, at most `limit` lines."""
    moving = [(part, done, total) for part, (done, total) in row.parts.items() if not total or done < total]
    lines = [Line(cut(f" => => {transfer(*part)}", columns), Tone.OUTPUT) for part in moving[:TAIL]]
    printed = [line for _, line in row.output]
    if row.lines.peek():
        printed.append(row.lines.peek())
    lines += [Line(cut(f" => => # {line.expandtabs()}", columns), Tone.OUTPUT) for line in printed[-TAIL:]]
    return lines[max(0, len(lines) - limit) :]
