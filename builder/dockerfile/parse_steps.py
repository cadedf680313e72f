"""The instructions that begin a stage or make its files: FROM, ARG, RUN, COPY, ADD."""

import re

from builder.dockerfile.clause import Clause
from builder.dockerfile.flags import FlagKind, Flags
from builder.dockerfile.heredoc import Heredoc, heredoc_of
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Declaration,
    Document,
    ExecForm,
    From,
    MountText,
    Run,
    Script,
    ShellForm,
)
from builder.dockerfile.mounts import MountError, mount_fields
from builder.dockerfile.suggest import closest
from builder.dockerfile.texts import quoted, words_of
from builder.dockerfile.words import split_words
from builder.errors import DockerfileError

_STAGE_NAME = r"[a-z][a-z0-9-_.]*"
_VARIABLE = r"\$."


def from_(clause: Clause) -> From:
    """FROM [--platform=P] IMAGE [AS NAME]."""
    words = words_of(clause.text)
    name = ""
    if len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
        if not re.fullmatch(_STAGE_NAME, name):
            raise clause.error(
                f"invalid name for build stage: {quoted(words[2])}",
                hint="a name begins with a letter and has letters, digits, - _ and . only",
                span=words[2],
            )
    elif len(words) != 1:
        raise clause.error(
            "FROM requires either one or three arguments",
            hint="write FROM IMAGE or FROM IMAGE AS NAME",
            span=clause.text,
        )
    flags = clause.flags(platform=FlagKind.TEXT)
    return From(
        image=words[0],
        name=name,
        platform=flags.text("platform"),
        comment=clause.comment_on(name),
        location=clause.location,
        original=clause.original,
    )


def arg(clause: Clause) -> Arg:
    """ARG NAME[=DEFAULT] ..."""
    clause.flags()
    words = split_words(clause.text, clause.escape)
    if not words:
        raise clause.error("ARG requires at least one argument", span=clause.original)
    declarations = []
    for word in words:
        name, equals, default = word.partition("=")
        if not name:
            raise clause.error("ARG names can not be blank", span=word)
        declarations.append(Declaration(name, default if equals else None, clause.comment_on(name)))
    return Arg(declarations=tuple(declarations), location=clause.location, original=clause.original)


def run(clause: Clause) -> Run:
    """RUN [--mount=...] COMMAND."""
    flags = clause.flags(mount=FlagKind.LIST, network=FlagKind.TEXT, security=FlagKind.TEXT, device=FlagKind.LIST)
    return Run(
        command=_run_command(clause),
        mounts=tuple(_mount(clause, text) for text in flags.texts("mount")),
        network=_choice(clause, flags, "network", ("default", "none", "host")),
        security=_choice(clause, flags, "security", ("sandbox", "insecure")),
        devices=flags.texts("device"),
        location=clause.location,
        original=clause.original,
    )


def _run_command(clause: Clause) -> ShellForm | ExecForm | Script:
    """A here-document alone is the script itself; among other words it is left to the shell, as it would be typed."""
    if not clause.heredocs:
        return clause.command()
    for heredoc in clause.heredocs:
        if "\0" in heredoc.body:
            raise clause.error("a NUL byte in a here-document", hint="a command cannot hold one")
    first = clause.heredocs[0]
    if len(clause.heredocs) == 1 and heredoc_of(clause.text):
        return Script(first.name, first.text) if first.body.startswith("#!") else ShellForm(first.text)
    return ShellForm(with_bodies(clause.text, clause.heredocs))


def with_bodies(text: str, heredocs: tuple[Heredoc, ...]) -> str:
    """The text of a statement with the bodies of its here-documents below it, as in the file."""
    return text + "".join(f"\n{heredoc.body}{heredoc.name}" for heredoc in heredocs)


def _mount(clause: Clause, text: str) -> MountText:
    try:
        fields = mount_fields(text)
    except MountError as error:
        raise clause.error(f"invalid mount {quoted(text)}: {error}", hint=error.hint, span=text) from error
    source = dict(fields).get("from")
    if source and re.search(_VARIABLE, source):
        raise clause.error(
            "'from' doesn't support variable expansion", hint="define alias stage instead", span=f"from={source}"
        )
    return MountText(fields, text)


def _choice(clause: Clause, flags: Flags, name: str, choices: tuple[str, ...]) -> str:
    value = flags.text(name) or choices[0]
    if value not in choices:
        near = closest(value, choices)
        hint = f"did you mean {near}?" if near else f"it is one of {', '.join(choices)}"
        raise clause.error(f"invalid {name} mode {quoted(value)}", hint=hint, span=f"--{name}={value}")
    return value


def copy(clause: Clause) -> Copy:
    """COPY [--from=...] SOURCE... DESTINATION."""
    words = _paths(clause)
    flags = clause.flags(
        chown=FlagKind.TEXT,
        chmod=FlagKind.TEXT,
        exclude=FlagKind.LIST,
        from_=FlagKind.TEXT,
        link=FlagKind.SWITCH,
        parents=FlagKind.SWITCH,
    )
    if re.search(_VARIABLE, flags.text("from")):
        raise clause.error(
            "variable expansion is not supported for --from",
            hint="define a new stage with FROM using ARG from global scope",
            span=f"--from={flags.text('from')}",
        )
    sources, documents = _sources(clause, words)
    return Copy(
        sources=sources,
        documents=documents,
        destination=words[-1],
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        parents=bool(flags.switch("parents")),
        excludes=flags.texts("exclude"),
        location=clause.location,
        original=clause.original,
    )


def add(clause: Clause) -> Add:
    """ADD [--checksum=...] SOURCE... DESTINATION."""
    words = _paths(clause)
    flags = clause.flags(
        checksum=FlagKind.TEXT,
        chmod=FlagKind.TEXT,
        chown=FlagKind.TEXT,
        exclude=FlagKind.LIST,
        keep_git_dir=FlagKind.SWITCH,
        link=FlagKind.SWITCH,
        unpack=FlagKind.SWITCH,
    )
    sources, documents = _sources(clause, words)
    return Add(
        sources=sources,
        documents=documents,
        destination=words[-1],
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        excludes=flags.texts("exclude"),
        unpack=flags.switch("unpack") is not False,
        unpack_remote=flags.switch("unpack") is True,
        checksum=flags.text("checksum"),
        keep_git_dir=flags.switch("keep-git-dir"),
        location=clause.location,
        original=clause.original,
    )


def _paths(clause: Clause) -> tuple[str, ...]:
    words = clause.words()
    if len(words) < 2:
        given = "only one was" if words else "none was"
        raise clause.error(
            f"{clause.keyword} requires at least two arguments, but {given} provided",
            hint=f"write {clause.keyword} SOURCE... DESTINATION",
            span=clause.original,
        )
    return words


def _sources(clause: Clause, words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[Document, ...]]:
    """The paths among the sources, and the here-documents."""
    if not clause.heredocs:
        return words[:-1], ()
    if _is_heredoc(words[-1]):
        raise clause.error(f"{clause.keyword} cannot accept a heredoc as a destination", span=words[-1])
    paths = tuple(word for word in words[:-1] if not _is_heredoc(word))
    if len(paths) + len(clause.heredocs) != len(words) - 1:
        raise clause.error(
            f"{clause.keyword} takes a here-document as one word only", hint="write <<EOF without blanks", span="<<"
        )
    return paths, tuple(Document(heredoc.name, heredoc.text, heredoc.expand) for heredoc in clause.heredocs)


def _is_heredoc(word: str) -> bool:
    try:
        return heredoc_of(word) is not None
    except DockerfileError:  # half a quoted word: its other half stood behind a blank
        return False
