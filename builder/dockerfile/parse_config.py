"""The instructions that change nothing but the image's configuration."""

from builder.dockerfile.clause import Clause
from builder.dockerfile.flags import FlagKind, Flags
from builder.dockerfile.instructions import (
    Cmd,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    Healthcheck,
    Label,
    Maintainer,
    Pair,
    Shell,
    ShellForm,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from builder.dockerfile.texts import BLANKS, first_word, quoted, words_of
from builder.dockerfile.values import duration
from builder.dockerfile.words import split_words
from layers.data import replace

_SHORTEST_INTERVAL = 1_000_000
"""Docker's runtime takes no interval below a millisecond."""


def env(clause: Clause) -> Env:
    """ENV NAME=TEXT ... or ENV NAME TEXT."""
    pairs, legacy = _pairs(clause)
    return Env(pairs=pairs, legacy=legacy, location=clause.location, original=clause.original)


def label(clause: Clause) -> Label:
    """LABEL NAME=TEXT ... or LABEL NAME TEXT."""
    pairs, legacy = _pairs(clause)
    return Label(pairs=pairs, legacy=legacy, location=clause.location, original=clause.original)


def _pairs(clause: Clause) -> tuple[tuple[Pair, ...], bool]:
    """The pairs, and whether they are one in the legacy form: there is no = in the first word."""
    clause.flags()
    words = split_words(clause.text, clause.escape)
    if not words:
        raise clause.error(f"{clause.keyword} requires at least one argument", span=clause.original)
    if "=" not in words[0]:
        name, text = first_word(clause.text)
        if not text:
            raise clause.malformed(
                f"{clause.keyword} must have two arguments", hint=f"write {clause.keyword} {name}=VALUE", span=name
            )
        return (Pair(name, text),), True
    pairs = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise clause.malformed(
                f"can't find = in {quoted(word)}: it must be of the form name=value",
                hint="quote a value that has blanks",
                span=word,
            )
        if not name:
            raise clause.error(f"{clause.keyword} names can not be blank", span=word)
        pairs.append(Pair(name, text))
    return tuple(pairs), False


def cmd(clause: Clause) -> Cmd:
    """CMD COMMAND."""
    clause.flags()
    return Cmd(command=clause.command(), location=clause.location, original=clause.original)


def entrypoint(clause: Clause) -> Entrypoint:
    """ENTRYPOINT COMMAND."""
    clause.flags()
    return Entrypoint(command=clause.command(), location=clause.location, original=clause.original)


def workdir(clause: Clause) -> Workdir:
    """WORKDIR PATH, blanks and all."""
    clause.flags()
    return Workdir(path=clause.one_text(), location=clause.location, original=clause.original)


def user(clause: Clause) -> User:
    """USER NAME[:GROUP]."""
    clause.flags()
    return User(user=clause.one_text(), location=clause.location, original=clause.original)


def stop_signal(clause: Clause) -> StopSignal:
    """STOPSIGNAL SIGNAL."""
    clause.flags()
    return StopSignal(signal=clause.one_text(), location=clause.location, original=clause.original)


def maintainer(clause: Clause) -> Maintainer:
    """MAINTAINER TEXT."""
    clause.flags()
    return Maintainer(text=clause.one_text(), location=clause.location, original=clause.original)


def expose(clause: Clause) -> Expose:
    """EXPOSE PORT[/PROTOCOL] ..."""
    clause.flags()
    ports = tuple(words_of(clause.text))
    if not ports:
        raise clause.error("EXPOSE requires at least one argument", span=clause.original)
    return Expose(ports=ports, location=clause.location, original=clause.original)


def volume(clause: Clause) -> Volume:
    """VOLUME PATH ... or VOLUME [PATH, ...]."""
    clause.flags()
    paths = tuple(word.strip(BLANKS) for word in clause.some_words())
    if not all(paths):
        raise clause.error("VOLUME specified can not be an empty string", span=clause.text)
    return Volume(paths=paths, location=clause.location, original=clause.original)


def shell(clause: Clause) -> Shell:
    """SHELL [WORD, ...]."""
    clause.flags()
    words = clause.json()
    if words is None and clause.text:
        raise clause.error(
            "SHELL requires the arguments to be in JSON form", hint='write SHELL ["/bin/sh", "-c"]', span=clause.text
        )
    if not words:
        raise clause.error("SHELL requires at least one argument", span=clause.original)
    return Shell(words=words, location=clause.location, original=clause.original)


def healthcheck(clause: Clause) -> Healthcheck:
    """HEALTHCHECK [--interval=...] CMD COMMAND, or HEALTHCHECK NONE."""
    kind, rest = first_word(clause.text)
    if not kind:
        raise clause.error("HEALTHCHECK requires at least one argument", span=clause.original)
    flags = clause.flags(
        interval=FlagKind.TEXT,
        timeout=FlagKind.TEXT,
        start_period=FlagKind.TEXT,
        start_interval=FlagKind.TEXT,
        retries=FlagKind.TEXT,
    )
    if kind.upper() == "NONE":
        if rest:
            raise clause.error("HEALTHCHECK NONE takes no arguments", span=rest)
        return Healthcheck(command=None, location=clause.location, original=clause.original)
    if kind.upper() != "CMD":
        raise clause.error(f"unknown type {quoted(kind)} in HEALTHCHECK", hint="try CMD", span=kind)
    command = replace(clause, text=rest).command()
    if command in {ShellForm(""), ExecForm(())}:
        raise clause.error("missing command after HEALTHCHECK CMD", span=clause.original)
    return Healthcheck(
        command=command,
        interval=_interval(clause, flags, "interval"),
        timeout=_interval(clause, flags, "timeout"),
        start_period=_interval(clause, flags, "start-period"),
        start_interval=_interval(clause, flags, "start-interval"),
        retries=_retries(clause, flags),
        location=clause.location,
        original=clause.original,
    )


def _interval(clause: Clause, flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        nanoseconds = duration(text)
    except ValueError as error:
        raise clause.error(
            str(error), hint="variables are not expanded here" * ("$" in text), span=f"--{name}={text}"
        ) from error
    if nanoseconds and nanoseconds < _SHORTEST_INTERVAL:
        raise clause.error(f"interval {quoted(name)} cannot be less than 1ms", span=f"--{name}={text}")
    return nanoseconds


def _retries(clause: Clause, flags: Flags) -> int:
    text = flags.text("retries")
    if not text:
        return 0
    digits = text[1:] if text[0] in "+-" else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) < 2**31):
        raise clause.error(f"--retries is not a number: {quoted(text)}", span=f"--retries={text}")
    if int(text) < 0:
        raise clause.error(f"--retries cannot be negative ({int(text)})", span=f"--retries={text}")
    return int(text)
