"""Access to one repository: the answer to a registry's challenge, remembered until it ends.

Follows the distribution project's "Token Authentication Specification": the registry names a realm, the realm gives a
token for scopes, to somebody with a login or to anybody. With a password it is asked by GET; with an identity token, by
POST as OAuth2 has it.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode, urlsplit

from layers.registry.body import Body
from layers.registry.challenge import Challenge, parse_challenges
from layers.registry.connection import Connection
from layers.registry.errors import RegistryError
from layers.registry.login import Login
from layers.registry.realm import check_realm

_LONGEST_TOKEN_ANSWER = 1 << 20
_LIFETIME = 60.0
"""Seconds that a token holds if its giver does not say ("expires_in" of the specification)."""
_SAFE_PART = 0.8
"""Of its lifetime a token is used for this part only: it has travelled, and a request takes time."""
_SENDABLE = re.compile(r"[\x21-\x7e]+")
_CLIENT = "pybuild"
"""Who asks, for the records of a token server (`client_id`)."""

Warn = Callable[[str], object]


class Access:
    """The Authorization header for some scopes of one registry; threads share it, and share its renewal."""

    def __init__(
        self,
        connection: Connection,
        *,
        host: str,
        origin: str,
        scopes: Sequence[str],
        login: Callable[[], Login],
        warn: Warn,
        may_be_anonymous: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `may_be_anonymous`, a login that is refused is not given up for what everybody may do."""
        self._connection = connection
        self._origin = origin
        self._host = host
        self._scopes = tuple(scopes)
        self._login = login
        self._warn = warn
        self._may_be_anonymous = may_be_anonymous
        self._clock = clock
        self._lock = threading.Lock()
        self._header = ""
        self._ends = 0.0
        self._challenge = ""
        self.trouble = ""
        """Why it may be that access is refused; empty before that."""

    @property
    def was_asked(self) -> bool:
        """Whether the registry wanted to know who asks."""
        return bool(self._challenge)

    @property
    def header(self) -> str:
        """What to send; empty if nothing has been needed so far, or it has ended."""
        return self._header if self._clock() < self._ends else ""

    def fresh(self) -> str:
        """What to send, renewed if it has ended: before a long body, that is cheaper than being refused after it."""
        header = self.header
        if header or not self._header:
            return header
        return self.renew(self._challenge, self._header)

    def renew(self, challenge: str, refused: str) -> str:
        """The header that answers a `WWW-Authenticate`, in place of the one that was refused; empty if there is none.

        Of several threads that were refused at the same time, one asks and the others take what it got.
        """
        with self._lock:
            if (current := self.header) and current != refused:
                return current
            self._challenge = challenge
            self._header, lifetime = self._answer(parse_challenges(challenge))
            self._ends = self._clock() + lifetime
            return self._header

    def _answer(self, challenges: Sequence[Challenge]) -> tuple[str, float]:
        login = self._login()
        self.trouble = login.trouble
        if login.token:
            return f"Bearer {login.token}", float("inf")
        offered = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if "bearer" in offered:
            return self._token(offered["bearer"], login)
        if login.identity:
            self.trouble = f"the stored login is an identity token, and {self._host} asks for a password"
        elif "basic" in offered and login.basic:
            return login.basic, float("inf")
        return "", 0.0

    def _token(self, challenge: Challenge, login: Login) -> tuple[str, float]:
        """Ask the realm with the login; without one if that is refused, since what is public needs none."""
        realm = challenge.parameters.get("realm", "")
        check_realm(realm, self._origin)
        scopes = merged(challenge.parameters.get("scope", ""), self._scopes)
        question = {"service": challenge.parameters.get("service", "")}
        if login.identity:
            found = self._exchange(realm, {**question, "scope": " ".join(scopes)}, login)
        elif login.basic:
            found = self._ask(realm, {**question, "scope": scopes, "account": login.username}, login.basic)
        else:
            found = None
        if found:
            return found
        if not login.is_anonymous:
            self.trouble = f"the login that is stored for {self._host} is refused"
            if not self._may_be_anonymous:
                return "", 0.0
            self._warn(f"{self.trouble}; going on without")
        if found := self._ask(realm, {**question, "scope": scopes}, ""):
            return found
        self.trouble = self.trouble or f"{urlsplit(realm).netloc} gives no token to anonymous readers"
        return "", 0.0

    def _ask(
        self, realm: str, query: Mapping[str, str | tuple[str, ...]], authorization: str
    ) -> tuple[str, float] | None:
        filled = {name: text for name, text in query.items() if text}
        url = realm + ("&" if urlsplit(realm).query else "?") + urlencode(filled, doseq=True)
        return self._read("GET", url if filled else realm, authorization, None)

    def _exchange(self, realm: str, form: Mapping[str, str], login: Login) -> tuple[str, float] | None:
        """Give an identity token for an access token (RFC 6749, section 6)."""
        grant = {"grant_type": "refresh_token", "refresh_token": login.identity, "client_id": _CLIENT}
        filled = {name: text for name, text in {**form, **grant}.items() if text}
        return self._read("POST", realm, "", Body.of(urlencode(filled).encode(), secret=True))

    def _read(self, method: str, url: str, authorization: str, body: Body | None) -> tuple[str, float] | None:
        """What the token server gives; None if it refuses."""
        headers = {"Accept": "application/json"}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        with self._connection.ask(method, url, authorization=authorization, headers=headers, body=body) as answer:
            # 400 is how OAuth2 refuses an identity token (RFC 6749, section 5.2).
            if answer.status in ({400, 401, 403} if body else {401, 403}):
                return None
            if answer.status != 200:
                raise RegistryError(f"the token server {answer.host} answers {answer.fault()}")
            return _parse_token(answer.document(_LONGEST_TOKEN_ANSWER), answer.host)


def merged(asked: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The scopes to ask for: those of the challenge, with what is wanted beyond them.

    Scopes are `TYPE:NAME:ACTION,ACTION`. What the challenge asks for comes first, since some servers read only one. The
    first that is wanted is left out if the challenge calls the same thing by another name.
    """
    scopes = {_thing(scope): scope for scope in asked.split()}
    for place, scope in enumerate(wanted):
        thing = _thing(scope)
        if thing in scopes:
            actions = [*_actions(scopes[thing]), *_actions(scope)]
            scopes[thing] = f"{thing}:{','.join(dict.fromkeys(actions))}"
        elif place or not scopes:
            scopes[thing] = scope
    return tuple(scopes.values())


def _thing(scope: str) -> str:
    return scope.rpartition(":")[0]


def _actions(scope: str) -> list[str]:
    return scope.rpartition(":")[2].split(",")


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
