"""Somebody who pulls, for the tests of registries, and what there is to pull."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Self

from registries import DockerRegistry, FakeRegistry, make_image

from layers.digest import Digest
from layers.layout import Layout
from layers.oci import Descriptor, Image, Platform
from layers.registry.client import Registry, RegistrySettings
from layers.registry.reference import Reference
from layers.registry.transfer import fetch_layers

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
BIG = bytes(range(256)) * 4096
IMAGE = make_image({"hello": b"hello"}, {"big": BIG}, {"third": b"3"}, Env=["A=1"])
MANIFEST_PATH = "/v2/team/app/manifests/1"


class Pull:
    """One person's pulls: a layout, and everything that was said or waited for."""

    def __init__(self, settings: RegistrySettings | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.layout = Layout(self._folder.name)
        self.warnings: list[str] = []
        self.pauses: list[float] = []
        self.registry = Registry(settings or RegistrySettings(), warn=self.warnings.append, pause=self.pauses.append)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.registry.close()
        self._folder.cleanup()

    def resolve(self, name: str, platform: Platform = AMD64) -> Image:
        return self.registry.resolve(Reference.parse(name), platform, self.layout.put).image

    def fetch(
        self,
        name: str,
        layers: Sequence[Descriptor] = IMAGE.layers,
        *,
        progress: Callable[[Descriptor, int], object] = lambda _, __: None,
        inspect: Callable[[Descriptor, BinaryIO], object] | None = None,
    ) -> None:
        fetch_layers(self.registry, Reference.parse(name), layers, self.layout, progress=progress, inspect=inspect)

    def stored(self) -> dict[Digest, bytes]:
        """All blobs of the layout."""
        blobs = Path(self._folder.name).glob("blobs/sha256/*")
        return {Digest(f"sha256:{path.name}"): path.read_bytes() for path in blobs}


def name_of(registry: FakeRegistry | DockerRegistry) -> str:
    """The reference under which tests put IMAGE into a registry."""
    return f"{registry.host}/team/app:1"


def blob_path(index: int = 1) -> str:
    """The path of a layer of IMAGE; by default that of the middle one."""
    return f"/v2/team/app/blobs/{IMAGE.layers[index].digest}"
