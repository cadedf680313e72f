"""Parser directives: `# syntax=`, `# escape=` and `# check=` at the very top of a Dockerfile."""

from builder.dockerfile.texts import BLANKS, quoted
from builder.errors import DockerfileError, Location
from layers.data import dataclass

ESCAPES = ("\\", "`")


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive as it is written."""

    value: str
    location: Location


@dataclass(frozen=True, slots=True)
class Directives:
    """What the first lines say of the rest. None: not said."""

    syntax: Directive | None = None
    """The image of the frontend, perhaps followed by arguments. Nothing is refused here."""
    check: Directive | None = None
    """`skip=RULE,RULE;error=true`; the checks read it."""
    escape: str = "\\"
    """The character that continues lines and escapes within words."""
    lines: int = 0
    """Lines at the top that belong to the block of directives."""


def read_directives(lines: tuple[str, ...], name: str) -> Directives:
    """The directives of a file. The first line that is none ends the block, be it a comment or empty.

    A `#!` line may stand above them, as frontends are looked up with it skipped; an `# escape=` below it is a comment.
    """
    found: dict[str, Directive] = {}
    shebang = bool(lines) and lines[0].startswith("#!")
    number = int(shebang)
    for line in lines[number:]:
        directive = directive_of(line)
        if directive is None:
            break
        number += 1
        key, value = directive
        location = Location(name, number, number, lines, span=value)
        if key in found:
            raise DockerfileError(f"only one {key} parser directive can be used", location=location)
        if key == "escape" and value not in ESCAPES:
            raise DockerfileError(
                f"invalid escape token {quoted(value)}", hint="the escape character is \\ or `", location=location
            )
        found[key] = Directive(value, location)
    escape = found["escape"].value if "escape" in found and not shebang else "\\"
    return Directives(found.get("syntax"), found.get("check"), escape, 0 if shebang else number)


def directive_of(line: str) -> tuple[str, str] | None:
    """Key and value of a comment that is a directive, or would be one at the top of the file."""
    line = line.lstrip(BLANKS)
    key, equals, value = line[1:].partition("=")
    key, value = key.strip(BLANKS).lower(), value.strip(BLANKS)
    if line.startswith("#") and equals and value and key in {"syntax", "escape", "check"}:
        return key, value
    return None
