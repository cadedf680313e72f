"""Names of images, read by Docker's rules: `python` is `docker.io/library/python:latest`."""

import re
from typing import Self

from layers.data import dataclass
from layers.digest import Digest, DigestError
from layers.errors import ImageError

DOCKER_HUB = "docker.io"
DOCKER_HUB_ALIASES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_OFFICIAL = "library/"
_LONGEST_REPOSITORY = 255

# The grammar of the distribution project's reference package, which all tools share.
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# Would be taken for an image id by other tools.
_IDENTIFIER = r"[0-9a-f]{64}"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is: registry, repository, and a tag or a digest; the digest decides where both stand."""

    host: str
    """With its port, if one was written; Docker Hub is always `docker.io`."""
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`; ImageError says which part is wrong."""
        name, at, digest = text.partition("@")
        host, path = _split_host(name)
        repository, colon, tag = path.partition(":")
        if host == DOCKER_HUB and repository and "/" not in repository:
            repository = _OFFICIAL + repository
        if host != DOCKER_HUB and not re.fullmatch(_HOST, host):
            raise ImageError(f"{text!r} is not an image name: {host!r} is not a host")
        _check_repository(text, repository)
        if colon and not _TAG.fullmatch(tag):
            raise ImageError(f"{text!r} is not an image name: {tag!r} is not a tag")
        if at:
            return cls(host, repository, tag, _digest(text, digest))
        return cls(host, repository, tag or "latest")

    @property
    def selector(self) -> str:
        """What the distribution API calls `reference`: the digest, else the tag."""
        return self.digest or self.tag

    @property
    def name(self) -> str:
        """Host and repository, without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def familiar(self) -> str:
        """As people write it: without `docker.io/` and `library/`."""
        if self.host != DOCKER_HUB:
            return str(self)
        return str(self).removeprefix(f"{DOCKER_HUB}/").removeprefix(_OFFICIAL)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def _split_host(name: str) -> tuple[str, str]:
    """The registry and the rest: a first component is a host if it could not be part of a repository's name."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return DOCKER_HUB, name
    return (DOCKER_HUB if first.lower() in DOCKER_HUB_ALIASES else first), rest


def _check_repository(text: str, repository: str) -> None:
    if _REPOSITORY.fullmatch(repository.lower()) and repository != repository.lower():
        raise ImageError(f"{text!r} is not an image name", hint=f"a repository is lower case: {repository.lower()}")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST_REPOSITORY:
        raise ImageError(f"{text!r} is not an image name", hint="write [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]")
    if re.fullmatch(_IDENTIFIER, repository.removeprefix(_OFFICIAL)):
        raise ImageError(f"{text!r} is an identifier, not an image name", hint="a digest is written NAME@sha256:...")


def _digest(text: str, digest: str) -> Digest:
    try:
        return Digest(digest)
    except DigestError as error:
        raise ImageError(f"{text!r} is not an image name: {error.message}") from error
