"""eStargz layers: read as lazy runtimes do, from the footer on, and as everybody else does."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import MAX_WBITS, decompressobj

import pytest

from cache import packs
from cache.store import Store
from layers.compress import Compression
from layers.digest import Digest
from layers.entry import Change, Entry, Kind, whiteout
from layers.errors import ImageError
from layers.layer import Layer, read_layer, write_layer
from layers.stargz import CHUNK, TOC_DIGEST, UNCOMPRESSED_SIZE

LARGE = random.Random(1).randbytes(CHUNK) + b"the second chunk"
PASSWD = b"root:x:0:0:root:/root:/bin/sh\n"
LONG = "a-name-that-is-longer-than-a-header-has-room-for/" * 6
CHANGES = (
    Change(Entry("etc", Kind.DIRECTORY, 0o755)),
    whiteout("etc/old"),
    Change(Entry("etc/empty", Kind.FILE, 0o600), b""),
    Change(Entry("etc/passwd", Kind.FILE, 0o4755, 7, 8, len(PASSWD), 1_700_000_000_000_000_000, inode=1), PASSWD),
    Change(Entry("etc/same", Kind.FILE, 0o4755, 7, 8, len(PASSWD), 1_700_000_000_000_000_000, inode=1), PASSWD),
    Change(Entry("etc/link", Kind.SYMLINK, 0o777, target="passwd")),
    Change(Entry("large", Kind.FILE, size=len(LARGE), xattrs=(("user.a", b"\x00\xff"),)), LARGE),
    Change(Entry("null", Kind.CHARACTER, 0o666, device=(1, 3))),
    Change(Entry(LONG + "file", Kind.FILE, size=5), b"long\n"),
    Change(Entry("pipe", Kind.FIFO)),
)


class Lazy:
    """A blob of which nothing is read but what its footer and its table of contents lead to."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        footer = blob[-51:]
        assert gzip.decompress(footer) == b""
        assert (footer[:4], footer[10:16]) == (b"\x1f\x8b\x08\x04", b"\x1a\x00SG\x16\x00")
        assert footer[32:38] == b"STARGZ"
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob[int(footer[16:32], 16) : -51]))) as tar:
            (member,) = tar
            table = tar.extractfile(member)
            assert table
            self.table = table.read()
        assert member.name == "stargz.index.json"
        document = json.loads(self.table)
        assert document["version"] == 1
        self.rows: list[Mapping[str, Any]] = document["entries"]

    def row(self, name: str) -> Mapping[str, Any]:
        (row,) = [row for row in self.rows if row["name"] == name and row["type"] != "chunk"]
        return row

    def read(self, name: str) -> bytes:
        """The bytes of a file, each chunk of them verified."""
        chunks = [row for row in self.rows if row["name"] == name and row["type"] in {"reg", "chunk"}]
        size = chunks[0]["size"]
        content = b""
        for chunk in chunks:
            assert chunk.get("chunkOffset", 0) == len(content)
            data = decompressobj(MAX_WBITS | 16).decompress(self._blob[chunk["offset"] :])
            assert len(data) == (chunk.get("chunkSize") or size - len(content))
            assert chunk["chunkDigest"] == Digest.of(data)
            content += data
        assert (len(content), Digest.of(content)) == (size, chunks[0]["digest"])
        return content


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("root")))


@pytest.fixture(scope="module")
def layer(store: Store) -> Layer:
    """The layer as it was."""
    made, _ = write_layer(CHANGES, store.layout)
    return made


@pytest.fixture(scope="module")
def packed(store: Store, layer: Layer) -> Layer:
    return packs.packed(layer, Compression.ESTARGZ, None, store, lambda *_: None)


@pytest.fixture(scope="module")
def lazy(store: Store, packed: Layer) -> Lazy:
    return Lazy(blob_of(store, packed))


def blob_of(store: Store, layer: Layer) -> bytes:
    return Path(store.layout.path(layer.descriptor.digest)).read_bytes()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return {member.name: member for member in tar}


