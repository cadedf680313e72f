"""The layout: it gives no wrong byte, keeps nothing half, and two can write at once."""

import errno
import hashlib
import json
import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from grants import mounted

from layers.blob import explained
from layers.digest import Digest
from layers.errors import ImageError, StoreError
from layers.layout import Layout
from layers.oci import CONFIG, INDEX, LAYER, MANIFEST, Descriptor, ImageConfig, Manifest, Platform

NAME = "docker.io/library/test:latest"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "images"))


def put_image(layout: Layout, text: str = "amd64") -> Descriptor:
    config = layout.put(ImageConfig(Platform("linux", text)).serialise(), CONFIG)
    return layout.put(Manifest(config, ()).serialise(), MANIFEST)


def write_and_fail(layout: Layout) -> None:
    with layout.writer() as blob:
        blob.write(b"half")
        raise RuntimeError


def write_expecting(layout: Layout, data: bytes, descriptor: Descriptor) -> None:
    with layout.writer() as blob:
        blob.write(data)
        blob.commit(descriptor)


def files_below(folder: str) -> set[str]:
    return {os.path.relpath(os.path.join(top, name), folder) for top, _, names in os.walk(folder) for name in names}


# -- blobs ------------------------------------------------------------------------------------------------------------


def test_opening_a_layout_touches_nothing(layout: Layout) -> None:
    assert layout.names() == {}
    assert not os.path.exists(layout.root)


def test_the_first_thing_written_makes_it_a_layout(layout: Layout) -> None:
    descriptor = layout.put(b"{}", MANIFEST)

    assert files_below(layout.root) == {"oci-layout", "index.json", f"blobs/sha256/{descriptor.digest.hex}"}
    assert json.loads(Path(layout.root, "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads(Path(layout.root, "index.json").read_bytes()) == {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [],
    }


def test_what_is_put_can_be_read(layout: Layout) -> None:
    descriptor = layout.put(b"document", MANIFEST)

    assert descriptor == Descriptor(MANIFEST, Digest.of(b"document"), 8)
    assert layout.has(descriptor)
    assert layout.read(descriptor) == b"document"


def test_a_blob_that_is_not_committed_leaves_nothing(layout: Layout) -> None:
    with layout.writer() as blob:
        blob.write(b"half")

    assert files_below(layout.root) == {"oci-layout", "index.json"}


def test_an_error_while_writing_leaves_nothing(layout: Layout) -> None:
    with pytest.raises(RuntimeError):
        write_and_fail(layout)

    assert files_below(layout.root) == {"oci-layout", "index.json"}


def test_what_is_being_written_is_in_the_folder_for_it(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "images"), temporary=str(tmp_path))

    with layout.writer() as blob:
        blob.write(b"text")
        temporary = [name for name in os.listdir(tmp_path) if name != "images"]
        digest, _ = blob.commit()

    assert len(temporary) == 1
    assert os.listdir(tmp_path) == ["images"]
    assert os.path.exists(layout.path(digest))


def test_the_same_blob_can_be_written_again(layout: Layout) -> None:
    assert layout.put(b"text", LAYER) == layout.put(b"text", LAYER)


def test_writing_again_heals_a_damaged_blob(layout: Layout) -> None:
    descriptor = layout.put(b"text", LAYER)
    Path(layout.path(descriptor.digest)).write_bytes(b"TEXT")

    layout.put(b"text", LAYER)

    assert layout.read(descriptor) == b"text"


@pytest.mark.parametrize("expected", [(b"other", 4), (b"text", 5)])
def test_a_blob_that_is_not_the_expected_one_is_not_kept(layout: Layout, expected: tuple[bytes, int]) -> None:
    descriptor = Descriptor(LAYER, Digest.of(expected[0]), expected[1])

    with pytest.raises(ImageError, match="should be"):
        write_expecting(layout, b"text", descriptor)

    assert files_below(layout.root) == {"oci-layout", "index.json"}


