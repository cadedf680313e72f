"""Where an image goes: the store, under its names, or the outputs that the person asked for."""

import gc
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import UsageError
from builder.events import Job
from builder.export.image import Draft, Packaged, package
from builder.export.output import FILE_SYSTEMS, IMAGELESS, Form, Output, Packing
from builder.report import Report
from cache.store import Store
from layers.data import dataclass
from layers.digest import Digest
from layers.errors import ImageError, PybuildError
from layers.oci import Descriptor
from layers.registry.reference import Reference

if TYPE_CHECKING:
    from builder.export.engine import Engine

# What writes outputs is imported when there is one: a build into the store needs none of it.


def full_names(tags: Sequence[str], *, option: str = "-t") -> tuple[str, ...]:
    """The names of an option with host and tag spelt out, as the store has them."""
    names = []
    for tag in tags:
        try:
            reference = Reference.parse(tag)
        except ImageError as error:
            raise UsageError(f"{option} {tag}: {error.message}", hint=error.hint) from error
        if reference.digest:
            raise UsageError(f"{option} {tag}: a digest cannot be chosen", hint="leave out what begins with @")
        names.append(str(reference))
    return tuple(names)


@dataclass(frozen=True, slots=True)
class Places:
    """What outputs need beside the image."""

    store: Store
    report: Report
    engine: "Engine | None" = None
    """Where an image goes that is to be loaded; there if an output asks for it."""
    keep_owners: bool = False
    """Whether files in folders are given to their owners: this was root before any namespace was entered."""
    push: Callable[[Packaged, tuple[str, ...], Output], None] | None = None
    """Sends an image to its registries."""


def wants_engine(outputs: Sequence[Output]) -> bool:
    """Whether an output is to be loaded into docker or podman."""
    return any(output.form is Form.DOCKER and not output.destination for output in outputs)


def wants_push(outputs: Sequence[Output], names: Sequence[str]) -> bool:
    """Whether an output goes to a registry; UsageError if nothing says under which name."""
    pushed = [output for output in outputs if output.form is Form.REGISTRY or output.pushes]
    if not all(output.names or names for output in pushed):
        raise UsageError("there is no name to push the image to", hint="name it by -t, or by name= of the output")
    return bool(pushed)


def refuse_several(outputs: Sequence[Output]) -> None:
    """UsageError for an output that cannot take the images of several platforms."""
    for output in outputs:
        if output.form is Form.DOCKER:
            what = f"type=docker,dest={output.destination}" if output.destination else "--load"
            raise UsageError(
                f"{what}: what docker load reads has no place for several platforms",
                hint="use type=oci or --push, or build one platform",
            )


def all_names(names: tuple[str, ...], outputs: Sequence[Output]) -> tuple[str, ...]:
    """The full names under which the image goes anywhere, each once."""
    given = [output.names or names for output in outputs if output.form not in IMAGELESS] if outputs else [names]
    return tuple(dict.fromkeys(name for part in given for name in part))


def deliver(
    drafts: Sequence[Draft], names: tuple[str, ...], outputs: Sequence[Output], packing: Packing, places: Places
) -> Packaged:
    """Put the image where it should go: into the store, packed as `packing` says, unless there are outputs.

    Several drafts, for a platform each, become one index. Names appear last, when all that they lead to is there.
    Returns what the first output that has an image was given, else what the store would have.
    """
    if not outputs:
        packaged = package(drafts, packing, places.store, places.report)
        for name in names:
            places.store.layout.tag(name, packaged.root)
        return packaged
    if any(output.form in FILE_SYSTEMS for output in outputs):
        gc.collect()  # what was known of the context is in circles, and as large as what comes now
    places.report.entered()
    made: dict[Packing, Packaged] = {}
    for output in outputs:
        if output.form in FILE_SYSTEMS:
            _write_file_systems(drafts, output, places)
        if output.form in IMAGELESS:
            continue
        if output.packing not in made:
            made[output.packing] = package(drafts, output.packing, places.store, places.report)
        _write_image(made[output.packing], output.names or names, output, places)
    return next(iter(made.values()), None) or package(drafts, packing, places.store, places.report)


