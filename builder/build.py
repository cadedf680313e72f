"""One build, from options to an image: the story on one page."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import TYPE_CHECKING

from builder.arguments import SYNTAX
from builder.caches import Kind
from builder.checks.ruleset import find_all, find_in_beginning, refuse, unknown_names
from builder.checks.settings import Settings, read_settings
from builder.context.named import NamedContexts
from builder.context.remote import Remotes
from builder.context.sources import Contexts
from builder.dockerfile.frontend import refuse_foreign
from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.parser import parse_beginning
from builder.dockerfile.reader import Source
from builder.elsewhere import Elsewhere
from builder.epoch import with_epoch
from builder.errors import Location
from builder.events import Event, Listener, Warned
from builder.export.image import Draft, Packaged
from builder.export.needs import layers_read
from builder.export.outputs import (
    Places,
    all_names,
    deliver,
    full_names,
    refuse_several,
    wants_engine,
    wants_push,
    write_text,
)
from builder.graph import Evaluation, Graph, ImageStart, Stage, StageStart, Start, Surroundings
from builder.images import Images
from builder.options import BuildOptions
from builder.origins import Origins
from builder.planner import StagePlan, plan
from builder.receipt import answered, events_of, is_repeatable, look_back, with_image
from builder.report import Report
from builder.supply import Supply
from builder.survey import Survey
from cache.answers import Answers
from cache.receipts import Receipt
from cache.store import Store
from layers.data import dataclass, replace
from layers.digest import Digest
from layers.entry import SECOND
from layers.errors import PybuildError
from layers.oci import Image, ImageConfig, Platform

if TYPE_CHECKING:
    from builder.sharing import Sharing


Warn = Callable[[str, Location | None, str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What a build made."""

    packaged: Packaged
    names: tuple[str, ...]
    drafts: tuple[Draft, ...]
    """The images before they were squashed or compressed, one for each platform."""
    plans: Mapping[int, StagePlan]
    """What was built, by stage."""
    targets: tuple[StagePlan, ...]
    """Those that became the drafts."""
    receipt: Receipt | None = None
    """All that was looked at, if it can be looked at again."""
    events_if_cached: tuple[Event, ...] = ()
    """What the listener is told when the cache answers all of it."""

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
    if options.iid_file:  # none of an earlier build may stay if this one fails
        with suppress(FileNotFoundError):
            os.unlink(options.iid_file)
    if len(options.targets) > 1:
        refuse_several(options.outputs)
    report = Report(listener, clocks.monotonic)
    with closing(Store(options.root)) as store, ExitStack() as stack:
        if store.note:
            report.warn(store.note)
        supply = Supply(store, report)
        places = _places(options, store, supply, report, stack)
        sharing = _sharing(options, store, supply, report, stack)
        answers = sharing.answers() if sharing else Answers(store.records, store.layout)
        try:
            made = _make(options, store, supply, answers, sharing, stack, report, clocks)
            drafts, plans = made.drafts, made.plans
            packaged = deliver(drafts, names, options.outputs, options.packing, places)
        except PybuildError:
            if sharing:
                sharing.fill(answers, failed=True)
            raise
        finally:
            answers.keep()
        if sharing:
            sharing.fill(answers, failed=False)
        if options.iid_file:
            write_text(options.iid_file, packaged.id)
        if options.metadata_file:
            from builder.export.metadata import metadata_of  # few want it

            write_text(options.metadata_file, metadata_of(packaged, drafts, options))
        receipt = with_image(made.receipt, packaged, names, store) if made.receipt else None
    targets = tuple(plans[target.index] for target in made.graph.targets)
    return Result(packaged, names, drafts, plans, targets, receipt, events_of(made.warnings, answered(plans.values())))


@dataclass(frozen=True, slots=True)
class _Made:
    """Images that are not delivered yet."""

    drafts: tuple[Draft, ...]
    graph: Graph
    plans: Mapping[int, StagePlan]
    warnings: tuple[Warned, ...]
    """What is doubtful in the Dockerfile, whether or not anything is executed."""
    receipt: Receipt | None


