"""An image, or an index of images, out of a layout into registries: what names something comes after what it names."""

from collections.abc import Callable, Mapping, Sequence

from layers.layout import Layout
from layers.oci import Descriptor
from layers.parts import parts_of
from layers.registry.body import Body
from layers.registry.client import Registry
from layers.registry.document import check_header
from layers.registry.incoming import Progress
from layers.registry.parallel import TRANSFERS, Stop, each
from layers.registry.places import Endpoint
from layers.registry.reference import Reference
from layers.registry.retry import retrying
from layers.registry.upload import Upload

Neighbour = Callable[[str, Descriptor], str]
"""For a host and a blob, a repository there that may have it; empty if nobody knows one."""


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
