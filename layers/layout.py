"""An OCI image layout (image-layout.md): blobs named by their digest, and an index.json of names.

Nothing is read from here without being verified, and nothing gets a name before it is whole and on disk: temporary
file, fsync, rename, fsync of the folder. Any number of processes may use one layout at the same time.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from layers.blob import BlobWriter, NewFile, explained, open_verified, sync_folder
from layers.data import replace
from layers.digest import Digest
from layers.errors import ImageError, StoreError
from layers.oci import IMAGE_NAME, REF_NAME, Descriptor, Index

if TYPE_CHECKING:
    from layers.outcome import Outcome
    from layers.partial import PartialBlob

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
VERSION = b'{"imageLayoutVersion":"1.0.0"}'

LARGEST_DOCUMENT = 16 << 20
"""Bytes of a manifest or configuration, at most; real ones have some kilobytes, registries take 4 MiB."""


class Layout:
    """One layout folder. It is made by the first thing that is written; opening it touches nothing."""

    def __init__(self, root: str, *, temporary: str | None = None, heals: bool = False) -> None:
        """`temporary` is a folder on the same file system for what is being written; without one, it is the root.

        A layout that `heals` loses blobs that turn out to be damaged, so that they are made or fetched again.
        """
        self.root = root
        self._awaited: dict[Digest, Outcome[None]] = {}
        self._heals = heals
        self._temporary = temporary or root

    def path(self, digest: Digest) -> str:
        """Where the blob is, or would be. Who opens it himself verifies nothing."""
        return os.path.join(self.root, "blobs", digest.algorithm, digest.hex)

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob of that digest and size is there; its bytes are not looked at."""
        self._wait_for(descriptor.digest)
        try:
            return os.stat(self.path(descriptor.digest)).st_size == descriptor.size
        except FileNotFoundError:
            return False
        except OSError as error:
            raise explained(error, self.path(descriptor.digest)) from error

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """A stream of the blob, to be closed. StoreError if it is not there.

        Reading is verifying: a StoreError at the end, or on closing, says that the bytes are not those of the digest.
        """
        self._wait_for(descriptor.digest)
        return open_verified(self.path(descriptor.digest), descriptor, discard=self._heals)

    def read(self, descriptor: Descriptor) -> bytes:
        """The whole blob, verified. ImageError for more than a document may have: layers are for `open`."""
        if descriptor.size > LARGEST_DOCUMENT:
            raise ImageError(f"{descriptor.digest} is too large for a document: {descriptor.size} bytes")
        with self.open(descriptor) as blob:
            return blob.read()

    def writer(self) -> "BlobWriter":
        """A new blob, whose digest is known in the end. To be used by `with`: what is not committed is removed."""
        self._create()
        return BlobWriter(self._temporary, self.path)

    def await_blob(self, digest: Digest, kept: "Outcome[None]") -> None:
        """A blob is on its way to the disk (`layers.keeper`): whoever asks for it waits for the outcome."""
        self._awaited[digest] = kept

    def sync_names(self) -> None:
        """Bring the names of all blobs to the disk."""
        sync_folder(os.path.join(self.root, "blobs", "sha256"))

    def partial(self, descriptor: Descriptor, *, wait: Callable[[], object]) -> "PartialBlob":
        """A download of a blob, which may have begun before; `wait` is called while another process fetches it."""
        from layers.partial import PartialBlob  # most builds fetch nothing

        self._create()
        name = f"fetch-{descriptor.digest.algorithm}-{descriptor.digest.hex}"
        return PartialBlob(os.path.join(self._temporary, name), self.path(descriptor.digest), descriptor, wait=wait)

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Store a document, unless it is there: a build with nothing to do waits for no disk."""
        descriptor = Descriptor(media_type, Digest.of(data), len(data))
        if self._holds(data, descriptor.digest):
            return descriptor
        with self.writer() as blob:
            blob.write(data)
            blob.commit()
        return descriptor

    def _holds(self, data: bytes, digest: Digest) -> bool:
        """Whether the blob is there and has these bytes: one that has been damaged is written again."""
        try:
            with open(self.path(digest), "rb") as file:
                return file.read() == data
        except OSError:
            return False

    def index(self) -> Index:
        """What index.json says; nothing if there is none. StoreError if it is damaged."""
        data = self.index_bytes()
        try:
            return Index() if data is None else Index.parse(data)
        except ImageError as error:
            raise StoreError(
                f"{self.index_path} is damaged: {error.message}",
                hint="remove it: the images lose their names, and nothing else",
            ) from error

    @property
    def index_path(self) -> str:
        """Where index.json is, or would be."""
        return os.path.join(self.root, INDEX_FILE)

    def index_bytes(self) -> bytes | None:
        """What is in index.json; None if there is none."""
        try:
            with open(self.index_path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explained(error, self.index_path) from error

    def names(self) -> dict[str, Descriptor]:
        """The named images, as in index.json. A layout of others may name them by tags alone."""
        named = ((_name(manifest), manifest) for manifest in self.index().manifests)
        return {name: _without_name(manifest) for name, manifest in named if name}

    def resolve(self, name: str) -> Descriptor | None:
        """What has this name."""
        for manifest in self.index().manifests:
            if name and name in {manifest.annotations.get(IMAGE_NAME), manifest.annotations.get(REF_NAME)}:
                return _without_name(manifest)
        return None

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Give a name to what is stored here; what had the name loses it. An empty name only lists the descriptor."""
        if not self.has(descriptor):
            raise StoreError(f"{name or descriptor.digest} cannot be listed: its manifest is not in {self.root}")
        names = {IMAGE_NAME: name, REF_NAME: name} if name else {}
        named = replace(descriptor, annotations={**descriptor.annotations, **names})
        with self._index_to_change() as manifests:
            same = [place for place, manifest in enumerate(manifests) if _replaces(named, manifest)]
            for place in reversed(same):
                del manifests[place]
            manifests.insert(same[0] if same else len(manifests), named)

    def untag(self, name: str) -> bool:
        """Take a name away; False if there is no such. The blobs stay."""
        with self._index_to_change() as manifests:
            others = [manifest for manifest in manifests if _name(manifest) != name]
            found = len(others) < len(manifests)
            manifests[:] = others
        return found

    def _wait_for(self, digest: Digest) -> None:
        kept = self._awaited.get(digest)
        if kept:
            kept.exception()

    def _create(self) -> None:
        """Make a layout of the folder, as far as it is none."""
        blobs = os.path.join(self.root, "blobs", "sha256")
        if os.path.isdir(blobs) and os.path.exists(os.path.join(self.root, INDEX_FILE)):
            return
        try:
            os.makedirs(blobs, exist_ok=True)
        except OSError as error:
            raise explained(error, self.root) from error
        with self._locked():
            for name, data in ((LAYOUT_FILE, VERSION), (INDEX_FILE, Index().serialise())):
                if not os.path.exists(os.path.join(self.root, name)):
                    self._replace_file(name, data)

    @contextmanager
    def _index_to_change(self) -> Iterator[list[Descriptor]]:
        """The list of index.json, which is written back if it has been changed; others wait until then."""
        self._create()
        with self._locked():
            index = self.index()
            manifests = list(index.manifests)
            yield manifests
            if tuple(manifests) != index.manifests:
                self._replace_file(INDEX_FILE, replace(index, manifests=tuple(manifests)).serialise())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of index.json: flock(2) on the folder, since the file itself is replaced."""
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise explained(error, self.root) from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except OSError as error:
                raise explained(error, self.root) from error
            yield
        finally:
            os.close(fd)

    def _replace_file(self, name: str, data: bytes) -> None:
        with NewFile(self._temporary) as file:
            file.write(data)
            file.rename(os.path.join(self.root, name))


def _name(manifest: Descriptor) -> str:
    return manifest.annotations.get(IMAGE_NAME) or manifest.annotations.get(REF_NAME) or ""


def _without_name(manifest: Descriptor) -> Descriptor:
    others = {key: text for key, text in manifest.annotations.items() if key not in {IMAGE_NAME, REF_NAME}}
    return replace(manifest, annotations=others)


def _replaces(new: Descriptor, old: Descriptor) -> bool:
    """Whether a line of index.json stands for the other: by its name, or without one by what it is."""
    return _name(new) == _name(old) and bool(_name(new) or new.digest == old.digest)
