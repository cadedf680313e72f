"""What came from a URL, and by what its server will know it again. Light to import, as the cache keeps these."""

from layers.data import dataclass
from layers.oci import Descriptor

MEDIA_TYPE = "application/octet-stream"
"""Of anything: what a server calls it changes nothing."""


@dataclass(frozen=True, slots=True)
class Validator:
    """What to ask a server with whether its content is still the same (RFC 9110, section 8.8)."""

    place: str
    """Who gave it, after all redirects; nobody else is asked, since the same tag may mean other bytes there."""
    etag: str = ""
    modified: str = ""
    """Last-Modified as it was sent; only if there is no tag."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The content of a URL, which is a blob now."""

    descriptor: Descriptor
    modified: int = 0
    """Last-Modified in seconds since 1970; 0 if the server does not say."""
    validator: Validator | None = None
    """None: it can only be fetched again."""