def test_a_blob_of_another_size_is_not_there(layout: Layout) -> None:
    descriptor = layout.put(b"text", LAYER)

    assert not layout.has(Descriptor(LAYER, descriptor.digest, 5))


def test_a_blob_that_is_missing_is_named(layout: Layout) -> None:
    with pytest.raises(StoreError, match=Digest.of(b"x")):
        layout.open(Descriptor(LAYER, Digest.of(b"x"), 1))


@pytest.mark.parametrize("damaged", [b"TEXT", b"tex", b"text!", b""])
def test_a_damaged_blob_is_found_when_it_is_read(layout: Layout, damaged: bytes) -> None:
    descriptor = layout.put(b"text", LAYER)
    Path(layout.path(descriptor.digest)).write_bytes(damaged)

    with pytest.raises(StoreError, match="damaged"):
        layout.read(descriptor)


def test_a_blob_that_is_too_long_is_not_read_to_its_end(layout: Layout) -> None:
    descriptor = layout.put(b"text", LAYER)
    with open(layout.path(descriptor.digest), "ab") as file:
        file.truncate(1 << 40)

    with pytest.raises(StoreError, match="damaged"):
        layout.read(descriptor)


def test_damage_beyond_what_is_read_is_found_on_closing(layout: Layout) -> None:
    data = bytes(5 << 20)
    descriptor = layout.put(data, LAYER)
    with open(layout.path(descriptor.digest), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")

    stream = layout.open(descriptor)
    stream.read(10)

    with pytest.raises(StoreError, match="damaged"):
        stream.close()
    assert stream.closed


def test_an_error_of_the_reader_is_not_hidden_by_damage(layout: Layout) -> None:
    descriptor = layout.put(b"text", LAYER)
    Path(layout.path(descriptor.digest)).write_bytes(b"TEXT")

    with pytest.raises(RuntimeError), layout.open(descriptor):
        raise RuntimeError


def test_bytes_that_make_no_sense_are_told_as_the_damage_that_they_are(layout: Layout) -> None:
    """A decompressor gives up long before the end of the blob, where its digest would have told."""
    descriptor = layout.put(b"text", LAYER)
    Path(layout.path(descriptor.digest)).write_bytes(b"TEXT")

    with pytest.raises(StoreError, match="damaged"), layout.open(descriptor):
        raise ImageError("this is no gzip")


def test_a_damaged_blob_stays_where_it_is(layout: Layout) -> None:
    descriptor = layout.put(b"text", LAYER)
    Path(layout.path(descriptor.digest)).write_bytes(b"TEXT")

    with pytest.raises(StoreError) as caught:
        layout.read(descriptor)

    assert layout.has(descriptor)
    assert caught.value.hint.startswith(f"remove {layout.path(descriptor.digest)}")


def test_a_layout_that_heals_loses_a_damaged_blob(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "layout"), heals=True)
    descriptor = layout.put(b"text", LAYER)
    Path(layout.path(descriptor.digest)).write_bytes(b"TEXT")

    with pytest.raises(StoreError, match="damaged") as caught:
        layout.read(descriptor)

    assert not layout.has(descriptor)
    assert caught.value.hint == "it has been removed: build or pull the image again"


def test_a_layout_that_heals_keeps_what_was_healed_meanwhile(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "layout"), heals=True)
    descriptor = layout.put(b"text", LAYER)
    Path(layout.path(descriptor.digest)).write_bytes(b"TEXT")
    reader = layout.open(descriptor)
    layout.put(b"text", LAYER)

    with pytest.raises(StoreError, match="damaged"):
        reader.close()

    assert layout.read(descriptor) == b"text"


def test_a_blob_can_have_a_digest_of_sha512(layout: Layout) -> None:
    digest = Digest("sha512:" + hashlib.sha512(b"text").hexdigest())
    os.makedirs(os.path.dirname(layout.path(digest)))
    Path(layout.path(digest)).write_bytes(b"text")

    assert layout.read(Descriptor(LAYER, digest, 4)) == b"text"


