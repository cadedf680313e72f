"""The cases of testdata/cases: how they are read, built, and told. testdata/cases/README.md explains their form.

Results are read with tarfile, and stacked here: nothing of pybuild's own reading of layers has a part in it.
"""

import gzip
import io
import json
import os
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.build import Clocks, Result, build
from builder.events import Event, Warned
from builder.options import AUTO, BuildOptions
from layers.errors import PybuildError
from layers.oci import Platform

FOLDER = Path(__file__).parent.parent / "testdata" / "cases"
BASE = "busybox"
"""What FROM calls the image with a shell in it."""
CONTEXT_TIME = 1_000_000_000
"""When every file of a context was changed, in seconds since 1970."""
FORCED = "PYBUILD_BACKEND"
"""The variable that has the back-end for commands, if it is not to be the best one."""
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MADE_BY_ANY_COMMAND = ("/dev/", "/proc/", "/sys/")
"""The first command adds them to an image that lacks them, as it does for BuildKit."""
_PLAIN = {"mode": "0644", "owner": "0:0"}
_FOLDER = {"mode": "0755", "owner": "0:0"}

Table = Mapping[str, Any]
"""A table of TOML, as tomllib gives it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One Dockerfile, and what comes of it."""

    topic: str
    name: str
    table: Table

    def __str__(self) -> str:
        return f"{self.topic}: {self.name}"

    @property
    def runs(self) -> bool:
        """Whether commands have to run for it."""
        return self.topic.startswith("run")


@dataclass(slots=True)
class Outcome:
    """What came of a case, in the words of its table."""

    error: str = ""
    hint: str = ""
    line: int = 0
    span: str = ""
    config: Table = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    files: dict[str, Table] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def cases() -> list[Case]:
    """All of them, by topic and in the order of the file."""
    return [
        Case(path.stem, name, table)
        for path in sorted(FOLDER.glob("*.toml"))
        for name, table in tomllib.loads(path.read_text()).items()
    ]


def outcome_of(case: Case, place: Path, base: Path | None = None) -> Outcome:
    """Build a case, in a folder with the store that it may share with others."""
    context = place / f"{time.monotonic_ns()}"
    write_files(context / "files", {**case.table.get("context", {}), "Dockerfile": case.table["dockerfile"]})
    named = {BASE: f"oci-layout://{base}"} if base else {}
    for name, files in case.table.get("contexts", {}).items():
        write_files(context / name, files)
        named[name] = str(context / name)
    options = BuildOptions(
        context=str(context / "files"),
        root=str(place / "store"),
        platforms=tuple(map(Platform.parse, case.table.get("platforms", ()))),
        target=case.table.get("target", ""),
        build_args=case.table.get("args", {}),
        labels=case.table.get("labels", {}),
        contexts=named,
        backend=os.environ.get(FORCED, AUTO),
    )
    events: list[Event] = []
    outcome = Outcome()
    try:
        result = build(options, events.append, Clocks(time.monotonic, time.time_ns))
    except PybuildError as error:
        outcome.error, outcome.hint = error.message, error.hint
        if error.location:
            outcome.line, outcome.span = error.location.first, error.location.span
    else:
        _read(place / "store" / "images", result, outcome, base)
    outcome.warnings = [
        f"{event.rule or event.message}:{event.location.first if event.location else 0}"
        for event in events
        if isinstance(event, Warned)
    ]
    return outcome


