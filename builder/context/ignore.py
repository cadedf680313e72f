"""What .dockerignore leaves out of a context.

The lines are read as moby's ignorefile does, and judged as its patternmatcher does on a walk: the last line that
matches a path or a folder above it wins. A line is not asked where it could change nothing, and what it says of a
folder counts for all below only if it was asked there: so it is in BuildKit, and so the same files are copied.
"""

import os
from collections.abc import Mapping
from enum import IntEnum
from posixpath import normpath

from builder.errors import ContextError, Location
from layers.data import dataclass
from layers.digest import Digest

FILE_NAME = ".dockerignore"
_SPECIAL = frozenset("*?[\\")
_EVERYTHING = frozenset(("*", "**", "**/*"))


class Verdict(IntEnum):
    """What the rules say of a path. The numbers are kept in the cache."""

    INCLUDED = 0
    EXCLUDED = 1
    """The path, and all that is below it."""
    EXCLUDED_ALONE = 2
    """The path, but a line with `!` may bring back something below it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A line that means something: the pattern, cleaned, with a `!` before it if it brings back."""

    text: str
    line: int
    """From 1."""


@dataclass(frozen=True, slots=True)
class IgnoreFile:
    """An ignore file that was read."""

    name: str
    """As errors show it."""
    data: bytes
    path: str = ""
    """Where it is, if it is the person's own file."""

    @property
    def digest(self) -> Digest:
        """What verdicts are kept under."""
        return Digest.of(self.data)

    def location(self, line: int) -> Location:
        """A line of the file, for an error."""
        return Location(self.name, line, line, tuple(os.fsdecode(self.data).splitlines()))


def find_ignore_file(context: str, dockerfile: str | None = None) -> IgnoreFile | None:
    """`NAME.dockerignore` beside the Dockerfile NAME, else `.dockerignore` in the context; None if there is neither.

    `dockerfile` is a path, None if the Dockerfile is no file. ContextError if a file is there and cannot be read.
    """
    for path in ignore_files(context, dockerfile):
        try:
            with open(path, "rb") as file:
                return IgnoreFile(os.path.basename(path), file.read(), path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ContextError(f"{path} cannot be read: {error.strerror}") from error
    return None


def ignore_files(context: str, dockerfile: str | None = None) -> tuple[str, ...]:
    """Where an ignore file is looked for, the first that is there wins."""
    own = () if dockerfile is None else (dockerfile + FILE_NAME,)
    return *own, os.path.join(context, FILE_NAME)


def parse(file: IgnoreFile) -> tuple[Rule, ...]:
    """The rules of an ignore file, in its order; ContextError for `!` without a pattern."""
    rules = []
    lines = os.fsdecode(file.data.removeprefix(b"\xef\xbb\xbf")).split("\n")
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        negation = text.startswith("!")
        pattern = text[negation:].strip()
        if not pattern:
            raise ContextError(
                f"{file.name}: '!' needs a pattern after it", hint="remove the line", location=file.location(number)
            )
        rules.append(Rule("!" * negation + _clean(pattern), number))
    return tuple(rules)


def _clean(pattern: str) -> str:
    """The pattern as Go's filepath.Clean has it, without the slash that may begin it."""
    # POSIX keeps two slashes at the beginning, Go does not.
    clean = normpath("/" + pattern.lstrip("/") if pattern.startswith("/") else pattern)
    return clean[1:] if clean.startswith("/") and clean != "/" else clean


class Judge:
    """Applies the rules to paths. Remembers what each rule says of the folders that it met."""

    def __init__(self, file: IgnoreFile) -> None:
        """ContextError if a line is broken."""
        # Not at the top: it imports pathspec, and mostly all verdicts come from the cache.
        from builder.context.patterns import BrokenPatternError, DockerPattern

        self._patterns = []
        rules = parse(file)
        for rule in rules:
            try:
                self._patterns.append(DockerPattern(rule.text))
            except BrokenPatternError as error:
                raise ContextError(
                    f"{file.name}: {rule.text} is a broken pattern: {error}",
                    hint="a backslash makes the character after it plain",
                    location=file.location(rule.line),
                ) from error
        self._returns = tuple(_plain_beginning(rule.text[1:]) for rule in rules if rule.text.startswith("!"))
        self._said: dict[str, tuple[int, bool]] = {"": (0, any(rule.text in _EVERYTHING for rule in rules))}

    def judge(self, path: str) -> Verdict:
        """The verdict on a path; on the root, which is "", whether it is left empty."""
        if not self._said_of(path)[1]:
            return Verdict.INCLUDED
        below = path + "/" if path else ""
        if any(start.startswith(below) or below.startswith(start) for start in self._returns):
            return Verdict.EXCLUDED_ALONE
        return Verdict.EXCLUDED

    def _said_of(self, path: str) -> tuple[int, bool]:
        """Which rules match the path or, where they were asked, a folder above it (bits); and the outcome."""
        said = self._said.get(path)
        if said is None:
            said = self._said[path] = self._ask(path, self._said_of(path.rpartition("/")[0])[0])
        return said

    def _ask(self, path: str, above: int) -> tuple[int, bool]:
        matching, excluded = 0, False
        for number, pattern in enumerate(self._patterns):
            bit = 1 << number
            if not above & bit and (pattern.include is excluded or pattern.match_file(path) is None):
                continue
            matching |= bit
            excluded = pattern.include is True
        return matching, excluded


def _plain_beginning(pattern: str) -> str:
    """What every path that the pattern matches begins with."""
    special = (place for place, character in enumerate(pattern) if character in _SPECIAL)
    return pattern[: next(special, len(pattern))]


class Ignored:
    """The verdicts of one ignore file on the paths of one context, those of earlier builds first."""

    def __init__(self, file: IgnoreFile, known: Mapping[str, int]) -> None:
        """`known` comes from the cache. ContextError if a line is broken."""
        self.digest = file.digest
        self.verdicts = dict(known)
        self.is_new = False
        """Whether there are verdicts that the cache has not."""
        self._file = file
        self._judge = None if known else Judge(file)

    def verdict(self, path: str) -> int:
        """The verdict on a path."""
        verdict = self.verdicts.get(path)
        if verdict is None:
            if self._judge is None:
                self._judge = Judge(self._file)
            verdict = self.verdicts[path] = self._judge.judge(path)
            self.is_new = True
        return verdict
