"""`# check=skip=RULE,RULE;error=true`: which rules apply, and whether what they find ends the build."""

from collections.abc import Iterable, Mapping

from builder.arguments import CHECK
from builder.checks.rule import Rule
from builder.dockerfile.directives import Directive, directive_of
from builder.dockerfile.suggest import closest
from builder.dockerfile.texts import BLANKS, quoted
from builder.errors import DockerfileError, located
from layers.data import dataclass, replace

ALL = "all"
_OPTIONS = ("skip", "experimental", "error")
_SWITCH = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)
"""As Go reads a boolean."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a Dockerfile, or a build argument, says of checks."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False
    """Whether a finding ends the build."""

    @property
    def names(self) -> frozenset[str]:
        """The rules that are named, be there such rules or not."""
        return (self.skip | self.experimental) - {ALL}

    def applies(self, rule: Rule) -> bool:
        """Whether a rule is to be looked at. The experimental ones are chosen by name, and nothing skips them then."""
        if rule.experimental:
            return not self.experimental.isdisjoint({ALL, rule.name})
        return self.skip.isdisjoint({ALL, rule.name})

    def with_comments(self, comments: Iterable[str]) -> "Settings":
        """Those of one instruction: the first comment above it that reads `check=...` adds to what the file says.

        Behind a blank it may say why. One that is not to be read is a comment like any other.
        """
        for comment in comments:
            key, value = directive_of("#" + comment) or ("", "")
            if key == "check":
                try:
                    own = _parse(value.partition(" ")[0])
                except DockerfileError:
                    return self
                return replace(self, skip=self.skip | own.skip, experimental=self.experimental | own.experimental)
        return self


def read_settings(directive: Directive | None, build_args: Mapping[str, str]) -> Settings:
    """The settings of the build argument, else of the directive; DockerfileError where they are not to be read."""
    argument = build_args.get(CHECK)
    if argument is not None:
        try:
            return _parse(argument)
        except DockerfileError as error:
            error.hint = f"{error.hint} (in the build argument {CHECK})"
            raise
    if directive is None:
        return Settings()
    with located(directive.location):
        return _parse(directive.value)


def _parse(text: str) -> Settings:
    settings = Settings()
    for part in text.split(";") if text.strip(BLANKS) else []:
        key, equals, value = (piece.strip(BLANKS) for piece in part.partition("="))
        if not equals or key not in _OPTIONS:
            near = closest(key, _OPTIONS)
            raise DockerfileError(
                f"invalid check option {quoted(part)}",
                hint=f"did you mean {near}=?" if near else "there are skip=, experimental= and error=",
                span=part,
            )
        if key == "error":
            if value not in _SWITCH:
                raise DockerfileError(f"invalid check option {quoted(part)}", hint="it is true or false", span=part)
            settings = replace(settings, error=_SWITCH[value])
        else:
            names = frozenset(name.strip(BLANKS) for name in value.split(","))
            settings = replace(settings, skip=names) if key == "skip" else replace(settings, experimental=names)
    return settings