def test_what_is_too_large_for_a_document_is_not_read(layout: Layout) -> None:
    with pytest.raises(ImageError, match="too large"):
        layout.read(Descriptor(MANIFEST, Digest.of(b""), 1 << 30))


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_name_leads_to_what_it_was_given_to(layout: Layout) -> None:
    image = put_image(layout)

    layout.tag(NAME, image)

    assert layout.resolve(NAME) == image
    assert layout.names() == {NAME: image}
    assert layout.resolve("docker.io/library/other:latest") is None


def test_a_name_moves_and_others_stay(layout: Layout) -> None:
    old, new = put_image(layout, "amd64"), put_image(layout, "arm64")
    for name in ("a", "b", "c"):
        layout.tag(name, old)

    layout.tag("b", new)

    assert layout.names() == {"a": old, "b": new, "c": old}
    assert list(layout.names()) == ["a", "b", "c"]


def test_an_image_without_a_name_is_listed_once(layout: Layout) -> None:
    image = put_image(layout)

    layout.tag("", image)
    layout.tag("", image)

    assert layout.index().manifests == (image,)
    assert layout.names() == {}


def test_a_name_is_taken_away(layout: Layout) -> None:
    image = put_image(layout)
    layout.tag("a", image)
    layout.tag("b", image)

    assert layout.untag("a")
    assert not layout.untag("a")
    assert layout.names() == {"b": image}


def test_what_is_not_there_gets_no_name(layout: Layout) -> None:
    with pytest.raises(StoreError, match="not in"):
        layout.tag(NAME, Descriptor(MANIFEST, Digest.of(b"x"), 1))


def test_a_tag_of_another_tool_is_a_name(layout: Layout) -> None:
    image = put_image(layout)
    value = {**image.to_json(), "annotations": {"org.opencontainers.image.ref.name": "v1"}}
    Path(layout.root, "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [value]}))

    assert layout.resolve("v1") == image
    assert layout.names() == {"v1": image}


def test_an_index_that_is_damaged_is_an_error_with_a_hint(layout: Layout) -> None:
    put_image(layout)
    Path(layout.root, "index.json").write_text("{")

    with pytest.raises(StoreError, match="damaged") as caught:
        layout.names()

    assert caught.value.hint


def tag_many(root: str, prefix: str) -> None:
    layout = Layout(root)
    image = put_image(layout)
    for number in range(25):
        layout.tag(f"{prefix}-{number}", image)


def test_processes_that_tag_at_once_lose_nothing(layout: Layout) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=tag_many, args=(layout.root, prefix)) for prefix in "abc"]

    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(layout.names()) == 75


@pytest.mark.kernel
@pytest.mark.parametrize("name", [NAME, "localhost:5000/team/app:1.0"])
def test_skopeo_reads_the_layout(layout: Layout, name: str) -> None:
    layer = layout.put(bytes(1024), LAYER)
    config = ImageConfig(Platform("linux", "amd64"), diff_ids=(layer.digest,))
    layout.tag("other:latest", put_image(layout))
    layout.tag(name, layout.put(Manifest(layout.put(config.serialise(), CONFIG), (layer,)).serialise(), MANIFEST))

    command = ["skopeo", "inspect", f"oci:{layout.root}:{name}"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(result.stdout)["Layers"] == [layer.digest]


# -- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("tmpfs", disk, "size=1m"):
        yield disk


@pytest.mark.kernel
def test_a_full_disk_is_an_error_with_a_hint_and_leaves_nothing(small_disk: Path) -> None:
    layout = Layout(str(small_disk / "images"))

    with pytest.raises(StoreError, match="no space left") as caught:
        layout.put(bytes(2_000_000), LAYER)

    assert "full" in caught.value.hint
    assert files_below(layout.root) == {"oci-layout", "index.json"}
    assert layout.read(layout.put(b"text", LAYER)) == b"text"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StoreError, match="not a directory"):
        Layout(str(tmp_path / "file" / "images")).put(b"text", LAYER)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_a_person_can_do_about_a_disk_is_said(number: int) -> None:
    assert explained(OSError(number, os.strerror(number)), "/store").hint
