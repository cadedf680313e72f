"""The form of a cache where OCI things are kept: an image manifest whose configuration is the document.

A small document stands in an annotation instead, so that one request gets it; an image may carry it there, too. The
layers of the manifest are the blobs that must live as long as the document.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence

from layers.data import replace
from layers.digest import Digest
from layers.errors import ImageError
from layers.oci import Descriptor, Manifest

ARTIFACT = "application/vnd.pybuild.cache.v1"
"""Media type of the configuration, by which tools see that this is no image to run."""
NOTE = "pybuild.cache.v1"
"""The annotation, in Base64."""

EMPTY = b"{}"
"""The configuration of a manifest that has an annotation."""
EMPTY_DESCRIPTOR = Descriptor(ARTIFACT, Digest.of(EMPTY), len(EMPTY))

LARGEST_NOTE = 16 << 10
"""Bytes; manifests of some megabytes are taken everywhere, yet the table is better off in a blob of its own."""


def manifest_of(document: Descriptor, blobs: Sequence[Descriptor]) -> Manifest:
    """The manifest of a document that is a blob."""
    # Not every registry takes a manifest without layers (image-spec manifest.md, "Guidelines for Artifact Usage").
    return Manifest(document, _plain(blobs) or (EMPTY_DESCRIPTOR,))


def manifest_with(data: bytes, blobs: Sequence[Descriptor]) -> Manifest:
    """The manifest of a small document, which stands in it."""
    return replace(manifest_of(EMPTY_DESCRIPTOR, blobs), annotations=note_of(data))


def note_of(data: bytes) -> Mapping[str, str]:
    """The annotation of a document."""
    return {NOTE: base64.b64encode(data).decode("ascii")}


def document_in(manifest: Manifest, read: Callable[[Descriptor], bytes]) -> bytes | None:
    """The document of a manifest; None if it has none, as an image without a cache. `read` gives a blob."""
    note = manifest.annotations.get(NOTE)
    if note is not None:
        try:
            return base64.b64decode(note, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageError("the annotation with the cache is damaged") from error
    return read(manifest.config) if manifest.config.media_type == ARTIFACT else None


def _plain(blobs: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Each blob once, without what only an image says of it."""
    return tuple(
        replace(blob, annotations={}, platform=None) for blob in {blob.digest: blob for blob in blobs}.values()
    )
