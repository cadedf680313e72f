"""Layers as they are in an archive of an image, read by Python's own tarfile: nothing of pybuild has a part in it."""

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "pipe",
}
_XATTR = "SCHILY.xattr."


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a layer; a whiteout is a file."""

    path: str
    kind: str
    mode: str
    """In octal."""
    owner: str
    """UID:GID."""
    mtime: int
    """Seconds since 1970."""
    target: str
    """Of a symbolic or hard link."""
    device: str
    """MAJOR:MINOR of a device."""
    attributes: str
    """Extended ones, NAME=VALUE, sorted."""
    content: str
    """Size and SHA-256 of a file."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image."""

    created_by: str
    """The instruction, as the history of the image has it."""
    diff_id: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """What an archive of one image has."""

    digest: str
    """Of the manifest."""
    config: str
    """The configuration document without what follows from the layers: it has to be the same as it is."""
    layers: tuple[Layer, ...]


def read_archive(path: Path) -> Image:
    """Read an OCI archive of one image with gzipped layers."""
    with tarfile.open(path, "r:") as archive:
        (listed,) = _document(archive, "index.json")["manifests"]
        manifest = _document(archive, _blob(listed))
        config = _document(archive, _blob(manifest["config"]))
        diff_ids = config.pop("rootfs")["diff_ids"]
        steps = [item["created_by"] for item in config["history"] if not item.get("empty_layer")]
        layers = zip(steps, diff_ids, manifest["layers"], strict=True)
        return Image(
            listed["digest"],
            json.dumps(config, sort_keys=True),
            tuple(Layer(step, diff_id, _items(_member(archive, _blob(layer)))) for step, diff_id, layer in layers),
        )


def _items(blob: IO[bytes]) -> tuple[Item, ...]:
    """The entries of a layer, in their order."""
    with tarfile.open(fileobj=blob, mode="r:gz") as tar:
        return tuple(_item(tar, member) for member in tar)


def _item(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Item:
    attributes = sorted(
        f"{name.removeprefix(_XATTR)}={value.encode(errors='surrogateescape').hex()}"
        for name, value in member.pax_headers.items()
        if name.startswith(_XATTR)
    )
    stream = tar.extractfile(member) if member.isreg() else None
    return Item(
        path=member.name,
        kind=KINDS[member.type],
        mode=f"{member.mode:04o}",
        owner=f"{member.uid}:{member.gid}",
        mtime=int(member.mtime),
        target=member.linkname,
        device=f"{member.devmajor}:{member.devminor}" if member.isdev() and not member.isfifo() else "",
        attributes=" ".join(attributes),
        content=f"{member.size} {_digest(stream)}" if stream else "",
    )


def _digest(stream: IO[bytes]) -> str:
    hashed = hashlib.sha256()
    while data := stream.read(1 << 20):
        hashed.update(data)
    return hashed.hexdigest()


def _document(archive: tarfile.TarFile, name: str) -> Any:  # noqa: ANN401 - as json has it
    return json.load(_member(archive, name))


def _blob(descriptor: dict[str, Any]) -> str:
    """Where the blob of a descriptor is."""
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = archive.extractfile(name)
    assert stream, f"{name} is no file"
    return stream
