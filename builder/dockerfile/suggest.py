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
    """Levenshtein distance; lengths that differ too much are not looked at, so that long words cost nothing."""
    if abs(len(one) - len(other)) >= _TOO_FAR:
        return _TOO_FAR
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        above, row[0] = row[0], number
        for column, other_letter in enumerate(other, start=1):
            above, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, above + (letter != other_letter)),
            )
    return row[-1]
