"""What a person's Docker configuration says about logging in to a registry.

`credHelpers` of the registry beats `auths` beats `credsStore`. A helper that is missing or fails leaves the person
anonymous instead of ending a pull that needs no login; the reason is kept for the case that it does.
"""

import base64
import binascii
import json
import os
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layers.registry.errors import RegistryError
from layers.registry.reference import DOCKER_HUB, DOCKER_HUB_ALIASES

_HUB_KEY = "https://index.docker.io/v1/"
"""Under this name Docker has always kept the login of Docker Hub."""
_API_ROOTS = frozenset({"", "v1", "v2"})
_HELPER_SECONDS = 30
_NO_SUCH_LOGIN = "credentials not found in native keychain"
"""The text by which the protocol of docker-credential-helpers tells "none" from "broken"."""
_IDENTITY = "<token>"
"""The user name by which a helper says that the secret is an identity token."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Login:
    """What is at hand for one registry; all empty is anonymous."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """To be sent as a bearer token as it is (`registrytoken`)."""
    trouble: str = ""
    """Why there is nothing, although something was configured."""

    @property
    def basic(self) -> str:
        """The Authorization header of RFC 7617; empty without a password."""
        if not self.username and not self.password:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Logins:
    """The logins of one config.json, read when first needed; each helper is asked once for a registry."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._known: dict[str, Login] = {}
        self._lock = threading.Lock()

    def of(self, host: str) -> Login:
        """The login for a registry; RegistryError if config.json is there and cannot be understood."""
        with self._lock:
            if host not in self._known:
                self._known[host] = self._find(host)
            return self._known[host]

    def _find(self, host: str) -> Login:
        if self._folder is None:
            return Login()
        path = os.path.join(self._folder, "config.json")
        try:
            config = _read(path)
            for key, helper in _section(config, "credHelpers").items():
                if registry_of(key) == host:
                    return _ask(str(helper), key if host != DOCKER_HUB else _HUB_KEY)
            for key in sorted(_section(config, "auths"), key=lambda key: key != _HUB_KEY):
                if registry_of(key) == host and (login := _stored(_section(config["auths"], key))):
                    return login
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{path} is not a configuration of Docker: {error}") from error
        except OSError as error:
            raise RegistryError(f"{path} cannot be read: {error.strerror}") from error
        if store := config.get("credsStore"):
            return _ask(str(store), host if host != DOCKER_HUB else _HUB_KEY)
        return Login()


def registry_of(key: str) -> str:
    """The registry that a key of config.json is about; empty if it is about something else.

    Keys are hosts or URLs of any age. Docker Desktop keeps tokens of its own under paths beside `/v1/`.
    """
    host, _, path = key.removeprefix("https://").removeprefix("http://").partition("/")
    if path.strip("/") not in _API_ROOTS:
        return ""
    return DOCKER_HUB if host.lower() in DOCKER_HUB_ALIASES else host


def _read(path: str) -> Json:
    try:
        with open(path, "rb") as file:
            config = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if not isinstance(config, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one kind of error for all that is malformed
    return config


def _section(config: Mapping[str, Any], name: str) -> Json:
    section = config.get(name) or {}
    if not isinstance(section, dict):
        raise ValueError(f"{name} is not a JSON object")  # noqa: TRY004 - as above
    return section


def _stored(entry: Json) -> Login | None:
    """The login that an entry of `auths` holds; None for the empty ones that only say "ask the store"."""
    texts = {name: text for name, text in entry.items() if text and isinstance(text, str)}
    if token := texts.get("registrytoken"):
        return Login(token=token)
    if "identitytoken" in texts:
        return _identity_token()
    if auth := texts.get("auth"):
        try:
            username, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError("an auth is not base64 of USER:PASSWORD") from error
        # Old versions of Docker padded with NUL.
        return Login(username, password.strip("\0"))
    if "username" in texts or "password" in texts:
        return Login(texts.get("username", ""), texts.get("password", ""))
    return None


def _identity_token() -> Login:
    return Login(trouble="the stored login is an identity token, which pybuild cannot use: log in with a password")


def _ask(helper: str, key: str) -> Login:
    """Run `docker-credential-HELPER get` as its protocol says: the key comes in, a JSON object goes out."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=key.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, ValueError) as error:
        return Login(trouble=f"{program}, which config.json names, cannot be run: {error}")
    except subprocess.TimeoutExpired:
        return Login(trouble=f"{program} gave no answer in {_HELPER_SECONDS} seconds")
    output = done.stdout.decode(errors="replace").strip()
    if done.returncode:
        return Login() if output == _NO_SUCH_LOGIN else Login(trouble=f"{program} fails: {output[:200]}")
    return _answered(program, output)


def _answered(program: str, output: str) -> Login:
    try:
        answer = json.loads(output)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return Login(trouble=f"{program} answers something else than a login")
    return _identity_token() if username == _IDENTITY else Login(username, secret)
