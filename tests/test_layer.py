"""Layers: one pass from changes to a blob and its index; the same bytes with any threads; errors leave nothing."""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from grants import mounted

from layers.compress import STREAMS, Compression, compressor
from layers.digest import Digest
from layers.entry import Change, Entry, Kind, whiteout
from layers.errors import ImageError, PybuildError, StoreError
from layers.layer import Layer, read_layer, write_layer
from layers.layout import Layout
from layers.oci import LAYER
from layers.pipeline import Pipeline
from layers.tar import read_tar

NOISE = random.Random(1).randbytes(1 << 20)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\n"

SMALL = (
    Change(Entry("etc", Kind.DIRECTORY, 0o755)),
    whiteout("etc/old"),
    Change(Entry("etc/passwd", Kind.FILE, size=len(PASSWD), mtime_ns=1_999_999_999), PASSWD),
    Change(Entry("etc/link", Kind.SYMLINK, 0o777, target="passwd")),
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "images"))


def big(files: int = 12) -> Iterator[Change]:
    for number in range(files):
        content = NOISE + bytes(number * 1000)
        yield Change(Entry(f"file-{number:02}", Kind.FILE, size=len(content)), content)


def unpacked(layout: Layout, layer: Layer) -> bytes:
    from layers.compress import decompressed

    with layout.open(layer.descriptor) as blob:
        return decompressed(blob).read()


def piped(layout: Layout, data: bytes, kind: Compression, packers: int, step: int) -> tuple[Digest, Digest]:
    with layout.writer() as blob, Pipeline(blob, compressor(kind), packers=packers) as pipeline:
        for start in range(0, len(data), step):
            pipeline.write(data[start : start + step])
        diff_id, _ = pipeline.finish()
        digest, _ = blob.commit()
    return diff_id, digest


def blobs(layout: Layout) -> list[str]:
    return os.listdir(os.path.join(layout.root, "blobs", "sha256"))


@pytest.mark.parametrize("compression", STREAMS)
@pytest.mark.parametrize("changes", [SMALL, tuple(big())], ids=["small", "big"])
def test_a_layer_says_truly_what_it_is(layout: Layout, compression: Compression, changes: tuple[Change, ...]) -> None:
    layer, _ = write_layer(changes, layout, compression=compression)

    tar = unpacked(layout, layer)
    assert layer.descriptor.media_type == compression.media_type
    assert (Digest.of(tar), len(tar)) == (layer.diff_id, layer.size)
    assert len(list(read_tar(io.BytesIO(tar)))) == len(changes)


@pytest.mark.parametrize("compression", STREAMS)
@pytest.mark.parametrize("changes", [SMALL, tuple(big())], ids=["small", "big"])
def test_the_index_is_what_reading_gives(layout: Layout, compression: Compression, changes: tuple[Change, ...]) -> None:
    layer, index = write_layer(changes, layout, compression=compression)

    with layout.open(layer.descriptor) as blob:
        read = read_layer(layer.descriptor, layer.diff_id, blob)

    assert read == index


def test_the_index_has_the_files_that_a_builder_reads(layout: Layout) -> None:
    _, index = write_layer(SMALL, layout)

    assert index.files == {"etc/passwd": PASSWD}
    assert index.whiteouts == {"etc/old"}
    assert index.entries["etc/passwd"].mtime_ns == 1_000_000_000


