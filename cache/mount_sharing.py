"""How steps share a cache mount; apart from what does it, since every Dockerfile is read with this at hand."""

from enum import StrEnum


class Sharing(StrEnum):
    """Who may use a cache at the same time."""

    SHARED = "shared"
    """Everybody who shares it."""
    PRIVATE = "private"
    """One step; others get a further folder, which is kept too."""
    LOCKED = "locked"
    """One step; others wait."""
