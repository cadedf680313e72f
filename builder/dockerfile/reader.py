"""From the bytes of a Dockerfile to its statements; line ends, comments, continuations and here-documents end here.

dockerfile_parse splits lines into statements. Alone it takes the lines of a here-document for instructions, cuts a
statement at an empty line, drops a last line that ends in a backslash, and needs quadratic time for a long statement
(each tried with 2.0.1). So it gets an outline instead of the file: line by line the same statements, reduced to what
tells where each begins and ends. Texts are joined here, from the original lines. What it says of an outline can be
remembered, since it brings logging along, which takes a tenth of a build that the cache answers: outlines are few, and
the same before and after most edits.
"""

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from builder.dockerfile.directives import Directives, read_directives
from builder.dockerfile.flags import FlagError, split_flags
from builder.dockerfile.heredoc import Heredoc, heredocs_of
from builder.dockerfile.json_form import NotStringsError, json_words
from builder.dockerfile.texts import BLANKS, first_word
from builder.errors import DockerfileError, Location
from layers.data import dataclass, field, replace
from layers.digest import Digest, canonical_json
from layers.errors import StoreError

if TYPE_CHECKING:
    from cache.records import Records

_WITH_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})

_COMMENT = b"#"
_STATEMENT = b"STATEMENT ."
_CONTINUED = b"STATEMENT \\"
_LAST_LINE = b"."


@dataclass(frozen=True, slots=True)
class Statement:
    """One instruction as it stands in the file, its lines joined."""

    keyword: str
    """As written, in whatever case."""
    text: str
    """What follows the keyword, flags included, without blanks at its ends."""
    original: str
    """The whole statement on one line, without the bodies of its here-documents."""
    location: Location
    """From its first line to its last, here-documents included."""
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    """The comment lines above it, without their `#`; an empty comment line begins a new comment."""
    tail: str = ""
    """The blanks at its end, before any here-document."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a warning that only the lines show; `rule` is the name of a check."""

    rule: str
    message: str
    location: Location


@dataclass(frozen=True, slots=True)
class Source:
    """A Dockerfile, read."""

    name: str
    lines: tuple[str, ...]
    """All lines without line ends; bytes that are not UTF-8 as `os.fsdecode` has them."""
    directives: Directives
    statements: tuple[Statement, ...]
    notes: tuple[Note, ...] = ()
    data: bytes = b""
    """The file as it is."""


