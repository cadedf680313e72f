"""What an evaluation saw of a Dockerfile: what checks and outlines are made from."""

from collections.abc import Mapping

from builder.dockerfile.instructions import Dockerfile, StageText
from builder.evaluation.stage_state import Reading
from layers.data import dataclass
from layers.oci import Platform


@dataclass(frozen=True, slots=True)
class SurveyedStage:
    """One stage, as far as it was evaluated."""

    text: StageText
    parent: int | None
    """The stage that it starts from, by its place in the Dockerfile."""
    base: Platform | None
    """The platform of the image that it starts from; None if that is scratch, a stage, or not to be found."""
    is_base_known: bool
    """False if the image is not to be found: then nobody knows its environment."""
    readings: tuple[Reading, ...]
    """The instructions, those that the base image's ONBUILD adds first."""


@dataclass(frozen=True, slots=True)
class Survey:
    """A Dockerfile, and those of its stages that were evaluated."""

    dockerfile: Dockerfile
    stages: Mapping[int, SurveyedStage]
    """By place in the Dockerfile, in its order."""
    target: int
    platform: Platform
    build_args: Mapping[str, str]
    global_args: Mapping[str, str]
    """What FROM lines see."""
    default_args: Mapping[str, str]
    """The same, were there no --build-arg."""
