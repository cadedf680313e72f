"""What each URL once gave: its content is a blob, and its server can be asked whether it is still the same.

A URL is kept as its digest: it may hold a password or a signature.
"""

from contextlib import suppress

from cache.db import Database, Row
from layers.digest import Digest
from layers.errors import StoreError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.downloaded import MEDIA_TYPE, Downloaded, Validator


class Downloads:
    """The downloads of one store, by exact URL. For any thread."""

    def __init__(self, database: Database, layout: Layout) -> None:
        self._database = database
        self._layout = layout

    def find(self, url: str) -> Downloaded | None:
        """What came the last time, if it is still in the store and its server can be asked about it."""
        query = "SELECT digest, size, modified, place, etag, last_modified FROM downloads WHERE url = ?"
        rows = self._database.rows(query, (Digest.of(url.encode()),))
        found = _downloaded(rows[0]) if rows else None
        return found if found and self._layout.has(found.descriptor) else None

    def add(self, url: str, downloaded: Downloaded) -> None:
        """Remember a download that can be asked about, in place of an earlier one of the same URL.

        A table that cannot be written is no reason to end a build: the URL is fetched again next time.
        """
        validator = downloaded.validator
        if validator is None:
            return
        row = (
            Digest.of(url.encode()),
            downloaded.descriptor.digest,
            downloaded.descriptor.size,
            downloaded.modified,
            validator.place,
            validator.etag,
            validator.modified,
        )
        with suppress(StoreError):
            self._database.write(("INSERT OR REPLACE INTO downloads VALUES (?,?,?,?,?,?,?)", [row]))


def _downloaded(row: Row) -> Downloaded:
    digest, size, modified, place, etag, last_modified = row
    assert isinstance(size, int)
    assert isinstance(modified, int)
    return Downloaded(
        Descriptor(MEDIA_TYPE, Digest(str(digest)), size),
        modified,
        Validator(str(place), str(etag), str(last_modified)),
    )
