"""Writes images as an OCI image layout (image-layout.md): a tar, or a folder."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import BinaryIO

from builder.export.image import Packaged
from layers.counted import counted
from layers.data import dataclass, replace
from layers.entry import Entry, Kind
from layers.layout import VERSION, Layout
from layers.oci import IMAGE_NAME, REF_NAME, Descriptor, Index
from layers.parts import parts_of
from layers.tar import TarWriter

Progress = Callable[[Descriptor, int], object]
"""Called with a blob and how many of its bytes have been written."""


@dataclass(frozen=True, slots=True)
class Named:
    """An image under the full names that it has where it goes."""

    packaged: Packaged
    names: tuple[str, ...]


def write_folder(images: Sequence[Named], store: Layout, folder: str, progress: Progress) -> None:
    """Add images to a layout folder, which is made if it is not there; what else it holds stays."""
    target = Layout(folder)
    for descriptor in blobs_of(images, store):
        if not target.has(descriptor):
            with store.open(descriptor) as source, target.writer() as writer:
                stream = counted(source, partial(progress, descriptor))
                while block := stream.read(1 << 20):
                    writer.write(block)
                writer.commit(descriptor)
    for image in images:
        for name in image.names or ("",):
            target.tag(name, image.packaged.root)


def write_archive(images: Sequence[Named], store: Layout, stream: BinaryIO, progress: Progress) -> None:
    """Write the layout as a tar. The same images and names give the same bytes."""
    documents = {"index.json": index_of(images).serialise(), "oci-layout": VERSION}
    write_tar(blobs_of(images, store), documents, store, stream, progress)


def write_tar(
    blobs: Iterator[Descriptor], documents: dict[str, bytes], store: Layout, stream: BinaryIO, progress: Progress
) -> None:
    """Write blobs where a layout has them, and then documents at its root."""
    tar = TarWriter(stream.write)
    for folder in ("blobs", "blobs/sha256"):
        tar.add(Entry(folder, Kind.DIRECTORY, 0o755))
    for descriptor in sorted(blobs, key=lambda blob: blob.digest):
        with store.open(descriptor) as source:
            content = counted(source, partial(progress, descriptor))
            tar.add(Entry(blob_path(descriptor), Kind.FILE, size=descriptor.size), content)
    for path, document in sorted(documents.items()):
        tar.add(Entry(path, Kind.FILE, size=len(document)), document)
    tar.close()


def index_of(images: Sequence[Named]) -> Index:
    """The index.json of a layout with these images."""
    manifests = []
    for image in images:
        root = image.packaged.root
        named = [replace(root, annotations={**root.annotations, IMAGE_NAME: n, REF_NAME: n}) for n in image.names]
        manifests += named or [root]
    return Index(tuple(manifests))


def blobs_of(images: Sequence[Named], store: Layout) -> Iterator[Descriptor]:
    """Every blob that the images lead to, once; what names something comes after it."""
    blobs: dict[str, Descriptor] = {}
    for image in images:
        root = image.packaged.root
        parts = parts_of(store, root)
        blobs |= {blob.digest: blob for blob in (*parts.blobs, *parts.foreign, *parts.manifests, root)}
    return iter(blobs.values())


def blob_path(descriptor: Descriptor) -> str:
    """Where a layout has a blob."""
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"
