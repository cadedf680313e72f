"""Logins for what a build fetches by itself, ADD and contexts: secrets of certain ids, which no step needs to mount.

As in BuildKit, `HTTP_AUTH_TOKEN_HOST` and `HTTP_AUTH_HEADER_HOST` are for URLs of a host, and `GIT_AUTH_TOKEN.HOST` and
`GIT_AUTH_HEADER.HOST` for its repositories; without a host, the latter are for all repositories that a build names.
"""

from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import urlsplit

from builder.credentials import Secret
from builder.errors import UsageError

_GIT_USER = "x-access-token"
"""What servers of git want as the name where the password is a token."""

_WEB = frozenset({"http", "https"})


def of_url(url: str, secrets: Mapping[str, Secret]) -> str:
    """The value of the Authorization header for a URL; empty for none."""
    for host in _hosts(url):
        if header := _text(secrets, f"HTTP_AUTH_HEADER_{host}"):
            return header
        if token := _text(secrets, f"HTTP_AUTH_TOKEN_{host}"):
            return f"Bearer {token}"
    return ""


def of_repository(url: str, secrets: Mapping[str, Secret]) -> str:
    """The same for a repository that is fetched by HTTP; a URL with a login of its own keeps that."""
    for suffix in (*(f".{host}" for host in _hosts(url)), *([""] if _hosts(url) else [])):
        if header := _text(secrets, f"GIT_AUTH_HEADER{suffix}"):
            return header
        if token := _text(secrets, f"GIT_AUTH_TOKEN{suffix}"):
            return "Basic " + b64encode(f"{_GIT_USER}:{token}".encode()).decode()
    return ""


def _hosts(url: str) -> tuple[str, ...]:
    """The host with its port, if it is written, and without; nothing for what is not HTTP or has a login in it."""
    parts = urlsplit(url)
    if parts.scheme not in _WEB or "@" in parts.netloc:
        return ()
    return tuple(dict.fromkeys((parts.netloc, parts.hostname or "")))


def _text(secrets: Mapping[str, Secret], identity: str) -> str:
    secret = secrets.get(identity)
    if secret is None:
        return ""
    try:
        text = secret.value.decode("ascii").strip()
    except UnicodeDecodeError:
        text = "\n"
    if not text.isprintable():
        raise UsageError(f"--secret {identity}: it cannot be sent to a server", hint="it is one line of ASCII")
    return text
