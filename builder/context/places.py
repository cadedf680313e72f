"""Makes a folder of whatever a context is: what is not one already is unpacked into a temporary one."""

import os
from typing import TYPE_CHECKING, BinaryIO, cast

from builder.context.named import Folder, Url
from builder.context.remote import Remotes, file_name
from cache.store import Store
from layers.data import dataclass

if TYPE_CHECKING:
    from builder.context.named import Files
    from builder.context.repository import Repository

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """A context that can be read."""

    folder: str
    is_lasting: bool = False
    """Whether this is the person's own folder, which another build may find as it is."""
    file: str = ""
    """The context was no archive, but this one file: a Dockerfile, if it is the build context."""


class Places:
    """Folders of one build; temporary ones live as long as the store is open."""

    def __init__(self, store: Store, remotes: Remotes, *, keep_git_dir: bool) -> None:
        self._store = store
        self._remotes = remotes
        self._keep_git_dir = keep_git_dir

    def of_source(self, source: "Files") -> Place:
        """The place of a context; ContextError if it cannot be had."""
        if isinstance(source, Folder):
            return Place(source.path, is_lasting=True)
        if isinstance(source, Url):
            return self._of_url(source.url)
        return self._of_repository(source)

    def of_stream(self, stream: BinaryIO) -> Place:
        """The place of a context that is a tar, or one file: its first bytes tell which."""
        # Not at the top: a context that is a folder needs no tar, and no compression.
        from builder.context.archive import Peeked, unpack_context

        folder = self._store.temporary("context")
        peeked = Peeked(stream)
        if peeked.is_archive:
            unpack_context(cast(BinaryIO, peeked), folder)
            return Place(folder)
        file = os.path.join(self._store.temporary("context"), "file")
        with open(file, "wb") as copy:
            while block := peeked.read(_BLOCK):
                copy.write(block)
        return Place(folder, file=file)

    def _of_url(self, url: str) -> Place:
        """What a URL gives; a single file is in the folder too, under the name that the URL has for it."""
        with open(self._remotes.path(self._remotes.file(url)), "rb") as blob:
            place = self.of_stream(blob)
        name = file_name(url)
        if place.file and name:
            os.link(place.file, os.path.join(place.folder, name))
        return place

    def _of_repository(self, repository: "Repository") -> Place:
        asked = repository.keep_git_dir
        keep = self._keep_git_dir if asked is None else asked
        return Place(self._remotes.checkout(repository, keep_git_dir=keep))
