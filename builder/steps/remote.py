"""What ADD takes from elsewhere, with everything expanded."""

from typing import TYPE_CHECKING

from layers.data import dataclass
from layers.digest import Digest

if TYPE_CHECKING:
    from builder.context.repository import Repository


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """The content of a URL; mode 0600, owner 0:0."""

    text: str
    """As it stands among the sources of the instruction."""
    name: str
    """In a destination that is a directory; "" if the URL has none."""
    checksum: Digest | None = None
    unpack: bool = False
    """An archive gives what is in it."""


@dataclass(frozen=True, slots=True)
class RemoteRepository:
    """The files of a repository, owner 0:0."""

    text: str
    repository: "Repository"
    keep_git_dir: bool = False


Remote = RemoteFile | RemoteRepository
