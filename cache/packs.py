"""Layers in another form than they are stored in: otherwise compressed, or several made one.

Each form is made once, and found again by what it was made from: the diff_ids of the layers, and the parameters. So it
is a fact about layers, whichever image has them.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from cache.documents import find_document, keep_document
from cache.keys import chain_id
from cache.store import Store
from layers.compress import Compression, compressor, decompressed
from layers.counted import counted
from layers.data import replace
from layers.digest import Digest, canonical_json
from layers.errors import ImageError
from layers.layer import Layer, write_layer
from layers.merge import squashed
from layers.oci import Descriptor
from layers.pipeline import Pipeline
from layers.stargz import TOC_DIGEST, UNCOMPRESSED_SIZE, write_stargz

Progress = Callable[[Descriptor, int], None]
"""Called with a blob and how many of its bytes have been read."""

_BLOCK = 1 << 20


def packed(layer: Layer, compression: Compression, level: int | None, store: Store, progress: Progress) -> Layer:
    """The layer with its blob in a compression; `level` None is the default. It streams, in constant memory.

    A blob that is in this compression already stays as it is, unless there is a level. As eStargz it is another tar,
    and has another diff_id. ImageError if the blob does not hold what its diff_id says.
    """
    if compression is Compression.ESTARGZ:
        return _stargz(layer, level, store, progress)
    if level is None and Compression.of(layer.descriptor.media_type) is compression:
        return layer
    key = _form(layer, compression, level)
    with store.lock(key):
        found = _known_blob(key, compression, store)
        if found is None:
            found = _pack(layer, compression, level, store, progress)
            store.records.add_content(key, found.digest)
    return replace(layer, descriptor=found)


def keep_direct(layer: Layer, store: Store) -> None:
    """Remember of a layer that a step wrote it as the outputs of its build want it, and not by gzip.

    That saves them a form. It is none that others get who have not asked for it.
    """
    store.records.add_content(_form(layer, Compression.of(layer.descriptor.media_type)), layer.descriptor.digest)


def is_direct(layer: Layer, store: Store) -> bool:
    """Whether a layer is stored in such a form: for those who do not say what they want, it is gzip all the same."""
    compression = Compression.of(layer.descriptor.media_type)
    known = store.records.find_content(_form(layer, compression)) if compression is not Compression.GZIP else None
    return known == layer.descriptor.digest


def _form(layer: Layer, compression: Compression | None, level: int | None = None) -> Digest:
    """What a form of a layer is found by."""
    return Digest.of(canonical_json({"pack": layer.diff_id, "compression": compression, "level": level}))


def squash(below: Sequence[Layer], layers: Sequence[Layer], store: Store, progress: Progress) -> Layer:
    """One layer that does upon `below` what all of `layers` do."""
    chains = [chain_id([layer.diff_id for layer in part]) for part in (below, layers)]
    key = Digest.of(canonical_json({"squash": chains}))
    blob_key = Digest.of(canonical_json({"squash": chains, "blob": Compression.GZIP}))
    with store.lock(key):
        diff_id = store.records.find_content(key)
        blob = _known_blob(blob_key, Compression.GZIP, store)
        if diff_id is not None and blob is not None:
            return Layer(diff_id, blob, 0)
        lower, upper = ([store.index_of(layer.diff_id, layer.descriptor) for layer in part] for part in (below, layers))

        @contextmanager
        def open_tar(number: int) -> Iterator[BinaryIO]:
            with uncompressed(layers[number], store, progress) as tar:
                yield tar

        layer, index = write_layer(squashed(lower, upper, open_tar), store.layout)
        store.keep_index(layer.diff_id, index)
        store.records.add_content(blob_key, layer.descriptor.digest)
        store.records.add_content(key, layer.diff_id)
    return layer


def _stargz(layer: Layer, level: int | None, store: Store, progress: Progress) -> Layer:
    """The layer as eStargz; what is kept of it beside the blob is a document with its diff_id and annotations."""
    if TOC_DIGEST in layer.descriptor.annotations and level is None:
        return layer
    key = _form(layer, Compression.ESTARGZ, level)
    with store.lock(key):
        known = _known_layer(key, store)
        if known is not None:
            return known
        with uncompressed(layer, store, progress) as tar, store.layout.writer() as blob:
            made = write_stargz(tar, layer.diff_id, blob, level)
            digest, size = blob.commit()
        annotations = {TOC_DIGEST: str(made.toc), UNCOMPRESSED_SIZE: str(made.size)}
        descriptor = Descriptor(Compression.ESTARGZ.media_type, digest, size, annotations=annotations)
        store.keep_index(made.diff_id, made.index)
        document = {"diff_id": made.diff_id, "size": made.size, "descriptor": descriptor.to_json()}
        keep_document(key, canonical_json(document), store)
    return Layer(made.diff_id, descriptor, made.size)


def _known_layer(key: Digest, store: Store) -> Layer | None:
    """The layer that was made before, if its document and its blob are still there."""
    document = find_document(key, store)
    if document is None:
        return None
    value = json.loads(document)
    descriptor = Descriptor.from_json(value["descriptor"])
    return Layer(Digest(value["diff_id"]), descriptor, value["size"]) if store.layout.has(descriptor) else None


@contextmanager
def uncompressed(layer: Layer, store: Store, progress: Progress) -> Iterator[BinaryIO]:
    """The tar of a layer as a stream; its blob is verified as it is read, and `progress` told how far that is."""
    with store.layout.open(layer.descriptor) as blob:
        yield decompressed(counted(blob, lambda done: progress(layer.descriptor, done)))


def _known_blob(key: Digest, compression: Compression, store: Store) -> Descriptor | None:
    """The blob that was made before, if it is still there."""
    digest = store.records.find_content(key)
    if digest is None:
        return None
    try:
        size = os.stat(store.layout.path(digest)).st_size
    except FileNotFoundError:
        return None
    return Descriptor(compression.media_type, digest, size)


def _pack(layer: Layer, compression: Compression, level: int | None, store: Store, progress: Progress) -> Descriptor:
    with (
        uncompressed(layer, store, progress) as tar,
        store.layout.writer() as blob,
        Pipeline(blob, compressor(compression, level)) as pipeline,
    ):
        while block := tar.read(_BLOCK):
            pipeline.write(block)
        diff_id, _ = pipeline.finish()
        if diff_id != layer.diff_id:
            raise ImageError(
                f"layer {layer.descriptor.digest} unpacks to {diff_id}, and its image says {layer.diff_id}",
                hint="the image is damaged, or was put together wrongly: fetch or build it again",
            )
        digest, size = blob.commit()
    return Descriptor(compression.media_type, digest, size)
