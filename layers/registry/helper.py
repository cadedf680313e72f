"""Credential helpers: programs that keep logins elsewhere, such as in a keychain.

`docker-credential-NAME get|store|erase`, with the question on standard input and the answer on standard output: the
protocol of the docker-credential-helpers project, which containers' tools share.
"""

import json
import subprocess

from layers.registry.errors import RegistryError
from layers.registry.login import Login

_SECONDS = 30
_NONE = "credentials not found in native keychain"
"""The text by which the protocol tells "none" from "broken"."""
_IDENTITY = "<token>"
"""The user name that says that the secret is an identity token."""
_LONGEST_WORDS = 200


def get(helper: str, key: str) -> Login:
    """What a helper has for a key; one that is missing or broken leaves us anonymous, with the reason in `trouble`."""
    try:
        status, output = _run(helper, "get", key)
    except RegistryError as error:
        return Login(trouble=error.message)
    if status:
        trouble = f"{_program(helper)} fails: {output[:_LONGEST_WORDS]}"
        return Login() if output == _NONE else Login(trouble=trouble)
    try:
        answer = json.loads(output)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return Login(trouble=f"{_program(helper)} answers something else than a login")
    return Login(identity=secret) if username == _IDENTITY else Login(username, secret)


def store(helper: str, key: str, login: Login) -> None:
    """Have a helper keep a login; RegistryError if it does not."""
    username, secret = (_IDENTITY, login.identity) if login.identity else (login.username, login.password)
    question = json.dumps({"ServerURL": key, "Username": username, "Secret": secret})
    _demand(helper, "store", question)


def erase(helper: str, key: str) -> None:
    """Have a helper forget a login; RegistryError if it does not. That it knows of none is no error."""
    _demand(helper, "erase", key)


def _demand(helper: str, action: str, question: str) -> None:
    status, output = _run(helper, action, question)
    if status and output != _NONE:
        raise RegistryError(f"{_program(helper)} {action} fails: {output[:_LONGEST_WORDS]}")


def _run(helper: str, action: str, question: str) -> tuple[int, str]:
    program = _program(helper)
    try:
        done = subprocess.run(
            [program, action], input=question.encode(), capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, ValueError) as error:
        raise RegistryError(f"{program}, which config.json names, cannot be run: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise RegistryError(f"{program} gave no answer in {_SECONDS} seconds") from error
    return done.returncode, done.stdout.decode(errors="replace").strip()


def _program(helper: str) -> str:
    return f"docker-credential-{helper}"
