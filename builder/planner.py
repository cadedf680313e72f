"""Which steps the cache answers. Planning looks, and changes nothing but what the cache remembers of files."""

from collections.abc import Iterator, Mapping

from builder.errors import located
from builder.graph import Graph, ImageStart, Stage, StageStart
from builder.origins import Material, Origins
from builder.snapshot import Snapshot
from builder.steps.step import Action, Copy, Step
from cache.answers import Answers
from cache.keys import key_of
from layers.data import dataclass
from layers.digest import Digest


@dataclass(frozen=True, slots=True)
class StagePlan:
    """How far the cache leads in one stage."""

    stage: Stage
    snapshot: Snapshot | None
    """After the first `done` steps. None: the stage that it starts from has steps left."""
    done: int

    def left(self) -> tuple[Step, ...]:
        """The steps that have no answer yet."""
        return self.stage.steps[self.done :]

    def hits(self) -> Iterator[str]:
        """The titles of the steps that the cache answered."""
        return (step.title for step in self.stage.steps[: self.done] if step.action is not None)

    @property
    def complete(self) -> bool:
        """Whether nothing of the stage is left to do."""
        return self.snapshot is not None and self.done == len(self.stage.steps)


@dataclass(frozen=True, slots=True)
class Lookup:
    """A step's key with the parts that are not the parent."""

    key: Digest
    operation: str
    material: Material


def plan(graph: Graph, origins: Origins, answers: Answers, *, use_cache: bool) -> dict[int, StagePlan]:
    """Walk all stages as far as the cache has answers; by stage index, in the order of the Dockerfile."""
    plans: dict[int, StagePlan] = {}
    for stage in graph.stages:
        start = start_of(stage, {index: done.snapshot for index, done in plans.items() if done.complete})
        if start is None:
            plans[stage.index] = StagePlan(stage, None, 0)
            continue
        snapshot, done = start, 0
        for step in stage.steps:
            after = _advance(
                step, stage.index, snapshot, plans, origins, answers, use_cache=use_cache and stage.use_cache
            )
            if after is None:
                break
            snapshot, done = after, done + 1
        plans[stage.index] = StagePlan(stage, snapshot, done)
    return plans


def start_of(stage: Stage, finished: Mapping[int, Snapshot | None]) -> Snapshot | None:
    """What the stage begins with; None if that is a stage which is not finished."""
    if isinstance(stage.start, StageStart):
        return finished.get(stage.start.stage)
    if isinstance(stage.start, ImageStart):
        return Snapshot.of_image(stage.start.base.image)
    return Snapshot()


def look_up(action: Action, parent: Snapshot, material: Material) -> Lookup:
    """The key of an action on top of `parent`, which a COPY --link does not stand on."""
    operation = type(action).__name__.lower()
    below = None if isinstance(action, Copy) and action.link else parent.chain
    return Lookup(key_of(operation, below, material), operation, material)


def _advance(
    step: Step,
    stage: int,
    snapshot: Snapshot,
    plans: Mapping[int, StagePlan],
    origins: Origins,
    answers: Answers,
    *,
    use_cache: bool,
) -> Snapshot | None:
    """The state after one step if the cache knows it."""
    if step.action is None:
        return snapshot.after_metadata(step.created_by)
    if not use_cache:
        return None
    finished = {index: done.snapshot for index, done in plans.items() if done.complete}
    with located(step.location):
        material = origins.known_material(step.action, finished)
    if material is None:
        return None
    record = answers.find(look_up(step.action, snapshot, material).key, stage)
    return snapshot.after_layer(step.created_by, record.layer, record.created) if record else None
