"""Logins of a person: tried at their registry, kept in the usual files, forgotten."""

import time

from layers.data import replace
from layers.registry.auth_file import AuthFile
from layers.registry.credentials import Logins
from layers.registry.dialogue import Dialogue
from layers.registry.errors import RegistryError
from layers.registry.login import Login
from layers.registry.retry import retrying
from layers.registry.settings import GivenLogin, RegistrySettings


def try_login(login: GivenLogin, registries: RegistrySettings) -> str:
    """Show a login to its registry; RegistryError if it is refused. Returns what the person should know, or nothing."""
    host = login.place.partition("/")[0]
    only = replace(registries, logins=(replace(login, place=host),))
    dialogue = Dialogue(only, lambda _: None)
    try:
        answer, access = retrying(lambda: dialogue.greet(host), pause=time.sleep)
        with answer:
            if answer.status == 200:
                return "" if access.was_asked else f"{host} asked for no login"
            fault = f"{answer.host} answers {answer.fault()}"
            if answer.status in {401, 403}:
                raise RegistryError(f"{host} refuses the login: {fault}", hint="check user name and password")
            raise RegistryError(f"{host}: {fault}", hint=f"is {host} a registry?")
    finally:
        dialogue.close()


def keep(login: GivenLogin, path: str) -> str:
    """Write a login into a file, or hand it to the helper that the file names for it; returns the helper's name."""
    host, _, namespace = login.place.partition("/")
    return AuthFile(path).save(host, namespace, Login(login.username, login.password))


def forget(host: str, namespace: str, path: str) -> bool:
    """Remove a login from a file and its helper; False if there was none."""
    return AuthFile(path).forget(host, namespace)


def is_known(host: str, namespace: str, registries: RegistrySettings) -> bool:
    """Whether there is a login, wherever it comes from."""
    return not Logins(registries).of(host, namespace).is_anonymous
