"""From statements to instructions, and from those to the stages of a Dockerfile."""

from collections.abc import Callable, Mapping

from builder.dockerfile import parse_config, parse_steps
from builder.dockerfile.clause import Clause
from builder.dockerfile.instructions import Arg, Dockerfile, From, Instruction, OnBuild, StageText
from builder.dockerfile.reader import Source, Statement, read
from builder.dockerfile.suggest import closest
from builder.dockerfile.texts import first_word, quoted
from builder.errors import DockerfileError, Location, MalformedError
from layers.data import replace


def parse(source: Source) -> Dockerfile:
    """All instructions in their stages, those of stages that nobody will need included.

    DockerfileError, with the line, for what BuildKit's parser refuses too; texts are checked where they are expanded.
    """
    global_args: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for statement in source.statements:
        instruction = parse_statement(statement, source.directives.escape)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            raise DockerfileError(
                f"{statement.keyword.upper()} before the first FROM",
                hint="only ARG may stand there",
                location=replace(statement.location, span=statement.keyword),
            )
    if not stages:
        last = source.statements[-1].location
        raise DockerfileError("dockerfile contains no stages to build", hint="there is no FROM", location=last)
    return Dockerfile(
        source,
        tuple(global_args),
        tuple(StageText(from_.name, from_, tuple(instructions)) for from_, instructions in stages),
    )


def parse_beginning(source: Source) -> tuple[Dockerfile | None, DockerfileError | None]:
    """The Dockerfile up to the first statement that is wrong, if there is a stage before it; and what is wrong."""
    try:
        return parse(source), None
    except DockerfileError as error:
        before = error.location.first if error.location else 0
        statements = tuple(statement for statement in source.statements if statement.location.first < before)
        try:
            return parse(replace(source, statements=statements)) if statements else None, error
        except DockerfileError:
            return None, error


def parse_trigger(text: str, location: Location) -> Instruction:
    """The instruction of an ONBUILD trigger as an image's configuration keeps it; errors stand at `location`."""
    try:
        statements = read(text.encode("utf-8", "surrogateescape"), location.file).statements
    except DockerfileError as error:
        error.location = location
        raise
    if len(statements) != 1:
        raise DockerfileError("an ONBUILD trigger has to be one instruction", location=location)
    return _trigger(replace(statements[0], location=location), "\\")


def parse_statement(statement: Statement, escape: str) -> Instruction:
    """One instruction. `escape` is that of the file."""
    keyword = statement.keyword.upper()
    if keyword == "ONBUILD":
        return _onbuild(statement, escape)
    parser = _PARSERS.get(keyword)
    if parser is None:
        raise _unknown(statement)
    return parser(Clause.of(statement, escape))


def _onbuild(statement: Statement, escape: str) -> OnBuild:
    clause = Clause.of(statement, escape)
    clause.flags()
    if not clause.text:
        raise clause.error("ONBUILD requires at least one argument", span=statement.keyword)
    keyword, rest = first_word(clause.text)
    fault = None
    try:
        _trigger(replace(statement, keyword=keyword, text=rest, original=clause.text), escape)
    except MalformedError:
        raise
    except DockerfileError as error:  # as with BuildKit, it fails where it is used, and not here
        fault = error
    text = parse_steps.with_bodies(clause.text + statement.tail, clause.heredocs)
    return OnBuild(text=text, fault=fault, location=clause.location, original=clause.original)


def _trigger(statement: Statement, escape: str) -> Instruction:
    keyword = statement.keyword.upper()
    location = replace(statement.location, span=statement.keyword)
    if keyword == "ONBUILD":
        raise MalformedError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", location=location)
    if keyword in {"FROM", "MAINTAINER"}:
        raise MalformedError(f"{keyword} isn't allowed as an ONBUILD trigger", location=location)
    return parse_statement(statement, escape)


_PARSERS: Mapping[str, Callable[[Clause], Instruction]] = {
    "ADD": parse_steps.add,
    "ARG": parse_steps.arg,
    "CMD": parse_config.cmd,
    "COPY": parse_steps.copy,
    "ENTRYPOINT": parse_config.entrypoint,
    "ENV": parse_config.env,
    "EXPOSE": parse_config.expose,
    "FROM": parse_steps.from_,
    "HEALTHCHECK": parse_config.healthcheck,
    "LABEL": parse_config.label,
    "MAINTAINER": parse_config.maintainer,
    "RUN": parse_steps.run,
    "SHELL": parse_config.shell,
    "STOPSIGNAL": parse_config.stop_signal,
    "USER": parse_config.user,
    "VOLUME": parse_config.volume,
    "WORKDIR": parse_config.workdir,
}


def _unknown(statement: Statement) -> DockerfileError:
    word = statement.keyword
    near = closest(word, (*_PARSERS, "ONBUILD"))
    shown = word if word.isprintable() and len(word) <= 80 else quoted(word)
    return DockerfileError(
        f"unknown instruction: {shown}" if word else "a statement without an instruction",
        hint=f"did you mean {near.lower() if word.islower() else near}?" if near else "",
        location=replace(statement.location, span=word),
    )
