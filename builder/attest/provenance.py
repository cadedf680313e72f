"""How an image was made, as a SLSA predicate in the words of BuildKit (its docs/attestations/slsa-definitions.md).

BuildKit's steps are here the instructions as they were carried out: what they do is told in its form, and the layers
that they made with it.
"""

import base64
from collections.abc import Iterator
from typing import Any

from builder.attest.evidence import Evidence, Material
from builder.export.output import Provenance
from builder.graph import ImageStart, StageStart
from builder.planner import StagePlan
from builder.steps.step import Action, Copy, FromImage, FromStage, MakeDirectory, Run, SecretMount, SshMount, origins_of
from layers.oci import Platform

V1, V02 = "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"
_BUILD_TYPE = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
_BUILD_TYPE_V02 = "https://mobyproject.org/buildkit@v1"

Json = dict[str, Any]


def predicate_type(asked: Provenance) -> str:
    """Which predicate `provenance` gives."""
    return V1 if asked.version == "v1" else V02


def provenance(evidence: Evidence, asked: Provenance) -> Json:
    """The predicate."""
    return _v1(evidence, asked) if asked.version == "v1" else _v02(evidence, asked)


def _v1(evidence: Evidence, asked: Provenance) -> Json:
    internal: Json = {"builderPlatform": str(Platform.host())}
    extra: Json = {}
    if asked.everything:
        story = _Story(evidence)
        internal["buildConfig"] = {"llbDefinition": story.steps}
        extra = {"source": story.source(), "layers": story.layers}
    complete = {"request": asked.everything, "resolvedDependencies": evidence.source is not None}
    return {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": {
                "configSource": _source(evidence, "path"),
                "request": _request(evidence, everything=asked.everything),
            },
            "internalParameters": internal,
            "resolvedDependencies": [_resource(material) for material in evidence.materials],
        },
        "runDetails": {
            "builder": {"id": asked.builder_id},
            "metadata": {
                "startedOn": evidence.started,
                "finishedOn": evidence.finished,
                "buildkit_hermetic": _is_hermetic(evidence),
                "buildkit_completeness": complete,
                "buildkit_reproducible": asked.reproducible,
                "buildkit_metadata": extra,
            },
        },
    }


def _v02(evidence: Evidence, asked: Provenance) -> Json:
    extra: Json = {}
    config: Json = {}
    if asked.everything:
        story = _Story(evidence)
        config = {"buildConfig": {"llbDefinition": story.steps}}
        extra = {"source": story.source(), "layers": story.layers}
    return {
        "builder": {"id": asked.builder_id},
        "buildType": _BUILD_TYPE_V02,
        "materials": [_resource(material) for material in evidence.materials],
        "invocation": {
            "configSource": _source(evidence, "entryPoint"),
            "parameters": _request(evidence, everything=asked.everything),
            "environment": {"platform": str(Platform.host())},
        },
        **config,
        "metadata": {
            "buildStartedOn": evidence.started,
            "buildFinishedOn": evidence.finished,
            "completeness": {
                "parameters": asked.everything,
                "environment": True,
                "materials": evidence.source is not None,
            },
            "reproducible": asked.reproducible,
            f"{_BUILD_TYPE_V02}#hermetic": _is_hermetic(evidence),
            f"{_BUILD_TYPE_V02}#metadata": extra,
        },
    }


def _resource(material: Material) -> Json:
    return {"uri": material.uri, "digest": {material.algorithm: material.hex}}


def _source(evidence: Evidence, path: str) -> Json:
    """What the build began with; of a folder of this machine the name of the Dockerfile alone."""
    source = _resource(evidence.source) if evidence.source is not None else {}
    return source | {path: evidence.file_name}


def _request(evidence: Evidence, *, everything: bool) -> Json:
    """What was asked for. Values of arguments and labels, and ids of secrets, are in it only with `everything`."""
    left_out = () if everything else ("build-arg:", "label:")
    arguments = {key: text for key, text in evidence.arguments.items() if not key.startswith(left_out)}
    request: Json = {"frontend": "dockerfile.v0", "args": arguments}
    if everything:
        mounts = [mount for action in _actions(evidence) if isinstance(action, Run) for mount in action.mounts]
        for key, kind in (("secrets", SecretMount), ("ssh", SshMount)):
            required = {mount.id: False for mount in mounts if isinstance(mount, kind)}
            for mount in mounts:
                if isinstance(mount, kind):
                    required[mount.id] |= mount.required
            rows = [{"id": name, "optional": not needed} for name, needed in sorted(required.items())]
            if rows:
                request[key] = rows
    if evidence.source is None:
        request["locals"] = [{"name": "context"}, {"name": "dockerfile"}]
    return request


