"""One build, from options to an image: the story on one page."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from builder.arguments import SYNTAX
from builder.checks.ruleset import find_all, refuse, unknown_names
from builder.checks.settings import Settings, read_settings
from builder.context.named import NamedContexts
from builder.context.remote import Remotes
from builder.context.sources import Contexts
from builder.dockerfile.frontend import refuse_foreign
from builder.dockerfile.parser import parse
from builder.elsewhere import Elsewhere
from builder.epoch import SECOND, with_epoch
from builder.events import Listener
from builder.export.image import Draft, Packaged
from builder.export.outputs import Places, deliver, full_names, wants_engine, wants_push, write_text
from builder.graph import Evaluation, Graph, ImageStart, StageStart, Surroundings
from builder.images import Images
from builder.options import BuildOptions
from builder.origins import Origins
from builder.planner import StagePlan, plan
from builder.report import Report
from builder.steps.step import Run
from cache.store import Store
from layers.digest import Digest
from layers.oci import Image, ImageConfig


@dataclass(frozen=True, slots=True)
class Result:
    """What a build made."""

    packaged: Packaged
    names: tuple[str, ...]
    drafts: tuple[Draft, ...]
    """The images before they were squashed or compressed, one for each platform."""
    plans: Mapping[int, StagePlan]
    """What was built, by stage; the last one is the target."""

    @property
    def target(self) -> StagePlan:
        return list(self.plans.values())[-1]

    @property
    def image(self) -> Image:
        """The image; of several the first."""
        return self.packaged.image

    @property
    def image_id(self) -> Digest:
        """What Docker calls the image's id: the digest of the configuration, or of an index of several images."""
        return self.packaged.id


@dataclass(frozen=True, slots=True)
class Clocks:
    """The two clocks of a build."""

    monotonic: Callable[[], float]
    """Seconds, for how long things take."""
    now_ns: Callable[[], int]
    """Nanoseconds since 1970, for what goes into the image."""

    def created(self) -> str:
        """The time as documents of images have it: RFC 3339, in UTC."""
        seconds, nanoseconds = divmod(self.now_ns(), 1_000_000_000)
        fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"

    def at(self, epoch: int | None) -> "Clocks":
        """The same, but with a time for the image that stands still; None changes nothing."""
        return self if epoch is None else Clocks(self.monotonic, lambda: epoch * SECOND)


def build(options: BuildOptions, listener: Listener, clocks: Clocks) -> Result:
    """Build what the options ask for and put it where they say; PybuildError says what is wrong.

    Whatever happens, the store is valid, and what finished is in the cache.
    """
    names = full_names(options.tags)
    report = Report(listener, clocks.monotonic)
    with closing(Store(options.root)) as store, ExitStack() as stack:
        if store.note:
            report.warn(store.note)
        places = _places(options, store, report, stack)
        draft, plans = _make(options, store, stack, report, clocks)
        packaged = deliver([draft], names, options.outputs, options.packing, places)
        if options.iid_file:
            write_text(options.iid_file, packaged.id)
    return Result(packaged, names, (draft,), plans)


def _make(
    options: BuildOptions, store: Store, stack: ExitStack, report: Report, clocks: Clocks
) -> tuple[Draft, Mapping[int, StagePlan]]:
    """The image, and what was built for it. What is known of the context by then goes with this: it may be much."""
    named = NamedContexts(options.contexts)
    remotes = Remotes(store, options.registries, options.environment, report)
    stack.callback(remotes.close)
    contexts = Contexts(options, named, store, remotes)
    options, epoch = with_epoch(options, contexts.open)
    clocks = clocks.at(epoch)
    source = contexts.dockerfile()
    refuse_foreign(source, options.build_args.get(SYNTAX, ""))
    dockerfile = parse(source)
    images = Images(store, named, options.registries, options.platform, report, pull=options.pull)
    stack.callback(images.close)
    evaluation = Evaluation(
        dockerfile,
        options.target,
        Surroundings(
            find_image=images.find,
            contexts=named,
            platform=options.platform,
            build_args=options.build_args,
            labels=options.labels,
            warn=report.warn,
            network=options.network,
            allowed=options.allowed,
            run_settings=options.run_settings,
        ),
    )
    graph = _checked(evaluation, read_settings(dockerfile.directives.check, options.build_args), contexts, report)
    origins = Origins(store, options.platform, contexts.open, Elsewhere(remotes, store.files), epoch)
    plans = plan(graph, origins, store.records, use_cache=options.use_cache)
    contexts.save()
    _announce(plans.values(), report)
    if not all(stage_plan.complete for stage_plan in plans.values()):
        plans = _solve(graph, plans, origins, images, remotes, store, report, clocks, options, epoch)
        contexts.save()
    return _finish(graph, plans, images, clocks, options, dated=epoch is not None), plans


