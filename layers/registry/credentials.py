"""Which login goes to which repository.

What was given with the command goes before the environment, that before Docker's config.json, that before containers'
auth.json. A helper that is missing or fails leaves a person anonymous instead of ending a pull that needs no login; the
reason is kept for the case that it does.
"""

import os
import threading
from collections.abc import Callable, Iterator

from layers.registry import auth_file
from layers.registry.auth_file import AuthFile
from layers.registry.errors import RegistryError
from layers.registry.login import Login
from layers.registry.reference import DOCKER_HUB, DOCKER_HUB_ALIASES
from layers.registry.settings import GivenLogin, RegistrySettings


class Logins:
    """The logins of one run; what is asked for is looked up once."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._known: dict[tuple[str, str], Login] = {}
        self._lock = threading.Lock()

    def of(self, host: str, repository: str = "") -> Login:
        """The login for a repository; RegistryError if a file is there and cannot be understood."""
        with self._lock:
            if (host, repository) not in self._known:
                self._known[host, repository] = self._find(host, repository)
            return self._known[host, repository]

    def _find(self, host: str, repository: str) -> Login:
        trouble = ""
        for look in self._sources():
            login = look(host, repository)
            if not login.is_anonymous:
                return login
            trouble = trouble or login.trouble
        return Login(trouble=trouble)

    def _sources(self) -> Iterator[Callable[[str, str], Login]]:
        settings = self._settings
        yield lambda host, repository: _given(settings.logins, host, repository)
        if settings.auth_document:
            yield lambda host, repository: _in_document(settings.auth_document, host, repository)
        if settings.docker_config is not None:
            yield AuthFile(os.path.join(settings.docker_config, "config.json")).find
        for path in settings.auth_files:
            yield AuthFile(path).find


def _given(logins: tuple[GivenLogin, ...], host: str, repository: str) -> Login:
    for login in logins:
        place, _, namespace = login.place.partition("/")
        place = DOCKER_HUB if place in DOCKER_HUB_ALIASES else place
        if place == host and f"{repository}/".startswith(f"{namespace}/" if namespace else ""):
            return Login(login.username, login.password)
    return Login()


def _in_document(document: str, host: str, repository: str) -> Login:
    try:
        return auth_file.find(auth_file.parse(document), host, repository)
    except (ValueError, RecursionError) as error:
        # Not the words of the error: they could quote what is in the document.
        raise RegistryError(
            "DOCKER_AUTH_CONFIG is not a configuration of Docker", hint="it is JSON with auths"
        ) from error
