"""The JSON form of an instruction's words, as in CMD ["python", "-m", "app"]."""

import json
import re
from typing import Never

_SURROGATE = "[\ud800-\udfff]"


class NotStringsError(ValueError):
    """A JSON list, but not of strings only."""


def json_words(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON list, or None if the text is none: then it is the shell form, however much it looks alike.

    Half a surrogate pair, and a byte that is not UTF-8, becomes U+FFFD as in Go, since nothing could be done with it.
    """
    if not text.startswith("["):
        return None
    try:
        # float, since int refuses thousands of digits with an error of its own; NaN is Python's, not JSON's.
        value = json.loads(text, parse_int=float, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in value):
        raise NotStringsError
    return tuple(re.sub(_SURROGATE, "\ufffd", word) for word in value)


def _refuse(constant: str) -> Never:
    raise ValueError(constant)
