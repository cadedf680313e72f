"""What a build made, in the form of `docker buildx build --metadata-file`."""

import json
from collections.abc import Sequence
from typing import Any

from builder.export.image import Draft, Packaged
from builder.export.outputs import all_names, full_names
from builder.options import BuildOptions

_CREATED = "org.opencontainers.image.created"


def metadata_of(packaged: Packaged, drafts: Sequence[Draft], options: BuildOptions) -> str:
    """The JSON document; the descriptor is of what names stand for: a manifest, or an index around it.

    Of images of several platforms none is the one whose configuration could be meant.
    """
    image, root = packaged.image, packaged.root
    config = {"config.digest": image.manifest.config.digest} if len(packaged.images) == 1 else {}
    annotations = {**config, _CREATED: image.config.created, **root.annotations}
    value: dict[str, Any] = {
        **{f"containerimage.{key}": text for key, text in config.items()},
        "containerimage.descriptor": {
            "annotations": {key: text for key, text in annotations.items() if text},
            "digest": root.digest,
            "mediaType": root.media_type,
            "size": root.size,
        },
        "containerimage.digest": root.digest,
    }
    names = all_names(full_names(options.tags), options.outputs)
    if names:
        value["image.name"] = ",".join(names)
    return json.dumps(value | _provenance(drafts, options), indent=2, sort_keys=True) + "\n"


def _provenance(drafts: Sequence[Draft], options: BuildOptions) -> dict[str, Any]:
    """How the image was made, if that is attested; of several platforms for each."""
    asked = next((packing.attestations.provenance for packing in options.packings), None)
    if asked is None:
        return {}
    from builder.attest.provenance import provenance

    told = [(draft.config.platform, draft.evidence) for draft in drafts]
    key = "buildx.build.provenance"
    return {
        key if len(drafts) == 1 else f"{key}/{platform}": provenance(evidence, asked)
        for platform, evidence in told
        if evidence is not None
    }
