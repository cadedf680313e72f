"""Images of several platforms as one index, and their file systems side by side."""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from images import check_schema

from builder.cli.outputs import parse_annotations, parse_outputs
from builder.errors import UsageError
from builder.export.image import Draft, Packaged, package
from builder.export.oci import Named, write_archive
from builder.export.output import Form, Output, Packing
from builder.export.outputs import Places, deliver, refuse_several
from builder.export.sink import OutputError
from builder.report import Report
from cache.store import Store
from layers.entry import Change, Entry, Kind
from layers.layer import write_layer
from layers.oci import History, ImageConfig, Index, Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
BOTH = (AMD64, ARM64)
REPORT = Report(lambda _: None, lambda: 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(str(tmp_path / "store"))) as store:
        yield store


def draft(store: Store, platform: Platform, *names: str) -> Draft:
    """An image with a folder and files, the first of which has a second name."""
    changes = [Change(Entry("d", Kind.DIRECTORY, 0o755))]
    for name in names:
        data = f"{name} for {platform}".encode()
        changes.append(Change(Entry(f"d/{name}", Kind.FILE, size=len(data)), data))
    changes.append(Change(Entry("d/second", Kind.HARDLINK, target=f"d/{names[0]}")))
    layer, index = write_layer(iter(changes), store.layout)
    store.keep_index(layer.diff_id, index)
    return Draft(ImageConfig(platform, diff_ids=(layer.diff_id,), history=(History(created_by="made"),)), (layer,))


def both(store: Store) -> list[Draft]:
    return [draft(store, platform, "file") for platform in BOTH]


def index_of(packaged: Packaged, store: Store) -> Index:
    data = store.layout.read(packaged.root)
    check_schema("index", data)
    return Index.parse(data)


def test_several_images_become_one_index_with_their_platforms(store: Store) -> None:
    packaged = package(both(store), Packing(), store, REPORT)

    index = index_of(packaged, store)
    assert [listed.platform for listed in index.manifests] == [AMD64, ARM64]
    assert [listed.digest for listed in index.manifests] == [image.descriptor.digest for image in packaged.images]
    assert packaged.id == packaged.root.digest


def test_one_image_is_a_manifest_unless_an_index_is_wanted(store: Store) -> None:
    alone = package([draft(store, ARM64, "file")], Packing(), store, REPORT)
    inside = package([draft(store, ARM64, "file")], Packing(index=True), store, REPORT)

    assert (alone.root.digest, alone.id) == (alone.image.descriptor.digest, alone.image.manifest.config.digest)
    assert [listed.digest for listed in index_of(inside, store).manifests] == [alone.root.digest]


def test_annotations_go_to_the_platform_that_they_are_for(store: Store) -> None:
    texts = [
        "manifest[linux/arm64]:of=arm",
        "manifest:all=yes",
        "index:top=1",
        "manifest-descriptor[amd64]:listed=here",
    ]

    packaged = package(both(store), Packing(annotations=parse_annotations(texts, BOTH)), store, REPORT)

    index = index_of(packaged, store)
    assert [image.manifest.annotations for image in packaged.images] == [{"all": "yes"}, {"all": "yes", "of": "arm"}]
    assert [listed.annotations for listed in index.manifests] == [{"listed": "here"}, {}]
    assert index.annotations == {"top": "1"}


@pytest.mark.parametrize("text", ["manifest[linux/s390x]:a=b", "index[linux/arm64]:a=b"])
def test_annotations_for_what_is_not_there_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_annotations([text], BOTH)


def test_an_oci_archive_has_everything_below_the_index(store: Store) -> None:
    packaged = package(both(store), Packing(), store, REPORT)
    stream = io.BytesIO()

    write_archive([Named(packaged, ("docker.io/library/app:latest",))], store.layout, stream, lambda _blob, _done: None)

    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        names = set(tar.getnames())
        (listed,) = json.load(tar.extractfile("index.json") or io.BytesIO())["manifests"]
    assert listed["digest"] == packaged.root.digest
    for image in packaged.images:
        for blob in (image.descriptor, image.manifest.config, *image.manifest.layers):
            assert f"blobs/sha256/{blob.digest.hex}" in names


@pytest.mark.parametrize("destination", ["", "app.tar"])
def test_what_docker_loads_cannot_have_several_platforms(destination: str) -> None:
    with pytest.raises(UsageError, match="no place for several platforms") as refusal:
        refuse_several([Output(Form.OCI), Output(Form.DOCKER, destination)])

    assert "type=oci" in refusal.value.hint


def test_each_file_system_gets_a_folder_of_its_platform(store: Store, tmp_path: Path) -> None:
    (folder,) = parse_outputs([f"type=local,dest={tmp_path}/out"], BOTH, defaults=Packing())
    (archive,) = parse_outputs([f"type=tar,dest={tmp_path}/out.tar"], BOTH, defaults=Packing())

    deliver(both(store), (), [folder, archive], Packing(), Places(store, REPORT))

    for platform in BOTH:
        below = tmp_path / "out" / f"linux_{platform.architecture}" / "d"
        assert (below / "file").read_text() == f"file for {platform}"
        assert (below / "second").samefile(below / "file")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.extractfile("linux_arm64/d/second").read() == b"file for linux/arm64"  # type: ignore[union-attr]  # a file it is


def test_one_file_system_is_split_off_if_that_is_asked_for(store: Store, tmp_path: Path) -> None:
    (output,) = parse_outputs([f"type=local,dest={tmp_path}/out,platform-split=true"], (ARM64,), defaults=Packing())

    deliver([draft(store, ARM64, "file")], (), [output], Packing(), Places(store, REPORT))

    assert (tmp_path / "out/linux_arm64/d/file").exists()


def test_file_systems_without_a_file_in_common_fit_in_one_folder(store: Store, tmp_path: Path) -> None:
    (output,) = parse_outputs([f"type=local,dest={tmp_path}/out,platform-split=false"], BOTH, defaults=Packing())
    drafts = [draft(store, AMD64, "amd", "more"), draft(store, ARM64, "arm")]
    drafts[1] = _without_second(store, drafts[1])

    deliver(drafts, (), [output], Packing(), Places(store, REPORT))

    assert {path.name for path in (tmp_path / "out/d").iterdir()} == {"amd", "more", "second", "arm"}


def _without_second(store: Store, whole: Draft) -> Draft:
    data = b"arm"
    changes = [
        Change(Entry("d", Kind.DIRECTORY, 0o755)),
        Change(Entry("d/arm", Kind.FILE, size=len(data)), data),
    ]
    layer, index = write_layer(iter(changes), store.layout)
    store.keep_index(layer.diff_id, index)
    return Draft(ImageConfig(whole.config.platform, diff_ids=(layer.diff_id,)), (layer,))


def test_a_file_of_two_platforms_is_not_silently_one(store: Store, tmp_path: Path) -> None:
    (output,) = parse_outputs([f"type=local,dest={tmp_path}/out,platform-split=false"], BOTH, defaults=Packing())

    with pytest.raises(OutputError, match="two platforms have /d/"):
        deliver(both(store), (), [output], Packing(), Places(store, REPORT))
