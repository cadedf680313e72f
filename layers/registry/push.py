"""An image, or an index of images, out of a layout into registries: what names something comes after what it names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from layers.errors import ImageError
from layers.layout import Layout
from layers.oci import INDEXES, MANIFESTS, Descriptor, Index, Manifest
from layers.registry.body import Body
from layers.registry.client import Registry
from layers.registry.document import check_header
from layers.registry.errors import RegistryError
from layers.registry.incoming import Progress
from layers.registry.parallel import TRANSFERS, Stop, each
from layers.registry.places import Endpoint
from layers.registry.reference import Reference
from layers.registry.retry import retrying
from layers.registry.upload import Upload

Neighbour = Callable[[str, Descriptor], str]
"""For a host and a blob, a repository there that may have it; empty if nobody knows one."""


@dataclass(frozen=True, slots=True)
class Parts:
    """All that an image is made of, each once."""

    blobs: tuple[Descriptor, ...]
    """Layers and configurations. Layers that nobody may pass on (with URLs of their own) are not among them."""
    manifests: tuple[Descriptor, ...]
    """Those below the image, each before what names it; empty for a single image."""


def parts_of(layout: Layout, image: Descriptor) -> Parts:
    """The parts of an image or index. What an index names and the layout does not have is an ImageError."""
    blobs: dict[str, Descriptor] = {}
    manifests: dict[str, Descriptor] = {}
    for descriptor in _below(layout, image):
        manifests[descriptor.digest] = descriptor
        if descriptor.media_type in MANIFESTS:
            manifest = Manifest.parse(layout.read(descriptor))
            blobs |= {blob.digest: blob for blob in (*manifest.layers, manifest.config) if not _is_foreign(blob)}
    del manifests[image.digest]
    return Parts(tuple(blobs.values()), tuple(manifests.values()))


def push(
    registry: Registry,
    layout: Layout,
    image: Descriptor,
    references: Sequence[Reference],
    *,
    progress: Progress,
    neighbour: Neighbour = lambda _host, _blob: "",
    parallel: int = TRANSFERS,
) -> None:
    """Bring an image to all of the references; the first error ends all, and what has arrived stays there.

    `progress` hears how many bytes of a blob are there, and is called in several threads. Tags come last.
    """
    parts = parts_of(layout, image)
    before: dict[str, str] = {}
    for endpoint, tags in _targets(registry, references).items():

        def near(host: str, blob: Descriptor, first: Mapping[str, str] = dict(before)) -> str:
            return first.get(host) or neighbour(host, blob)

        _push_blobs(registry, layout, endpoint, parts.blobs, near, progress, parallel)
        for manifest in parts.manifests:
            _put(registry, layout, endpoint, manifest, manifest.digest)
        for tag in tags:
            _put(registry, layout, endpoint, image, tag)
        before.setdefault(endpoint.host, endpoint.repository)


def _targets(registry: Registry, references: Sequence[Reference]) -> dict[Endpoint, list[str]]:
    """For each repository, the names that the image gets there."""
    targets: dict[Endpoint, list[str]] = {}
    for reference in references:
        targets.setdefault(registry.dialogue.places.target(reference), []).append(reference.selector)
    return targets


def _push_blobs(
    registry: Registry,
    layout: Layout,
    endpoint: Endpoint,
    blobs: Sequence[Descriptor],
    neighbour: Neighbour,
    progress: Progress,
    parallel: int,
) -> None:
    pace = registry.pace_of(endpoint.host)

    def bring(blob: Descriptor, stop: Stop) -> None:
        source = neighbour(endpoint.host, blob)
        Upload(
            registry.dialogue,
            endpoint,
            blob,
            layout,
            pace=pace,
            progress=progress,
            pause=stop.pause,
            check=stop.check,
            neighbour=source if source != endpoint.repository else "",
        ).run()

    each(bring, blobs, parallel=parallel, pause=registry.pause, name="push")


def _put(registry: Registry, layout: Layout, endpoint: Endpoint, manifest: Descriptor, selector: str) -> None:
    """Store a manifest under a tag or its digest."""
    data = layout.read(manifest)
    what = f"{endpoint}{'@' if ':' in selector else ':'}{selector}"

    def attempt() -> None:
        headers = {"Content-Type": manifest.media_type}
        body = Body.of(data)
        path = f"manifests/{selector}"
        with registry.dialogue.ask(endpoint, "PUT", path, headers=headers, body=body, push=True) as answer:
            if answer.status not in {200, 201, 202, 204}:
                raise registry.dialogue.refusal(answer, endpoint, what, push=True)
            check_header(data, answer.headers.get("Docker-Content-Digest", ""), what)

    retrying(attempt, pause=registry.pause)


def _below(layout: Layout, descriptor: Descriptor) -> Iterator[Descriptor]:
    """The manifests under a descriptor, children first, and the descriptor itself last."""
    if descriptor.media_type in INDEXES:
        for child in Index.parse(layout.read(descriptor)).manifests:
            if not layout.has(child):
                raise ImageError(
                    f"the index {descriptor.digest} names {child.platform or child.digest}, which is not in the store",
                    hint="pull or build it first, or push one platform alone",
                )
            yield from _below(layout, child)
    elif descriptor.media_type not in MANIFESTS:
        raise RegistryError(f"{descriptor.digest} is neither an image nor an index: {descriptor.media_type}")
    yield descriptor


def _is_foreign(blob: Descriptor) -> bool:
    """Whether a layer may not be passed on (image-spec, "Non-Distributable Layers"; Docker's "foreign" ones)."""
    return "nondistributable" in blob.media_type or ".foreign." in blob.media_type or bool(blob.urls)
