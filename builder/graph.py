"""From a parsed Dockerfile to the stages and steps that the target needs, with everything expanded.

Nothing is executed here, but base images are looked up: their environment, working directory and triggers decide what
the instructions mean.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from builder.arguments import CONTROL_ARGUMENTS, PROXY_ARGUMENTS, global_arguments
from builder.context.named import NamedContexts, full_name
from builder.dockerfile.instructions import Copy, Dockerfile, From, Instruction, StageText
from builder.dockerfile.parser import parse_trigger
from builder.dockerfile.suggest import closest
from builder.dockerfile.words import expand_word
from builder.errors import DockerfileError, Location, located
from builder.evaluation.instruction import evaluate
from builder.evaluation.run import ENTITLEMENTS
from builder.evaluation.stage_state import DEFAULT_PATH, WINDOWS, Reading, Scope, StageState
from builder.steps.step import Base, FromContext, FromImage, FromStage, Origin, RunSettings, Step
from builder.survey import Survey, SurveyedStage
from layers.data import dataclass, field, replace
from layers.errors import ImageError, PybuildError
from layers.oci import ImageConfig, Platform, RunConfig
from layers.registry.reference import Reference

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class ScratchStart:
    """A stage that begins with nothing."""


@dataclass(frozen=True, slots=True)
class ImageStart:
    """A stage that begins with an image."""

    base: Base
    platform: Platform
    """What the FROM asks for."""
    title: str
    """As the progress shows it."""
    location: Location
    """Of the FROM."""


@dataclass(frozen=True, slots=True)
class StageStart:
    """A stage that goes on from another one."""

    stage: int


@dataclass(frozen=True, slots=True)
class UnknownStart:
    """A stage that begins with an image which is not to be found; a survey goes on without it."""

    error: ImageError


Start = ScratchStart | ImageStart | StageStart | UnknownStart


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage that the target needs."""

    index: int
    """Its place in the Dockerfile, from 0."""
    start: Start
    steps: tuple[Step, ...]
    config: ImageConfig
    """As it is at the end; layers and history come from the steps."""
    use_cache: bool = True
    """Whether the cache may answer its steps, if it may answer any."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The stages that are needed, each after all that it needs."""

    stages: tuple[Stage, ...]
    targets: tuple[Stage, ...]
    """What is wanted, for each platform in turn; for several it may be the same."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a graph depends on beside the Dockerfile."""

    find_image: Callable[[str, Platform], Base]
    contexts: NamedContexts
    """What --build-context gives a name to: that goes before stages."""
    platform: Platform
    """What is built for."""
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    warn: Callable[[str, Location | None], None]
    network: str = "default"
    """Of a RUN that does not say which."""
    allowed: frozenset[str] = frozenset()
    """What --allow names."""
    run_settings: RunSettings = field(default_factory=RunSettings)
    fresh: frozenset[str] = frozenset()
    """Names of stages that the cache does not answer, in lower case."""
    builds: bool = True
    """False if nothing will be built: then images are needed for what they say of themselves, and only as bases."""
    names_platforms: bool = False
    """Whether titles say for which platform a step is."""


def _target_index(stages: tuple[StageText, ...], target: str) -> int:
    if not target:
        return len(stages) - 1
    names = [stage.name for stage in stages]
    if target.lower() in names:
        return len(names) - 1 - names[::-1].index(target.lower())
    near = closest(target.lower(), [name for name in names if name])
    hint = f"did you mean {near}?" if near else "stages with a name: " + (", ".join(filter(None, names)) or "none")
    raise DockerfileError(f'target stage "{target}" could not be found', hint=hint)


