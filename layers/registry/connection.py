"""One request and its answer, with nothing of what HTTP libraries do behind one's back.

This is the door of `requests`, and only its transport adapter is used: a session would read passwords from .netrc,
collect cookies, follow redirects with the Authorization of the first host, and decompress blobs. Proxies are those of
the environment (HTTPS_PROXY, NO_PROXY, ...), which no request to this machine itself goes through.
"""

import threading
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from layers.registry.answer import Answer
from layers.registry.body import Body
from layers.registry.errors import BusyError, RegistryError
from layers.registry.places import Places, is_loopback
from layers.registry.reasons import no_answer
from layers.registry.retry import retry_after
from layers.registry.settings import RegistrySettings
from layers.registry.trust import Identity, TrustingAdapter, identity_of

__all__ = ["Answer", "Connection", "is_same_server"]

_CONNECTING = 10.0
"""Seconds to connect, and to get a block of a body on its way."""
_SILENCE = 60.0
"""Seconds between two pieces of an answer."""
_LONG_SILENCE = 300.0
"""Seconds until a PUT is answered: at the end of an upload, registries move and hash all of it."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REPEATS = frozenset({307, 308})
"""Redirects that mean: the same method with the same body (RFC 9110, section 15.4)."""
_MOST_REDIRECTS = 8
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_URL = 300
_PORTS = {"http": 80, "https": 443}


class Connection:
    """Connections to any number of hosts, kept open between requests; threads may share it."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.places = Places(settings)
        self._settings = settings
        self._plain = _plain_adapter()
        self._identities: dict[str, Identity] = {}
        self._trusting: dict[Identity, TrustingAdapter] = {}
        self._lock = threading.Lock()

    def get(
        self,
        url: str,
        *,
        authorization: str = "",
        accept: str = "*/*",
        extra: Callable[[str], Mapping[str, str]] = lambda _: {},
    ) -> Answer:
        """GET, as `ask` does it; `extra` says which further headers go to a URL."""
        return self.ask("GET", url, authorization=authorization, headers={"Accept": accept}, extra=extra)

    def ask(
        self,
        method: str,
        url: str,
        *,
        authorization: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        extra: Callable[[str], Mapping[str, str]] = lambda _: {},
        alone: bool = False,
    ) -> Answer:
        """One request, through redirects; `authorization` goes to the first host alone.

        The answer may have any status but those that say "try again": they rise as BusyError, a broken connection as
        DroppedError, none at all as UnreachableError or UntrustedError. `alone` makes a connection for this request.
        """
        for _ in range(_MOST_REDIRECTS):
            answer = self._send(method, url, _headers(headers, extra(url), authorization), body, alone=alone)
            if answer.status in _BUSY:
                raise _busy(answer)
            if answer.status not in (_REDIRECTS if body is None else _REPEATS):
                return answer
            with answer:
                target = _target(answer)
            if not is_same_server(target, url):
                authorization = ""
                if body is not None and body.secret:
                    raise RegistryError(f"{answer.host} redirects a login to another server, {_split(target).netloc}")
            url = target
        raise RegistryError(f"{answer.host} redirects without end")

    def close(self) -> None:
        """Close all connections; answers that are still open break off."""
        for adapter in (self._plain, *self._trusting.values()):
            adapter.close()

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body | None, *, alone: bool) -> Answer:
        parts = _split(url)
        host = parts.netloc.rpartition("@")[2]
        request = requests.Request(method, url, headers=headers).prepare()
        if body is not None:
            request.headers["Content-Length"] = str(body.size)
            request.body = body.blocks() if body.size else b""  # type: ignore[assignment]  # urllib3 takes an iterator
        identity = self._identity(host)
        insecure = self.places.is_insecure(host)
        adapter = self._adapter(parts.scheme, identity, insecure=insecure, alone=alone)
        try:
            response = adapter.send(
                request,
                stream=True,
                timeout=(_CONNECTING, _LONG_SILENCE if method == "PUT" else _SILENCE),
                verify=not insecure,
                cert=identity.client if insecure else None,
                proxies={} if is_loopback(host) else requests.utils.get_environ_proxies(url),
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise no_answer(host, error) from error
        return Answer(url, response)

    def _identity(self, host: str) -> Identity:
        if host not in self._identities:
            self._identities[host] = identity_of(host, self._settings.certificates)
        return self._identities[host]

    def _adapter(self, scheme: str, identity: Identity, *, insecure: bool, alone: bool) -> HTTPAdapter:
        """The adapter that has the right idea of whom to trust; making one that trusts the system takes a moment."""
        if scheme == "http" or insecure:
            if insecure:
                # The person named the host; a warning on the terminal for each request would tell nothing new.
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            return _plain_adapter() if alone else self._plain
        if alone:
            return TrustingAdapter(identity, self._settings.ca_file)
        with self._lock:
            if identity not in self._trusting:
                self._trusting[identity] = TrustingAdapter(identity, self._settings.ca_file)
            return self._trusting[identity]


def _plain_adapter() -> HTTPAdapter:
    return HTTPAdapter(pool_connections=8, pool_maxsize=16)


def _headers(chosen: Mapping[str, str] | None, extra: Mapping[str, str], authorization: str) -> dict[str, str]:
    usual = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "pybuild"}
    headers = {**usual, **(chosen or {}), **extra}
    return {**headers, "Authorization": authorization} if authorization else headers


def _split(url: str) -> SplitResult:
    """The parts of a URL that has a host; RegistryError if it is none of http or https."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError as error:
        raise RegistryError(f"{url[:_LONGEST_URL]!r} is not a URL") from error
    if not sound:
        raise RegistryError(f"{url[:_LONGEST_URL]!r} is not a URL of http or https")
    return parts


def is_same_server(one: str, other: str) -> bool:
    """Whether two URLs lead to the same server (RFC 6454, section 5)."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = _split(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def _target(answer: Answer) -> str:
    """Where a redirect leads; RegistryError if nowhere, or out of TLS."""
    location = answer.headers.get("Location", "")
    if not location:
        raise RegistryError(f"{answer.host} redirects to nowhere: its answer {answer.status} has no Location")
    return joined(answer, location)


def joined(answer: Answer, location: str) -> str:
    """The URL of a Location; RegistryError if it is none, or leads out of TLS."""
    try:
        target = urljoin(answer.url, location)
    except ValueError as error:
        raise RegistryError(f"{answer.host} redirects to {location[:_LONGEST_URL]!r}, which is not a URL") from error
    if _split(target).scheme != "https" and answer.url.startswith("https:"):
        raise RegistryError(
            f"{answer.host} redirects from https to http, which anybody on the way could answer",
            hint="the proxy in front of the registry should send X-Forwarded-Proto",
        )
    return target


def _busy(answer: Answer) -> BusyError:
    with answer:
        message = f"{answer.host} answers {answer.fault()}"
    if answer.status != 429:
        return BusyError(message, wait=retry_after(answer.headers))
    hint = "too many requests came from here; wait, log in for a larger quota, or use --registry-mirror"
    return BusyError(message, hint=hint, wait=retry_after(answer.headers))