def _make(
    options: BuildOptions,
    store: Store,
    supply: Supply,
    answers: Answers,
    sharing: "Sharing | None",
    stack: ExitStack,
    report: Report,
    clocks: Clocks,
) -> _Made:
    """An image for each platform, and what was built for them.

    What is known of the context by then goes with this: it may be much.
    """
    named = NamedContexts(options.contexts)
    remotes = Remotes(store, options.registries, options.environment, report, options.credentials.secrets)
    stack.callback(remotes.close)
    contexts = Contexts(options, named, store, remotes)
    started_ns = clocks.now_ns()
    options, epoch = with_epoch(options, contexts.open)
    clocks = clocks.at(epoch)
    started = clocks.created()
    source = contexts.dockerfile()
    refuse_foreign(source, options.build_args.get(SYNTAX, ""))
    dockerfile = _parsed(source, options, report)
    images = Images(store, named, options.registries, report, supply, pull=options.pull)
    stack.callback(images.close)
    warnings: list[Warned] = []

    def warn(message: str, location: Location | None = None, rule: str = "") -> None:
        warnings.append(Warned(message, location, rule))
        report.warn(message, location, rule)

    graph = _graph(dockerfile, options, images, named, contexts, warn)
    stages = {target.index: _stages_of_image(graph, target) for target in graph.targets}
    if sharing:
        sharing.stages = {stage for chain in stages.values() for stage in chain}
    origins = Origins(store, contexts.open, Elsewhere(remotes, store.files), answers, epoch)
    plans: Mapping[int, StagePlan] = plan(graph, origins, answers, use_cache=options.use_cache)
    contexts.save()
    for title in answered(plans.values()):  # the others are shown while they are solved
        report.cached(title)

    def finish(plans: Mapping[int, StagePlan]) -> tuple[Draft, ...]:
        drafts = []
        for target, platform in zip(graph.targets, options.targets, strict=True):
            start = plans[stages[target.index][-1]].stage.start
            draft = _finish(target, start, platform, plans, clocks, options, dated=epoch is not None)
            if any(place.place.kind is Kind.INLINE for place in options.cache_to):
                draft = replace(draft, facts=answers.facts(stages[target.index]))
            if options.attests:
                from builder.attest.evidence import gather  # not many want it

                image_names, times = all_names(full_names(options.tags), options.outputs), (started, clocks.created())
                told = gather(plans, target.index, options, image_names, source.data, remotes, times)
                draft = replace(draft, evidence=told)
            supply.bring(layers_read(draft, options.outputs, store))
            supply.check(draft.layers)
            drafts.append(draft)
        images.keep()
        return tuple(drafts)

    here = all(_is_here(plans[target.index], store) for target in graph.targets)
    repeatable = epoch is None and is_repeatable(options, store)

    def made(drafts: tuple[Draft, ...], plans: Mapping[int, StagePlan]) -> _Made:
        receipt = look_back(contexts, graph, images, started_ns) if repeatable else None
        return _Made(drafts, graph, plans, tuple(dict.fromkeys(warnings)), receipt)

    if here and all(stage_plan.complete for stage_plan in plans.values()):
        return made(finish(plans), plans)
    # Not at the top: what executes costs more to import than a build that the cache answers takes.
    from builder.completion import Work, complete

    work = Work(
        graph,
        origins,
        images,
        answers,
        supply,
        remotes,
        store,
        report,
        clocks.now_ns,
        clocks.created,
        options.credentials,
        options.backend,
        options.limits,
        options.step_timeout,
        epoch,
        options.compression,
        use_cache=options.use_cache,
        keep_records=options.keep_records,
    )
    drafts, plans = complete(plans, work, finish)
    contexts.save()
    return made(drafts, plans)


def _parsed(source: Source, options: BuildOptions, report: Report) -> Dockerfile:
    """The whole Dockerfile; where it cannot be read, it is said what checks find above that."""
    beginning, error = parse_beginning(source)
    if beginning is not None and error is None:
        return beginning
    assert error is not None
    if beginning is not None:
        survey = Survey(beginning, {}, 0, options.targets[0], options.build_args, {}, {})
        for finding in find_in_beginning(survey, read_settings(source.directives.check, options.build_args)):
            report.warn(finding.detail, finding.location, finding.rule.name)
    raise error


