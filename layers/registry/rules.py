"""Containers' registries.conf (containers-registries.conf(5), version 2): mirrors, other places, blocked names.

What concerns short names is passed over: a name without a host is Docker Hub's, here as in Docker.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

from layers.data import dataclass, replace
from layers.registry.errors import RegistryError
from layers.registry.reference import DOCKER_HUB_ALIASES, Reference

_PULLS = frozenset({"all", "digest-only", "tag-only"})
_FORMAT_1 = frozenset({"search", "insecure", "block"})

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the names below a prefix are to be found."""

    location: str
    """`HOST[:PORT][/NAMESPACE]`."""
    insecure: bool = False
    pulls: str = "all"
    """Of a mirror: which pulls it is asked for."""

    def serves(self, reference: Reference) -> bool:
        """Whether it may be asked for this reference."""
        return self.pulls == "all" or (self.pulls == "digest-only") == bool(reference.digest)


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[registry]]` table: what holds for the names that begin with its prefix."""

    prefix: str
    """`HOST[:PORT][/NAMESPACE[/REPOSITORY[:TAG or @DIGEST]]]`, or `*.DOMAIN`."""
    place: Place
    """Its location is empty if names stay what they are."""
    mirrors: tuple[Place, ...] = ()
    blocked: bool = False

    def matches(self, reference: Reference) -> bool:
        """Whether the name begins with the prefix and goes on at one of its joints."""
        if self.prefix.startswith("*."):
            return reference.host.endswith(self.prefix[1:])
        name = str(reference)
        return name.startswith(self.prefix) and name[len(self.prefix) :][:1] in {"", "/", ":", "@"}

    def moved(self, reference: Reference, place: Place) -> str:
        """`HOST/REPOSITORY` of the reference at a place that stands for the prefix."""
        if not place.location:
            return reference.name
        if self.prefix.startswith("*."):
            # The man page says nothing of it; taken literally, the place stands for each of the hosts.
            return f"{place.location}/{reference.repository}"
        return place.location + reference.name[len(self.prefix) :]


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of one run; by default none."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def read(cls, paths: Sequence[str]) -> Self:
        """Read the files that exist, and those of folders (`*.conf`); a later one replaces rules of the same prefix.

        RegistryError names the file that cannot be understood: a rule that does not hold could let an image through.
        """
        found: dict[str, Rule] = {}
        for path in _files(paths):
            found |= {rule.prefix: rule for rule in _read(path)}
        return cls(tuple(found.values()))

    def of(self, reference: Reference) -> Rule | None:
        """The rule with the longest prefix that matches."""
        fitting = [rule for rule in self.rules if rule.matches(reference)]
        return max(fitting, key=lambda rule: len(rule.prefix), default=None)

    def is_insecure(self, host: str) -> bool:
        """Whether a rule allows a host to be spoken to without a valid certificate."""
        places = [replace(rule.place, location=rule.place.location or rule.prefix) for rule in self.rules]
        places += [mirror for rule in self.rules for mirror in rule.mirrors]
        return any(place.insecure and _covers(place.location.partition("/")[0], host) for place in places)


def _covers(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _files(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if os.path.isdir(path):
            yield from (os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".conf"))
        else:
            yield path


def _read(path: str) -> list[Rule]:
    import tomllib  # here: most runs have no such file, or never come so far

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
        if _FORMAT_1 & document.get("registries", {}).keys():
            raise ValueError("it is of format 1, which containers has given up; write [[registry]] tables")
        return [_rule(table) for table in document.get("registry", [])]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise RegistryError(f"{path} is not a registries.conf: {error}") from error


def _rule(table: Json) -> Rule:
    location = _plain(table.get("location", ""))
    prefix = _plain(table.get("prefix", "")) or location
    if not prefix:
        raise ValueError("a [[registry]] has neither prefix nor location")
    if "*" in prefix.removeprefix("*."):
        raise ValueError(f"{prefix!r}: a prefix has `*` only as `*.DOMAIN`")
    by_digest = _truth(table, "mirror-by-digest-only")
    mirrors = [_mirror(mirror, "digest-only" if by_digest else "all") for mirror in table.get("mirror", [])]
    place = Place("" if location == prefix else location, _truth(table, "insecure"))
    return Rule(prefix, place, tuple(mirrors), _truth(table, "blocked"))


def _mirror(table: Json, pulls: str) -> Place:
    pulls = table.get("pull-from-mirror") or pulls
    location = _plain(table.get("location", ""))
    if pulls not in _PULLS or not location:
        raise ValueError(f"a mirror has the location {location!r} and pull-from-mirror = {pulls!r}")
    return Place(location, _truth(table, "insecure"), pulls)


def _plain(text: object) -> str:
    """A location as references spell it; ValueError if it is none."""
    if not isinstance(text, str) or "://" in text:
        raise ValueError(f"{text!r} is not a place: it is written HOST[:PORT][/NAMESPACE]")
    host, slash, rest = text.strip("/").partition("/")
    return ("docker.io" if host in DOCKER_HUB_ALIASES else host) + slash + rest


def _truth(table: Json, name: str) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} = {value!r} is neither true nor false")  # noqa: TRY004 - one kind of error for the file
    return value
