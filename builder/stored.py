"""What a person means by the name or the id of an image of the store, whatever platform it is for."""

from collections.abc import Iterator
from dataclasses import dataclass

from builder.context.named import full_name
from layers.errors import ImageError
from layers.layout import Layout
from layers.oci import MANIFESTS, Descriptor, Manifest

_SHORTEST_ID = 4
"""Fewer digits of an id would match by accident."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was found."""

    image: Descriptor
    """A manifest or an index."""
    names: tuple[str, ...]
    """The name that was given; all names of the image, if it was an id."""


def find_stored(layout: Layout, text: str) -> Stored:
    """The image of a name, or of the beginning of an image id or digest; ImageError if there is none, or several."""
    name = full_name(text)
    image = layout.resolve(name)
    if image is not None:
        return Stored(image, (name,))
    wanted = text.removeprefix("sha256:")
    found: dict[str, Descriptor] = {}
    if len(wanted) >= _SHORTEST_ID:
        found = {
            name: image
            for name, image in sorted(layout.names().items())
            if any(digest.startswith(wanted) for digest in _ids(layout, image))
        }
    if len({image.digest for image in found.values()}) > 1:
        raise ImageError(f"{text} is the beginning of several ids", hint=f"they are of {', '.join(found)}")
    for image in found.values():
        return Stored(image, tuple(found))
    raise ImageError(f"there is no image {text!r} in the store", hint="`pybuild images` lists what is there")


def _ids(layout: Layout, image: Descriptor) -> Iterator[str]:
    yield image.digest.hex
    if image.media_type in MANIFESTS:
        yield Manifest.parse(layout.read(image)).config.digest.hex
