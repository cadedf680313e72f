"""Frontends: the program that a Dockerfile asks to be read by. There is one here, and it reads Dockerfiles.

BuildKit fetches the image that `# syntax=` names and lets it translate the file. What is in `docker/dockerfile` is
built in, whatever the version; any other name means a language of its own, which must not be taken for a Dockerfile.
The name may stand in a directive with `#` or `//`, or in a file that is a JSON object.
"""

import json
import re

from builder.dockerfile.directives import Directive
from builder.dockerfile.reader import Source
from builder.dockerfile.texts import BLANKS, quoted
from builder.errors import DockerfileError, Location

_OURS = r"(docker\.io/)?docker/dockerfile(-upstream)?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?"
_MOST_JSON = 1 << 20
"""Characters of a file that are tried as JSON; a frontend's own language may be far longer, and is refused anyway."""


def refuse_foreign(source: Source, chosen: str = "") -> None:
    """DockerfileError if the file is for another frontend; `chosen`, as BUILDKIT_SYNTAX gives it, goes before."""
    directive = Directive(chosen, Location(source.name, 1, 1)) if chosen else _syntax(source)
    if directive is None:
        return
    image = directive.value.split(" ")[0]
    if not re.fullmatch(_OURS, image):
        raise DockerfileError(
            f"the frontend {quoted(image)} is not supported",
            hint="pybuild reads Dockerfiles itself, as docker/dockerfile does; it runs no other frontend",
            location=None if chosen else directive.location,
        )


def _syntax(source: Source) -> Directive | None:
    return source.directives.syntax or _in_slashes(source) or _in_json(source)


def _in_slashes(source: Source) -> Directive | None:
    """`// syntax=IMAGE` at the top, after a `#!` line if there is one."""
    first = int(source.lines[0].startswith("#!"))
    for number, line in enumerate(source.lines[first:], first + 1):
        key, equals, value = line.removeprefix("//").partition("=")
        if not line.startswith("//") or not equals:
            return None
        if key.strip(BLANKS).lower() == "syntax":
            return Directive(value.strip(BLANKS), Location(source.name, number, number, source.lines, value))
    return None


def _in_json(source: Source) -> Directive | None:
    """The `syntax` of a file that is a JSON object."""
    if not source.lines[0].lstrip(BLANKS).startswith("{"):
        return None
    try:
        value = json.loads("\n".join(source.lines)[:_MOST_JSON])
    except (ValueError, RecursionError):
        return None
    syntax = value.get("syntax") if isinstance(value, dict) else None
    return Directive(syntax, Location(source.name, 1, 1, source.lines)) if isinstance(syntax, str) else None