def write_files(folder: Path, files: Table) -> None:
    """Write the files of a context."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in sorted(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        given = {"text": value} if isinstance(value, str) else value
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif "link" in given:
            path.symlink_to(given["link"])
        elif "hard" in given:
            path.hardlink_to(folder / given["hard"])
        elif "tar" in given:
            path.write_bytes(_archive(given))
        elif given.get("fifo"):
            os.mkfifo(path)
        else:
            path.write_bytes(given.get("text", "").encode("utf-8", "surrogateescape"))
        if not path.is_symlink():
            path.chmod(int(given.get("mode", "0755" if path.is_dir() else "0644"), 8))
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (CONTEXT_TIME, CONTEXT_TIME), follow_symlinks=False)


def _archive(given: Table) -> bytes:
    """A tar of the entries that are named; `compression` is gz, bz2, xz or zst."""
    compression = given.get("compression", "")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:" + compression.removeprefix("zst")) as tar:
        for name, value in given["tar"].items():
            item: Table = {"text": value} if isinstance(value, str) else value
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mtime = item.get("mtime", CONTEXT_TIME)
            info.uid, info.gid = map(int, item.get("owner", "0:0").split(":"))
            data = item.get("text", "").encode()
            info.size = len(data)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            if "link" in item or "hard" in item:
                info.type = tarfile.SYMTYPE if "link" in item else tarfile.LNKTYPE
                info.linkname = str(item.get("link") or item["hard"])
            info.mode = int(item.get("mode", "0755" if name.endswith("/") else "0644"), 8)
            tar.addfile(info, io.BytesIO(data))
    if compression == "zst":
        import zstandard

        return zstandard.compress(buffer.getvalue())
    return buffer.getvalue()


# --- reading what was built


def _read(layout: Path, result: Result, outcome: Outcome, base: Path | None) -> None:
    def blob(digest: str) -> bytes:
        return (layout / "blobs" / digest.replace(":", "/")).read_bytes()

    manifest = json.loads(blob(result.image.descriptor.digest))
    config = json.loads(blob(manifest["config"]["digest"]))
    outcome.config = {**config["config"], **{key: config[key] for key in ("author",) if key in config}}
    outcome.history = [item["created_by"] for item in config["history"]]
    before = _stack([_only_layer(base)]) if base else {}
    after = _stack([gzip.decompress(blob(layer["digest"])) for layer in manifest["layers"]])
    outcome.files = {path: value for path, value in after.items() if not _is_as_before(path, before, after)}
    outcome.files |= {path: {"gone": True} for path in before.keys() - after.keys()}


def _is_as_before(path: str, before: Mapping[str, Table], after: Mapping[str, Table]) -> bool:
    """Whether the base has the same; the time of a folder changes with what is in it."""
    one, other = dict(before.get(path, {})), dict(after[path])
    if path.endswith("/"):
        one.pop("mtime", None)
        other.pop("mtime", None)
    return one == other


def _only_layer(layout: Path) -> bytes:
    """The one layer of the base image, uncompressed."""
    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].replace(":", "/")).read_text())
    [layer] = manifest["layers"]
    return gzip.decompress((blobs / layer["digest"].replace(":", "/")).read_bytes())


def _stack(layers: list[bytes]) -> dict[str, Table]:
    """The files of all layers, the upper ones over the lower ones; folders end with a slash."""
    entries: dict[str, tuple[tarfile.TarInfo, bytes, int]] = {}
    for number, layer in enumerate(layers):
        lower = dict(entries)
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            for info in tar:
                folder, _, name = f"/{info.name}".rpartition("/")
                if name.startswith(".wh."):
                    gone = f"{folder}/{name.removeprefix('.wh.')}"
                    for path in [path for path in lower if path == gone or path.startswith(f"{gone}/")]:
                        entries.pop(path, None)
                    continue
                path = f"/{info.name}".rstrip("/") or "/"
                before = entries.get(path)
                if before and before[0].isdir() and not info.isdir():
                    for below in [below for below in entries if below.startswith(f"{path}/")]:
                        del entries[below]
                file = tar.extractfile(info) if info.isfile() else None
                entries[path] = (info, file.read() if file else b"", number)
    return dict(_described(entries))


def _described(entries: Mapping[str, tuple[tarfile.TarInfo, bytes, int]]) -> Iterator[tuple[str, Table]]:
    for path, (info, data, _) in sorted(entries.items()):
        value: dict[str, Any] = {
            "mode": f"{info.mode:04o}",
            "owner": f"{info.uid}:{info.gid}",
            "mtime": int(info.mtime),
        }
        if info.isdir():
            yield path.rstrip("/") + "/", value
            continue
        if info.issym():
            value = {"link": info.linkname, "owner": value["owner"], "mtime": value["mtime"]}
        elif info.islnk():
            value = {"hard": f"/{info.linkname}"}
        elif info.isfifo():
            value["fifo"] = True
        else:
            value["text"] = data.decode("utf-8", "surrogateescape")
        yield path, value


# --- comparing


def differences(case: Case, outcome: Outcome) -> list[str]:
    """Where the outcome is another one than the case says."""
    table = case.table
    if "error" in table:
        return list(_error_differences(table, outcome))
    if outcome.error:
        return [f"it failed on line {outcome.line}: {outcome.error} ({outcome.hint})"]
    found = list(_file_differences(case, outcome.files))
    path = [] if table.get("platforms", [""])[0].startswith("windows/") else [PATH]
    env = {"Env": [*path, *table.get("env", [])]}
    expected = {"WorkingDir": "/", **(env if env["Env"] else {}), **table.get("config", {})}
    actual = {key: value for key, value in outcome.config.items() if key != "ArgsEscaped"}
    if case.runs:
        expected = {**expected, "Cmd": ["sh"], **table.get("config", {})}
        actual.setdefault("WorkingDir", "/")
    found += [
        f"config {key}: {actual.get(key)!r} instead of {expected.get(key)!r}"
        for key in sorted(actual.keys() | expected.keys())
        if actual.get(key) != expected.get(key)
    ]
    for key in ("history", "warnings"):
        if key in table and table[key] != getattr(outcome, key):
            found.append(f"{key}: {getattr(outcome, key)!r} instead of {table[key]!r}")
    return found


def _error_differences(table: Table, outcome: Outcome) -> Iterator[str]:
    if table["error"] not in outcome.error or not outcome.error:
        yield f"error {outcome.error!r} instead of {table['error']!r}"
    for key in ("line", "span"):
        if key in table and getattr(outcome, key) != table[key]:
            yield f"{key} {getattr(outcome, key)!r} instead of {table[key]!r}"
    if table.get("hint", "") not in outcome.hint:
        yield f"hint {outcome.hint!r} instead of {table['hint']!r}"


def _file_differences(case: Case, actual: Mapping[str, Table]) -> Iterator[str]:
    expected = case.table.get("files", {})
    for path, value in expected.items():
        wanted = {"text": value} if isinstance(value, str) else dict(value)
        if "tar" in wanted:
            wanted = {"text": _archive(wanted).decode("utf-8", "surrogateescape")}
        if path.endswith("/"):
            wanted = {**_FOLDER, **wanted}
        elif not {"link", "hard", "gone"} & wanted.keys():
            wanted = {**_PLAIN, **({} if "fifo" in wanted else {"text": ""}), **wanted}
        there = actual.get(path)
        if there is None:
            yield f"{path} is missing"
            continue
        wrong = {key: there.get(key) for key in wanted if there.get(key) != wanted[key]}
        kinds = {key for key in ("text", "link", "hard", "fifo", "gone") if key in there} - wanted.keys()
        if wrong or kinds:
            yield f"{path}: {there!r} instead of {wanted!r}"
    for path, there in actual.items():
        if case.runs and path in _MADE_BY_ANY_COMMAND:
            continue
        is_parent = path.endswith("/") and any(below.startswith(path) for below in expected)
        if path not in expected and not (is_parent and _FOLDER.items() <= there.items()):
            yield f"{path} is there: {there!r}"


def main() -> None:
    """Build all cases of a topic in this process, and write what came of them: `corpus.py TOPIC PLACE BASE`."""
    topic, place, base = sys.argv[1:]
    found = {case.name: vars_of(outcome_of(case, Path(place), Path(base))) for case in cases() if case.topic == topic}
    json.dump(found, sys.stdout)


def vars_of(outcome: Outcome) -> dict[str, Any]:
    """The fields by name."""
    return {name: getattr(outcome, name) for name in Outcome.__slots__}


if __name__ == "__main__":
    main()
