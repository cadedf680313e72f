"""A cache in a folder (`type=local`): an OCI image layout, which a CI service can keep and copy as it is."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cache.shared.artifact import ARTIFACT, document_in, manifest_of
from cache.shared.shelf import Inspect, Obtain, Progress
from layers.blob import explained
from layers.digest import Digest
from layers.errors import ImageError, StoreError
from layers.layout import Layout
from layers.oci import MANIFEST, Descriptor, Manifest

_LOCK = "cache.lock"
_BLOCK = 1 << 20


class FolderShelf:
    """The cache under one tag of a layout. Writers wait for each other."""

    home: tuple[str, str] | None = None
    by_platform = False

    def __init__(self, folder: str, tag: str, digest: Digest | None = None) -> None:
        """`digest` is of the manifest to read in place of the one that has the tag."""
        self.title = folder
        self._layout = Layout(folder)
        self._tag = tag
        self._digest = digest

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        path = os.path.join(self._layout.root, _LOCK)
        try:
            os.makedirs(self._layout.root, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise explained(error, path) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield True
        finally:
            os.close(fd)

    def read(self, name: str) -> bytes | None:
        manifest = None if name else self._find()
        return document_in(Manifest.parse(self._layout.read(manifest)), self._layout.read) if manifest else None

    def write(self, name: str, data: bytes, blobs: Sequence[Descriptor]) -> None:
        assert not name, "who holds the lock needs no document but the table"
        manifest = manifest_of(self._layout.put(data, ARTIFACT), blobs)
        self._layout.tag(self._tag, self._layout.put(manifest.serialise(), manifest.media_type))

    def lacking(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        return [blob for blob in blobs if not self._layout.has(blob)]

    def fetch(self, blobs: Sequence[Descriptor], layout: Layout, inspect: Inspect, progress: Progress) -> None:
        for blob in blobs:
            try:
                with self._layout.open(blob) as stream:
                    inspect(blob, stream)
            except StoreError as error:  # of this folder, and not of the store that is built in
                raise ImageError(error.message) from error
            _copy(self._layout, blob, layout, progress)

    def put(self, blobs: Sequence[Descriptor], layout: Layout, obtain: Obtain, progress: Progress) -> None:
        for blob in blobs:
            if not layout.has(blob):
                obtain(blob)
            _copy(layout, blob, self._layout, progress)

    def close(self) -> None:
        pass

    def _find(self) -> Descriptor | None:
        if self._digest is None:
            return self._layout.resolve(self._tag)
        try:
            return Descriptor(MANIFEST, self._digest, os.stat(self._layout.path(self._digest)).st_size)
        except OSError as error:
            raise ImageError(f"{self.title} has no {self._digest}") from error


def _copy(source: Layout, blob: Descriptor, target: Layout, progress: Progress) -> None:
    if not target.has(blob):
        with source.open(blob) as stream, target.writer() as writer:
            done = 0
            while block := stream.read(_BLOCK):
                writer.write(block)
                done += len(block)
                progress(blob, done)
            writer.commit(blob)
    progress(blob, blob.size)
