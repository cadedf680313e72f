"""What a registry asks for: the `WWW-Authenticate` header (RFC 9110, section 11.6.1)."""

import re
from collections.abc import Mapping

from layers.data import dataclass

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - a grammar rule of the RFC, no secret
_PART = re.compile(
    rf"""(?P<name>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]*))"""
    rf"|(?P<scheme>{_TOKEN})",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to prove who asks; scheme and names of parameters are lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """All challenges of one header, or of several joined by commas; what is not of the form is passed over.

    A comma separates both challenges and their parameters, so what a word is shows only in what follows it: `name=`
    belongs to the challenge that is open, a bare word opens the next one.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for part in _PART.finditer(header):
        if scheme := part["scheme"]:
            found.append((scheme.lower(), {}))
        elif found:
            quoted = part["quoted"]
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else part["plain"]
            found[-1][1].setdefault(part["name"].lower(), value)
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)
