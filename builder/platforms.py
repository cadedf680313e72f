"""Several platforms in one build: a stage that does not depend on what is built for is there once."""

from collections.abc import Mapping, Sequence

from builder.graph import Graph, ImageStart, Stage, StageStart
from builder.steps.step import Action, BindMount, CacheMount, Copy, FromStage, MakeDirectory, Origin, Run, RunMount
from layers.data import replace


def joined(graphs: Sequence[Graph]) -> Graph:
    """The graphs of all platforms as one. Stages that mean the same become one, and the later ones new numbers."""
    stages = list(graphs[0].stages)
    targets = list(graphs[0].targets)
    for graph in graphs[1:]:
        found: dict[int, Stage] = {}
        for stage in graph.stages:
            moved = _renumbered(stage, {index: same.index for index, same in found.items()})
            meaning = _meaning(moved, is_target=stage in graph.targets)
            same = next((known for known in stages if _meaning(known, is_target=known in targets) == meaning), None)
            if same is None:
                same = replace(moved, index=max(known.index for known in stages) + 1)
                stages.append(same)
            found[stage.index] = same
        targets += [found[target.index] for target in graph.targets]
    return Graph(tuple(stages), tuple(targets))


def _meaning(stage: Stage, *, is_target: bool) -> tuple[object, ...]:
    """What a stage is, beside its number and its titles. Its configuration matters to the image that it becomes."""
    start = replace(stage.start, title="") if isinstance(stage.start, ImageStart) else stage.start
    return (
        start,
        [replace(step, title="") for step in stage.steps],
        stage.config if is_target else None,
        stage.use_cache,
    )


def _renumbered(stage: Stage, numbers: Mapping[int, int]) -> Stage:
    """The same stage where those that it needs have other numbers."""
    start = stage.start
    if isinstance(start, StageStart):
        start = StageStart(numbers[start.stage])
    steps = (replace(step, action=step.action and _action(step.action, numbers)) for step in stage.steps)
    return replace(stage, start=start, steps=tuple(steps))


def _action(action: Action, numbers: Mapping[int, int]) -> Action:
    match action:
        case Copy():
            return replace(action, origin=_origin(action.origin, numbers))
        case Run():
            return replace(action, mounts=tuple(_mount(mount, numbers) for mount in action.mounts))
        case MakeDirectory():
            return action


def _mount(mount: RunMount, numbers: Mapping[int, int]) -> RunMount:
    match mount:
        case BindMount():
            return replace(mount, origin=_origin(mount.origin, numbers))
        case CacheMount(seed=BindMount() as seed):
            return replace(mount, seed=replace(seed, origin=_origin(seed.origin, numbers)))
        case _:
            return mount


def _origin(origin: Origin, numbers: Mapping[int, int]) -> Origin:
    return FromStage(numbers[origin.stage]) if isinstance(origin, FromStage) else origin
