"""Machines that build in this process, each with a home and a store of its own."""

import io
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from builder.cli.main import main
from builder.cli.world import World
from cache.store import Store
from layers.digest import Digest


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def cached(self) -> list[str]:
        """The titles of the steps that a cache answered, without their numbers."""
        lines = self.err.splitlines()
        titles = {line.split(" ", 1)[0]: line.split("] ", 1)[-1] for line in lines if "] " in line}
        return [titles[number] for number, _, rest in (line.partition(" ") for line in lines) if rest == "CACHED"]


class Machine:
    """A machine on which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "PYBUILD_ROOT": str(self.root)}

    def context(self, **files: str) -> str:
        """A folder of files; `Dockerfile` is one of them."""
        folder = self.folder / "context"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        return str(folder)

    def run(self, *arguments: str) -> Said:
        """Run a command to its end, whatever that is."""
        out, err = io.StringIO(), io.StringIO()
        status = main(arguments, World(self._environment, out, err))
        return Said(status, out.getvalue(), err.getvalue())

    def build(self, context: str, *options: str) -> Said:
        """Build; it must go well."""
        said = self.run("build", "--progress", "plain", *options, context)
        assert said.status == 0, said.err
        return said

    def has(self, digest: Digest) -> bool:
        """Whether a blob is in the store."""
        with closing(Store(str(self.root))) as store:
            return os.path.exists(store.layout.path(digest))

    @property
    def blobs(self) -> int:
        """The number of blobs in the store."""
        return len(list(self.root.glob("images/blobs/sha256/*")))
