"""Here-documents: how a line announces them, and how they end.

The rules are BuildKit's: a whole word of the form `[N]<<[-]NAME`, found by splitting the line as a shell would. So
`a<<b`, `"<<b"` and `<<<b` are none, but `$((1 << 2))` is one, named `2))`, although no shell would agree.
"""

from builder.dockerfile.texts import BLANKS
from builder.dockerfile.words import shell_words, unquoted_words
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document: its announcement, and its lines once they are read."""

    name: str
    """The line that ends it, which names the file that COPY makes of it."""
    expand: bool
    """No part of the name was quoted: COPY and ADD replace variables in the body."""
    strip_tabs: bool
    """`<<-`: tabs that lines begin with do not count, the last line's included."""
    body: str = ""
    """The lines as they stand in the file, with their line ends; bytes that are not UTF-8 as `os.fsdecode` has them."""

    @property
    def text(self) -> str:
        """The body, without leading tabs if it was announced so."""
        if not self.strip_tabs:
            return self.body
        return "\n".join(line.lstrip("\t") for line in self.body.split("\n"))

    def ends_at(self, line: str) -> bool:
        """Whether the line, given without its line end, ends the document."""
        return (line.lstrip("\t") if self.strip_tabs else line) == self.name


def heredocs_of(line: str) -> tuple[Heredoc, ...]:
    """The here-documents that a line announces, without their bodies; DockerfileError for a name with a lone quote."""
    if "<<" not in line:
        return ()
    found = (heredoc_of(word) for word in shell_words(line))
    return tuple(heredoc for heredoc in found if heredoc)


def heredoc_of(word: str) -> Heredoc | None:
    """The here-document that one word announces, without its body; None for any other word."""
    descriptor, arrows, rest = word.partition("<<")
    if not arrows or (descriptor and not (descriptor.isascii() and descriptor.isdigit())):
        return None
    name = rest.removeprefix("-").lstrip(BLANKS)
    if not name or "<" in name:
        return None
    words = unquoted_words(name)
    if len(words) != 1:
        return None
    with_quotes = "".join(unquoted_words(name, keep_quotes=True))
    return Heredoc(words[0], expand=len(with_quotes) == len(words[0]), strip_tabs=rest.startswith("-"))
