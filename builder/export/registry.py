"""Sends images to registries: all that they are made of, then the names."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from builder.export.image import Packaged
from builder.export.output import Output
from builder.images import images_at
from builder.report import Report
from builder.supply import Supply
from layers.data import replace
from layers.errors import PybuildError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.client import Registry
from layers.registry.push import push
from layers.registry.reference import Reference
from layers.registry.settings import RegistrySettings

_TRUE = frozenset({"true", "1"})


def push_output(
    packaged: Packaged,
    names: tuple[str, ...],
    output: Output,
    *,
    layout: Layout,
    supply: Supply,
    registries: RegistrySettings,
    report: Report,
) -> None:
    """Send what a build made to its names."""
    references = [Reference.parse(name) for name in names]
    if output.rest.get("push-by-digest") in _TRUE:
        references = [replace(reference, tag="", digest=packaged.root.digest) for reference in references]
    if output.rest.get("registry.insecure") in _TRUE:
        hosts = {reference.host for reference in references}
        registries = replace(registries, insecure=registries.insecure | hosts)
    push_image(packaged.root, references, layout=layout, supply=supply, registries=registries, report=report)


def push_image(
    image: Descriptor,
    references: Sequence[Reference],
    *,
    layout: Layout,
    registries: RegistrySettings,
    report: Report,
    supply: Supply | None = None,
) -> None:
    """Send an image or index of the store; the references may be in several repositories and registries.

    Layers that the store does not have are mounted from where the `supply` knows them, or else fetched.
    """
    # Annotations of names say how a layout lists it, and the platform is for indexes: neither is part of the image.
    image = Descriptor(image.media_type, image.digest, image.size)
    title = f"pushing {', '.join(str(reference) for reference in references)}"
    with report.running(title) as job, Registry(registries, warn=report.warn) as registry:

        def progress(blob: Descriptor, done: int) -> None:
            report.progress(job, blob.digest, done, blob.size)

        named = neighbours(layout, references)

        def neighbour(host: str, blob: Descriptor) -> str:
            return (supply.home_of(host, blob) if supply else "") or named(host, blob)

        obtain = supply.obtain if supply else lambda _: None
        push(registry, layout, image, references, progress=progress, neighbour=neighbour, obtain=obtain)


def neighbours(layout: Layout, references: Sequence[Reference]) -> Callable[[str, Descriptor], str]:
    """Which repository of a registry may have a blob: those of the store's images that have names there.

    The base of an image came from somewhere, and most often from the registry that the image goes to.
    """
    hosts = {reference.host for reference in references}
    known: dict[tuple[str, str], str] = {}
    for name, image in layout.names().items():
        with suppress(PybuildError):  # an image that is not whole, or another tool's name: nothing is lost
            reference = Reference.parse(name)
            if reference.host in hosts and reference not in references:
                for part in images_at(layout, image):
                    blobs = (part.manifest.config, *part.manifest.layers)
                    known |= {(reference.host, blob.digest): reference.repository for blob in blobs}
    return lambda host, blob: _at(known, host, blob)


def _at(known: Mapping[tuple[str, str], str], host: str, blob: Descriptor) -> str:
    return known.get((host, blob.digest), "")
