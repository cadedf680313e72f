"""Checks of single instructions where they stand."""

import posixpath

from builder.checks.rule import Findings, Subject, at
from builder.dockerfile.instructions import (
    Add,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    ShellForm,
    Workdir,
)


def json_args_recommended(subject: Subject) -> Findings:
    """CMD and ENTRYPOINT in the shell form: the shell, not the program, gets the signals."""
    for stage in subject.survey.stages.values():
        for reading in stage.readings:
            part = reading.instruction
            if isinstance(part, Cmd | Entrypoint) and isinstance(part.command, ShellForm) and not reading.has_shell:
                yield at(part, part.command.text), f"{_keyword(part)} should have its words as a JSON list"


def maintainer_deprecated(subject: Subject) -> Findings:
    """MAINTAINER: a label does the same."""
    for stage in subject.survey.dockerfile.stages:
        for part in stage.instructions:
            if isinstance(part, Maintainer):
                yield at(part), "MAINTAINER is deprecated: write LABEL org.opencontainers.image.authors="


def legacy_key_value_format(subject: Subject) -> Findings:
    """ENV and LABEL without an equals sign."""
    for stage in subject.survey.stages.values():
        for reading in stage.readings:
            part = reading.instruction
            if isinstance(part, Env | Label) and part.legacy:
                name = part.pairs[0].name
                yield at(part, name), f'"{_keyword(part)} {name}=..." should be written, with an equals sign'


def multiple_instructions_disallowed(subject: Subject) -> Findings:
    """What a later instruction of the same stage makes void."""
    for stage in subject.survey.stages.values():
        last: dict[type, Instruction] = {}
        for reading in stage.readings:
            part = reading.instruction
            if isinstance(part, Cmd | Entrypoint | Healthcheck):
                if type(part) in last:
                    yield at(last[type(part)]), f"of several {_keyword(part)} in a stage only the last one counts"
                last[type(part)] = part


def workdir_relative_path(subject: Subject) -> Findings:
    """A WORKDIR that depends on where the base image happens to be."""
    has_workdir: dict[int, bool] = {}
    for index, stage in subject.survey.stages.items():
        given = stage.parent is not None and has_workdir.get(stage.parent, False)
        for reading in stage.readings:
            part = reading.instruction
            if isinstance(part, Workdir):
                path = "".join(reading.words.get(part.path, ()))
                if not given and not path.startswith("/"):
                    yield at(part, part.path), f'WORKDIR "{path}" is relative to whatever the base image has'
                given = True
        has_workdir[index] = given


def copy_ignored_file(subject: Subject) -> Findings:
    """COPY or ADD of what the ignore file leaves out of the context."""
    for stage in subject.survey.stages.values():
        for reading in stage.readings:
            part = reading.instruction
            if not isinstance(part, Copy) or part.from_:
                continue
            for source in part.sources:
                path = posixpath.normpath("/" + "".join(reading.words.get(source, (source,)))).lstrip("/")
                if not _is_remote(part, source) and subject.is_ignored(path):
                    yield at(part, source), f'{_keyword(part)} of "{path or source}", which .dockerignore excludes'


def expose_proto_casing(subject: Subject) -> Findings:
    """EXPOSE 80/TCP."""
    for part, port in _exposed(subject):
        protocol = port.partition("/")[2]
        if protocol != protocol.lower():
            yield at(part, port), f"the protocol of '{port}' should be in lower case"


def expose_invalid_format(subject: Subject) -> Findings:
    """EXPOSE with an address or a port of the host, which an image cannot choose."""
    for part, port in _exposed(subject):
        if ":" in port:
            yield at(part, port), f"'{port}' should be a port of the container alone"


def _exposed(subject: Subject) -> list[tuple[Expose, str]]:
    readings = [reading for stage in subject.survey.stages.values() for reading in stage.readings]
    return [
        (reading.instruction, port)
        for reading in readings
        if isinstance(reading.instruction, Expose)
        for text in reading.instruction.ports
        for port in reading.words.get(text, ())
    ]


def _keyword(part: Instruction) -> str:
    return type(part).__name__.upper()


def _is_remote(part: Copy, source: str) -> bool:
    return isinstance(part, Add) and ("://" in source or source.startswith("git@"))
