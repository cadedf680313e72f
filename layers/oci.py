"""The documents of an image (OCI image specification 1.1), read strictly and written canonically.

A document that came from elsewhere is kept as its bytes where its digest matters; what is here is the reading of it.
Unknown fields of manifests and indexes are ignored, as the specification asks; what a configuration says beyond
the fields below does not reach images built from it, which is also what BuildKit does.
"""

import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

from layers.data import dataclass, field, replace
from layers.digest import Digest, canonical_json
from layers.errors import ImageError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"
LAYER_ZSTD = LAYER + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYERS: Mapping[str, str] = MappingProxyType(
    {LAYER: DOCKER_LAYER, LAYER_GZIP: DOCKER_LAYER_GZIP, LAYER_ZSTD: DOCKER_LAYER + ".zstd"}
)
"""What Docker called the layers of OCI."""
MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({INDEX, DOCKER_INDEX})
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"

Json = dict[str, Any]

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armhf": "arm",
    "armv7l": "arm",
    "armel": "arm",
    "ppc64el": "ppc64le",
}

_LEVELS = {"amd64": 1, "arm64": 8}
"""Of what is written without a variant."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system, architecture and variant, in Go's names and normalised as containerd does it."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`linux/arm64`, `linux/arm/v7`, `arm64`; `linux` and `local` are this machine. ImageError if it is no such."""
        parts = text.strip().lower().split("/")
        if parts in (["local"], ["linux"]):
            return cls.host()
        if len(parts) == 1:
            parts = ["linux", *parts]
        if len(parts) > 3 or not all(parts):
            raise ImageError(f"{text!r} is not a platform", hint="write OS/ARCHITECTURE[/VARIANT], such as linux/amd64")
        return cls.of(*parts)

    @classmethod
    def of(cls, os_name: str, architecture: str, variant: str = "") -> Self:
        """The normal form: `aarch64` is `arm64`, `arm` alone is `arm/v7`, `arm64/v8` is `arm64`."""
        variant = variant if not variant[:1].isdigit() else "v" + variant
        if architecture in {"armhf", "armv7l"}:
            variant = "v7"
        elif architecture == "armel":
            variant = "v6"
        architecture = _ARCHITECTURES.get(architecture, architecture)
        if architecture == "arm" and not variant:
            variant = "v7"
        if (architecture, variant) in {("arm64", "v8"), ("amd64", "v1")}:
            variant = ""
        return cls(os_name, architecture, variant)

    @classmethod
    def host(cls) -> Self:
        """The platform that this machine runs natively."""
        return cls.of("linux", os.uname().machine)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def runs(self, other: "Platform") -> bool:
        """Whether a machine of this platform runs what was made for `other` without emulation."""
        if self == other:
            return True
        if self.os != other.os:
            return False
        if self.architecture == other.architecture:
            return 0 < other.level <= self.level
        return (self.architecture, other.architecture) in {("amd64", "386"), ("arm64", "arm")}

    @property
    def level(self) -> int:
        """The number of the variant: of those of one architecture, a machine runs its own and all lower ones."""
        number = self.variant.removeprefix("v").partition(".")[0]
        return int(number) if number.isascii() and number.isdigit() else _LEVELS.get(self.architecture, 0)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is, by media type, digest and size in bytes (descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Any) -> Self:  # noqa: ANN401 - JSON from elsewhere
        """Read one; ImageError if it does not say what a descriptor must."""
        value = _object(value, "a descriptor")
        size = value.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ImageError(f"a descriptor has the size {size!r}")
        platform = _object(value.get("platform") or {}, "a platform")
        return cls(
            media_type=_text(value.get("mediaType"), "mediaType"),
            digest=Digest(_text(value.get("digest"), "digest")),
            size=size,
            platform=_platform(platform) if platform else None,
            annotations=_texts(value.get("annotations") or {}, "annotations"),
            urls=_list(value.get("urls"), "urls"),
        )

    def to_json(self) -> Json:
        """The document, without the fields that say nothing."""
        value: Json = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            value["urls"] = list(self.urls)
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform:
            value["platform"] = _platform_json(self.platform)
        return value


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its configuration and its layers, lowest first (manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read one; ImageError if it is no image manifest."""
        value = _object(_json(data, "the manifest"), "the manifest")
        if value.get("schemaVersion") != 2 or "config" not in value:
            raise ImageError(
                "the manifest is not of an image that pybuild can read",
                hint="manifests of schema 1 are no longer used; push the image again with a current tool",
            )
        layers = value.get("layers") or []
        if not isinstance(layers, list):
            raise ImageError("the manifest's layers are no list")
        return cls(
            Descriptor.from_json(value["config"]),
            tuple(map(Descriptor.from_json, layers)),
            value.get("mediaType") or MANIFEST,
            _texts(value.get("annotations") or {}, "annotations"),
        )

    def serialise(self) -> bytes:
        """The bytes that the manifest's digest is of."""
        value: Json = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return canonical_json(value)


@dataclass(frozen=True, slots=True)
class Index:
    """Several manifests, such as one for each platform, or one for each name in a layout (image-index.md)."""

    manifests: tuple[Descriptor, ...] = ()
    media_type: str = INDEX
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read one; ImageError if it is no index."""
        value = _object(_json(data, "the index"), "the index")
        manifests = value.get("manifests") or []
        if value.get("schemaVersion") != 2 or not isinstance(manifests, list):
            raise ImageError("the index is not of a form that pybuild can read")
        return cls(
            tuple(map(Descriptor.from_json, manifests)),
            value.get("mediaType") or INDEX,
            _texts(value.get("annotations") or {}, "annotations"),
        )

    def serialise(self) -> bytes:
        """The bytes that the index's digest is of."""
        value: Json = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return canonical_json(value)

    @property
    def offers(self) -> tuple[Descriptor, ...]:
        """The manifests that are of images: what says of images how they were made is for no platform."""
        return tuple(entry for entry in self.manifests if entry.platform is None or entry.platform.os != "unknown")

    def choose(self, platform: Platform) -> Descriptor:
        """The manifest for a platform: the exact one, else one that runs there; ImageError names what there is."""
        offers = self.offers
        for entry in offers:
            if entry.platform == platform:
                return entry
        fitting = [entry for entry in offers if entry.platform and platform.runs(entry.platform)]
        if fitting:
            return max(fitting, key=lambda entry: _nearness(entry.platform, platform))
        if len(offers) == 1 and offers[0].platform is None:
            return offers[0]
        there = ", ".join(sorted(str(entry.platform) for entry in offers if entry.platform)) or "none"
        raise ImageError(f"there is no image for {platform}; there are: {there}")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How a container of the image starts: the `config` object of config.md, with Docker's four fields beside it.

    `healthcheck` is the JSON object that Docker stores; `cmd`, `entrypoint` and `shell` are None where nothing is set,
    which differs from an empty list.
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Mapping[str, Any] | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] | None = None

    @classmethod
    def from_json(cls, value: Any) -> Self:  # noqa: ANN401 - JSON from elsewhere
        """Read one; ImageError if a field has another type than config.md gives it."""
        value = _object(value or {}, "the configuration's config")
        return cls(
            user=_text(value.get("User") or "", "User"),
            exposed_ports=tuple(sorted(_object(value.get("ExposedPorts") or {}, "ExposedPorts"))),
            env=_list(value.get("Env"), "Env"),
            entrypoint=_list(value["Entrypoint"], "Entrypoint") if value.get("Entrypoint") is not None else None,
            cmd=_list(value["Cmd"], "Cmd") if value.get("Cmd") is not None else None,
            volumes=tuple(sorted(_object(value.get("Volumes") or {}, "Volumes"))),
            working_dir=_text(value.get("WorkingDir") or "", "WorkingDir"),
            labels=_texts(value.get("Labels") or {}, "Labels"),
            stop_signal=_text(value.get("StopSignal") or "", "StopSignal"),
            args_escaped=value.get("ArgsEscaped") is True,
            healthcheck=_object(value["Healthcheck"], "Healthcheck") if value.get("Healthcheck") else None,
            on_build=_list(value.get("OnBuild"), "OnBuild"),
            shell=_list(value["Shell"], "Shell") if value.get("Shell") else None,
        )

    def to_json(self) -> Json:
        """The object, without the fields that say nothing."""
        value = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Env": list(self.env),
            "Volumes": {volume: {} for volume in self.volumes},
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "StopSignal": self.stop_signal,
            "ArgsEscaped": self.args_escaped,
            "Healthcheck": dict(self.healthcheck) if self.healthcheck else None,
            "OnBuild": list(self.on_build),
            "Shell": list(self.shell) if self.shell else None,
        }
        filled = {key: part for key, part in value.items() if part}
        for key, words in (("Entrypoint", self.entrypoint), ("Cmd", self.cmd)):
            if words is not None:
                filled[key] = list(words)
        return filled

    @property
    def environment(self) -> dict[str, str]:
        """The variables by name; a later one of the same name wins."""
        return {name: text for name, _, text in (line.partition("=") for line in self.env)}


