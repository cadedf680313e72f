"""How images are named on the command line: a name, the beginning of an id, or `oci-layout://DIR[:TAG]`."""

from builder.images import OCI_LAYOUT, copy_blob, find_named, open_layout
from cache.store import Store
from layers.errors import StoreError
from layers.oci import Image, Platform


def find_image(text: str, store: Store, platform: Platform | None = None) -> tuple[str, Image]:
    """The full name, or what stands for it, and the image, whose blobs are in the store. ImageError if it is not there.

    What a layout has is copied to the store, without a name. Of an index it is the image for a platform; None is this
    machine's, else the only one that there is.
    """
    if not text.startswith(OCI_LAYOUT):
        name, image = find_named(store.layout, text, platform)
        missing = [layer.digest for layer in image.manifest.layers if not store.layout.has(layer)]
        if missing:
            raise StoreError(f"the store has lost {missing[0]}, a layer of {name}", hint="build or pull it again")
        return name, image
    layout, image = open_layout(text.removeprefix(OCI_LAYOUT), platform)
    for blob in (image.manifest.config, *image.manifest.layers, image.descriptor):
        copy_blob(layout, blob, store.layout)
    return text, image
