"""Where an image is looked for, and under which addresses a registry may answer."""

from functools import cached_property

from layers.data import dataclass
from layers.registry.errors import RegistryError
from layers.registry.reference import DOCKER_HUB, DOCKER_HUB_ALIASES, Reference
from layers.registry.rules import Rules
from layers.registry.settings import RegistrySettings

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


class Places:
    """The choices of one run, applied."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings

    @cached_property
    def _rules(self) -> Rules:
        return Rules.read(self.settings.rules)

    def sources(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Where to look for an image, in order: its mirrors, then its own registry or what stands for it."""
        rule = self._rules.of(reference)
        chosen = [f"{mirror.strip('/')}/{reference.repository}" for mirror in self._chosen_mirrors(reference)]
        if rule is None:
            return tuple(map(_endpoint, (*chosen, reference.name)))
        if rule.blocked:
            raise _blocked(reference, rule.prefix)
        mirrors = [rule.moved(reference, mirror) for mirror in rule.mirrors if mirror.serves(reference)]
        return tuple(map(_endpoint, (*chosen, *mirrors, rule.moved(reference, rule.place))))

    def target(self, reference: Reference) -> Endpoint:
        """Where an image is pushed to: exactly what its name says, as in containers."""
        rule = self._rules.of(reference)
        if rule is not None and rule.blocked:
            raise _blocked(reference, rule.prefix)
        return Endpoint(reference.host, reference.repository)

    def origins(self, host: str) -> tuple[str, ...]:
        """The URLs under which a registry may answer, best first; http is there only if allowed."""
        if host == DOCKER_HUB:
            return (f"https://{_HUB_ADDRESS}",)
        if self.is_insecure(host) or is_loopback(host):
            return (f"https://{host}", f"http://{host}")
        return (f"https://{host}",)

    def is_insecure(self, host: str) -> bool:
        """Whether the person gave up on certificates for `HOST[:PORT]`."""
        insecure = self.settings.insecure
        return host in insecure or bare_host(host) in insecure or self._rules.is_insecure(host)

    def _chosen_mirrors(self, reference: Reference) -> tuple[str, ...]:
        return self.settings.mirrors.get(reference.host, ())


def _endpoint(name: str) -> Endpoint:
    host, _, repository = name.partition("/")
    return Endpoint(DOCKER_HUB if host in DOCKER_HUB_ALIASES else host, repository)


def _blocked(reference: Reference, prefix: str) -> RegistryError:
    return RegistryError(
        f"{reference.familiar} is blocked", hint=f"a registries.conf of this machine blocks what begins with {prefix}"
    )


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
