"""What a person means by the name or the id of an image of the store, whatever platform it is for."""

from builder.context.named import full_name
from layers.data import dataclass
from layers.errors import ImageError
from layers.layout import Layout
from layers.oci import INDEXES, MANIFESTS, Descriptor, Index, Manifest

_SHORTEST_ID = 4
"""Fewer digits of an id would match by accident."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was found."""

    image: Descriptor
    """A manifest or an index; for the id of an image in an index, that image's manifest."""
    names: tuple[str, ...]
    """The name that was given; all names that lead to the image, if it was an id."""


def find_stored(layout: Layout, text: str) -> Stored:
    """The image of a name, or of the beginning of an image id or digest; ImageError if there is none, or several."""
    name = full_name(text)
    image = layout.resolve(name)
    if image is not None:
        return Stored(image, (name,))
    wanted = text.removeprefix("sha256:")
    found: dict[str, Descriptor] = {}
    if len(wanted) >= _SHORTEST_ID:
        meant = ((name, _called(layout, image, wanted)) for name, image in sorted(layout.names().items()))
        found = {name: image for name, image in meant if image is not None}
    if len({image.digest for image in found.values()}) > 1:
        raise ImageError(f"{text} is the beginning of several ids", hint=f"they are of {', '.join(found)}")
    for image in found.values():
        return Stored(image, tuple(found))
    raise ImageError(f"there is no image {text!r} in the store", hint="`pybuild images` lists what is there")


def _called(layout: Layout, image: Descriptor, wanted: str) -> Descriptor | None:
    """The manifest or index whose digest or id begins so: this one, or one below it."""
    if image.digest.hex.startswith(wanted):
        return image
    if image.media_type in MANIFESTS and layout.has(image):
        return image if Manifest.parse(layout.read(image)).config.digest.hex.startswith(wanted) else None
    if image.media_type in INDEXES and layout.has(image):
        below = (_called(layout, offer, wanted) for offer in Index.parse(layout.read(image)).offers)
        return next(filter(None, below), None)
    return None
