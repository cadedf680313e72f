"""Which layers have to be in the store for what is to become of an image: a push can leave them where they are."""

from collections.abc import Sequence

from builder.export.image import Draft, layers_to_pack
from builder.export.output import Form, Output
from cache.store import Store
from layers.layer import Layer


def layers_read(draft: Draft, outputs: Sequence[Output], store: Store) -> tuple[Layer, ...]:
    """The layers whose bytes the outputs read; without outputs, the image goes to the store."""
    if (
        any(output.form not in {Form.REGISTRY, Form.CACHEONLY} and not output.spare for output in outputs)
        or not outputs
    ):
        return draft.layers
    needed = {layer.diff_id for output in outputs for layer in layers_to_pack(draft, output.packing, store)}
    return tuple(layer for layer in draft.layers if layer.diff_id in needed)