def _actions(evidence: Evidence) -> Iterator[Action]:
    for plan in evidence.plans.values():
        yield from (step.action for step in plan.stage.steps if step.action is not None)


def _is_hermetic(evidence: Evidence) -> bool:
    """Whether no command could reach the network."""
    return all(action.network == "none" for action in _actions(evidence) if isinstance(action, Run))


class _Story:
    """The steps of a build, each with what it stands on, where it is written, and the layers at its end."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.steps: list[Json] = []
        self.layers: Json = {}
        self._locations: Json = {}
        self._images: dict[str, str] = {}
        self._ends: dict[int, str] = {}
        """The last step of each stage; "" for one that has none."""
        for index, plan in evidence.plans.items():
            self._ends[index] = self._tell(plan)

    def source(self) -> Json:
        """The Dockerfile, and the lines of each step."""
        information = {
            "filename": self._evidence.file_name,
            "language": "Dockerfile",
            "data": base64.b64encode(self._evidence.dockerfile).decode(),
        }
        return {"locations": self._locations, "infos": [information]}

    def _tell(self, plan: StagePlan) -> str:
        stage, snapshot = plan.stage, plan.snapshot
        assert snapshot is not None, "what was built is complete"
        own = snapshot.history[len(snapshot.history) - len(stage.steps) :]
        layers = len(snapshot.layers) - sum(not item.empty_layer for item in own)
        last = ""
        if isinstance(stage.start, StageStart):
            last = self._ends[stage.start.stage]
        elif isinstance(stage.start, ImageStart):
            last = self._image(FromImage(stage.start.base))
            self._place(last, stage.start.location.first, stage.start.location.last)
            self._stack(last, plan, layers)
        for step, item in zip(stage.steps, own, strict=True):
            layers += not item.empty_layer
            if step.action is not None:
                last = self._add(_operation(step.action), [last, *self._inputs(step.action)])
                self._place(last, step.location.first, step.location.last)
                self._stack(last, plan, layers)
        return last

    def _inputs(self, action: Action) -> Iterator[str]:
        for origin in origins_of(action):
            if isinstance(origin, FromStage):
                yield self._ends[origin.stage]
            elif isinstance(origin, FromImage):
                yield self._image(origin)

    def _image(self, origin: FromImage) -> str:
        base = origin.base
        if base.name not in self._images:
            scheme = "" if "://" in base.name else "docker-image://"
            identifier = f"{scheme}{base.name}@{base.image.descriptor.digest}"
            self._images[base.name] = self._add({"source": {"identifier": identifier}}, [])
        return self._images[base.name]

    def _add(self, operation: Json, inputs: list[str]) -> str:
        name = f"step{len(self.steps)}"
        step: Json = {"id": name, "op": {"Op": operation}}
        if any(inputs):
            step["inputs"] = [f"{other}:0" for other in dict.fromkeys(filter(None, inputs))]
        self.steps.append(step)
        return name

    def _place(self, step: str, first: int, last: int) -> None:
        places = self._locations.setdefault(step, {"locations": []})["locations"]
        places.append({"ranges": [{"start": {"line": first}, "end": {"line": last}}]})

    def _stack(self, step: str, plan: StagePlan, layers: int) -> None:
        """Say which layers there are after a step, lowest first."""
        assert plan.snapshot is not None, "what was built is complete"
        if layers:
            self.layers[f"{step}:0"] = [[layer.descriptor.to_json() for layer in plan.snapshot.layers[:layers]]]


def _operation(action: Action) -> Json:
    """What an instruction does. Of what is lent to a command, such as secrets, nothing but its place is told."""
    match action:
        case Run() as run:
            environment = [f"{name}={value}" for name, value in run.environment]
            meta = {"args": list(run.argv), "env": environment, "cwd": run.directory}
            if run.user:
                meta["user"] = run.user
            mounts = [{"dest": "/"}, *({"dest": mount.target} for mount in run.mounts if mount.target)]
            return {"exec": {"meta": meta, "mounts": mounts}}
        case Copy() as copy:
            sources = [*copy.sources, *(file.name for file in copy.inline)]
            actions = [{"Action": {"copy": {"src": source, "dest": copy.destination}}} for source in sources]
            return {"file": {"actions": actions}}
        case MakeDirectory() as folder:
            return {"file": {"actions": [{"Action": {"mkdir": {"path": folder.path}}}]}}
