"""A stage while its instructions are read, and what they may refer to."""

from collections.abc import Callable, Mapping
from typing import Any, Self

from builder.dockerfile.instructions import ExecForm, Instruction, ShellForm
from builder.dockerfile.suggest import closest
from builder.dockerfile.words import expand_word, expand_words
from builder.errors import Location
from builder.steps.step import Origin, RunSettings, Step
from layers.data import dataclass, field
from layers.oci import ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WINDOWS = "windows"
_DEFAULT_SHELL = ("/bin/sh", "-c")
_WINDOWS_SHELL = ("cmd", "/S", "/C")
_MOST_UNDEFINED = 100
"""Of one instruction: nobody reads more, and each is compared with all that is defined."""


@dataclass(slots=True)
class Reading:
    """One instruction, and what its words turned out to be where it stands: what checks look at."""

    instruction: Instruction
    has_shell: bool
    """Whether the stage or its base says which shell commands are for."""
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Texts as written, with what each became."""
    undefined: dict[str, str] = field(default_factory=dict)
    """Names of variables that nothing had defined, each with a defined one that it resembles, or ""."""


@dataclass(slots=True)
class StageState:
    """A stage while its instructions are read."""

    config: ImageConfig
    escape: str
    """The escape character of the file."""
    environment: dict[str, str] = field(default_factory=dict)
    """What words and commands see: of ENV and ARG, whichever came last."""
    arguments: list[tuple[str, str | None]] = field(default_factory=list)
    """Declared by ARG, in order; None is declared without a value."""
    steps: list[Step] = field(default_factory=list)
    command_set: bool = False
    """Whether this stage has a CMD of its own."""
    readings: list[Reading] = field(default_factory=list)
    """Of the instructions so far, the one that is being read included."""

    @classmethod
    def begin(cls, config: ImageConfig, escape: str) -> Self:
        """The state after FROM."""
        default = {} if config.platform.os == WINDOWS else {"PATH": DEFAULT_PATH}
        return cls(config, escape, default | config.config.environment)

    def continued(self) -> "StageState":
        """The state of a stage FROM this one: everything but the steps and whether CMD is its own."""
        return StageState(self.config, self.escape, dict(self.environment), list(self.arguments))

    def begin_reading(self, instruction: Instruction) -> None:
        """From here on words are those of this instruction."""
        self.readings.append(Reading(instruction, has_shell=self.config.config.shell is not None))

    def look_up(self, name: str) -> str | None:
        """The value of a variable, None if it has none; keeps in mind what is used without being defined."""
        value = self.environment.get(name)
        if value is None and self.readings:
            self._note_undefined(name, self.readings[-1].undefined)
        return value

    def _note_undefined(self, name: str, known: dict[str, str]) -> None:
        if name in known or len(known) >= _MOST_UNDEFINED or any(name == declared for declared, _ in self.arguments):
            return
        known[name] = closest(name, self.environment) or ""

    def word(self, text: str) -> str:
        """A word with its variables replaced and its quotes taken off."""
        word = expand_word(text, self.look_up, self.escape)
        self._became(text, (word,))
        return word

    def words(self, text: str) -> tuple[str, ...]:
        """The same, split at the blanks that its variables bring."""
        words = expand_words(text, self.look_up, self.escape)
        self._became(text, words)
        return words

    def _became(self, text: str, words: tuple[str, ...]) -> None:
        if self.readings:
            self.readings[-1].words[text] = words

    def argv(self, command: ShellForm | ExecForm) -> tuple[str, ...]:
        """The words of a command; the shell form is one for the shell."""
        return command.words if isinstance(command, ExecForm) else (*self.shell, command.text)

    @property
    def shell(self) -> tuple[str, ...]:
        return self.config.config.shell or (_WINDOWS_SHELL if self.config.platform.os == WINDOWS else _DEFAULT_SHELL)

    @property
    def directory(self) -> str:
        return self.config.config.working_dir or "/"

    def configure(self, **changes: Any) -> None:  # noqa: ANN401 - dataclasses.replace's own types
        """Change fields of the image's `config`."""
        self.config = self.config.with_config(**changes)


@dataclass(frozen=True, slots=True)
class Scope:
    """What instructions may refer to beyond their own stage."""

    build_args: Mapping[str, str]
    global_args: Mapping[str, str]
    origin: Callable[[str], Origin]
    """What --from=NAME means."""
    warn: Callable[[str, Location | None], None]
    network: str = "default"
    """Of a RUN that does not say which."""
    allowed: frozenset[str] = frozenset()
    """What --allow names."""
    run_settings: RunSettings = field(default_factory=RunSettings)