def read(data: bytes, name: str, memory: "Records | None" = None) -> Source:
    """Read a Dockerfile of any size and with lines of any length, in linear time.

    `name` is what errors call the file; `memory` knows the outlines that were split before. DockerfileError, with a
    location, for a bad directive, a here-document without end, or a file without statements. Which instructions there
    are is not known here.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DockerfileError("the file is UTF-16", hint="save it as UTF-8", location=Location(name, 1, 1))
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    raw_lines = [line + "\n" for line in text.split("\n")]
    raw_lines[-1] = raw_lines[-1][:-1]
    if not raw_lines[-1]:
        raw_lines.pop()
    lines = tuple(line.rstrip("\r\n") for line in raw_lines)
    outline = _Outline(name, raw_lines, lines, read_directives(lines, name))
    outline.draw()
    statements = tuple(outline.drafts[first] for first in outline.beginnings(memory))
    if not statements:
        last = max(1, len(lines))
        raise DockerfileError("file with no instructions", location=Location(name, last, last, lines))
    return Source(name, lines, outline.directives, statements, tuple(outline.notes), data)


@dataclass(slots=True)
class _Outline:
    """Draws the outline of a file, one line of skeleton for each of its lines, and keeps the texts aside."""

    name: str
    raw_lines: list[str]
    lines: tuple[str, ...]
    directives: Directives
    skeleton: list[bytes] = field(default_factory=list)
    drafts: dict[int, Statement] = field(default_factory=dict)
    """Statements by the number of their first line."""
    notes: list[Note] = field(default_factory=list)

    def beginnings(self, memory: "Records | None") -> list[int]:
        """The line, from 1, where each statement begins, as dockerfile_parse finds them."""
        text = b"".join(line + b"\n" for line in self.skeleton)
        drawn = list(self.drafts)
        selector, as_drawn = Digest.of(canonical_json({"outline": text.decode()})), Digest.of(canonical_json(drawn))
        if memory is not None and memory.find_content(selector) == as_drawn:
            return drawn
        found = list(_beginnings(text))
        if memory is not None and found == drawn:
            with suppress(StoreError):  # then it is split again next time
                memory.add_content(selector, as_drawn)
        return found

    def draw(self) -> None:
        comments: list[str] = []
        while len(self.skeleton) < len(self.lines):
            number = len(self.skeleton) + 1
            line = self.lines[number - 1].lstrip(BLANKS)
            if not line:
                self.skeleton.append(b"")
            elif line.startswith("#"):
                self.skeleton.append(_COMMENT)
                comment = line[1:].strip(BLANKS)
                if not comment:
                    comments.clear()
                elif number > self.directives.lines:
                    comments.append(comment)
            else:
                self._statement(line, tuple(comments))
                comments.clear()

    def _statement(self, line: str, comments: tuple[str, ...]) -> None:
        first = len(self.skeleton) + 1
        joined = self._joined(line)
        original = joined.strip(BLANKS)
        tail = joined[len(joined.rstrip(BLANKS)) :]
        location = Location(self.name, first, len(self.skeleton), self.lines)
        if "\0" in original:
            raise DockerfileError("a NUL byte in a statement", hint="is this a text file?", location=location)
        keyword, text = first_word(original)
        try:
            announced = _announced(keyword, text)
        except DockerfileError as error:
            error.location = location
            raise
        heredocs = tuple(self._with_body(heredoc, location) for heredoc in announced)
        location = replace(location, last=len(self.skeleton))
        self.drafts[first] = Statement(keyword, text, original, location, heredocs, comments, tail)

    def _joined(self, line: str) -> str:
        """The text of the statement that begins with `line`, its continuations joined with nothing in between."""
        text, continued = _without_continuation(line, self.directives.escape)
        if not continued:
            self.skeleton.append(_STATEMENT)
            return text
        parts = [text]
        has_gap = False
        self.skeleton.append(_CONTINUED)
        while continued and len(self.skeleton) < len(self.lines):
            following = self.lines[len(self.skeleton)]
            self.skeleton.append(_COMMENT)
            bare = following.lstrip(BLANKS)
            if not bare:
                has_gap = True
            elif not bare.startswith("#"):
                text, continued = _without_continuation(following, self.directives.escape)
                parts.append(text)
        # Where the file ends in a continuation, its last line is the last of the statement all the same.
        self.skeleton[-1] = _STATEMENT if self.skeleton[-1] is _CONTINUED else _LAST_LINE
        if has_gap:
            number = len(self.skeleton)  # BuildKit tells it at the last line, and once
            location = Location(self.name, number, number, self.lines)
            self.notes.append(Note("NoEmptyContinuation", "empty continuation line", location))
        return "".join(parts)

    def _with_body(self, heredoc: Heredoc, announced: Location) -> Heredoc:
        body: list[str] = []
        for number in range(len(self.skeleton), len(self.lines)):
            self.skeleton.append(_COMMENT)
            if heredoc.ends_at(self.lines[number]):
                return replace(heredoc, body="".join(body))
            body.append(self.raw_lines[number])
        raise DockerfileError(
            "unterminated heredoc",
            hint=f"a line with nothing but {heredoc.name} has to end it",
            location=replace(announced, span="<<"),
        )


def _beginnings(skeleton: bytes) -> Iterator[int]:
    from dockerfile_parse import DockerfileParser

    # With a file object of its own it neither looks for a Dockerfile in the working directory nor writes one.
    for item in DockerfileParser(fileobj=io.BytesIO(skeleton)).structure:
        if item["instruction"] != "COMMENT":
            yield int(item["startline"]) + 1


def _without_continuation(line: str, escape: str) -> tuple[str, bool]:
    """The line without the escape character that continues it, and whether there was one; a doubled one is text."""
    stripped = line.rstrip(" \t")
    if stripped.endswith(escape) and not stripped.endswith(escape * 2):
        return stripped[:-1], True
    return line, False


def _announced(keyword: str, text: str) -> tuple[Heredoc, ...]:
    """The here-documents of a statement: RUN, COPY and ADD have some, also as triggers, unless in their JSON form."""
    if "<<" not in text:
        return ()
    try:
        _, rest = split_flags(text)
        if keyword.upper() == "ONBUILD":
            keyword, text = first_word(rest)
            _, rest = split_flags(text)
        if keyword.upper() not in _WITH_HEREDOCS or json_words(rest) is not None:
            return ()
    except (FlagError, NotStringsError):
        return ()  # the parser reports it, with the rest of the statement at hand
    return heredocs_of(rest)
