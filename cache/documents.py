"""Small documents that hold what was found out about layers, so that it is found out once.

They are blobs of the store's layout like all others, found by a key over what they were made from. One that is gone, or
damaged, is made anew.
"""

import os
from contextlib import suppress

from cache.store import Store
from layers.digest import Digest
from layers.errors import StoreError
from layers.oci import Descriptor

_TYPE = "application/json"


def find_document(key: Digest, store: Store) -> bytes | None:
    """What was kept under a key, if it is still there."""
    digest = store.records.find_content(key)
    if digest is not None:
        with suppress(FileNotFoundError, StoreError):
            size = os.stat(store.layout.path(digest)).st_size
            return store.layout.read(Descriptor(_TYPE, digest, size))
    return None


def keep_document(key: Digest, document: bytes, store: Store) -> None:
    """Keep a document under a key."""
    store.records.add_content(key, store.layout.put(document, _TYPE).digest)
