"""What the steps of a stage add up to."""

from builder.snapshot import EMPTY_LAYER, Snapshot
from layers.data import replace
from layers.digest import Digest
from layers.layer import Layer
from layers.oci import LAYER_GZIP, Descriptor, History, Image, ImageConfig, Manifest, Platform

CONFIG = ImageConfig(Platform("linux", "amd64"))


def layer(text: str) -> Layer:
    digest = Digest.of(text.encode())
    return Layer(digest, Descriptor(LAYER_GZIP, digest, 1), 1)


def times(snapshot: Snapshot) -> list[str]:
    return [item.created for item in snapshot.image_config(CONFIG, now="now").history]


def test_instructions_before_the_first_new_layer_take_its_time() -> None:
    base = Snapshot((layer("base"),), (History("2001", "base"),))

    snapshot = base.after_metadata("ENV A=1").after_layer("RUN x", layer("x"), "2005").after_metadata("CMD")

    assert times(snapshot) == ["2001", "2005", "2005", "2005"]


def test_instructions_at_the_end_take_the_time_of_the_layer_before_them() -> None:
    snapshot = (
        Snapshot()
        .after_layer("RUN a", layer("a"), "2005")
        .after_metadata("ENV")
        .after_layer("RUN b", layer("b"), "2006")
        .after_metadata("CMD")
    )

    assert times(snapshot) == ["2005", "2006", "2006", "2006"]


def test_an_image_without_new_layers_has_the_time_of_its_base() -> None:
    base = Snapshot((layer("base"),), (History("2001", "base"),))

    config = base.after_metadata("LABEL a=1").image_config(CONFIG, now="now")

    assert config.created == "2001"


def test_an_image_of_nothing_has_the_time_of_the_build() -> None:
    assert times(Snapshot().after_metadata("LABEL a=1")) == ["now"]


def test_a_step_that_changes_nothing_makes_no_layer() -> None:
    empty = Layer(EMPTY_LAYER, layer("x").descriptor, 1024)

    snapshot = Snapshot().after_layer("RUN true", empty, "2005")

    assert snapshot.layers == ()
    assert snapshot.history[0].empty_layer


def test_an_image_without_history_gets_an_item_for_each_layer() -> None:
    """Tools refuse an image whose history has more or fewer items than it has layers."""
    manifest = Manifest(layer("config").descriptor, (layer("a").descriptor, layer("b").descriptor))
    config = replace(CONFIG, diff_ids=(layer("a").diff_id, layer("b").diff_id), created="2001")
    image = Image(layer("manifest").descriptor, manifest, config)

    snapshot = Snapshot.of_image(image).after_layer("RUN x", layer("x"), "2005")

    assert times(snapshot) == ["2001", "2001", "2005"]


def test_empty_layer_is_the_digest_of_a_tar_without_entries() -> None:
    assert Digest.of(bytes(1024)) == EMPTY_LAYER
