"""What a text on the command line means as a context: a folder, a repository, a URL, an image."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.errors import UsageError
from layers.data import dataclass
from layers.errors import ImageError
from layers.registry.reference import Reference

if TYPE_CHECKING:
    from builder.context.repository import Repository

_DOCKER_IMAGE = "docker-image://"
_OCI_LAYOUT = "oci-layout://"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine."""

    path: str


@dataclass(frozen=True, slots=True)
class Url:
    """Something to be fetched by http or https."""

    url: str


@dataclass(frozen=True, slots=True)
class ImageContext:
    """An image of the store or of a registry."""

    name: str


@dataclass(frozen=True, slots=True)
class LayoutContext:
    """An image of an OCI layout: `DIR[:TAG][@DIGEST]`."""

    location: str


Images = ImageContext | LayoutContext

if TYPE_CHECKING:
    Files = Folder | Url | Repository
    ContextSource = Files | Images


def context_source(text: str) -> "ContextSource":
    """What the text means; UsageError for a scheme that is none of these. Whether it is there is not looked at."""
    if text.startswith(_DOCKER_IMAGE):
        return ImageContext(text.removeprefix(_DOCKER_IMAGE))
    if text.startswith(_OCI_LAYOUT):
        return LayoutContext(text.removeprefix(_OCI_LAYOUT))
    return _elsewhere(text) if "://" in text or "@" in text else Folder(text)


def _elsewhere(text: str) -> "Files":
    """A repository or a URL; else a folder with an unusual name."""
    # Not at the top: most contexts are folders, and have nothing of these in their names.
    from builder.context.repository import parse_repository, scheme_of, without_password

    repository = parse_repository(text)
    if repository is not None:
        return repository
    scheme = scheme_of(text)
    if scheme in {"http", "https"}:
        return Url(text)
    if scheme:
        raise UsageError(
            f"the context {without_password(text)} has an unknown scheme",
            hint=f"there are http://, https://, git://, ssh://, {_DOCKER_IMAGE} and {_OCI_LAYOUT}",
        )
    return Folder(text)


class NamedContexts:
    """What --build-context gives names to; each is an image name: `busybox` is docker.io/library/busybox:latest."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """UsageError for a source of a form that there is not."""
        self._sources = {_key(name): context_source(text) for name, text in texts.items()}

    def find(self, name: str) -> "ContextSource | None":
        """What stands for a name in FROM or --from; None if it has no special meaning."""
        return self._sources.get(_key(name)) if self._sources else None

    def is_named(self, name: str) -> bool:
        """Whether the name has a meaning that goes before stages and images."""
        return self.find(name) is not None

    def has_files(self, name: str) -> bool:
        """Whether the name stands for files that are no image."""
        source = self.find(name)
        return source is not None and not isinstance(source, Images)


def _key(name: str) -> str:
    """The full name; for a stage's name in capitals, which means the same stage, that of the stage."""
    full = full_name(name)
    return full_name(name.lower()) if full == name else full


def full_name(name: str) -> str:
    """The name as the store has it, host and tag spelt out; one that is no reference stays as it is."""
    try:
        return str(Reference.parse(name))
    except ImageError:
        return name
