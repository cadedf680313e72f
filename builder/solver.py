"""Executes what the plan left open: one thread for each stage, so that independent stages run at the same time.

The next step of a stage begins while the layer of the one before is brought to the disk. Its record, and the end of its
lock, wait for that; and so does the stage before others get it.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from builder.bindings import Finished
from builder.errors import CancelledError, ContextError, Location, located
from builder.events import Job
from builder.executor import Executor, Made
from builder.graph import Graph, ImageStart, Stage, StageStart
from builder.images import Images
from builder.origins import Origins, Selection
from builder.planner import Lookup, StagePlan, look_up, start_of
from builder.report import Report
from builder.snapshot import Snapshot
from builder.steps.step import Action, Copy, FromStage, Run, Step, origins_of
from cache.answers import Answers
from cache.records import Record
from cache.store import Store
from layers.compress import Compression
from layers.digest import Digest, canonical_json
from layers.keeper import Keeper
from layers.layer import Layer
from layers.outcome import Outcome


class Solver:
    """Solves one graph. A stage waits for those that it needs; the first failure ends all."""

    def __init__(
        self,
        graph: Graph,
        origins: Origins,
        images: Images,
        answers: Answers,
        store: Store,
        executor: Executor,
        keeper: Keeper,
        report: Report,
        now: Callable[[], str],
        *,
        use_cache: bool,
        keep_records: bool = True,
    ) -> None:
        self._graph = graph
        self._origins = origins
        self._images = images
        self._answers = answers
        self._store = store
        self._executor = executor
        self._keeper = keeper
        self._report = report
        self._now = now
        self._cached = {stage.index for stage in graph.stages if use_cache and stage.use_cache}
        self._keep_records = keep_records
        self._ends: dict[int, Outcome[Snapshot]] = {}
        self._ended: SimpleQueue[Outcome[Snapshot]] = SimpleQueue()
        """Those of the stages that are done, or have failed, in their order."""
        self._made: dict[tuple[Digest, Location], Record] = {}
        """What this build did, by key and instruction."""

    def solve(self, plans: Mapping[int, StagePlan]) -> dict[int, StagePlan]:
        """The plans, all of them complete now; raises what the first stage to fail raised."""
        self._ends = {stage.index: Outcome() for stage in self._graph.stages}
        threads = [
            threading.Thread(target=self._run, args=(plans[stage.index],), name=f"stage {stage.index}")
            for stage in self._graph.stages
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                error = self._ended.get().exception()
                if error is not None and not isinstance(error, CancelledError):
                    raise error
        finally:
            self._executor.cancel()
            for thread in threads:
                thread.join()
        return {
            stage.index: StagePlan(stage, self._ends[stage.index].result(), len(stage.steps))
            for stage in self._graph.stages
        }

    def _run(self, plan: StagePlan) -> None:
        end = self._ends[plan.stage.index]
        try:
            end.set_result(self._solve_stage(plan))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the stage raises it again
            end.set_exception(error)
        self._ended.put(end)

    def _solve_stage(self, plan: StagePlan) -> Snapshot:
        stage, snapshot = plan.stage, plan.snapshot
        if plan.complete and snapshot is not None:
            return snapshot
        if isinstance(stage.start, ImageStart):
            with located(stage.start.location):
                self._begin(stage.start, plan)
        for title in plan.hits():
            self._report.cached(title)
        if snapshot is None:
            snapshot = self._start(stage)
        with _Unkept() as unkept:
            for step in plan.left():
                if step.action is None:
                    snapshot = snapshot.after_metadata(step.created_by)
                    continue
                unkept.check()
                with located(step.location):
                    snapshot = self._solve_step(stage.index, step, step.action, snapshot, unkept)
        return snapshot

    def _start(self, stage: Stage) -> Snapshot:
        """What a stage begins with whose parent stage was not finished when the plan was made."""
        assert isinstance(stage.start, StageStart)
        start = start_of(stage, {stage.start.stage: self._ends[stage.start.stage].result()})
        assert start is not None
        return start

    def _begin(self, start: ImageStart, plan: StagePlan) -> None:
        """Bring what the first step needs of the base image, if it is certain that it will be done."""
        first = next((step.action for step in plan.left() if step.action is not None), None)
        waits = first is None or any(isinstance(origin, FromStage) for origin in origins_of(first))
        if waits or (isinstance(first, Copy) and first.link):
            self._report.cached(start.title)
        else:
            runs = isinstance(first, Run)
            self._images.fetch(start.base, start.title, to_read=runs, to_stand_on=runs and self._executor.unpacks)

    def _solve_step(self, stage: int, step: Step, action: Action, snapshot: Snapshot, unkept: "_Unkept") -> Snapshot:
        stages = {origin.stage for origin in origins_of(action) if isinstance(origin, FromStage)}
        finished = {stage: self._ends[stage].result() for stage in stages}
        self._executor.check_cancelled()
        with self._report.running(step.title) as job:
            for origins in (self._origins, self._origins.renewed()):
                record = self._known(stage, action, snapshot, finished, origins)
                if record is not None:
                    self._report.found_cached(job)
                else:
                    record = self._make(stage, step, action, snapshot, origins.select(action, finished), job, unkept)
                if record is not None:
                    return snapshot.after_layer(step.created_by, record.layer, record.created)
        raise ContextError(
            "files of the build context change while they are read",
            hint="stop what writes there, or list it in .dockerignore",
        )

    def _known(
        self, stage: int, action: Action, snapshot: Snapshot, finished: Finished, origins: Origins
    ) -> Record | None:
        """The record of a step of which it is known what it reads, without reading it: that may be far away."""
        material = origins.known_material(action, finished) if stage in self._cached else None
        return None if material is None else self._answers.find(look_up(action, snapshot, material).key, stage)

    def _make(
        self,
        stage: int,
        step: Step,
        action: Action,
        snapshot: Snapshot,
        selection: Selection,
        job: Job,
        unkept: "_Unkept",
    ) -> Record | None:
        """The record of a step, from the cache or by doing it; None if the context changed meanwhile.

        What an instruction does for several platforms in the same way is done once, also without the cache.
        """
        lookup = look_up(action, snapshot, selection.material)
        # Another build may be at the same step: it is waited for, and what it made is shared.
        with ExitStack() as locked:
            locked.enter_context(self._store.lock(lookup.key, waiting=self._executor.check_cancelled))
            record = self._answers.find(lookup.key, stage) if stage in self._cached else None
            record = record or self._made.get((lookup.key, step.location))
            if record is not None:
                self._report.found_cached(job)
                return record
            started = self._report.clock()
            unchanged = partial(self._origins.unchanged, action, selection)
            made = self._executor.execute(action, snapshot, selection, job, unchanged)
            if made is None:
                return None
            record = _record(lookup, snapshot, made.layer, self._now(), self._report.clock() - started)
            self._made[lookup.key, step.location] = record
            kept = self._keeper.keep(made.blob, partial(self._keep, made, record, stage), locked.pop_all())
            unkept.add(step.location, kept)
            return record

    def _keep(self, made: Made, record: Record, stage: int) -> None:
        """Keep what else is known of a layer, which is on disk now."""
        self._store.keep_index(made.layer.diff_id, made.index)
        if Compression.of(made.layer.descriptor.media_type) is not Compression.GZIP:
            from cache import packs  # few outputs want another one

            packs.keep_direct(made.layer, self._store)
        self._answers.add(record, stage, keep=self._keep_records)


class _Unkept:
    """The layers of a stage that are not known to be on disk yet. At the end of the block all of them are."""

    def __init__(self) -> None:
        self._kept: deque[tuple[Location, Outcome[None]]] = deque()

    def add(self, location: Location, kept: Outcome[None]) -> None:
        """One more, and the instruction that made it."""
        self._kept.append((location, kept))

    def check(self) -> None:
        """Raise what went wrong with those that are not awaited any more."""
        while self._kept and self._kept[0][1].done():
            self._await_first()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error:
            for _, kept in self._kept:
                kept.exception()
        while self._kept and not error:
            self._await_first()

    def _await_first(self) -> None:
        location, kept = self._kept.popleft()
        with located(location):
            kept.result()


def _record(lookup: Lookup, snapshot: Snapshot, layer: Layer, created: str, seconds: float) -> Record:
    return Record(
        key=lookup.key,
        operation=lookup.operation,
        parent=snapshot.chain,
        material=canonical_json(lookup.material),
        layer=layer,
        created=created,
        seconds=seconds,
    )
