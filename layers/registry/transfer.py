"""Blobs out of a registry into a store: several at once, verified as they stream, continued when they break off."""

import io
from collections.abc import Callable, Iterable
from typing import BinaryIO

from layers.errors import PybuildError
from layers.layout import Layout
from layers.oci import Descriptor
from layers.registry.answer import Answer
from layers.registry.client import Registry
from layers.registry.errors import WrongBytesError
from layers.registry.incoming import PIECE, Incoming, Progress
from layers.registry.parallel import TRANSFERS, Stop, each
from layers.registry.reference import Reference

Inspect = Callable[[Descriptor, BinaryIO], object]
Connect = Callable[[Descriptor, int], Answer]


def fetch_layers(
    registry: Registry,
    reference: Reference,
    descriptors: Iterable[Descriptor],
    layout: Layout,
    *,
    progress: Progress,
    inspect: Inspect | None = None,
    parallel: int = TRANSFERS,
) -> None:
    """Bring the blobs that are not yet in the layout; the first error ends all and leaves whole blobs.

    What had come of the others is kept beside them, and the next fetch goes on there, in this process or another.
    `progress` hears how many bytes of a blob have come. `inspect` may read a blob while it comes, such as to index it;
    what it leaves unread is fetched all the same, and what it raises ends the fetch. It is called once more for a blob
    that turned out to have begun wrongly. Both are called in several threads, for one blob always in one.
    """
    receive(
        lambda descriptor, start: registry.open_blob(reference, descriptor, start),
        descriptors,
        layout,
        progress=progress,
        inspect=inspect,
        pause=registry.pause,
        parallel=parallel,
    )


def receive(
    connect: Connect,
    descriptors: Iterable[Descriptor],
    layout: Layout,
    *,
    progress: Progress,
    inspect: Inspect | None,
    pause: Callable[[float], object],
    parallel: int = TRANSFERS,
) -> None:
    """The same from anywhere: `connect` asks for a blob from an offset on, as `Registry.open_blob` does."""
    missing = {descriptor.digest: descriptor for descriptor in descriptors if not layout.has(descriptor)}

    def fetch(descriptor: Descriptor, stop: Stop) -> None:
        with layout.partial(descriptor, wait=stop.wait) as partial:
            found = partial.found
            if layout.has(descriptor):  # from another process, for which this one waited
                progress(descriptor, descriptor.size)
                return
            incoming = Incoming(
                descriptor,
                partial,
                lambda start: connect(descriptor, start),
                progress=progress,
                pause=stop.pause,
                check=stop.check,
            )
            try:
                _receive(incoming, inspect)
            except WrongBytesError:
                if not found:
                    raise
            else:
                return
            finally:
                incoming.hang_up()
        # What was found had been damaged on disk, or was never right: once more from the beginning.
        fetch(descriptor, stop)

    each(fetch, missing.values(), parallel=parallel, pause=pause, name="fetch")


def _receive(incoming: Incoming, inspect: Inspect | None) -> None:
    """Bring one blob; what is wrong with its bytes comes before what its reader says of them."""
    if inspect:
        try:
            with io.BufferedReader(incoming, PIECE) as stream:
                inspect(incoming.descriptor, stream)
        except PybuildError:
            incoming.keep()
            raise
    incoming.keep()
