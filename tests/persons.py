"""Somebody with a store, who says commands in this process."""

import io
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from builds import Bench

from builder.cli.main import main
from builder.cli.world import World
from cache.store import Store
from layers.oci import Descriptor, Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
NAME = "docker.io/library/app:latest"


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a store."""

    folder: Path

    def says(self, *arguments: str) -> Said:
        """Run pybuild in this process."""
        out, err = io.StringIO(), io.StringIO()
        environment = {"PYBUILD_ROOT": str(self.folder / "root"), "HOME": str(self.folder)}
        status = main(arguments, World(environment, out, err))
        return Said(status, out.getvalue(), err.getvalue())

    def does(self, *arguments: str) -> str:
        """The same, and it succeeds."""
        said = self.says(*arguments)
        assert said.status == 0, said.err
        return said.out

    def root_of(self, name: str = NAME) -> Descriptor:
        """What the store has under a name."""
        with closing(Store(str(self.folder / "root"))) as store:
            root = store.layout.resolve(name)
        assert root is not None
        return root

    def build_both(self, *platforms: Platform, name: str = "app") -> None:
        """Build an image for each platform, with files and labels of their own."""
        dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /is\nLABEL arch=$TARGETARCH\n"
        bench = Bench(self.folder)
        context = bench.context({"Dockerfile": dockerfile, "amd64": "amd64", "arm64": "arm64"})
        bench.build(context, platforms=platforms or (AMD64, ARM64), tags=(name,))
