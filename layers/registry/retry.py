"""Another try for what may work at another try."""

import random
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

from layers.registry.errors import DroppedError, TransientError

T = TypeVar("T")

ATTEMPTS = 5
"""With the pauses below, some eight seconds: longer than a load balancer's restart, shorter than patience."""
LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more, as Docker Hub does once a quota is used up, has said no."""
_FIRST_PAUSE = 0.5


def retrying(
    action: Callable[[], T],
    *,
    pause: Callable[[float], object],
    attempts: int = ATTEMPTS,
    reached: Callable[[], int] = lambda: 0,
) -> T:
    """Do it until it is done; the last TransientError rises as it is, and is final for whoever tries around this.

    Pauses double and are spread at random, so that many clients that failed together do not return together. `reached`
    says how far it has come: a try that came farther than all before begins the count anew, and if its connection just
    broke, the next one follows at once.
    """
    tried = 0
    farthest = reached()
    while True:
        try:
            return action()
        except TransientError as error:
            if reached() > farthest:
                tried, farthest = 0, reached()
                if isinstance(error, DroppedError) and not error.final:
                    continue
            tried += 1
            if error.final or tried == attempts or error.wait > LONGEST_WAIT:
                error.final = True
                raise
            spread = random.uniform(0.5, 1.5)  # noqa: S311 - nobody gains by guessing it
            pause(max(error.wait, _FIRST_PAUSE * 2 ** (tried - 1) * spread))


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks to wait for (RFC 9110, section 10.2.3); 0.0 if it does not, or not intelligibly.

    A moment is taken relative to the answer's own Date, since the clock of this machine may be wrong.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError):
        # TypeError: only one of the two names a time zone.
        return 0.0
    return max(0.0, wait.total_seconds())