def test_every_file_can_be_read_on_its_own(lazy: Lazy) -> None:
    assert lazy.read("large") == LARGE
    assert lazy.read("etc/passwd") == PASSWD
    assert lazy.read(LONG + "file") == b"long\n"


def test_the_table_says_what_the_tar_says(lazy: Lazy) -> None:
    assert lazy.row("etc/")["type"] == "dir"
    assert lazy.row("etc/empty") == {**lazy.row("etc/empty"), "type": "reg", "size": 0, "mode": 0o600}
    assert "offset" not in lazy.row("etc/empty")
    passwd = lazy.row("etc/passwd")
    assert (passwd["mode"], passwd["uid"], passwd["gid"]) == (0o4755, 7, 8)
    assert passwd["modtime"] == "2023-11-14T22:13:20Z"
    assert (lazy.row("etc/same")["type"], lazy.row("etc/same")["linkName"]) == ("hardlink", "etc/passwd")
    assert (lazy.row("etc/link")["type"], lazy.row("etc/link")["linkName"]) == ("symlink", "passwd")
    assert (lazy.row("null")["devMajor"], lazy.row("null")["devMinor"]) == (1, 3)
    assert lazy.row("large")["xattrs"] == {"user.a": "AP8="}
    assert lazy.row("etc/.wh.old")["size"] == 0
    assert lazy.row("pipe")["type"] == "fifo"


def test_no_file_is_to_be_fetched_in_advance(lazy: Lazy) -> None:
    assert lazy.rows[0]["name"] == ".no.prefetch.landmark"
    assert lazy.read(".no.prefetch.landmark") == b"\x0f"


def test_others_see_a_layer_with_two_files_more(store: Store, layer: Layer, packed: Layer) -> None:
    before, after = (members(gzip.decompress(blob_of(store, each))) for each in (layer, packed))

    assert list(after) == [".no.prefetch.landmark", *before, "stargz.index.json"]
    for name, member in before.items():
        assert {**after[name].get_info(), "offset": 0} == {**member.get_info(), "offset": 0}


def test_the_descriptor_tells_of_the_table_and_the_layer_of_the_tar(store: Store, packed: Layer, lazy: Lazy) -> None:
    tar = gzip.decompress(blob_of(store, packed))

    assert packed.descriptor.annotations == {TOC_DIGEST: Digest.of(lazy.table), UNCOMPRESSED_SIZE: str(len(tar))}
    assert packed.diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert packed.size == len(tar)


def test_the_index_is_what_reading_the_layer_gives(store: Store, packed: Layer) -> None:
    index = store.index_of(packed.diff_id, packed.descriptor)

    with store.layout.open(packed.descriptor) as blob:
        assert read_layer(packed.descriptor, packed.diff_id, blob) == index
    assert index.files["etc/passwd"] == PASSWD


def test_it_is_made_once_and_of_a_level_as_asked(store: Store, layer: Layer, packed: Layer) -> None:
    path = Path(store.layout.path(packed.descriptor.digest))
    made = path.stat().st_ino

    again = packs.packed(layer, Compression.ESTARGZ, None, store, lambda *_: None)
    small = packs.packed(layer, Compression.ESTARGZ, 9, store, lambda *_: None)

    assert again == packed
    assert path.stat().st_ino == made
    assert Lazy(blob_of(store, small)).read("large") == LARGE
    assert small.descriptor.digest != packed.descriptor.digest


def test_a_layer_that_is_estargz_already_is_not_wrapped_again(store: Store, packed: Layer) -> None:
    plain = Layer(packed.diff_id, packs.packed(packed, Compression.GZIP, 1, store, lambda *_: None).descriptor, 0)

    again = packs.packed(plain, Compression.ESTARGZ, None, store, lambda *_: None)

    assert packs.packed(packed, Compression.ESTARGZ, None, store, lambda *_: None) == packed
    assert again == packed


def test_a_blob_of_another_layer_is_refused(store: Store, layer: Layer) -> None:
    wrong = Layer(Digest.of(b"another"), layer.descriptor, 0)

    with pytest.raises(ImageError, match="unpacks to"):
        packs.packed(wrong, Compression.ESTARGZ, None, store, lambda *_: None)
