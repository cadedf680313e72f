"""One statement on its way to an instruction: its words in the forms that instructions take."""

from builder.dockerfile.flags import FlagError, FlagKind, Flags, parse_flags, split_flags
from builder.dockerfile.heredoc import Heredoc
from builder.dockerfile.instructions import ExecForm, ShellForm
from builder.dockerfile.json_form import NotStringsError, json_words
from builder.dockerfile.reader import Statement
from builder.dockerfile.texts import words_of
from builder.errors import DockerfileError, Location, MalformedError
from layers.data import dataclass, replace


@dataclass(frozen=True, slots=True)
class Clause:
    """A keyword, its flags, and the rest of the statement. Every error that it makes knows the lines."""

    keyword: str
    """In upper case."""
    flag_words: tuple[str, ...]
    text: str
    """What follows the flags, without blanks at its ends."""
    escape: str
    original: str
    location: Location
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()

    @classmethod
    def of(cls, statement: Statement, escape: str) -> "Clause":
        try:
            flag_words, text = split_flags(statement.text)
        except FlagError as error:
            raise _located(error, statement.location) from error
        return cls(
            statement.keyword.upper(),
            flag_words,
            text,
            escape,
            statement.original,
            statement.location,
            statement.heredocs,
            statement.comments,
        )

    def error(self, message: str, *, hint: str = "", span: str = "") -> DockerfileError:
        """An error of this statement; `span` are the words of it that are wrong."""
        return DockerfileError(message, hint=hint, location=replace(self.location, span=span))

    def malformed(self, message: str, *, hint: str = "", span: str = "") -> MalformedError:
        """An error that counts in a trigger, too."""
        return MalformedError(message, hint=hint, location=replace(self.location, span=span))

    def flags(self, **allowed: FlagKind) -> Flags:
        """The flags, of which these are allowed; their names are given with _ for -, and with a further _ at will."""
        try:
            return parse_flags(
                self.flag_words, {name.rstrip("_").replace("_", "-"): kind for name, kind in allowed.items()}
            )
        except FlagError as error:
            raise _located(error, self.location) from error

    def json(self) -> tuple[str, ...] | None:
        """The words of the JSON form, or None for the other form."""
        try:
            words = json_words(self.text)
        except NotStringsError as error:
            raise self.malformed(
                "when using JSON array syntax, arrays must be comprised of strings only", span=self.text
            ) from error
        if words and any("\0" in word for word in words):
            raise self.error("a NUL character in a word", span="\\u0000")
        return words

    def words(self) -> tuple[str, ...]:
        """The words of the JSON form, or else those between blanks."""
        words = self.json()
        return tuple(words_of(self.text)) if words is None else words

    def some_words(self) -> tuple[str, ...]:
        words = self.words()
        if not words:
            raise self.error(f"{self.keyword} requires at least one argument", span=self.original)
        return words

    def one_text(self) -> str:
        """The whole rest of the statement, blanks within included."""
        if not self.text:
            raise self.error(f"{self.keyword} requires exactly one argument", span=self.original)
        return self.text

    def command(self) -> ShellForm | ExecForm:
        words = self.json()
        return ShellForm(self.text) if words is None else ExecForm(words)

    def comment_on(self, name: str) -> str:
        """What the comment above says of a name: the rest of the first line that begins with it."""
        for line in self.comments:
            if name and line.startswith(name + " "):
                return line.removeprefix(name + " ")
        return ""


def _located(error: FlagError, location: Location) -> DockerfileError:
    return DockerfileError(str(error), hint=error.hint, location=replace(location, span=error.span))
