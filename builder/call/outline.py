"""What `--call=outline` answers: all that a target can be given; arguments, secrets, SSH agents, and its caches."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from builder.call.document import document, located, source_data, table
from builder.dockerfile.instructions import Arg, Declaration, MountText, Run
from builder.dockerfile.words import expand_word
from builder.errors import Location
from builder.evaluation.stage_state import Reading
from builder.survey import Survey
from layers.data import dataclass

_DEFAULT_SSH = "default"


class Parameter(NamedTuple):
    """One thing that can be given."""

    name: str
    location: Location
    value: str = ""
    description: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class _Outline:
    name: str
    description: str
    arguments: tuple[Parameter, ...]
    secrets: tuple[Parameter, ...]
    ssh: tuple[Parameter, ...]
    caches: tuple[Parameter, ...]


def outline_answer(survey: Survey, *, json: bool) -> str:
    """The parameters of the target and of all stages that it needs, in the order of the file."""
    target = survey.dockerfile.stages[survey.target]
    outline = _Outline(
        name=target.name,
        description=target.from_.comment,
        arguments=_in_order(_arguments(survey)),
        secrets=_in_order(_mounts(survey, "secret")),
        ssh=_in_order(_mounts(survey, "ssh")),
        caches=_in_order(_mounts(survey, "cache")),
    )
    return document(_json(outline, source_data(survey.dockerfile.source))) if json else _text(outline)


def _json(outline: _Outline, source: str) -> dict[str, object]:
    """As BuildKit's outline has it; it has no caches, which are told in the form that it foresees."""
    value: dict[str, object] = {
        "name": outline.name,
        "description": outline.description,
        "args": [_parameter_json("name", item) for item in outline.arguments],
        "secrets": [_parameter_json("name", item) for item in outline.secrets],
        "ssh": [_parameter_json("name", item) for item in outline.ssh],
        "cache": [_parameter_json("ID", item) for item in outline.caches],
        "sources": [source],
    }
    return {key: part for key, part in value.items() if part}


def _parameter_json(key: str, item: Parameter) -> dict[str, object]:
    value = {key: item.name, "description": item.description, "value": item.value, "required": item.required}
    return located(value, item.location)


def _text(outline: _Outline) -> str:
    head = f"TARGET:      {outline.name or '(default)'}\n"
    if outline.description:
        head += f"DESCRIPTION: {outline.description}\n"
    parts = [head]
    if outline.arguments:
        rows = [(item.name, item.value, item.description) for item in outline.arguments]
        parts.append(table(("BUILD ARG", "VALUE", "DESCRIPTION"), rows))
    for title, items in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
        if items:
            parts.append(table((title, "REQUIRED"), [(item.name, "true" * item.required) for item in items]))
    if outline.caches:
        parts.append(table(("CACHE",), [(item.name,) for item in outline.caches]))
    return "\n".join(parts)


def _in_order(items: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """Each name once, where it is met first, sorted by place."""
    first: dict[str, Parameter] = {}
    for item in items:
        first.setdefault(item.name, item)
    return tuple(sorted(first.values(), key=lambda item: item.location.first))


def _arguments(survey: Survey) -> Iterator[Parameter]:
    """The arguments of each stage, then those above the first FROM that anything in these stages uses."""
    above = {item.name: item for item in _above_first_from(survey)}
    used: set[str] = set()
    for _, stage in sorted(survey.stages.items(), reverse=True):
        used |= _names_in(survey, stage.text.from_.image) | _names_in(survey, stage.text.from_.platform)
        # Of several declarations of a name the last one counts.
        latest = {declared[1].name: declared for declared in _declarations(stage.readings)}
        for instruction, declaration, reading in latest.values():
            if declaration.default is None and declaration.name in survey.global_args.keys() | above.keys():
                used.add(declaration.name)
                continue
            default = "".join(reading.words.get(declaration.default or "", ()))
            value = survey.build_args.get(declaration.name, default)
            yield Parameter(declaration.name, instruction.location, value, declaration.comment)
    defaults: dict[str, list[str]] = {}
    for declaration in (each for arg in survey.dockerfile.global_args for each in arg.declarations):
        defaults.setdefault(declaration.name, []).append(declaration.default or "")
    waiting = used & above.keys()
    while waiting:
        name = waiting.pop()
        yield above[name]
        waiting |= ({each for text in defaults[name] for each in _names_in(survey, text)} & above.keys()) - used
        used |= waiting


def _above_first_from(survey: Survey) -> Iterator[Parameter]:
    for instruction in survey.dockerfile.global_args:
        for declaration in instruction.declarations:
            value = survey.global_args.get(declaration.name, "")
            yield Parameter(declaration.name, instruction.location, value, declaration.comment)


def _declarations(readings: Iterable[Reading]) -> Iterator[tuple[Arg, Declaration, Reading]]:
    for reading in readings:
        if isinstance(reading.instruction, Arg):
            for declaration in reading.instruction.declarations:
                yield reading.instruction, declaration, reading


def _names_in(survey: Survey, text: str) -> set[str]:
    """The variables that a word above the stages uses."""
    names = set()

    def look_up(name: str) -> str | None:
        names.add(name)
        return survey.global_args.get(name)

    expand_word(text, look_up, survey.dockerfile.directives.escape)
    return names


def _mounts(survey: Survey, kind: str) -> Iterator[Parameter]:
    """The mounts of a type, named by what tells them apart on the command line or in the cache."""
    for _, stage in sorted(survey.stages.items(), reverse=True):
        for reading in stage.readings:
            for mount in reading.instruction.mounts if isinstance(reading.instruction, Run) else ():
                fields = _fields(mount, reading)
                if fields.get("type", "bind") == kind:
                    required = fields.get("required", "false").lower() in {"", "1", "t", "true"}
                    yield Parameter(_name(fields, kind), reading.instruction.location, required=required)


def _fields(mount: MountText, reading: Reading) -> dict[str, str]:
    """The fields with their variables replaced; one without a value has ""."""
    return {key: "".join(reading.words.get(value or "", (value or "",))) for key, value in mount.fields}


def _name(fields: Mapping[str, str], kind: str) -> str:
    """The id, or what stands in for it: of a secret the last part of its target, of a cache the whole."""
    target = next((fields[key] for key in ("target", "dst", "destination") if key in fields), "")
    standing_in = {"secret": posixpath.basename(target), "ssh": _DEFAULT_SSH, "cache": target}
    return fields.get("id") or standing_in[kind]
