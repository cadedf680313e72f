"""`--call`: answers about a Dockerfile that need no build: what checks find, what can be set, what can be built."""

from contextlib import ExitStack, closing

from builder.arguments import SYNTAX
from builder.build import Clocks
from builder.call.check import Checked, check_answer
from builder.call.outline import outline_answer
from builder.call.targets import targets_answer
from builder.checks.ruleset import find_all, refuse
from builder.checks.settings import read_settings
from builder.context.named import NamedContexts
from builder.context.remote import Remotes
from builder.context.sources import Contexts
from builder.dockerfile.frontend import refuse_foreign
from builder.dockerfile.parser import parse, parse_beginning
from builder.dockerfile.reader import Source
from builder.dockerfile.suggest import closest
from builder.errors import DockerfileError, UsageError
from builder.events import Listener
from builder.graph import Evaluation, Surroundings
from builder.images import Images
from builder.options import BuildOptions
from builder.report import Report
from builder.supply import Supply
from cache.store import Store
from layers.data import dataclass, replace

BUILD = "build"
_METHODS = {"build": "build", "check": "check", "lint": "check", "outline": "outline", "targets": "targets"}


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of a Dockerfile."""

    method: str
    """build, check, outline or targets."""
    json: bool = False
    ignore_status: bool = False
    """End with 0 whatever checks find."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the person gets."""

    text: str
    status: int = 0


def parse_call(text: str) -> Call:
    """`METHOD[,format=json|text][,ignorestatus=true]`, as buildx has it; UsageError for anything else."""
    name, *options = text.split(",")
    method = _METHODS.get(name)
    if method is None:
        near = closest(name, _METHODS)
        raise UsageError(
            f"--call={text}: there is no method {name!r}",
            hint=f"did you mean {near}?" if near else "there are build, check, outline and targets",
        )
    call = Call(method)
    for option in options:
        if option in {"format=json", "format=text"}:
            call = replace(call, json=option.endswith("json"))
        elif option in {"ignorestatus", "ignorestatus=true", "ignorestatus=false"}:
            call = replace(call, ignore_status=not option.endswith("false"))
        else:
            raise UsageError(f"--call={text}: {option!r} is unknown", hint="there are format=json and ignorestatus")
    return call


def answer(call: Call, options: BuildOptions, listener: Listener, clocks: Clocks) -> Answer:
    """Answer a call other than build. Nothing is built, and no layer of any image is fetched."""
    with closing(Store(options.root)) as store, ExitStack() as stack:
        surroundings, contexts = _surroundings(options, store, Report(listener, clocks.monotonic), stack)
        source = contexts.dockerfile()
        refuse_foreign(source, options.build_args.get(SYNTAX, ""))
        if call.method == "targets":
            return Answer(targets_answer(parse(source), json=call.json))
        if call.method == "outline":
            evaluation = Evaluation(parse(source), options.target, surroundings)
            error = evaluation.look_through(everything=False)
            if error:
                raise error
            return Answer(outline_answer(evaluation.survey(), json=call.json))
        checked = _check(source, options, surroundings, contexts)
    status = 0 if call.ignore_status or not (checked.findings or checked.error) else 1
    return Answer(check_answer(checked, json=call.json), status)


def _check(source: Source, options: BuildOptions, surroundings: Surroundings, contexts: Contexts) -> Checked:
    """Check the target with what it needs, or without a target all stages, and as far as errors let one see."""
    dockerfile, syntax_error = parse_beginning(source)
    if dockerfile is None:
        return Checked(source, (), syntax_error)
    settings = read_settings(source.directives.check, options.build_args)
    evaluation = Evaluation(dockerfile, options.target, surroundings)
    error = evaluation.look_through(everything=not options.target)
    findings = find_all(evaluation.survey(), settings, contexts.is_ignored)
    contexts.save()
    try:
        refuse(findings, settings)
    except DockerfileError as refusal:
        error = error or refusal
    return Checked(source, findings, syntax_error or error)


def _surroundings(
    options: BuildOptions, store: Store, report: Report, stack: ExitStack
) -> tuple[Surroundings, Contexts]:
    """What evaluations depend on beside the Dockerfile; `stack` closes it."""
    named = NamedContexts(options.contexts)
    images = Images(store, named, options.registries, report, Supply(store, report), pull=options.pull)
    stack.callback(images.close)
    remotes = Remotes(store, options.registries, options.environment, report, options.credentials.secrets)
    stack.callback(remotes.close)
    surroundings = Surroundings(
        find_image=images.find,
        contexts=named,
        platform=options.targets[0],
        build_args=options.build_args,
        labels=options.labels,
        warn=report.warn,
        builds=False,
    )
    return surroundings, Contexts(options, named, store, remotes)
