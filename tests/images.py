"""Images in tests: a small one to build from, the program that builds, and a reader that believes no image."""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import users
import zstandard
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from layers.entry import Change, Entry, Kind
from layers.layer import write_layer
from layers.layout import Layout
from layers.oci import CONFIG, MANIFEST, History, ImageConfig, Manifest, Platform, RunConfig

# --- the image to build from

BASE = "docker.io/library/busybox:latest"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = b"root:x:0:\nwww:x:33:\naudio:x:29:www\nextra:x:1500:root,www\nnogroup:x:65534:\n"
_FOLDERS = {"": 0o755, "bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "var": 0o755, "var/www": 0o755}


def make_base(folder: Path) -> None:
    """Write an image with busybox and little else into an OCI layout."""
    layout = Layout(str(folder))
    layer, _ = write_layer(_base_changes(), layout)
    day = "2024-01-01T00:00:00Z"
    config = ImageConfig(
        platform=Platform.host(),
        config=RunConfig(env=(f"PATH={PATH}",), cmd=("sh",)),
        diff_ids=(layer.diff_id,),
        history=(History(created=day, created_by="busybox-static"),),
        created=day,
    )
    manifest = Manifest(layout.put(config.serialise(), CONFIG), (layer.descriptor,))
    layout.tag(BASE, layout.put(manifest.serialise(), MANIFEST))


def _base_changes() -> Iterator[Change]:
    busybox = Path("/usr/bin/busybox").read_bytes()
    applets = subprocess.run(["/usr/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    yield from (Change(Entry(path, Kind.DIRECTORY, mode)) for path, mode in _FOLDERS.items())
    yield Change(Entry("bin/busybox", Kind.FILE, 0o755, size=len(busybox)), busybox)
    links = sorted(set(applets) - {"busybox"})
    yield from (Change(Entry(f"bin/{name}", Kind.SYMLINK, 0o777, target="busybox")) for name in links)
    for path, data in (("etc/group", GROUP), ("etc/passwd", PASSWD)):
        yield Change(Entry(path, Kind.FILE, size=len(data)), data)


# --- the program


@dataclass(frozen=True, slots=True)
class Result:
    """How a run of pybuild ended."""

    status: int
    out: str
    err: str

    @property
    def steps(self) -> dict[str, str]:
        """How each job of `--progress plain` ended, by its title: CACHED, DONE, ERROR or CANCELED."""
        titles: dict[str, str] = {}
        outcomes: dict[str, str] = {}
        for number, text in re.findall(r"^#(\d+) (.*)$", self.err, re.MULTILINE):
            title = titles.setdefault(number, re.sub(r"^\[[^]]*\d+/\d+\] ", "", text))
            outcome = re.match(r"(CACHED$|DONE \d|ERROR: |CANCELED$)", text)
            if outcome:
                outcomes[title] = outcome[0].split()[0].rstrip(":")
        return outcomes

    @property
    def error(self) -> str:
        """The message that ended the build, in one line; empty if there is none. Two would be a failure of the test."""
        messages = re.findall(r"^ERROR: (.*)$", self.err, re.MULTILINE)
        assert len(messages) <= 1, self.err
        return "".join(messages)


def command(*arguments: str) -> list[str]:
    """The command line of pybuild as this checkout has it. -P: the folder in which it runs offers no modules."""
    return [sys.executable, "-P", "-c", "from builder.cli.start import entry; entry()", *arguments]


def environment(home: Path | str, **more: str) -> dict[str, str]:
    """A person's environment, without anything of the tests' own but the back-end that they may be tried with."""
    forced = {name: os.environ[name] for name in ("PYBUILD_BACKEND",) if name in os.environ}
    return {"PATH": PATH, "HOME": str(home), "PYTHONPATH": str(users.CHECKOUT), **forced, **more}


def pybuild(*arguments: str, cwd: Path, user: str = users.ROOT, stdin: bytes = b"", **variables: str) -> Result:
    """Run pybuild to its end."""
    done = users.run_as(user, command(*arguments), cwd=cwd, env=environment(cwd, **variables), stdin=stdin)
    return Result(done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a Dockerfile, a store beside it, and the person who builds."""

    place: Path
    base: Path
    user: str = users.ROOT

    @property
    def context(self) -> Path:
        return self.place / "context"

    @property
    def root(self) -> Path:
        return self.place / "store"

    @property
    def store(self) -> Path:
        """The layout in the store."""
        return self.root / "images"

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Write files into the context."""
        for name, text in files.items():
            path = self.context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        users.hand_over(self.context, self.user)

    def arguments(self, *options: str) -> list[str]:
        """What to say to pybuild to build the project; the image is called app."""
        named = [f"--build-context=busybox=oci-layout://{self.base}", "--progress=plain", "-t", "app"]
        return ["build", f"--root={self.root}", *named, *options, str(self.context)]

    def build(self, *options: str, stdin: bytes = b"", **variables: str) -> Result:
        """Build, whatever comes of it."""
        return pybuild(*self.arguments(*options), cwd=self.place, user=self.user, stdin=stdin, **variables)

    def built(self, *options: str, stdin: bytes = b"", **variables: str) -> Result:
        """Build, and succeed."""
        result = self.build(*options, stdin=stdin, **variables)
        assert result.status == 0, result.err
        return result

    def image(self, name: str = "app") -> "ImageRead":
        """What the store has under a name, validated."""
        return validate(self.store, f"docker.io/library/{name}:latest")

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Begin to build, in a process group of its own, with both outputs in one pipe."""
        return subprocess.Popen(
            command(*self.arguments(*options)),
            env=environment(self.place),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=users.becoming(self.user, str(self.place)),  # noqa: PLW1509 - it takes no lock
        )


# --- images as others read them


class Item(NamedTuple):
    """One entry of a layer, as far as it must be the same whoever builds."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    target: str


@dataclass(frozen=True, slots=True)
class ImageRead:
    """An image whose every claim has been checked."""

    digest: str
    """Of the manifest."""
    id: str
    """Of the configuration."""
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    index: Mapping[str, Any] | None
    """Around the manifest, if there is one."""
    layers: tuple[tuple[Item, ...], ...]
    contents: tuple[Mapping[str, bytes], ...] = field(repr=False)
    """The bytes of the files of each layer; large ones are left out."""

    @property
    def files(self) -> dict[str, bytes]:
        """The bytes of all files, the upper layers' above the lower ones'; whiteouts are files too."""
        return {path: data for layer in self.contents for path, data in layer.items()}


_LARGE = 1 << 20
SCHEMAS = users.CHECKOUT / "testdata/schemas"


def check_schema(kind: str, document: bytes) -> Any:
    """The JSON of a document, if it is what the specification allows."""
    schemas = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    known = Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in schemas.items())
    value = json.loads(document)
    Draft202012Validator(schemas[f"{kind}.json"], registry=known).validate(value)
    return value


def validate(place: Path, name: str = "") -> ImageRead:
    """Read an image of a layout, a folder or a tar, and recompute all that it says of itself; "" is the only image."""
    read = _Folder(place) if place.is_dir() else _archive(place)
    check_schema("layout", read["oci-layout"])
    entries = check_schema("index", read["index.json"])["manifests"]
    named = [entry for entry in entries if name in {"", entry.get("annotations", {}).get("io.containerd.image.name")}]
    assert len(named) == 1, entries
    listed, index = named[0], None
    if listed["mediaType"].endswith("index.v1+json"):
        index = check_schema("index", _blob(read, listed))
        listed, *attested = index["manifests"]
        check_attestations(read, listed["digest"], attested)
    manifest = check_schema("manifest", _blob(read, listed))
    config = check_schema("config", _blob(read, manifest["config"]))
    tars = [_uncompressed(layer["mediaType"], _blob(read, layer)) for layer in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [_digest(tar) for tar in tars]
    assert len(tars) == sum(not step.get("empty_layer", False) for step in config.get("history", []))
    parts = [_read_layer(tar) for tar in tars]
    return ImageRead(
        digest=listed["digest"],
        id=manifest["config"]["digest"],
        manifest=manifest,
        index=index,
        config=config,
        layers=tuple(items for items, _ in parts),
        contents=tuple(contents for _, contents in parts),
    )


def check_attestations(files: Mapping[str, bytes], image: str, listed: Sequence[Mapping[str, Any]]) -> None:
    """All but the image in an index are statements about it, which nobody can take for an image."""
    for descriptor in listed:
        assert descriptor["platform"] == {"os": "unknown", "architecture": "unknown"}
        assert descriptor["annotations"] == {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image,
        }
        manifest = check_schema("attestation", _blob(files, descriptor))
        config = check_schema("config", _blob(files, manifest["config"]))
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
        for layer in manifest["layers"]:
            statement = check_schema("statement", _blob(files, layer))
            if statement["predicateType"] == "https://spdx.dev/Document":
                check_spdx(statement["predicate"])
            assert layer["annotations"] == {"in-toto.io/predicate-type": statement["predicateType"]}
            assert {f"sha256:{subject['digest']['sha256']}" for subject in statement["subject"]} == {image}


def check_spdx(document: Mapping[str, Any]) -> None:
    """A document of SPDX has all that its relationships speak of, each under an id of its own."""
    check_schema("spdx", json.dumps(document).encode())
    ids = [package["SPDXID"] for package in document["packages"]]
    assert len(ids) == len(set(ids))
    for relationship in document["relationships"]:
        ends = {relationship["spdxElementId"], relationship["relatedSpdxElement"]}
        assert ends <= {*ids, document["SPDXID"]}


def statements(place: Path) -> dict[str, Any]:
    """The predicates of all statements in a layout folder, by their type."""
    blobs = [path.read_bytes() for path in (place / "blobs/sha256").iterdir()]
    found = [json.loads(blob) for blob in blobs if blob.startswith(b'{"_type"')]
    return {statement["predicateType"]: statement["predicate"] for statement in found}


class _Folder(dict[str, bytes]):
    """The files of a layout folder, by path."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place = place

    def __missing__(self, path: str) -> bytes:
        return (self._place / path).read_bytes()


def _archive(place: Path) -> dict[str, bytes]:
    with tarfile.open(place, "r:") as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        return {name: stream.read() for name, stream in members if stream}


def _blob(files: Mapping[str, bytes], descriptor: Mapping[str, Any]) -> bytes:
    data = files[f"blobs/{descriptor['digest'].replace(':', '/')}"]
    assert (_digest(data), len(data)) == (descriptor["digest"], descriptor["size"])
    return data


def _uncompressed(media_type: str, data: bytes) -> bytes:
    """A layer by the compression that its media type says."""
    if media_type.endswith("+gzip"):
        return gzip.decompress(data)
    if media_type.endswith("+zstd"):
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    assert media_type.endswith(".tar")
    return data


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _read_layer(data: bytes) -> tuple[tuple[Item, ...], dict[str, bytes]]:
    items, contents = [], {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            assert not member.name.startswith(("/", "../")), member.name
            items.append(Item(member.name, member.type.decode(), member.mode, member.uid, member.gid, member.linkname))
            if stream := tar.extractfile(member) if member.isfile() and member.size < _LARGE else None:
                contents[member.name] = stream.read()
    assert len({item.path for item in items}) == len(items), "a path comes twice"
    return tuple(items), contents
