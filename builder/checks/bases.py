"""Checks of FROM: its variables, its platform, the image that it leads to."""

from collections.abc import Mapping

from builder.checks.rule import Findings, Subject, at, at_variable
from builder.dockerfile.suggest import closest
from builder.dockerfile.words import expand_word
from builder.errors import DockerfileError
from layers.data import dataclass
from layers.errors import ImageError
from layers.oci import Platform
from layers.registry.reference import Reference

_TARGET = "TARGETPLATFORM"


def undefined_arg_in_from(subject: Subject) -> Findings:
    """A variable of FROM that no ARG above the first FROM declares."""
    values = subject.survey.global_args
    declarations = (arg.declarations for arg in subject.survey.dockerfile.global_args)
    declared = {*values, *(declaration.name for group in declarations for declaration in group)}
    for stage in subject.survey.dockerfile.stages:
        words = (stage.from_.image, stage.from_.platform)
        names = {name for word in words for name in _expand(subject, word, values).names}
        for name in sorted(names - declared):
            near = closest(name, declared)
            hint = f" (did you mean {near}?)" if near else ""
            yield at_variable(stage.from_, name), f"FROM uses the argument '{name}', which is not declared{hint}"


def invalid_default_arg_in_from(subject: Subject) -> Findings:
    """A base whose name is none unless someone gives a --build-arg."""
    for stage in subject.survey.dockerfile.stages:
        image = stage.from_.image
        expanded = _expand(subject, image, subject.survey.default_args)
        if expanded.names and not _is_reference(expanded.text):
            yield at(stage.from_, image), f"with the defaults of its arguments, {image} is no name of an image"


def redundant_target_platform(subject: Subject) -> Findings:
    """--platform=$TARGETPLATFORM: it is the default."""
    values = subject.survey.global_args
    for stage in subject.survey.dockerfile.stages:
        platform = stage.from_.platform
        expanded = _expand(subject, platform, values)
        if expanded.names == {_TARGET} and expanded.text == values[_TARGET]:
            yield at(stage.from_, f"--platform={platform}"), f"--platform={platform} is what FROM does without it"


def from_platform_flag_const_disallowed(subject: Subject) -> Findings:
    """A platform that is written out, unless the stage is named after it."""
    for stage in subject.survey.dockerfile.stages:
        text = stage.from_.platform
        if not text or _expand(subject, text, {}).names:
            continue
        try:
            platform = Platform.parse(text)
        except ImageError:
            continue  # the build will say more about it
        if platform.os not in stage.name and platform.architecture not in stage.name:
            yield at(stage.from_, f"--platform={text}"), f'FROM should not have the constant --platform="{text}"'


def invalid_base_image_platform(subject: Subject) -> Findings:
    """A base for another platform than the one that is built for."""
    for stage in subject.survey.stages.values():
        asked = _expand(subject, stage.text.from_.platform, subject.survey.global_args).text
        wanted = Platform.parse(asked) if asked else subject.survey.platform
        if stage.base and (stage.base.os, stage.base.architecture) != (wanted.os, wanted.architecture):
            from_ = stage.text.from_
            yield at(from_, from_.image), f"the base image {from_.image} is for {stage.base}, not for {wanted}"


@dataclass(frozen=True, slots=True)
class _Expanded:
    text: str
    names: frozenset[str]
    """The variables in it."""


def _expand(subject: Subject, text: str, values: Mapping[str, str]) -> _Expanded:
    """A word of FROM with its variables replaced; one that is not well formed has none: whoever builds it says so."""
    names = set()

    def look_up(name: str) -> str | None:
        names.add(name)
        return values.get(name)

    try:
        expanded = expand_word(text, look_up, subject.survey.dockerfile.directives.escape)
    except DockerfileError:
        return _Expanded(text, frozenset())
    return _Expanded(expanded, frozenset(names))


def _is_reference(name: str) -> bool:
    try:
        Reference.parse(name)
    except ImageError:
        return False
    return True
