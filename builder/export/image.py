"""From the end of a stage to an image: its two documents, in the store."""

from dataclasses import replace

from builder.graph import Stage
from builder.snapshot import Snapshot
from layers.layout import Layout
from layers.oci import CONFIG, MANIFEST, Image, Manifest


def assemble(stage: Stage, snapshot: Snapshot, layout: Layout, *, now: str) -> Image:
    """Write configuration and manifest; the layers must be in the store already."""
    config = snapshot.image_config(stage.config, now=now)
    manifest = Manifest(
        config=layout.put(config.serialise(), CONFIG),
        layers=tuple(layer.descriptor for layer in snapshot.layers),
    )
    descriptor = layout.put(manifest.serialise(), MANIFEST)
    return Image(replace(descriptor, platform=config.platform), manifest, config)
