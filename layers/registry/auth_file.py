"""Files of logins: Docker's config.json, and containers' auth.json, which has the same form.

`credHelpers` of the registry beats `auths` beats `credsStore`. Of several entries of `auths` the one with the longest
path wins (containers-auth.json(5)): `host/team/app`, then `host/team`, then `host`.
"""

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from layers.registry import helper
from layers.registry.errors import RegistryError
from layers.registry.login import Login
from layers.registry.reference import DOCKER_HUB, DOCKER_HUB_ALIASES

_HUB_KEY = "https://index.docker.io/v1/"
"""Under this name Docker has always kept the login of Docker Hub."""
_API_ROOTS = frozenset({"", "v1", "v2"})

Json = dict[str, Any]


class AuthFile:
    """One file, read at each question; it need not exist."""

    def __init__(self, path: str) -> None:
        self.path = path

    def find(self, host: str, repository: str) -> Login:
        """The login for a repository (empty: for the registry); anonymous if the file has none.

        RegistryError if the file cannot be understood. What a helper could not tell is in `trouble`.
        """
        with self._explained():
            return find(self._read(), host, repository)

    def save(self, host: str, namespace: str, login: Login) -> str:
        """Keep a login where the file says that it belongs: with the helper whose name is given back, or in itself."""
        with self._explained():
            config = self._read()
            keeper = _helper_of(config, host)
            if keeper and not namespace:
                helper.store(keeper, _key(host), login)
            # With a helper, the empty entry says that there is something to ask it for, as Docker writes it.
            entry = {} if keeper and not namespace else _entry(login)
            others = {
                key: value for key, value in _section(config, "auths").items() if _place(key) != (host, namespace)
            }
            self._write({**config, "auths": {**others, _key(host, namespace): entry}})
        return keeper if not namespace else ""

    def forget(self, host: str, namespace: str) -> bool:
        """Remove a login from the file and from its helper; False if there was none."""
        with self._explained():
            config = self._read()
            keeper = _helper_of(config, host)
            known = bool(keeper) and not namespace and not helper.get(keeper, _key(host)).is_anonymous
            if known:
                helper.erase(keeper, _key(host))
            auths = _section(config, "auths")
            others = {key: value for key, value in auths.items() if _place(key) != (host, namespace)}
            if len(others) == len(auths):
                return known
            self._write({**config, "auths": others})
        return True

    def _read(self) -> Json:
        try:
            with open(self.path, "rb") as file:
                return parse(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def _write(self, config: Json) -> None:
        """The file is complete, or as it was; nobody else may read it."""
        path = os.path.realpath(self.path)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        temporary = f"{path}.{os.urandom(4).hex()}.part"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(config, file, indent="\t")
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)
        finally:
            with suppress(OSError):
                os.unlink(temporary)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{self.path} is not a configuration of Docker: {error}") from error
        except OSError as error:
            raise RegistryError(f"{self.path}: {(error.strerror or str(error)).lower()}") from error


def parse(data: bytes | str) -> Json:
    """The JSON object of such a file; ValueError if it is none."""
    config = json.loads(data)
    if not isinstance(config, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one kind of error for all that is malformed
    return config


def find(config: Json, host: str, repository: str) -> Login:
    """The login that a configuration has for a repository; ValueError if it is malformed."""
    for key, name in _section(config, "credHelpers").items():
        if _place(key) == (host, ""):
            return helper.get(str(name), key if host != DOCKER_HUB else _HUB_KEY)
    auths = _section(config, "auths")
    for key in _fitting(auths, host, repository):
        login = _stored(_section(auths, key))
        if not login.is_anonymous:
            return login
    if name := config.get("credsStore"):
        return helper.get(str(name), _key(host))
    return Login()


def _fitting(auths: Json, host: str, repository: str) -> list[str]:
    """The keys that hold for a repository, the most special first; of several for the Hub, Docker's own first."""
    places = {key: place for key in auths if (place := _place(key)) and place[0] == host}
    fitting = [key for key, (_, path) in places.items() if f"{repository}/".startswith(f"{path}/" if path else "")]
    return sorted(fitting, key=lambda key: (-len(places[key][1]), key != _HUB_KEY))


def _place(key: str) -> tuple[str, str] | None:
    """Registry and namespace that a key is about; None if it is about something else.

    Keys are hosts or URLs of any age. Docker Desktop keeps tokens of its own under paths beside `/v1/`.
    """
    bare = key.removeprefix("https://").removeprefix("http://")
    host, _, path = bare.partition("/")
    host = DOCKER_HUB if host.lower() in DOCKER_HUB_ALIASES else host
    if path.strip("/") in _API_ROOTS:
        return host, ""
    return None if bare != key else (host, path.strip("/"))


def _key(host: str, namespace: str = "") -> str:
    if namespace:
        return f"{host}/{namespace}"
    return _HUB_KEY if host == DOCKER_HUB else host


def _helper_of(config: Json, host: str) -> str:
    """The helper that keeps the logins of a registry; empty if the file itself does."""
    for key, name in _section(config, "credHelpers").items():
        if _place(key) == (host, ""):
            return str(name)
    return str(config.get("credsStore") or "")


def _section(config: Mapping[str, Any], name: str) -> Json:
    section = config.get(name) or {}
    if not isinstance(section, dict):
        raise ValueError(f"{name} is not a JSON object")  # noqa: TRY004 - as above
    return section


def _stored(entry: Json) -> Login:
    """The login that an entry of `auths` holds; anonymous for the empty ones that only say "ask the store"."""
    texts = {name: text for name, text in entry.items() if text and isinstance(text, str)}
    username, password = texts.get("username", ""), texts.get("password", "")
    if auth := texts.get("auth"):
        try:
            username, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError("an auth is not base64 of USER:PASSWORD") from error
    if token := texts.get("registrytoken"):
        return Login(token=token)
    if identity := texts.get("identitytoken"):
        return Login(username, identity=identity)
    # Old versions of Docker padded with NUL.
    return Login(username, password.strip("\0"))


def _entry(login: Login) -> Json:
    auth = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    return {"auth": auth, "identitytoken": login.identity} if login.identity else {"auth": auth}
