"""--chmod: what is understood, and what it makes of a mode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.steps.mode import SymbolicMode, parse_mode


def changed(text: str, mode: int, *, is_folder: bool = False) -> int:
    parsed = parse_mode(text)
    assert isinstance(parsed, SymbolicMode)
    return parsed.applied(mode, is_folder=is_folder)


@pytest.mark.parametrize(
    ("text", "mode"), [("644", 0o644), ("0644", 0o644), ("0", 0), ("04755", 0o4755), ("7777", 0o7777)]
)
def test_a_number_is_octal(text: str, mode: int) -> None:
    assert parse_mode(text) == mode


@pytest.mark.parametrize(
    "text", ["8", "0o755", "10000", "75a", "7_5", "-1", "\u0667", "x", "u", "+q", "u=rw,", ",", "u+x;", "go", "u rw"]
)
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid chmod parameter"):
        parse_mode(text)


@pytest.mark.parametrize(
    ("text", "before", "file", "folder"),
    [
        ("+x", 0o644, 0o755, 0o755),
        ("u=rwX,go=rX", 0o600, 0o644, 0o755),
        ("u=rwX,go=rX", 0o700, 0o755, 0o755),
        ("a+X", 0o640, 0o640, 0o751),
        ("go-w", 0o777, 0o755, 0o755),
        ("=", 0o755, 0, 0),
        ("go=", 0o777, 0o700, 0o700),
        ("g=u", 0o741, 0o771, 0o771),
        ("g=u-w", 0o741, 0o751, 0o751),
        ("o=g", 0o750, 0o755, 0o755),
        ("u+s,g+s", 0o755, 0o6755, 0o6755),
        ("u=rw", 0o4755, 0o655, 0o655),
        ("o+s", 0o755, 0o755, 0o755),
        ("+t", 0o755, 0o1755, 0o1755),
        ("o+t", 0o755, 0o755, 0o755),
        ("-t", 0o1755, 0o755, 0o755),
        ("=rw", 0o1777, 0o1666, 0o1666),
        ("a=r,u+w", 0o777, 0o644, 0o644),
        ("a-x+X", 0o755, 0o755, 0o755),
        ("a-X", 0o755, 0o644, 0o644),
    ],
)
def test_changes_are_made_one_after_the_other(text: str, before: int, file: int, folder: int) -> None:
    assert changed(text, before) == file
    assert changed(text, before, is_folder=True) == folder


_CLAUSES = st.from_regex(r"[ugoa]{0,3}([-+=][rwxXst]{0,4}|[-+=][ugo]){1,3}", fullmatch=True)


@pytest.mark.property
@given(st.lists(_CLAUSES, min_size=1, max_size=3).map(",".join), st.integers(0, 0o7777), st.booleans())
def test_any_changes_give_a_mode(text: str, mode: int, is_folder: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    assert 0 <= changed(text, mode, is_folder=is_folder) <= 0o7777


@pytest.mark.property
@given(st.text("ugoa+-=rwxXst,0178", max_size=8))
def test_any_text_is_a_mode_or_a_value_error(text: str) -> None:
    try:
        parse_mode(text)
    except ValueError as error:
        assert "invalid chmod parameter" in str(error)  # noqa: PT017 - either outcome will do
