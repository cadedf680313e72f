"""Which step made a layer, and which one is behind a file that stages handed on to each other."""

import posixpath
from collections.abc import Iterator, Mapping

from builder.graph import StageStart
from builder.planner import StagePlan
from builder.steps.step import Copy, FromStage, Step
from cache.store import Store
from layers.entry import Kind
from layers.view import View


class Blame:
    """Asks the stages of a build that is complete."""

    def __init__(self, plans: Mapping[int, StagePlan], store: Store) -> None:
        self._plans = plans
        self._store = store

    def steps(self, plan: StagePlan) -> list[Step | None]:
        """The step that made each layer at the end of a stage; None for those of the base image."""
        assert plan.snapshot is not None, "what was built is complete"
        steps, stage = list(plan.stage.steps), plan.stage
        while isinstance(stage.start, StageStart):
            stage = self._plans[stage.start.stage].stage
            steps = [*stage.steps, *steps]
        own = plan.snapshot.history[len(plan.snapshot.history) - len(steps) :]
        made = [step for step, item in zip(steps, own, strict=True) if not item.empty_layer]
        return [*([None] * (len(plan.snapshot.layers) - len(made))), *made]

    def behind(self, copy: Copy, path: str) -> Step | None:
        """What made a file, in the stage that it was copied from, or in one before; None if that cannot be told."""
        if not isinstance(copy.origin, FromStage):
            return None
        plan = self._plans[copy.origin.stage]
        assert plan.snapshot is not None, "what was built is complete"
        view = self._store.view(plan.snapshot.layers)
        for source in _sources(copy, path, view):
            layer = view.layer_of(source)
            step = self.steps(plan)[layer] if layer is not None else None
            if step is not None:
                return (self.behind(step.action, source) if isinstance(step.action, Copy) else None) or step
        return None


def _sources(copy: Copy, path: str, view: View) -> Iterator[str]:
    """What a file may have been called where a copy took it from; a wildcard cannot be turned back."""
    for source in copy.sources:
        top = view.resolve(posixpath.normpath(source).lstrip("/"))
        entry = view.lookup(top)
        if entry is None:
            continue
        if entry.kind is Kind.DIRECTORY:
            inside = posixpath.relpath(path, copy.destination.strip("/") or ".")
            yield posixpath.normpath(f"{top}/{inside}").lstrip("/")
        elif posixpath.basename(top) == posixpath.basename(path) or len(copy.sources) == 1:
            yield top
