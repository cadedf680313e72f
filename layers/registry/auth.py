"""Access to one repository: the answer to a registry's challenge, remembered until it ends.

Follows the distribution project's "Token Authentication Specification": the registry names a realm, the realm gives a
token for a scope, to somebody with a login or to anybody.
"""

import ipaddress
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlencode, urlsplit

from layers.registry.challenge import Challenge, parse_challenges
from layers.registry.connection import Connection
from layers.registry.credentials import Login
from layers.registry.errors import RegistryError

_LONGEST_TOKEN_ANSWER = 1 << 20
_LIFETIME = 60.0
"""Seconds that a token holds if its giver does not say ("expires_in" of the specification)."""
_SAFE_PART = 0.8
"""Of its lifetime a token is used for this part only: it has travelled, and a request takes time."""
_SENDABLE = re.compile(r"[\x21-\x7e]+")

Warn = Callable[[str], object]


class Access:
    """The Authorization header for one scope of one registry; threads share it, and share its renewal."""

    def __init__(
        self,
        connection: Connection,
        *,
        host: str,
        origin: str,
        scope: str,
        login: Callable[[], Login],
        warn: Warn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._origin = origin
        self._host = host
        self._scope = scope
        self._login = login
        self._warn = warn
        self._clock = clock
        self._lock = threading.Lock()
        self._header = ""
        self._ends = 0.0
        self.trouble = ""
        """Why it may be that access is refused; empty before that."""

    @property
    def header(self) -> str:
        """What to send; empty if nothing has been needed so far, or it has ended."""
        return self._header if self._clock() < self._ends else ""

    def renew(self, challenge: str, refused: str) -> str:
        """The header that answers a `WWW-Authenticate`, in place of the one that was refused; empty if there is none.

        Of several threads that were refused at the same time, one asks and the others take what it got.
        """
        with self._lock:
            if (current := self.header) and current != refused:
                return current
            self._header, lifetime = self._answer(parse_challenges(challenge))
            self._ends = self._clock() + lifetime
            return self._header

    def _answer(self, challenges: Iterable[Challenge]) -> tuple[str, float]:
        login = self._login()
        self.trouble = login.trouble
        if login.token:
            return f"Bearer {login.token}", float("inf")
        offered = {challenge.scheme: challenge for challenge in reversed(tuple(challenges))}
        if "bearer" in offered:
            return self._token(offered["bearer"], login)
        if "basic" in offered and login.basic:
            return login.basic, float("inf")
        return "", 0.0

    def _token(self, challenge: Challenge, login: Login) -> tuple[str, float]:
        """Ask the realm with the login; without one if that is refused, since what is public needs none."""
        realm = challenge.parameters.get("realm", "")
        _check_realm(realm, self._origin)
        query = {
            "service": challenge.parameters.get("service", ""),
            "scope": challenge.parameters.get("scope") or self._scope,
            "account": login.username,
        }
        separator = "&" if urlsplit(realm).query else "?"
        url = realm + separator + urlencode({name: text for name, text in query.items() if text})
        if login.basic:
            if token := self._ask(url, login.basic):
                return token
            self.trouble = f"the login that is stored for {self._host} is refused"
            self._warn(f"{self.trouble}; going on without")
        if token := self._ask(url, ""):
            return token
        self.trouble = self.trouble or f"{urlsplit(realm).netloc} gives no token to anonymous readers"
        return "", 0.0

    def _ask(self, url: str, authorization: str) -> tuple[str, float] | None:
        with self._connection.get(url, authorization=authorization, accept="application/json") as answer:
            if answer.status in {401, 403}:
                return None
            if answer.status != 200:
                raise RegistryError(f"the token server {answer.host} answers {answer.fault()}")
            return _parse_token(answer.document(_LONGEST_TOKEN_ANSWER), answer.host)


def _parse_token(data: bytes, host: str) -> tuple[str, float]:
    """The header and its lifetime in seconds out of a token server's answer."""
    try:
        answer = json.loads(data)
        token = answer.get("token") or answer["access_token"]
        lifetime = answer.get("expires_in")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryError(f"the token server {host} answers something else than a token") from error
    if not isinstance(token, str) or not _SENDABLE.fullmatch(token):
        raise RegistryError(f"the token server {host} gives a token that cannot be sent")
    known = isinstance(lifetime, int | float) and not isinstance(lifetime, bool) and lifetime > 0
    return f"Bearer {token}", _SAFE_PART * (lifetime if known else _LIFETIME)


def _check_realm(realm: str, origin: str) -> None:
    """RegistryError if the registry sends us where it has no business to (a request forged through us).

    It may not send a login out of TLS, and from the outside not into a private network or to this machine.
    """
    try:
        there, here = urlsplit(realm), urlsplit(origin)
        host = there.hostname or ""
    except ValueError:
        host = ""
    if not host or there.scheme not in {"http", "https"}:
        raise RegistryError(f"{urlsplit(origin).netloc} asks for a token, but from {realm[:200]!r}, which is no URL")
    if here.scheme == "https" and there.scheme == "http":
        raise RegistryError(f"{here.netloc} asks to send the login to {there.netloc} without TLS")
    if host == here.hostname:
        return
    reach = _reach(host)
    if reach in {"public", _reach(here.hostname or "")}:
        return
    if (reach, _reach(here.hostname or "")) == ("private", "loopback"):
        # A registry behind a tunnel that ends on this machine.
        return
    raise RegistryError(f"{here.netloc} asks for a token from {there.netloc}, which is a {reach} address")


def _reach(host: str) -> str:
    """From where a host can be reached: public, private, loopback or local; the least public of its addresses.

    A name that cannot be looked up counts as public: behind a proxy, only the proxy may know names.
    """
    try:
        found = {
            str(address[4][0]).partition("%")[0].removeprefix("::ffff:") for address in socket.getaddrinfo(host, None)
        }
    except (OSError, UnicodeError):
        return "public"
    addresses = [ipaddress.ip_address(text) for text in found]
    if any(address.is_loopback for address in addresses):
        return "loopback"
    if any(address.is_link_local for address in addresses):
        return "local"
    return "public" if all(address.is_global for address in addresses) else "private"
