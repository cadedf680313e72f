"""An image, or an index of images, out of a layout into registries: what names something comes after what it names."""

from collections.abc import Callable, Mapping, Sequence

from layers.layout import Layout
from layers.oci import Descriptor
from layers.parts import parts_of
from layers.registry.body import Body
from layers.registry.client import Registry
from layers.registry.document import check_header
from layers.registry.errors import BusyError
from layers.registry.incoming import Progress
from layers.registry.parallel import TRANSFERS, Stop, each
from layers.registry.places import Endpoint
from layers.registry.reference import Reference
from layers.registry.retry import retrying
from layers.registry.upload import Upload

Neighbour = Callable[[str, Descriptor], str]
"""For a host and a blob, a repository there that may have it; empty if nobody knows one."""

Obtain = Callable[[Descriptor], object]
"""Brings a blob into the layout."""


def push(
    registry: Registry,
    layout: Layout,
    image: Descriptor,
    references: Sequence[Reference],
    *,
    progress: Progress,
    neighbour: Neighbour = lambda _host, _blob: "",
    obtain: Obtain = lambda _: None,
    parallel: int = TRANSFERS,
) -> None:
    """Bring an image to all of the references; the first error ends all, and what has arrived stays there.

    `progress` hears how many bytes of a blob are there, and is called in several threads, as is `obtain`, for a blob
    that has to be sent and is not in the layout. Tags come last.
    """
    parts = parts_of(layout, image)
    before: dict[str, str] = {}
    for endpoint, tags in _targets(registry, references).items():

        def near(host: str, blob: Descriptor, first: Mapping[str, str] = dict(before)) -> str:
            return first.get(host) or neighbour(host, blob)

        push_blobs(
            registry,
            layout,
            endpoint,
            parts.blobs,
            neighbour=near,
            progress=progress,
            obtain=obtain,
            parallel=parallel,
        )
        for manifest in parts.manifests:
            put_manifest(registry, layout, endpoint, manifest, manifest.digest)
        for tag in tags:
            put_manifest(registry, layout, endpoint, image, tag)
        before.setdefault(endpoint.host, endpoint.repository)


def _targets(registry: Registry, references: Sequence[Reference]) -> dict[Endpoint, list[str]]:
    """For each repository, the names that the image gets there."""
    targets: dict[Endpoint, list[str]] = {}
    for reference in references:
        targets.setdefault(registry.dialogue.places.target(reference), []).append(reference.selector)
    return targets


def push_blobs(
    registry: Registry,
    layout: Layout,
    endpoint: Endpoint,
    blobs: Sequence[Descriptor],
    *,
    neighbour: Neighbour,
    progress: Progress,
    obtain: Obtain = lambda _: None,
    parallel: int = TRANSFERS,
) -> None:
    """Bring blobs into one repository, as `push` does."""
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
            obtain=obtain,
        ).run()

    each(bring, blobs, parallel=parallel, pause=registry.pause, name="push")


def put_manifest(registry: Registry, layout: Layout, endpoint: Endpoint, manifest: Descriptor, selector: str) -> None:
    """Store a manifest under a tag or its digest."""
    data = layout.read(manifest)
    what = f"{endpoint}{'@' if ':' in selector else ':'}{selector}"

    def attempt() -> None:
        headers = {"Content-Type": manifest.media_type}
        body = Body.of(data)
        path = f"manifests/{selector}"
        with registry.dialogue.ask(endpoint, "PUT", path, headers=headers, body=body, push=True) as answer:
            if answer.status not in {200, 201, 202, 204}:
                fault = answer.fault()
                if "BLOB_UNKNOWN" in fault:
                    # All that it names is there. Docker's registry loses sight of a blob for a moment when somebody
                    # else sends the same one.
                    raise BusyError(f"{what}: {answer.host} answers {fault}")
                raise registry.dialogue.refusal(answer, endpoint, what, push=True, fault=fault)
            check_header(data, answer.headers.get("Docker-Content-Digest", ""), what)

    retrying(attempt, pause=registry.pause)
