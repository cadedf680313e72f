"""What a person lends to a build: secrets and SSH agents. Nothing of it may show in a key, a layer, a log or a repr."""

from collections.abc import Mapping

from layers.data import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """One --secret."""

    value: bytes = field(repr=False)
    unset: str = ""
    """The name of the variable that should have had the value, and was not set; the value is empty then."""


@dataclass(frozen=True, slots=True)
class SshAgent:
    """One --ssh: an agent that runs, or keys for one that has to be started."""

    socket: str = ""
    keys: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """The path of each, for errors, and its text."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """All of them, by id."""

    secrets: Mapping[str, Secret] = field(default_factory=dict)
    agents: Mapping[str, SshAgent] = field(default_factory=dict)