def test_such_a_file_may_come_from_disk(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(PASSWD)

    _, index = write_layer([Change(SMALL[2].entry, str(tmp_path / "passwd"))], layout)

    assert index.files == {"etc/passwd": PASSWD}


def test_the_same_changes_give_the_same_blob(tmp_path: Path) -> None:
    first, _ = write_layer(big(), Layout(str(tmp_path / "a")))
    second, _ = write_layer(big(), Layout(str(tmp_path / "b")))

    assert first == second


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("size", [0, 100, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_bytes_depend_neither_on_threads_nor_on_pieces(layout: Layout, kind: Compression, size: int) -> None:
    data = (NOISE * 5)[:size]

    results = {piped(layout, data, kind, packers, step) for packers, step in [(1, 1 << 20), (4, 5 << 20), (3, 77_777)]}

    assert len(results) == 1
    assert results.pop()[0] == Digest.of(data)


def test_a_small_layer_starts_no_thread(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise AssertionError(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    layer, _ = write_layer(SMALL, layout)

    assert layer.size == 3072 + 512


def test_no_thread_is_left(layout: Layout) -> None:
    before = set(threading.enumerate())

    write_layer(big(), layout)

    assert set(threading.enumerate()) <= before


def test_names_of_one_inode_become_hard_links_to_the_first(layout: Layout) -> None:
    changes = [Change(Entry(name, Kind.FILE, 0o755, size=3, inode=(1, 2)), b"abc") for name in ("a", "b", "c")]

    layer, index = write_layer(changes, layout)

    tar = [entry for entry, _ in read_tar(io.BytesIO(unpacked(layout, layer)))]
    assert [(entry.kind, entry.target) for entry in tar] == [
        (Kind.FILE, ""),
        (Kind.HARDLINK, "a"),
        (Kind.HARDLINK, "a"),
    ]
    assert [entry.inode for entry in index.entries.values()] == ["a", "a", "a"]
    assert [entry.size for entry in index.entries.values()] == [3, 3, 3]


def test_a_directory_is_never_a_hard_link(layout: Layout) -> None:
    changes = [Change(Entry(name, Kind.DIRECTORY, 0o755, inode=(1, 2))) for name in ("a", "b")]

    _, index = write_layer(changes, layout)

    assert {entry.kind for entry in index.entries.values()} == {Kind.DIRECTORY}


def test_an_empty_layer_is_the_end_of_a_tar(layout: Layout) -> None:
    layer, index = write_layer([], layout)

    assert (layer.diff_id, layer.size) == (Digest.of(bytes(1024)), 1024)
    assert not index.entries


@pytest.mark.parametrize("place", [0, 11])
def test_an_error_of_a_producer_leaves_nothing(layout: Layout, place: int) -> None:
    def failing() -> Iterator[Change]:
        for number, change in enumerate(big()):
            if number == place:
                raise PybuildError("the source is gone")
            yield change

    before = set(threading.enumerate())
    with pytest.raises(PybuildError, match="the source is gone"):
        write_layer(failing(), layout)

    assert blobs(layout) == []
    assert set(os.listdir(layout.root)) == {"blobs", "index.json", "oci-layout"}
    assert set(threading.enumerate()) <= before


def test_a_file_that_changes_while_it_is_read_leaves_nothing(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"longer than it was")

    with pytest.raises(PybuildError, match="changed"):
        write_layer([*big(), Change(Entry("z", Kind.FILE, size=3), str(tmp_path / "file"))], layout)

    assert blobs(layout) == []


@pytest.mark.kernel
@pytest.mark.parametrize("files", [2, 40])
def test_a_full_disk_ends_the_layer(tmp_path: Path, files: int) -> None:
    """The disk fills in the thread that writes: the error comes out of the one that gives, and the threads end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    before = set(threading.enumerate())
    with mounted("tmpfs", disk, "size=2m"):
        with pytest.raises(StoreError, match="no space left"):
            write_layer(big(files), Layout(str(disk / "images")))

        assert sum(os.path.getsize(os.path.join(top, name)) for top, _, names in os.walk(disk) for name in names) < 500
        assert set(threading.enumerate()) <= before


def test_a_layer_of_another_diff_id_is_refused(layout: Layout) -> None:
    layer, _ = write_layer(SMALL, layout)

    with pytest.raises(ImageError, match="unpacks to"), layout.open(layer.descriptor) as blob:
        read_layer(layer.descriptor, Digest.of(b"another"), blob)


def test_bytes_after_the_tar_count_for_the_diff_id(layout: Layout) -> None:
    tar = bytes(10240) + b"more"
    descriptor = layout.put(tar, LAYER)

    with layout.open(descriptor) as blob:
        index = read_layer(descriptor, Digest.of(tar), blob)

    assert not index.entries


def test_a_diff_id_may_be_of_sha512(layout: Layout) -> None:
    descriptor = layout.put(bytes(1024), LAYER)
    diff_id = Digest("sha512:" + hashlib.sha512(bytes(1024)).hexdigest())

    with layout.open(descriptor) as blob:
        assert not read_layer(descriptor, diff_id, blob).entries


def test_what_is_no_layer_is_an_error(layout: Layout) -> None:
    descriptor = layout.put(b"{}" * 1000, LAYER)

    with pytest.raises(ImageError, match="no tar"), layout.open(descriptor) as blob:
        read_layer(descriptor, Digest.of(b"{}" * 1000), blob)


GROWING = """
import json, resource, sys
from layers.compress import Compression
from layers.entry import Change, Entry, Kind
from layers.layer import read_layer, write_layer
from layers.layout import Layout

class Endless:
    def read(self, size): return bytes(size)

layout = Layout(sys.argv[1])
changes = [Change(Entry("f", Kind.FILE, size=int(sys.argv[2]) << 20), Endless())]
layer, index = write_layer(changes, layout, compression=Compression(sys.argv[3]))
with layout.open(layer.descriptor) as blob:
    assert read_layer(layer.descriptor, layer.diff_id, blob) == index
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("compression", STREAMS)
def test_memory_does_not_grow_with_the_layer(tmp_path: Path, compression: Compression) -> None:
    def peak(mebibytes: int) -> int:
        command = [sys.executable, "-c", GROWING, str(tmp_path), str(mebibytes), compression]
        return int(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))

    assert peak(250) < peak(50) + 25