class Evaluation:
    """Evaluates stages on demand. Stages refer to earlier ones only, so there are no circles."""

    def __init__(self, dockerfile: Dockerfile, target: str, surroundings: Surroundings) -> None:
        """`target` is the name of a stage; "" is the last one."""
        self._dockerfile = dockerfile
        self._texts = dockerfile.stages
        self._target = _target_index(dockerfile.stages, target)
        self._escape = dockerfile.directives.escape
        self._surroundings = surroundings
        self._globals = self._global_arguments(surroundings.build_args)
        self._states: dict[int, StageState] = {}
        self._starts: dict[int, Start] = {}
        self._readings: dict[int, list[Reading]] = {}
        self._wanted: list[int] = []
        self._consumed = {name for arg in dockerfile.global_args for name in (d.name for d in arg.declarations)}

    def graph(self) -> Graph:
        """The target, and the stages that it needs, in the order of the file."""
        self._look_over()
        self._reach(self._target)
        self._warn_of_unused()
        *earlier, last = (self._stage(index) for index in sorted(self._states))
        labels = {**last.config.config.labels, **self._surroundings.labels}
        target = replace(last, config=last.config.with_config(labels=labels))
        return Graph((*earlier, target), (target,))

    def look_through(self, *, everything: bool) -> PybuildError | None:
        """Evaluate the target and what it needs, or all stages, and go on where one fails; the first error."""
        first = None
        for index in range(len(self._texts)) if everything else [self._target]:
            try:
                self._reach(index)
            except PybuildError as error:
                first = first or error
        return first

    def survey(self) -> Survey:
        """What was seen, however far the evaluation came."""
        try:
            defaults = self._global_arguments({})
        except DockerfileError:  # ARG NAME=${NAME:?}, which has to be given
            defaults = self._globals
        return Survey(
            dockerfile=self._dockerfile,
            stages={index: self._surveyed(index) for index in sorted(self._readings)},
            target=self._target,
            platform=self._surroundings.platform,
            build_args=self._surroundings.build_args,
            global_args=self._globals,
            default_args=defaults,
        )

    def _global_arguments(self, build_args: Mapping[str, str]) -> dict[str, str]:
        target = self._texts[self._target].name
        platform = self._surroundings.platform
        return global_arguments(self._dockerfile.global_args, build_args, platform, target, self._escape)

    def _surveyed(self, index: int) -> SurveyedStage:
        start = self._starts[index]
        return SurveyedStage(
            text=self._texts[index],
            parent=start.stage if isinstance(start, StageStart) else None,
            base=start.base.image.config.platform if isinstance(start, ImageStart) else None,
            is_base_known=not isinstance(start, UnknownStart),
            readings=tuple(self._readings[index]),
        )

    def _reach(self, target: int) -> None:
        """Evaluate a stage with all that it needs."""
        self._wanted.append(target)
        while self._wanted:
            chain = self._chain(self._wanted.pop())
            for index in reversed(chain):
                self._evaluate(index)

    def _chain(self, index: int) -> list[int]:
        """The stage, the one that it starts from, and so on, as far as they are not evaluated yet."""
        chain = []
        while index not in self._states:
            chain.append(index)
            start = self._starts[index] = self._start(index)
            if not isinstance(start, StageStart):
                break
            index = start.stage
        return chain

    def _look_over(self) -> None:
        """Refuse what cannot be a base or a source, in stages that nobody needs too, as BuildKit does."""
        copies: list[dict[int, Copy]] = []
        for index, text in enumerate(self._texts):
            with located(text.from_.location):
                image, _ = self._named_base(index)
                if not self._known_start(image, index) and not self._surroundings.contexts.is_named(image):
                    Reference.parse(image)
            copies.append(self._copies_between(index))
        for index, sources in enumerate(copies):
            for source, copy in sources.items():
                with located(copy.location):
                    if source == index:
                        self._refuse_later_stage(copy.from_, index)
                    if index in _leads_to(source, copies):
                        raise DockerfileError(
                            f"circular dependency detected on stage: {self._texts[index].name or index}",
                            hint="a stage copies only from stages above it",
                            span=f"from={copy.from_}",
                        )

    def _copies_between(self, index: int) -> dict[int, Copy]:
        """The stages that a stage copies from, be they later ones, with the instructions that do."""
        copies: dict[int, Copy] = {}
        for instruction in self._texts[index].instructions:
            if isinstance(instruction, Copy) and instruction.from_:
                with located(instruction.location):
                    source = self._source(instruction.from_, index, len(self._texts))
                if source is not None:
                    copies.setdefault(source, instruction)
        return copies

    def _source(self, name: str, index: int, end: int) -> int | None:
        """The stage before `end` that COPY --from=`name` in a stage means, if it is one."""
        if self._surroundings.contexts.is_named(name):
            return None
        stage = self._stage_named(name, before=index)
        if stage is None:
            stage = self._stage_named(name, before=end)
        if stage is None and re.fullmatch("[+-]?[0-9]+", name):
            stage = self._stage_numbered(int(name), index, end)
        return stage

    def _named_base(self, index: int) -> tuple[str, Platform]:
        """What a FROM names, and the platform that it wants."""
        text = self._texts[index].from_
        image = expand_word(text.image, self._globals.get, self._escape)
        platform = self._platform_of(text)
        if not image:
            raise DockerfileError(
                f"base name ({text.image}) should not be blank",
                hint=self._near_argument(text.image) or "an ARG before the first FROM gives the variable a value",
                span=text.image,
            )
        return image, platform

    def _known_start(self, image: str, index: int) -> Start | None:
        """The start for which no image is looked for: an earlier stage, even one that is called scratch, or nothing."""
        if self._surroundings.contexts.is_named(image):
            return None
        stage = self._stage_named(image, before=index)
        if stage is not None:
            return StageStart(stage)
        return ScratchStart() if image == SCRATCH else None

    def _start(self, index: int) -> Start:
        text = self._texts[index].from_
        with located(text.location):
            image, platform = self._named_base(index)
            self._refuse_files(image, text.image)
            known = self._known_start(image, index)
            if known:
                return known
            try:
                base = self._find_image(image, platform, index)
            except ImageError as error:
                if self._surroundings.builds:
                    raise
                Reference.parse(image)  # what is no name is an error in any case
                return UnknownStart(error)
            self._refuse_windows(base, text.image)
        return ImageStart(base, platform, f"FROM {base.name}@{base.image.descriptor.digest}", text.location)

    def _refuse_files(self, name: str, written: str) -> None:
        if self._surroundings.contexts.has_files(name):
            raise DockerfileError(
                f"FROM {name}: --build-context makes {name} a folder of files, and a stage begins with an image",
                hint="COPY --from takes its files; docker-image://NAME and oci-layout://DIR are contexts for FROM",
                span=written,
            )

    def _refuse_windows(self, base: Base, written: str) -> None:
        system = base.image.config.platform.os
        if self._surroundings.builds and system != "linux":
            raise DockerfileError(
                f"{base.name} is an image for {system}: pybuild builds on images for linux",
                hint="from scratch it makes images for any system",
                span=written,
            )

    def _platform_of(self, text: From) -> Platform:
        """What a FROM asks for."""
        wanted = expand_word(text.platform, self._globals.get, self._escape)
        if text.platform and not wanted:
            raise DockerfileError(
                f"empty platform value from expression {text.platform}",
                hint=self._near_argument(text.platform),
                span=text.platform,
            )
        return Platform.parse(wanted) if wanted else self._surroundings.platform

    def _near_argument(self, text: str) -> str:
        """Which argument may be meant by a variable in the text that is not defined."""
        near: list[str | None] = []

        def look_up(name: str) -> str | None:
            if name not in self._globals:
                near.append(closest(name, self._globals))
            return self._globals.get(name)

        expand_word(text, look_up, self._escape)
        return next((f"did you mean ${name}?" for name in near if name), "")

    def _find_image(self, name: str, platform: Platform, index: int) -> Base:
        """An image that a stage names; where there is none, the error tells of a stage that may be meant."""
        try:
            return self._surroundings.find_image(name, platform)
        except ImageError as error:
            near = closest(name, [text.name for text in self._texts[:index] if text.name])
            error.span = error.span or name
            if near:
                error.hint = f"did you mean the stage {near}?" + (f" Otherwise: {error.hint}" if error.hint else "")
            raise

    def _stage_named(self, name: str, before: int) -> int | None:
        """The last stage of that name before a place; later ones and the stage itself cannot be meant."""
        names = [stage.name for stage in self._texts[:before]]
        wanted = name.lower()
        return len(names) - 1 - names[::-1].index(wanted) if wanted in names else None

    def _evaluate(self, index: int) -> None:
        text = self._texts[index]
        state = self._initial_state(index)
        scope = Scope(
            build_args=self._surroundings.build_args,
            global_args=self._globals,
            origin=lambda name: self._origin(name, index),
            warn=self._surroundings.warn,
            network=self._surroundings.network,
            allowed=self._surroundings.allowed if self._surroundings.builds else ENTITLEMENTS,
            run_settings=self._surroundings.run_settings,
        )
        self._readings[index] = state.readings
        triggers = state.config.config.on_build
        state.config = state.config.with_config(on_build=())
        instructions: list[Instruction] = []
        for trigger in triggers:
            with located(text.from_.location):
                instructions.append(parse_trigger(trigger, text.from_.location))
        for instruction in (*instructions, *text.instructions):
            with located(instruction.location):
                state.begin_reading(instruction)
                evaluate(instruction, state, scope)
        self._consumed |= {name for name, _ in state.arguments}
        self._states[index] = state

    def _initial_state(self, index: int) -> StageState:
        start = self._starts[index]
        if isinstance(start, StageStart):
            return self._states[start.stage].continued()
        if isinstance(start, ImageStart):
            config = replace(start.base.image.config, diff_ids=(), history=(), created="")
            return StageState.begin(config, self._escape)
        platform = self._surroundings.platform
        path = () if platform.os == WINDOWS else (f"PATH={DEFAULT_PATH}",)
        return StageState.begin(ImageConfig(platform, RunConfig(env=path, working_dir="/")), self._escape)

    def _origin(self, name: str, index: int) -> Origin:
        """What COPY --from=`name` in a stage means: a named context, a stage by name or number, or an image."""
        if not name:
            return FromContext()
        if self._surroundings.contexts.has_files(name):
            return FromContext(full_name(name))
        if not self._surroundings.contexts.is_named(name):
            stage = self._source(name, index, index)
            if stage is not None and self._surroundings.contexts.is_named(self._texts[stage].name):
                return self._origin(self._texts[stage].name, index)
            if stage is not None:
                self._wanted.append(stage)
                return FromStage(stage)
            self._refuse_later_stage(name, index)
        if not self._surroundings.builds:
            return FromContext()  # nothing is copied
        return FromImage(self._find_image(name, self._surroundings.platform, index))

    def _stage_numbered(self, number: int, index: int, end: int) -> int:
        if not 0 <= number < end:
            raise DockerfileError(
                f"invalid from flag value {number}: stage {number} does not come before this one",
                hint=f"stages are counted from 0; this is stage {index}",
                span=f"from={number}",
            )
        return number

    def _refuse_later_stage(self, name: str, index: int) -> None:
        later = [stage.name for stage in self._texts[index:]]
        if name.lower() in later:
            own = later.index(name.lower()) == 0
            raise DockerfileError(
                f"stage {name} cannot be copied from {'itself' if own else 'before it is built'}",
                hint="a stage copies only from stages above it",
                span=f"from={name}",
            )

    def _stage(self, index: int) -> Stage:
        state, start = self._states[index], self._starts[index]
        label = self._label(index)
        total = 1 + sum(step.action is not None for step in state.steps)
        number = 1
        steps = []
        for step in state.steps:
            number += step.action is not None
            steps.append(replace(step, title=f"[{f'{label} {number}/{total}'.strip()}] {step.title}"))
        if isinstance(start, ImageStart):
            start = replace(start, title=f"[{f'{label} 1/{total}'.strip()}] {start.title}")
        use_cache = self._texts[index].name not in self._surroundings.fresh
        return Stage(index, start, tuple(steps), state.config, use_cache)

    def _label(self, index: int) -> str:
        """What titles call a stage; as with BuildKit `linux/amd64->arm64` runs on the first and makes for the other."""
        label = self._texts[index].name or (f"stage-{index}" if len(self._texts) > 1 else "")
        if not self._surroundings.names_platforms:
            return label
        while isinstance(start := self._starts[index], StageStart):
            index = start.stage
        target = self._surroundings.platform
        platform = start.platform if isinstance(start, ImageStart) else target
        shown = str(platform) if platform == target else f"{platform}->{str(target).removeprefix(f'{platform.os}/')}"
        return f"{shown} {label}".strip()

    def _warn_of_unused(self) -> None:
        known = self._consumed | PROXY_ARGUMENTS | CONTROL_ARGUMENTS | set(self._globals)
        unused = sorted(set(self._surroundings.build_args) - known)
        if unused:
            self._surroundings.warn(f"no ARG declares these build arguments: {', '.join(unused)}", None)
        names = {stage.name for stage in self._texts}
        for name in sorted(self._surroundings.fresh - names):
            near = closest(name, names)
            hint = f": did you mean {near}?" if near else ""
            self._surroundings.warn(f"--no-cache-filter names no stage with {name!r}{hint}", None)


def _leads_to(stage: int, copies: Sequence[Mapping[int, Copy]]) -> set[int]:
    """All stages that a stage copies from, directly or by others."""
    found: set[int] = set()
    wanted = [stage]
    while wanted:
        new = set(copies[wanted.pop()]) - found
        found |= new
        wanted.extend(new)
    return found
