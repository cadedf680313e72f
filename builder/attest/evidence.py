"""What a build knows of an image that it made, and what others may be told: no secret, no password, no local path."""

import os
from collections.abc import Iterator, Mapping

from builder.arguments import PROXY_ARGUMENTS
from builder.attest.package import image_purl
from builder.context.named import Folder, LayoutContext, Url, context_source, full_name
from builder.context.remote import Remotes
from builder.context.repository import Repository, without_password
from builder.graph import ImageStart, StageStart
from builder.images import OCI_LAYOUT
from builder.options import BuildOptions
from builder.planner import StagePlan
from builder.steps.remote import RemoteFile
from builder.steps.step import Base, Copy, FromContext, FromImage, FromStage, Step, origins_of
from layers.data import dataclass, field

_STDIN = "-"


@dataclass(frozen=True, slots=True)
class Material:
    """Something that went into a build from outside, at the state in which it was."""

    uri: str
    algorithm: str
    """Of the digest; `sha1` for a commit."""
    hex: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that attestations say of a build."""

    names: tuple[str, ...]
    """Full names of the image."""
    plans: Mapping[int, StagePlan]
    """What was built for the image, by stage."""
    target: StagePlan
    file_name: str
    dockerfile: bytes = field(repr=False)
    arguments: Mapping[str, str]
    """What the person asked for, under the names that BuildKit's frontend has for it: `build-arg:X`, `target`."""
    source: Material | None
    """The context, if it is not a folder of this machine."""
    materials: tuple[Material, ...]
    """The images, repositories and URLs that were used, sorted."""
    started: str
    finished: str


def gather(
    plans: Mapping[int, StagePlan],
    target: int,
    options: BuildOptions,
    names: tuple[str, ...],
    dockerfile: bytes,
    remotes: Remotes,
    times: tuple[str, str],
) -> Evidence:
    """What there is to say of a stage that is complete. Nothing is fetched for it: all was asked before."""
    plans = _needed(plans, target)
    source = _material_of(options.context, remotes)
    found = {source, _material_of(options.dockerfile, remotes), *_materials(plans, options, remotes)}
    return Evidence(
        names=names,
        plans=plans,
        target=plans[target],
        file_name=os.path.basename(options.dockerfile).replace(_STDIN, "") or "Dockerfile",
        dockerfile=dockerfile,
        arguments=dict(_arguments(options)),
        source=source,
        materials=tuple(sorted(filter(None, found), key=lambda material: (material.uri, material.hex))),
        started=times[0],
        finished=times[1],
    )


def _needed(plans: Mapping[int, StagePlan], target: int) -> dict[int, StagePlan]:
    """The stages that one is made of: a build for several platforms has others."""
    wanted, found = [target], set()
    while wanted:
        index = wanted.pop()
        if index not in found:
            found.add(index)
            stage = plans[index].stage
            if isinstance(stage.start, StageStart):
                wanted.append(stage.start.stage)
            for step in stage.steps:
                origins = origins_of(step.action) if step.action is not None else ()
                wanted += [origin.stage for origin in origins if isinstance(origin, FromStage)]
    return {index: plan for index, plan in plans.items() if index in found}


def _arguments(options: BuildOptions) -> Iterator[tuple[str, str]]:
    """Proxies are not among them: they are of the place of the build, and often have passwords in them."""
    for name, value in sorted(options.build_args.items()):
        if name not in PROXY_ARGUMENTS:
            yield f"build-arg:{name}", value
    for name, text in sorted(options.contexts.items()):
        is_local = isinstance(context_source(text), Folder | LayoutContext)
        yield f"context:{name}", f"local:{name}" if is_local else without_password(text)
    for name, value in sorted(options.labels.items()):
        yield f"label:{name}", value
    if options.target:
        yield "target", options.target


def _materials(plans: Mapping[int, StagePlan], options: BuildOptions, remotes: Remotes) -> Iterator[Material | None]:
    for plan in plans.values():
        if isinstance(plan.stage.start, ImageStart):
            yield _image(plan.stage.start.base)
        for step in plan.stage.steps:
            yield from _materials_of(step, options, remotes)


def _materials_of(step: Step, options: BuildOptions, remotes: Remotes) -> Iterator[Material | None]:
    if step.action is None:
        return
    for origin in origins_of(step.action):
        if isinstance(origin, FromImage):
            yield _image(origin.base)
        elif isinstance(origin, FromContext) and origin.name:
            named = {full_name(name): text for name, text in options.contexts.items()}
            yield _material_of(named[origin.name], remotes)
    for remote in step.action.remotes if isinstance(step.action, Copy) else ():
        yield _url(remote.text, remotes) if isinstance(remote, RemoteFile) else _commit(remote.repository, remotes)


def _material_of(text: str, remotes: Remotes) -> Material | None:
    """A context, or a Dockerfile; None for one that is of this machine."""
    match context_source(text):
        case Url(url):
            return _url(url, remotes)
        case Repository() as repository:
            return _commit(repository, remotes)
        case _:
            return None


def _url(url: str, remotes: Remotes) -> Material:
    digest = remotes.file(url).descriptor.digest
    return Material(without_password(url), digest.algorithm, digest.hex)


def _commit(repository: Repository, remotes: Remotes) -> Material:
    commit = remotes.commit(repository)
    ref = repository.ref or commit.ref
    algorithm = "sha1" if len(commit.hash) == 40 else "sha256"
    return Material(without_password(repository.url) + (f"#{ref}" if ref else ""), algorithm, commit.hash)


def _image(base: Base) -> Material:
    kind = "oci" if base.name.startswith(OCI_LAYOUT) else "docker"
    digest = base.image.descriptor.digest
    purl = image_purl(base.name.removeprefix(OCI_LAYOUT), base.image.config.platform, kind=kind)
    return Material(purl, digest.algorithm, digest.hex)