def _places(options: BuildOptions, store: Store, report: Report, stack: ExitStack) -> Places:
    """What outputs need, as long as this process is what the person started: namespaces take rights away."""
    engine = None
    if wants_engine(options.outputs):
        from builder.export.engine import find_engine  # few builds load

        engine = find_engine(options.environment)
        stack.callback(engine.close)
    send = None
    if wants_push(options.outputs, options.tags):
        from builder.export.registry import push_output  # nor do all push

        send = partial(push_output, layout=store.layout, registries=options.registries, report=report)
    return Places(store, report, engine, keep_owners=os.geteuid() == 0, push=send)


def _checked(evaluation: Evaluation, settings: Settings, contexts: Contexts, report: Report) -> Graph:
    """The graph, once it has been said what checks find; that is said too where the evaluation fails."""
    try:
        graph = evaluation.graph()
    finally:
        findings = find_all(evaluation.survey(), settings, contexts.is_ignored)
        for finding in findings:
            report.warn(finding.detail, finding.location, finding.rule.name)
        for sentence in unknown_names(settings):
            report.warn(sentence)
    refuse(findings, settings)
    return graph


def _announce(plans: Iterable[StagePlan], report: Report) -> None:
    """Show the stages that the cache answered as a whole; the others are shown while they are solved."""
    for stage_plan in plans:
        if stage_plan.complete:
            if isinstance(stage_plan.stage.start, ImageStart):
                report.cached(stage_plan.stage.start.title)
            for title in stage_plan.hits():
                report.cached(title)


def _solve(
    graph: Graph,
    plans: Mapping[int, StagePlan],
    origins: Origins,
    images: Images,
    remotes: Remotes,
    store: Store,
    report: Report,
    clocks: Clocks,
    options: BuildOptions,
    epoch: int | None,
) -> dict[int, StagePlan]:
    """Execute what is left, in the namespaces that RUN needs if there is a RUN left."""
    # Not at the top: what executes costs more to import than a build that the cache answers takes.
    from builder.executor import Executor
    from builder.solver import Solver

    with ExitStack() as stack:
        backend = bounds = None
        if any(isinstance(step.action, Run) for stage_plan in plans.values() for step in stage_plan.left()):
            from builder.bounds import Bounds
            from builder.sandbox.backend import choose

            backend = choose()
            stack.callback(backend.close)
            bounds = Bounds(options.limits, options.step_timeout)
            # While this process is still one thread: the kernel demands it of a new user namespace.
            backend.enter()
            if backend.warning:
                report.warn(backend.warning)
        report.entered()
        store.sweep()
        executor = Executor(store, backend, report, clocks.now_ns, options.credentials, epoch, bounds)
        stack.callback(executor.close)
        remotes.check_cancelled = executor.check_cancelled
        solver = Solver(
            graph,
            origins,
            images,
            store,
            executor,
            report,
            clocks.created,
            use_cache=options.use_cache,
            keep_records=options.keep_records,
        )
        # Trees of the builds before: their bytes are on disk by now, or nearly, so this waits for little.
        settling = threading.Thread(target=store.trees.settle, name="settle")
        settling.start()
        stack.callback(settling.join)
        return solver.solve(plans)


def _finish(
    graph: Graph,
    plans: Mapping[int, StagePlan],
    images: Images,
    clocks: Clocks,
    options: BuildOptions,
    *,
    dated: bool,
) -> Draft:
    """The target's image, its layers in the store; if it is `dated`, nothing in it is later than the clock."""
    stage = graph.target
    snapshot = plans[stage.index].snapshot
    assert snapshot is not None
    while isinstance(stage.start, StageStart):
        stage = plans[stage.start.stage].stage
    base = 0
    if isinstance(stage.start, ImageStart):
        images.require(stage.start.base, stage.start.title)
        base = len(stage.start.base.image.manifest.layers)
    now = clocks.created()
    config = snapshot.image_config(graph.target.config, now=now, latest=now if dated else "")
    return Draft(_unset(config, options), snapshot.layers, base)


def _unset(config: ImageConfig, options: BuildOptions) -> ImageConfig:
    """The configuration without the variables and labels that are not wanted in the end."""
    env = tuple(line for line in config.config.env if line.partition("=")[0] not in options.unset_env)
    labels = {name: text for name, text in config.config.labels.items() if name not in options.unset_labels}
    return config.with_config(env=env, labels=labels)