@dataclass(frozen=True, slots=True)
class History:
    """Where a layer, or with `empty_layer` a change of the configuration, comes from (config.md)."""

    created: str = ""
    """RFC 3339, or empty for unknown."""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    @classmethod
    def from_json(cls, value: Any) -> Self:  # noqa: ANN401 - JSON from elsewhere
        """Read one item of a configuration's history."""
        value = _object(value, "a history entry")
        return cls(
            created=_text(value.get("created") or "", "created"),
            created_by=_text(value.get("created_by") or "", "created_by"),
            author=_text(value.get("author") or "", "author"),
            comment=_text(value.get("comment") or "", "comment"),
            empty_layer=value.get("empty_layer") is True,
        )

    def to_json(self) -> Json:
        """The object, without the fields that say nothing."""
        value = {
            "created": self.created,
            "created_by": self.created_by,
            "author": self.author,
            "comment": self.comment,
            "empty_layer": self.empty_layer,
        }
        return {key: part for key, part in value.items() if part}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The configuration document: what runs, on what, made of which layers (config.md)."""

    platform: Platform
    config: RunConfig = field(default_factory=RunConfig)
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read one; ImageError if it is no image configuration."""
        value = _object(_json(data, "the configuration"), "the configuration")
        rootfs = _object(value.get("rootfs") or {}, "rootfs")
        history = value.get("history") or []
        if not isinstance(history, list):
            raise ImageError("the configuration's history is no list")
        return cls(
            platform=_platform(value),
            config=RunConfig.from_json(value.get("config")),
            diff_ids=tuple(Digest(text) for text in _list(rootfs.get("diff_ids"), "diff_ids")),
            history=tuple(map(History.from_json, history)),
            created=_text(value.get("created") or "", "created"),
            author=_text(value.get("author") or "", "author"),
        )

    def serialise(self) -> bytes:
        """The bytes that the image's id is the digest of."""
        value: Json = {
            **_platform_json(self.platform),
            "config": self.config.to_json(),
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in self.diff_ids]},
            "history": [item.to_json() for item in self.history],
        }
        for key, text in (("created", self.created), ("author", self.author)):
            if text:
                value[key] = text
        return canonical_json(value)

    def with_config(self, **changes: Any) -> Self:  # noqa: ANN401 - dataclasses.replace's own types
        """The same with other fields of `config`."""
        return replace(self, config=replace(self.config, **changes))


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose documents are at hand; its layers may still be elsewhere."""

    descriptor: Descriptor
    """Of the manifest."""
    manifest: Manifest
    config: ImageConfig

    def __post_init__(self) -> None:
        if len(self.manifest.layers) != len(self.config.diff_ids):
            raise ImageError(
                f"image {self.descriptor.digest} names {len(self.manifest.layers)} layers in its manifest "
                f"and {len(self.config.diff_ids)} in its configuration"
            )

    def diff_id_of(self, layer: Descriptor) -> Digest:
        """The digest of one of its layers, uncompressed."""
        return self.config.diff_ids[[known.digest for known in self.manifest.layers].index(layer.digest)]


def _nearness(offered: Platform | None, wanted: Platform) -> tuple[bool, int]:
    """Of what a platform runs, the best is the largest: its own architecture, the highest variant."""
    return (offered.architecture == wanted.architecture, offered.level) if offered else (False, 0)


def _platform(value: Json) -> Platform:
    return Platform.of(
        _text(value.get("os") or "linux", "os"),
        _text(value.get("architecture") or "", "architecture"),
        _text(value.get("variant") or "", "variant"),
    )


def _platform_json(platform: Platform) -> Json:
    value = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return {key: text for key, text in value.items() if text}


def _json(data: bytes, what: str) -> Any:  # noqa: ANN401 - JSON from elsewhere
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not JSON: {error}") from error


def _object(value: Any, what: str) -> Json:  # noqa: ANN401 - JSON from elsewhere
    if not isinstance(value, dict):
        raise ImageError(f"{what} is not a JSON object")
    return value


def _text(value: Any, what: str) -> str:  # noqa: ANN401 - JSON from elsewhere
    if not isinstance(value, str):
        raise ImageError(f"{what} is not a text")
    return value


def _list(value: Any, what: str) -> tuple[str, ...]:  # noqa: ANN401 - JSON from elsewhere
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ImageError(f"{what} is not a list of texts")
    return tuple(value)


def _texts(value: Any, what: str) -> dict[str, str]:  # noqa: ANN401 - JSON from elsewhere
    return {key: _text(text, f"{what}: {key}") for key, text in _object(value, what).items()}
