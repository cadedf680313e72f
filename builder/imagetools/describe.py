"""What a name stands for, told as `docker buildx imagetools inspect` does."""

import json
from collections.abc import Iterator

from builder.imagetools.gather import Found
from layers.layout import Layout
from layers.oci import INDEXES, Descriptor, Index, Json, Manifest

_FORMATS = {"json": "", "{{json .}}": "", "{{json .Manifest}}": "manifest", "{{json .Image}}": "image"}
FORMATS = tuple(_FORMATS)
"""What can be asked for."""


def as_text(found: Found, layout: Layout) -> str:
    """A few lines for people."""
    return "".join(f"{line}".rstrip() + "\n" for line in _lines(found, layout))


def _lines(found: Found, layout: Layout) -> Iterator[str]:
    root = found.root
    yield f"Name:      {found.name}"
    yield f"MediaType: {root.media_type}"
    yield f"Digest:    {root.digest}"
    if root.media_type not in INDEXES:
        return
    yield ""
    yield "Manifests:"
    name = found.name.partition("@")[0]
    for entry in Index.parse(layout.read(root)).manifests:
        yield f"  Name:        {name}@{entry.digest}"
        yield f"  MediaType:   {entry.media_type}"
        if entry.platform:
            yield f"  Platform:    {entry.platform}"
        if entry.annotations:
            yield "  Annotations:"
            width = max(map(len, entry.annotations)) + 1
            for key, text in sorted(entry.annotations.items()):
                yield f"    {key + ':':{width}} {text}"
        yield ""


def as_json(found: Found, layout: Layout, form: str) -> str:
    """One JSON document: the whole, the manifest, or the configuration."""
    root = found.root
    described: Json = {"mediaType": root.media_type, "digest": root.digest, "size": root.size}
    document = json.loads(layout.read(root))
    manifest = {**document, **described} if root.media_type in INDEXES else described
    whole: Json = {"name": found.name, "manifest": manifest, "image": _configs(root, layout)}
    chosen = _FORMATS[form]
    return json.dumps(whole[chosen] if chosen else whole, indent=2, ensure_ascii=False) + "\n"


def _configs(root: Descriptor, layout: Layout) -> Json:
    """The configuration; of an index those of its images, by platform."""
    if root.media_type not in INDEXES:
        config: Json = json.loads(layout.read(Manifest.parse(layout.read(root)).config))
        return config
    offers = Index.parse(layout.read(root)).offers
    return {str(entry.platform): _configs(entry, layout) for entry in offers if entry.platform and layout.has(entry)}
