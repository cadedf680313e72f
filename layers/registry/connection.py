"""One request and its answer, with nothing of what HTTP libraries do behind one's back.

This is the door of `requests`, and only its transport adapter is used: a session would read passwords from .netrc,
collect cookies, follow redirects with the Authorization of the first host, and decompress blobs. Proxies are those of
the environment (HTTPS_PROXY, NO_PROXY, ...), which no request to this machine itself goes through.
"""

import json
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from layers.registry.errors import BusyError, DroppedError, RegistryError
from layers.registry.reasons import no_answer, reason
from layers.registry.retry import retry_after
from layers.registry.settings import RegistrySettings, is_loopback

_TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and between two pieces of an answer."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 8
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_PIECE = 64 * 1024
_MOST_PIECES_OF_FAULT = 4
_LONGEST_WORDS = 300
_PORTS = {"http": 80, "https": 443}


class Answer:
    """One answer whose body is still on the wire; whoever gets it closes it."""

    def __init__(self, url: str, response: requests.Response) -> None:
        self.url = url
        self.host = urlsplit(url).netloc.rpartition("@")[2]
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the body as they were sent, nothing at its end; DroppedError if it breaks off."""
        try:
            data: bytes = self._response.raw.read(size, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise DroppedError(f"{self.host} broke off an answer: {reason(error)}") from error
        return data

    def document(self, limit: int) -> bytes:
        """The whole body; RegistryError if it is longer than `limit` bytes."""
        pieces = []
        left = limit
        while piece := self.read(_PIECE):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise RegistryError(f"{self.host} sends more than {limit >> 20} MiB where a document should be")
        return b"".join(pieces)

    def fault(self) -> str:
        """What the server says of its refusal, as a piece of a sentence: `404 (NAME_UNKNOWN: no such name)`."""
        pieces: list[bytes] = []
        while len(pieces) < _MOST_PIECES_OF_FAULT and (piece := self.read(_PIECE)):
            pieces.append(piece)
        words = _words(b"".join(pieces))
        return f"{self.status} ({words})" if words else str(self.status)

    def close(self) -> None:
        """Give the connection back; what was not read of the body is lost."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Connection:
    """Connections to any number of hosts, kept open between requests; threads may share it."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._adapter = HTTPAdapter(pool_connections=8, pool_maxsize=16)
        if settings.insecure:
            # The person named the hosts; a warning on the terminal for each request would tell nothing new.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def get(
        self,
        url: str,
        *,
        authorization: str = "",
        accept: str = "*/*",
        extra: Callable[[str], Mapping[str, str]] = lambda _: {},
    ) -> Answer:
        """GET, through redirects; `authorization` goes to the first host alone, `extra` headers where it says.

        The answer may have any status but those that say "try again": they rise as BusyError, a broken connection as
        DroppedError, none at all as UnreachableError or UntrustedError.
        """
        for _ in range(_MOST_REDIRECTS):
            headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "pybuild", **extra(url)}
            if authorization:
                headers["Authorization"] = authorization
            answer = self._send(url, headers)
            if answer.status in _BUSY:
                raise _busy(answer)
            if answer.status not in _REDIRECTS:
                return answer
            with answer:
                target = _target(answer)
            if _origin(target) != _origin(url):
                authorization = ""
            url = target
        raise RegistryError(f"{answer.host} redirects without end")

    def close(self) -> None:
        """Close all connections; answers that are still open break off."""
        self._adapter.close()

    def _send(self, url: str, headers: Mapping[str, str]) -> Answer:
        parts = _split(url)
        host = parts.netloc.rpartition("@")[2]
        try:
            response = self._adapter.send(
                requests.Request("GET", url, headers=headers).prepare(),
                stream=True,
                timeout=_TIMEOUT,
                verify=not self._settings.is_insecure(host) and (self._settings.ca_file or True),
                proxies={} if is_loopback(host) else requests.utils.get_environ_proxies(url),
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise no_answer(host, error) from error
        return Answer(url, response)


def _split(url: str) -> SplitResult:
    """The parts of a URL that has a host; RegistryError if it is none of http or https."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError as error:
        raise RegistryError(f"{url[:_LONGEST_WORDS]!r} is not a URL") from error
    if not sound:
        raise RegistryError(f"{url[:_LONGEST_WORDS]!r} is not a URL of http or https")
    return parts


def _origin(url: str) -> tuple[str, str | None, int]:
    """What must be the same for two URLs to lead to the same server (RFC 6454)."""
    parts = _split(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def _target(answer: Answer) -> str:
    """Where a redirect leads; RegistryError if nowhere, or out of TLS."""
    location = answer.headers.get("Location", "")
    if not location:
        raise RegistryError(f"{answer.host} redirects to nowhere: its answer {answer.status} has no Location")
    try:
        target = urljoin(answer.url, location)
    except ValueError as error:
        raise RegistryError(f"{answer.host} redirects to {location[:_LONGEST_WORDS]!r}, which is not a URL") from error
    if answer.url.startswith("https:") and _split(target).scheme != "https":
        raise RegistryError(f"{answer.host} redirects from https to http, which anybody on the way could answer")
    return target


def _busy(answer: Answer) -> BusyError:
    with answer:
        message = f"{answer.host} answers {answer.fault()}"
    if answer.status != 429:
        return BusyError(message, wait=retry_after(answer.headers))
    hint = "too many requests came from here; wait, log in for a larger quota, or use --registry-mirror"
    return BusyError(message, hint=hint, wait=retry_after(answer.headers))


def _words(body: bytes) -> str:
    """Codes and messages of a registry's error document (distribution-spec, "Error Codes"); empty for anything else."""
    try:
        errors = json.loads(body)["errors"]
        words = "; ".join(f"{error['code']}: {error.get('message') or ''}".rstrip(": ") for error in errors)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in words)[:_LONGEST_WORDS]