def _write_image(packaged: Packaged, names: tuple[str, ...], output: Output, places: Places) -> None:
    if output.form is Form.IMAGE and not (output.spare and _is_elsewhere(packaged, places)):
        for name in names:
            places.store.layout.tag(name, packaged.root)
    if output.form is Form.REGISTRY or output.pushes:
        if places.push is None:
            raise UsageError(f"type={output.form}: there is no registry to push to")
        places.push(packaged, names, output)
    elif output.form is Form.OCI:
        _write_layout(packaged, names, output, places)
    elif output.form is Form.DOCKER:
        _write_docker(packaged, names, output, places)


def _is_elsewhere(packaged: Packaged, places: Places) -> bool:
    layers = (layer for image in packaged.images for layer in image.manifest.layers)
    return not all(places.store.layout.has(layer) for layer in layers)


def _write_layout(packaged: Packaged, names: tuple[str, ...], output: Output, places: Places) -> None:
    from builder.export import oci
    from builder.export.sink import opened

    images, layout = [oci.Named(packaged, names)], places.store.layout
    with places.report.running(f"exporting to oci image format: {output.destination}") as job:
        if output.tar:
            with opened(output.destination) as stream:
                oci.write_archive(images, layout, stream, _progress(places, job))
        else:
            oci.write_folder(images, layout, output.destination, _progress(places, job))


def _write_docker(packaged: Packaged, names: tuple[str, ...], output: Output, places: Places) -> None:
    from builder.export import docker, oci
    from builder.export.sink import opened

    images, layout = [oci.Named(packaged, names)], places.store.layout
    if output.destination:
        with (
            places.report.running(f"exporting to docker image format: {output.destination}") as job,
            opened(output.destination) as stream,
        ):
            docker.write_archive(images, layout, stream, _progress(places, job))
        return
    assert places.engine is not None, "it is found before the build"
    assert len(packaged.images) == 1, "this is refused before the build"
    image = packaged.image
    blobs = dict(zip(image.config.diff_ids, (layer.digest for layer in image.manifest.layers), strict=True))
    with places.report.running(f"loading into {places.engine.name}") as job:
        progress = _progress(places, job)

        def write(stream: BinaryIO, there: frozenset[Digest]) -> None:
            left_out = {blobs[diff_id] for diff_id in there}
            docker.write_archive(images, layout, stream, progress, left_out=left_out)

        places.engine.load(write, image.config.diff_ids)


def _write_file_systems(drafts: Sequence[Draft], output: Output, places: Places) -> None:
    from builder.export import rootfs
    from builder.export.sink import opened

    split = len(drafts) > 1 if output.split is None else output.split
    with places.report.running(f"exporting the file system: {output.destination}") as job:
        systems = []
        for draft in drafts:
            changes = rootfs.changes_of(draft.layers, places.store, _progress(places, job))
            folder = str(draft.config.platform).replace("/", "_")
            systems.append(rootfs.below(folder, changes) if split else changes)
        whole = systems[0] if len(systems) == 1 else rootfs.together(systems)
        if output.form is Form.LOCAL:
            rootfs.write_folder(whole, output.destination, places.report.warn, keep_owners=places.keep_owners)
        else:
            with opened(output.destination) as stream:
                rootfs.write_tar(whole, stream)


def _progress(places: Places, job: Job) -> Callable[[Descriptor, int], None]:
    return lambda blob, done: places.report.progress(job, blob.digest, done, blob.size)


def write_text(path: str, text: str) -> None:
    """Write a small file in one piece: it is complete, or as it was before."""
    temporary = f"{path}.{os.urandom(4).hex()}.part"
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise PybuildError(f"{path} cannot be written: {os.strerror(error.errno or 0).lower()}") from error
