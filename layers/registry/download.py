"""Plain downloads: a URL becomes a blob, unless its server says that it is what came the last time."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.connection import Answer, Connection
from layers.registry.downloaded import MEDIA_TYPE, Downloaded, Validator
from layers.registry.errors import DroppedError, NotFoundError, RegistryError
from layers.registry.retry import retrying

_PIECE = 128 * 1024
_SURE = 60.0
"""Seconds. A last change that is nearer to the answer may hide a second one (RFC 9110, section 8.8.2.2)."""

Progress = Callable[[int, int], object]
"""Called with how many bytes have come, and how many there are; 0 if that is not known."""


def download(
    connection: Connection,
    url: str,
    layout: Layout,
    *,
    known: Validator | None = None,
    progress: Progress = lambda _done, _total: None,
    pause: Callable[[float], object] = time.sleep,
    authorization: str = "",
) -> Downloaded | None:
    """Fetch a URL into a blob; None means that it still is what came with `known`.

    `authorization` is the header's value; no other credentials are sent but those that stand in the URL. RegistryError
    if the server gives something else than the whole content, after as many tries as promise success; nothing is kept
    then.
    """

    def conditions(step: str) -> Mapping[str, str]:
        return _conditions(known) if known and known.place == place_of(step) else {}

    def attempt() -> Downloaded | None:
        with connection.get(url, authorization=authorization, extra=conditions) as answer:
            if answer.status == 304 and conditions(answer.url):
                return None
            if answer.status != 200:
                raise _refusal(answer, url)
            return _store(answer, layout, progress)

    return retrying(attempt, pause=pause)


def place_of(url: str) -> str:
    """A URL without what may differ from one redirect to the next, such as a signature, and without passwords."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _conditions(known: Validator) -> Mapping[str, str]:
    return {"If-None-Match": known.etag} if known.etag else {"If-Modified-Since": known.modified}


def _refusal(answer: Answer, url: str) -> RegistryError:
    message = f"{place_of(url)}: {answer.host} answers {answer.fault()}"
    if answer.status in {401, 403}:
        return NotFoundError(message, hint=f"it may need a login: --secret id=HTTP_AUTH_TOKEN_{answer.host}")
    if answer.status in {404, 410}:
        return NotFoundError(message, hint="check the URL")
    return RegistryError(message)


def _store(answer: Answer, layout: Layout, progress: Progress) -> Downloaded:
    """The body as a blob; DroppedError if fewer bytes come than the server said."""
    expected = _length(answer.headers)
    received = 0
    with layout.writer() as blob:
        while piece := answer.read(_PIECE):
            blob.write(piece)
            received += len(piece)
            progress(received, expected or 0)
        if expected is not None and received != expected:
            raise DroppedError(f"{place_of(answer.url)} ends after {received} of {expected} bytes")
        digest, size = blob.commit()
    changed = _moment(answer.headers.get("Last-Modified", ""))
    seconds = int(changed.timestamp()) if changed else 0
    return Downloaded(Descriptor(MEDIA_TYPE, digest, size), max(0, seconds), _validator(answer, changed))


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Content-Length", "")
    is_said = text.isascii() and text.isdigit() and "Transfer-Encoding" not in headers
    return int(text) if is_said else None


def _validator(answer: Answer, changed: datetime | None) -> Validator | None:
    place = place_of(answer.url)
    if etag := answer.headers.get("ETag", "").strip():
        return Validator(place, etag=etag)
    sent = _moment(answer.headers.get("Date", ""))
    if changed and sent and (sent - changed).total_seconds() >= _SURE:
        return Validator(place, modified=answer.headers["Last-Modified"])
    return None


def _moment(text: str) -> datetime | None:
    """A date of HTTP; None if it is none. One without a zone is in UTC, as all of HTTP's are."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
