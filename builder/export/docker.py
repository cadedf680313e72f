"""Writes images as `docker save` does: an archive for `docker load` and `podman load` that is an OCI layout as well.

The form is that of moby's image/spec/v1.2.md: manifest.json names configuration and layers of each image by paths.
"""

from collections.abc import Collection, Sequence
from typing import BinaryIO

from builder.export.oci import Named, Progress, blob_path, blobs_of, index_of, write_tar
from layers.digest import Digest, canonical_json
from layers.layout import VERSION, Layout
from layers.registry.reference import Reference


def write_archive(
    images: Sequence[Named],
    store: Layout,
    stream: BinaryIO,
    progress: Progress,
    *,
    left_out: Collection[Digest] = (),
) -> None:
    """Write the archive. Blobs that are `left_out` must be there already where it goes; then it is no layout."""
    documents = {"manifest.json": canonical_json([_row(image) for image in images])}
    if not left_out:
        documents |= {"index.json": index_of(images).serialise(), "oci-layout": VERSION}
    blobs = (blob for blob in blobs_of(images, store) if blob.digest not in left_out)
    write_tar(blobs, documents, store, stream, progress)


def _row(image: Named) -> dict[str, object]:
    manifest = image.packaged.image.manifest
    return {
        "Config": blob_path(manifest.config),
        "RepoTags": [Reference.parse(name).familiar for name in image.names],
        "Layers": [blob_path(layer) for layer in manifest.layers],
    }
