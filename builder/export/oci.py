"""Writes an image as an OCI image layout (image-layout.md): a tar, to a file or standard output, or a folder."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

from layers.entry import Entry, Kind
from layers.errors import PybuildError
from layers.layout import Layout
from layers.oci import IMAGE_NAME, REF_NAME, Descriptor, Image, Index
from layers.tar import TarWriter

LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class OutputError(PybuildError):
    """The result cannot be written where it should go."""


def write_folder(image: Image, names: Sequence[str], store: Layout, folder: str) -> None:
    """Add the image to a layout folder, which is made if it is not there; what else it holds stays."""
    target = Layout(folder)
    for descriptor in _blobs(image):
        if not target.has(descriptor):
            with store.open(descriptor) as source, target.writer() as writer:
                while block := source.read(1 << 20):
                    writer.write(block)
                writer.commit(descriptor)
    for name in names or [""]:
        target.tag(name, image.descriptor)


def write_file(image: Image, names: Sequence[str], store: Layout, path: str) -> None:
    """Write the layout as a tar; the file is complete, or it is as it was before."""
    temporary = f"{path}.{os.urandom(4).hex()}.part"
    try:
        with open(temporary, "xb") as file:
            write_stream(image, names, store, file)
        os.rename(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {os.strerror(error.errno or 0).lower()}") from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def write_stream(image: Image, names: Sequence[str], store: Layout, stream: BinaryIO) -> None:
    """Write the layout as a tar. The same image and names give the same bytes."""
    tar = TarWriter(stream.write)
    for folder in ("blobs", "blobs/sha256"):
        tar.add(Entry(folder, Kind.DIRECTORY, 0o755))
    for descriptor in sorted(_blobs(image), key=lambda blob: blob.digest):
        with store.open(descriptor) as source:
            path = f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"
            tar.add(Entry(path, Kind.FILE, size=descriptor.size), source)
    for path, document in (("index.json", _index(image, names).serialise()), ("oci-layout", LAYOUT_VERSION)):
        tar.add(Entry(path, Kind.FILE, size=len(document)), document)
    tar.close()


def _index(image: Image, names: Sequence[str]) -> Index:
    named = [replace(image.descriptor, annotations={IMAGE_NAME: name, REF_NAME: name}) for name in names]
    return Index(tuple(named or [image.descriptor]))


def _blobs(image: Image) -> Iterator[Descriptor]:
    """Every blob of the image, once."""
    seen = set()
    for descriptor in (image.descriptor, image.manifest.config, *image.manifest.layers):
        if descriptor.digest not in seen:
            seen.add(descriptor.digest)
            yield descriptor
