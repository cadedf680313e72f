"""Somebody who pushes, for the tests of registries, and what there is to push."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self

from layers.digest import Digest
from layers.layout import Layout
from layers.oci import CONFIG, INDEX, LAYER, MANIFEST, Descriptor, Index, Manifest
from layers.registry.client import Registry, RegistrySettings
from layers.registry.pace import Pace
from layers.registry.push import push
from layers.registry.reference import Reference

KIB = 1024
MIB = 1024 * KIB


class Host(Protocol):
    """Where there is a registry."""

    host: str


class Push:
    """One person's pushes: a layout, and everything that was said or waited for."""

    def __init__(self, settings: RegistrySettings | None = None, *, piece: int = 100 * KIB) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._piece = piece
        self.layout = Layout(self._folder.name)
        self.warnings: list[str] = []
        self.pauses: list[float] = []
        self.done: dict[Digest, list[int]] = {}
        """What was heard of the progress of each blob."""
        self.registry = Registry(settings or RegistrySettings(), warn=self.warnings.append, pause=self.pauses.append)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.registry.close()
        self._folder.cleanup()

    def make(self, *sizes: int) -> Descriptor:
        """An image with a layer of random bytes for each size."""
        layers = [self.layout.put(os.urandom(size), LAYER) for size in sizes]
        return self.image_of(*layers)

    def image_of(self, *layers: Descriptor) -> Descriptor:
        """An image of these layers; its configuration does not fit them, which no registry looks at."""
        config = self.layout.put(json.dumps({"os": "linux", "layers": len(layers)}).encode(), CONFIG)
        return self.layout.put(Manifest(config, layers).serialise(), MANIFEST)

    def index_of(self, *images: Descriptor) -> Descriptor:
        return self.layout.put(Index(images).serialise(), INDEX)

    def layers_of(self, image: Descriptor) -> tuple[Descriptor, ...]:
        return Manifest.parse(self.layout.read(image)).layers

    def damage(self, blob: Descriptor) -> None:
        """Change a byte of it in the layout."""
        path = Path(self.layout.path(blob.digest))
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.write_bytes(data)

    def pace(self, fake: Host) -> Pace:
        """What is known of a registry; pieces begin small enough for a test."""
        pace = self.registry.pace_of(fake.host)
        pace.piece = min(pace.piece, self._piece)
        return pace

    def push(
        self,
        fake: Host,
        image: Descriptor,
        names: Sequence[str] = ("team/app:1",),
        *,
        neighbour: Callable[[str, Descriptor], str] = lambda _host, _blob: "",
        parallel: int = 1,
    ) -> None:
        self.pace(fake)
        push(
            self.registry,
            self.layout,
            image,
            [Reference.parse(f"{fake.host}/{name}") for name in names],
            progress=lambda blob, count: self.done.setdefault(blob.digest, []).append(count),
            neighbour=neighbour,
            parallel=parallel,
        )
