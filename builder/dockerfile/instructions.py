"""The instructions of a Dockerfile as data. Texts are as written: the graph expands them, with `words`.

A field that a flag fills is "" or () where the flag is not given.
"""

from builder.dockerfile.directives import Directives
from builder.dockerfile.reader import Note, Source
from builder.errors import DockerfileError, Location
from layers.data import dataclass


@dataclass(frozen=True, slots=True)
class ShellForm:
    """A command for the shell of the stage, as one text that is never expanded here."""

    text: str


@dataclass(frozen=True, slots=True)
class ExecForm:
    """A command as its words; the JSON form."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A here-document that begins with `#!`: it is made a file of that name, mode 0755, and executed."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """NAME=text of ENV and LABEL; both sides are expanded."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Declaration:
    """NAME[=text] of ARG; both sides are expanded. No default (None) is something else than an empty one."""

    name: str
    default: str | None
    comment: str = ""
    """What a comment above says of it: the rest of a line that begins with its name."""


@dataclass(frozen=True, slots=True)
class MountText:
    """A --mount of RUN: keys in lower case, values as written, None where there is no `=`."""

    fields: tuple[tuple[str, str | None], ...]
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A here-document as a source of COPY or ADD: a file of that name; `words.expand_body` if `expand`."""

    name: str
    text: str
    expand: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What every instruction has."""

    location: Location
    original: str
    """The statement on one line as written, for progress and history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """FROM [--platform=] IMAGE [AS NAME]."""

    image: str
    name: str = ""
    """In lower case; "" for a stage that only its number names."""
    platform: str = ""
    comment: str = ""
    """What a comment above says of the stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """ARG NAME[=DEFAULT] ..."""

    declarations: tuple[Declaration, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """ENV NAME=TEXT ..."""

    pairs: tuple[Pair, ...]
    legacy: bool = False
    """`ENV NAME TEXT`: one pair, the text is the rest of the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """LABEL NAME=TEXT ..."""

    pairs: tuple[Pair, ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """RUN. Here-documents are part of the command already; nothing of it is expanded."""

    command: ShellForm | ExecForm | Script
    mounts: tuple[MountText, ...] = ()
    network: str = "default"
    """default, none or host."""
    security: str = "sandbox"
    """sandbox or insecure."""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """COPY, and what ADD has in common with it. Words of the JSON form are expanded too."""

    sources: tuple[str, ...]
    destination: str
    documents: tuple[Document, ...] = ()
    from_: str = ""
    """A stage, its number, a named context or an image; never expanded. "" is the build context."""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    unpack: bool = False
    """Archives among local sources are unpacked: ADD, unless --unpack=false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Copy):
    """ADD: sources may also be URLs and git repositories."""

    unpack_remote: bool = False
    """--unpack=true: archives from URLs are unpacked too."""
    checksum: str = ""
    keep_git_dir: bool | None = None
    """None: not said, so that a query in the URL decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """WORKDIR PATH."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """USER NAME[:GROUP]."""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    """CMD. No words at all is the shell form of an empty text; `[]` clears."""

    command: ShellForm | ExecForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    """ENTRYPOINT, as CMD."""

    command: ShellForm | ExecForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """EXPOSE. Each word may expand to several (`words.expand_words`), then `values.exposed_ports` reads them."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """VOLUME PATH ..."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    """STOPSIGNAL; once expanded, `values.stop_signal` checks it."""

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    """SHELL [WORD, ...]."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """HEALTHCHECK. Nothing of it is expanded; durations are nanoseconds, and 0 is the runtime's default."""

    command: ShellForm | ExecForm | None
    """None is HEALTHCHECK NONE."""
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild(Instruction):
    """ONBUILD. `parser.parse_trigger` reads `text` again where a child image begins."""

    text: str
    """The trigger with the bodies of its here-documents, as the image's configuration keeps it."""
    fault: DockerfileError | None
    """What whoever uses it will be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """MAINTAINER TEXT."""

    text: str


@dataclass(frozen=True, slots=True)
class StageText:
    """One stage as written."""

    name: str
    from_: From
    instructions: tuple[Instruction, ...] = ()


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole Dockerfile, parsed. There is at least one stage."""

    source: Source
    global_args: tuple[Arg, ...]
    """Those before the first FROM."""
    stages: tuple[StageText, ...]

    @property
    def directives(self) -> Directives:
        return self.source.directives

    @property
    def notes(self) -> tuple[Note, ...]:
        return self.source.notes
