"""'Did you mean': the known word that a wrong one resembles."""

from collections.abc import Iterable

_TOO_FAR = 3
"""From so many single-letter edits on, two words do not resemble each other (BuildKit takes the same bound)."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word with the fewest edits, or None if none is near; the case of letters does not matter."""
    lowered = word.lower()
    distance, best = min(
        ((_distance(lowered, candidate.lower()), candidate) for candidate in sorted(known)), default=(_TOO_FAR, "")
    )
    return best if distance < _TOO_FAR else None


def _distance(one: str, other: str) -> int:
    """Letters to insert, drop, change or swap with their neighbour (optimal string alignment).

    Lengths that differ too much are not looked at, so that long words cost nothing.
    """
    if abs(len(one) - len(other)) >= _TOO_FAR:
        return _TOO_FAR
    before: list[int] = []
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        current = [row]
        for column, other_letter in enumerate(other, start=1):
            steps = min(above[column] + 1, current[-1] + 1, above[column - 1] + (letter != other_letter))
            if row > 1 and column > 1 and one[row - 2] == other_letter and letter == other[column - 2]:
                steps = min(steps, before[column - 2] + 1)
            current.append(steps)
        before, above = above, current
    return above[-1]
