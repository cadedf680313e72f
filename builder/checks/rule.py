"""What a check is, and what it finds."""

from collections.abc import Callable, Iterator

from builder.dockerfile.instructions import Instruction
from builder.errors import Location
from builder.survey import Survey
from layers.data import dataclass, replace


@dataclass(frozen=True, slots=True)
class Subject:
    """What checks look at."""

    survey: Survey
    is_ignored: Callable[[str], bool]
    """Whether the ignore file hides a path of the build context from COPY."""


Findings = Iterator[tuple[Location, str]]
"""Where something is, and what."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One check; docs/checks has a page of this name."""

    name: str
    description: str
    find: Callable[[Subject], Findings]
    experimental: bool = False
    """Applied only where `# check=experimental=` names it."""

    @property
    def url(self) -> str:
        """The page of Docker's manual about the check of this name, which editors open."""
        return f"https://docs.docker.com/go/dockerfile/rule/{_hyphenated(self.name)}/"


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a rule is broken."""

    rule: Rule
    location: Location
    detail: str


def at(instruction: Instruction, words: str = "") -> Location:
    """Where an instruction stands, with the words of it marked that are meant."""
    return replace(instruction.location, span=words) if words else instruction.location


def at_variable(instruction: Instruction, name: str) -> Location:
    """Where an instruction stands, with its first use of a variable marked."""
    forms = (f"${name}", f"${{{name}")
    return at(instruction, next((form for form in forms if form in instruction.original), name))


def _hyphenated(name: str) -> str:
    """`JSONArgsRecommended` as `json-args-recommended`."""
    letters = []
    for before, letter, after in zip(" " + name, name, name[1:] + "A", strict=False):
        begins_word = letter.isupper() and (before.islower() or after.islower())
        letters.append("-" * (begins_word and before != " ") + letter.lower())
    return "".join(letters)
