"""Builds in this process: of Dockerfiles without RUN, which need neither a sandbox nor any right."""

import io
import tarfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from builder.build import Clocks, Result, build
from builder.events import Cached, Event, Started, Warned
from builder.options import BuildOptions
from cache.store import Store
from layers.compress import decompressed
from layers.entry import Entry
from layers.tar import read_tar


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build."""

    entries: Mapping[str, Entry]
    """By path; those of later layers replace those of earlier ones."""
    contents: Mapping[str, bytes]
    result: Result
    events: tuple[Event, ...]

    @property
    def texts(self) -> dict[str, str]:
        """The files as text."""
        return {path: data.decode(errors="replace") for path, data in self.contents.items()}

    @property
    def cached(self) -> list[str]:
        """The titles of the jobs that the cache answered."""
        return [event.job.title for event in self.events if isinstance(event, Cached)]

    @property
    def started(self) -> list[str]:
        """The titles of the jobs that began."""
        return [event.job.title for event in self.events if isinstance(event, Started)]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with a store, to build in."""

    folder: Path

    def context(self, files: Mapping[str, str], name: str = "context") -> str:
        """Write a folder of files."""
        for path, text in files.items():
            file = self.folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return str(self.folder / name)

    def build(self, context: str, **options: object) -> Built:
        """Build; PybuildError as it comes."""
        events: list[Event] = []
        root = str(self.folder / "root")
        asked = BuildOptions(context, root, **options)  # type: ignore[arg-type]  # by name, as they are
        result = build(asked, events.append, Clocks(time.monotonic, time.time_ns))
        entries: dict[str, Entry] = {}
        contents: dict[str, bytes] = {}
        with closing(Store(root)) as store:
            for layer in result.image.manifest.layers:
                with store.layout.open(layer) as blob:
                    for entry, stream in read_tar(decompressed(blob)):
                        entries[entry.path] = entry
                        if entry.kind == "f":
                            contents[entry.path] = stream.read()
        return Built(entries, contents, result, tuple(events))

    def build_text(self, dockerfile: str, **options: object) -> Built:
        """Build a Dockerfile in a context of its own."""
        return self.build(self.context({"Dockerfile": dockerfile}), **options)


def tar_of(files: Mapping[str, str], mode: str = "w") -> bytes:
    """A tar by Python's own module; `mode` names a compression as tarfile does."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]  # any of its modes
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            member.mtime = 1_000_000_000
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()
