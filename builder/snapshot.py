"""A stage on its way: the layers that its steps have made so far, and the image that they add up to."""

from typing import Self

from cache.keys import chain_id
from layers.data import dataclass, replace
from layers.digest import Digest
from layers.layer import Layer
from layers.oci import History, Image, ImageConfig

COMMENT = "buildkit.dockerfile.v0"
"""Tools that show where layers come from know this mark, and then read `created_by` in the form it is written in."""

EMPTY_LAYER = Digest("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")
"""The diff_id of a tar without entries. Such a layer is left out of the image, and its history marked as empty."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after some steps; the next step stands on it."""

    layers: tuple[Layer, ...] = ()
    """Lowest first, those of the base image included."""
    history: tuple[History, ...] = ()

    @classmethod
    def of_image(cls, image: Image) -> Self:
        """What a stage FROM an image begins with."""
        layers = zip(image.manifest.layers, image.config.diff_ids, strict=True)
        return cls(tuple(Layer(diff_id, descriptor, 0) for descriptor, diff_id in layers), _whole_history(image.config))

    @property
    def chain(self) -> Digest | None:
        """The name of the file system: what keys of the next step call their parent."""
        return chain_id([layer.diff_id for layer in self.layers])

    def after_metadata(self, created_by: str) -> Self:
        """The state after an instruction that changes the configuration alone; its time is filled in at the end."""
        return replace(self, history=(*self.history, History("", created_by, comment=COMMENT, empty_layer=True)))

    def after_layer(self, created_by: str, layer: Layer, created: str) -> Self:
        """The state after a step that ran, or was found in the cache."""
        empty = layer.diff_id == EMPTY_LAYER
        return replace(
            self,
            layers=self.layers if empty else (*self.layers, layer),
            history=(*self.history, History(created, created_by, comment=COMMENT, empty_layer=empty)),
        )

    def image_config(self, config: ImageConfig, *, now: str, latest: str = "") -> ImageConfig:
        """The configuration document of the image that a stage ends as.

        Instructions without a layer take the time of the layer before them, and those at the beginning that of the
        first new layer: so a build that is answered by the cache gives the same digest again. With `latest`, they have
        that, and nothing is later.
        """
        if latest:
            from builder.epoch import no_later  # most builds have no epoch

            history = tuple(replace(item, created=no_later(item.created, latest)) for item in self.history)
        else:
            history = _with_times(self.history, now)
        return replace(
            config,
            diff_ids=tuple(layer.diff_id for layer in self.layers),
            history=history,
            created=latest or (history[-1].created if history else now),
        )


def _whole_history(config: ImageConfig) -> tuple[History, ...]:
    """The history with one item for each layer, which tools count on: some builders write none."""
    told = sum(not item.empty_layer for item in config.history)
    return (*config.history, *[History(config.created)] * (len(config.diff_ids) - told))


def _with_times(history: tuple[History, ...], now: str) -> tuple[History, ...]:
    first_gap = next((number for number, item in enumerate(history) if not item.created), len(history))
    later = (item.created for item in history[first_gap:] if item.created)
    earlier = (item.created for item in reversed(history[:first_gap]) if item.created)
    current = next(later, "") or next(earlier, "") or now
    filled: list[History] = []
    for item in history:
        if filled and item.created and len(filled) >= first_gap:
            current = item.created
        filled.append(item if item.created else replace(item, created=current))
    return tuple(filled)
