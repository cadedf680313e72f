"""Which registries are spoken to, and how: what a person chose, as a value that costs nothing until it is used."""

from collections.abc import Mapping

from layers.data import dataclass, field


@dataclass(frozen=True, slots=True)
class GivenLogin:
    """A login that came with the command or the environment, and not from a file."""

    place: str
    """`HOST[:PORT][/NAMESPACE]`: it is sent there, and nowhere else."""
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The choices of one run. Files named here are read when they are needed, and may be missing."""

    insecure: frozenset[str] = frozenset()
    """`HOST` or `HOST:PORT` that may be spoken to without a valid certificate, or without TLS."""
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For a registry, such as `docker.io`, places of the form `HOST[:PORT][/PREFIX]` to ask before it."""
    rules: tuple[str, ...] = ()
    """Files of the form of containers' registries.conf; a later one has precedence."""
    logins: tuple[GivenLogin, ...] = ()
    """These go before all files."""
    auth_document: str = field(default="", repr=False)
    """The text of a config.json (what $DOCKER_AUTH_CONFIG holds); it goes before the files."""
    docker_config: str | None = None
    """The folder of Docker's config.json (what $DOCKER_CONFIG names); None means that there is none."""
    auth_files: tuple[str, ...] = ()
    """Further files of the same form, such as containers' auth.json, to be asked after it in this order."""
    ca_file: str | None = None
    """A file of PEM certificates to trust in place of the system's and those that come with requests."""
    certificates: tuple[str, ...] = ()
    """Folders with a folder for each HOST[:PORT] in them, of certificates (`certs.d`)."""
