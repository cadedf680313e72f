"""Which registries are spoken to, and how: what a person chose on the command line, and what follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from layers.registry.reference import DOCKER_HUB, Reference

_HUB_ADDRESS = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place that may have a repository: the upstream registry, or a mirror of it."""

    host: str
    """The name under which errors and credentials know it."""
    repository: str
    """Its name there; a mirror may put a prefix before it."""

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}"


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The choices of one run."""

    insecure: frozenset[str] = frozenset()
    """`HOST` or `HOST:PORT` that may be spoken to without a valid certificate, or without TLS."""
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For a registry, such as `docker.io`, places of the form `HOST[:PORT][/PREFIX]` to ask before it."""
    docker_config: str | None = None
    """The folder of Docker's config.json (what $DOCKER_CONFIG names); None means that there are no credentials."""
    ca_file: str | None = None
    """A file of PEM certificates to trust in place of those that come with requests."""

    def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Where to look for an image, in order: its mirrors, then its own registry."""
        places = (mirror.strip("/").partition("/") for mirror in self.mirrors.get(reference.host, ()))
        mirrors = (Endpoint(host, f"{prefix}{slash}{reference.repository}") for host, slash, prefix in places)
        return (*mirrors, Endpoint(reference.host, reference.repository))

    def origins(self, host: str) -> tuple[str, ...]:
        """The URLs under which a registry may answer, best first; http is there only if allowed."""
        if host == DOCKER_HUB:
            return (f"https://{_HUB_ADDRESS}",)
        if self.is_insecure(host) or is_loopback(host):
            return (f"https://{host}", f"http://{host}")
        return (f"https://{host}",)

    def is_insecure(self, host: str) -> bool:
        """Whether the person gave up on certificates for `HOST[:PORT]`."""
        return host in self.insecure or bare_host(host) in self.insecure


def bare_host(host: str) -> str:
    """`HOST[:PORT]` without its port; an IPv6 address keeps its brackets."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def is_loopback(host: str) -> bool:
    """Whether `HOST[:PORT]` is this machine by its name alone, without asking anybody."""
    import ipaddress  # here: a build that the cache answers makes settings too, and never comes so far

    name = bare_host(host).strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
