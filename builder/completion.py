"""What the plan left open: executed in the namespaces that commands need; and layers brought that are elsewhere."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from builder.bounds import Bounds
from builder.context.remote import Remotes
from builder.credentials import Credentials
from builder.emulation import refuse_strangers
from builder.errors import SandboxError, located
from builder.executor import Executor
from builder.export.image import Draft
from builder.graph import Graph
from builder.images import Images
from builder.origins import Origins
from builder.planner import StagePlan, plan
from builder.report import Report
from builder.sandbox.backend import Backend
from builder.sandbox.choose import entered
from builder.sandbox.process import Limits
from builder.solver import Solver
from builder.steps.run import demands_of
from builder.steps.step import Run, Step
from builder.supply import LostLayersError, Supply
from cache.answers import Answers
from cache.store import Store
from layers.compress import Compression
from layers.data import dataclass
from layers.keeper import Keeper

Plans = Mapping[int, StagePlan]
Drafts = tuple[Draft, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """All that executing needs."""

    graph: Graph
    origins: Origins
    images: Images
    answers: Answers
    supply: Supply
    remotes: Remotes
    store: Store
    report: Report
    now_ns: Callable[[], int]
    created: Callable[[], str]
    """The time as documents of images have it."""
    credentials: Credentials
    backend: str
    """How commands are run: one of `options.BACKENDS`."""
    limits: Limits
    """Of what all processes of a RUN use together."""
    step_timeout: float | None
    """Seconds that a RUN may take."""
    epoch: int | None
    compression: Compression
    """Of the layers that are made."""
    use_cache: bool
    keep_records: bool


def complete(plans: Plans, work: Work, finish: Callable[[Plans], Drafts]) -> tuple[Drafts, Plans]:
    """Do what is left of the plans; `finish` makes the images, and has those of their layers brought that are needed.

    Shared caches may have promised layers that they do not have. This shows when somebody needs them, and then the
    steps that made them are done here after all.
    """
    with ExitStack() as stack:
        backend, bounds, refusal = _entered(plans, work, stack)
        gate = _Gate(backend, refusal, work.report)
        gate.admit(plans)
        work.report.entered()
        work.store.sweep()
        # Trees of the builds before: their bytes are on disk by now, or nearly, so this waits for little.
        settling = threading.Thread(target=work.store.trees.settle, name="settle")
        settling.start()
        stack.callback(settling.join)
        while True:
            try:
                solved = _solve(plans, work, backend, bounds)
                return finish(solved), solved
            except LostLayersError as lost:
                if not lost.expected:
                    work.report.warn(f"{lost.message}: what made them is done again")
                work.answers.reject(lost.blobs)
            plans = plan(work.graph, work.origins, work.answers, use_cache=work.use_cache)
            gate.admit(plans)


class _Gate:
    """What has to hold for commands before any of them runs; asked again once a lost layer has to be made after all."""

    def __init__(self, backend: Backend | None, refusal: SandboxError | None, report: Report) -> None:
        self._backend = backend
        self._refusal = refusal
        self._warning = backend.warning if backend else ""
        self._report = report

    def admit(self, plans: Plans) -> None:
        """SandboxError, with its line, for a command that cannot run here; and the back-end's warning, once."""
        for step in _runs(plans):
            assert isinstance(step.action, Run)
            with located(step.location):
                if self._refusal:
                    raise self._refusal
                assert self._backend is not None
                self._backend.admit(demands_of(step.action))
            if self._warning:
                self._report.warn(self._warning)
                self._warning = ""


def _entered(plans: Plans, work: Work, stack: ExitStack) -> tuple[Backend | None, Bounds | None, SandboxError | None]:
    """The sandbox, if there is something to run, or may be since a shared cache has only promised what it made.

    It may be refused: the error is needed only if something has to run in the end.
    """
    if not work.answers.is_remote:
        refuse_strangers(_runs(plans))
    if not _has_run(plans) and not (work.answers.is_remote and _may_run(work.graph)):
        return None, None, None
    bounds = Bounds(work.limits, work.step_timeout)
    try:
        # While this process is still one thread: the kernel demands it of a new user namespace.
        backend = entered(work.backend, work.store)
    except SandboxError as error:
        return None, bounds, error
    stack.callback(backend.close)
    return backend, bounds, None


def _has_run(plans: Plans) -> bool:
    return any(True for _ in _runs(plans))


def _runs(plans: Plans) -> Iterator[Step]:
    """The steps left in which a command runs."""
    left = (step for stage_plan in plans.values() for step in stage_plan.left())
    return (step for step in left if isinstance(step.action, Run))


def _may_run(graph: Graph) -> bool:
    return any(isinstance(step.action, Run) for stage in graph.stages for step in stage.steps)


def _solve(plans: Plans, work: Work, backend: Backend | None, bounds: Bounds | None) -> dict[int, StagePlan]:
    executor = Executor(
        work.store, backend, work.report, work.now_ns, work.credentials, work.epoch, bounds, work.compression
    )
    keeper = Keeper(work.store.layout)
    try:
        work.remotes.check_cancelled = work.supply.check_cancelled = executor.check_cancelled
        solver = Solver(
            work.graph,
            work.origins,
            work.images,
            work.answers,
            work.store,
            executor,
            keeper,
            work.report,
            work.created,
            use_cache=work.use_cache,
            keep_records=work.keep_records,
        )
        return solver.solve(plans)
    finally:
        keeper.close()
        work.supply.check_cancelled = lambda: None
        executor.close()