def _graph(
    dockerfile: Dockerfile, options: BuildOptions, images: Images, named: NamedContexts, contexts: Contexts, warn: Warn
) -> Graph:
    """What is to be built, for all platforms; said on the way is what is doubtful in it."""
    settings = read_settings(dockerfile.directives.check, options.build_args)

    def graph_for(platform: Platform) -> Graph:
        surroundings = Surroundings(
            find_image=images.find,
            contexts=named,
            platform=platform,
            build_args=options.build_args,
            labels=options.labels,
            warn=lambda message, location: warn(message, location, ""),
            network=options.network,
            allowed=options.allowed,
            run_settings=options.run_settings,
            fresh=options.fresh_stages,
            names_platforms=len(options.targets) > 1,
        )
        return _checked(Evaluation(dockerfile, options.target, surroundings), settings, contexts, warn)

    graphs = [graph_for(platform) for platform in options.targets]
    return graphs[0] if len(graphs) == 1 else _joined(graphs)


def _joined(graphs: list[Graph]) -> Graph:
    from builder.platforms import joined  # most builds are for one

    return joined(graphs)


def _sharing(options: BuildOptions, store: Store, supply: Supply, report: Report, stack: ExitStack) -> "Sharing | None":
    """The shared caches; None if there are none."""
    if not options.cache_from and not options.cache_to:
        return None
    from builder.sharing import Sharing  # most builds share nothing

    sharing = Sharing(
        options.cache_from if options.use_cache else (),
        options.cache_to,
        platforms=options.targets,
        registries=options.registries,
        store=store,
        supply=supply,
        report=report,
    )
    stack.callback(sharing.close)
    return sharing


def _places(options: BuildOptions, store: Store, supply: Supply, report: Report, stack: ExitStack) -> Places:
    """What outputs need, as long as this process is what the person started: namespaces take rights away."""
    engine = None
    if wants_engine(options.outputs):
        from builder.export.engine import find_engine  # few builds load

        engine = find_engine(options.environment)
        stack.callback(engine.close)
    send = None
    if wants_push(options.outputs, options.tags):
        from builder.export.registry import push_output  # nor do all push

        send = partial(push_output, layout=store.layout, supply=supply, registries=options.registries, report=report)
    return Places(store, report, engine, keep_owners=os.geteuid() == 0, push=send)


def _checked(evaluation: Evaluation, settings: Settings, contexts: Contexts, warn: Warn) -> Graph:
    """The graph, once it has been said what checks find; that is said too where the evaluation fails."""
    try:
        graph = evaluation.graph()
    finally:
        findings = find_all(evaluation.survey(), settings, contexts.is_ignored)
        for finding in findings:
            warn(finding.detail, finding.location, finding.rule.name)
        for sentence in unknown_names(settings):
            warn(sentence, None, "")
    refuse(findings, settings)
    return graph


def _finish(
    target: Stage,
    start: Start,
    platform: Platform,
    plans: Mapping[int, StagePlan],
    clocks: Clocks,
    options: BuildOptions,
    *,
    dated: bool,
) -> Draft:
    """The image of a target that begins with `start`; if it is `dated`, nothing in it is later than the clock."""
    snapshot = plans[target.index].snapshot
    assert snapshot is not None
    base = len(start.base.image.manifest.layers) if isinstance(start, ImageStart) else 0
    now = clocks.created()
    # As with BuildKit, what was asked for goes before what the base image is for.
    config = replace(target.config, platform=platform) if options.platforms else target.config
    config = snapshot.image_config(config, now=now, latest=now if dated else "")
    return Draft(_unset(config, options), snapshot.layers, base)


def _stages_of_image(graph: Graph, target: Stage) -> tuple[int, ...]:
    """The target, the stage that it is FROM, and so on down to the one that begins with an image or nothing."""
    stages = {stage.index: stage for stage in graph.stages}
    chain = [target]
    while isinstance(chain[-1].start, StageStart):
        chain.append(stages[chain[-1].start.stage])
    return tuple(stage.index for stage in chain)


def _is_here(target: StagePlan, store: Store) -> bool:
    """Whether nothing that the image is made of has to come from elsewhere."""
    return target.snapshot is not None and all(store.layout.has(layer.descriptor) for layer in target.snapshot.layers)


def _unset(config: ImageConfig, options: BuildOptions) -> ImageConfig:
    """The configuration without the variables and labels that are not wanted in the end."""
    env = tuple(line for line in config.config.env if line.partition("=")[0] not in options.unset_env)
    labels = {name: text for name, text in config.config.labels.items() if name not in options.unset_labels}
    return config.with_config(env=env, labels=labels)
