"""Checks of variables: that there is what is used, and that no secret is kept in one."""

from builder.checks.rule import Findings, Subject, at, at_variable
from builder.dockerfile.instructions import Arg, Env

_SECRET = frozenset(
    ("apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token")
)
_HARMLESS = frozenset(("public", "file", "version"))
"""Words that take the alarm out of the others: a public key, a file with a password, the version of a token."""


def undefined_var(subject: Subject) -> Findings:
    """A variable that neither ENV nor ARG defines above its use; commands are left to their shell."""
    for stage in subject.survey.stages.values():
        if not _is_environment_known(subject, stage.parent) or not stage.is_base_known:
            continue
        for reading in stage.readings:
            for name, near in reading.undefined.items():
                hint = f" (did you mean ${near}?)" if near else ""
                yield at_variable(reading.instruction, name), f"the variable '${name}' is not defined{hint}"


def _is_environment_known(subject: Subject, parent: int | None) -> bool:
    """Whether all that a stage and those below it inherit is known."""
    while parent is not None:
        stage = subject.survey.stages[parent]
        if not stage.is_base_known:
            return False
        parent = stage.parent
    return True


def secrets_used_in_arg_or_env(subject: Subject) -> Findings:
    """ARG and ENV whose name says that it holds a secret: both can be read in the image."""
    for stage in subject.survey.stages.values():
        for reading in stage.readings:
            part = reading.instruction
            names = _names(part)
            for name in names:
                expanded = "".join(reading.words.get(name, (name,)))
                if _is_secret(expanded):
                    keyword = "ARG" if isinstance(part, Arg) else "ENV"
                    yield at(part, name), f'{keyword} "{expanded}" looks like a secret, and can be read in the image'


def _names(part: object) -> list[str]:
    if isinstance(part, Arg):
        return [declaration.name for declaration in part.declarations]
    return [pair.name for pair in part.pairs] if isinstance(part, Env) else []


def _is_secret(name: str) -> bool:
    words = set(name.lower().split("_"))
    return not words.isdisjoint(_SECRET) and words.isdisjoint(_HARMLESS)
