"""How --cache-from and --cache-to are written: `docker buildx build`'s grammar, as values."""

import argparse
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from builder.caches import CachePlace, CacheTarget, Kind
from builder.cli.outputs import compression_of
from builder.errors import UsageError
from layers.compress import Compression
from layers.digest import Digest, DigestError
from layers.errors import ImageError
from layers.registry.reference import Reference

_BOOLEANS = {"true": True, "1": True, "": True, "false": False, "0": False}
_MODES = {"": False, "min": False, "max": True}

_BUCKET = (
    "region",
    "name",
    "prefix",
    "blobs_prefix",
    "manifests_prefix",
    "endpoint_url",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "use_path_style",
)
_NEEDED: Mapping[tuple[Kind, bool], tuple[str, ...]] = MappingProxyType(
    {
        (Kind.REGISTRY, False): ("ref",),
        (Kind.REGISTRY, True): ("ref",),
        (Kind.LOCAL, False): ("src",),
        (Kind.LOCAL, True): ("dest",),
        (Kind.S3, False): ("bucket",),
        (Kind.S3, True): ("bucket",),
        (Kind.ACTIONS, False): ("url_v2", "token"),
        (Kind.ACTIONS, True): ("url_v2", "token"),
    }
)
"""Keys without which a cache is nowhere, by its kind and whether it is written."""
_ALLOWED: Mapping[tuple[Kind, bool], tuple[str, ...]] = MappingProxyType(
    {
        (Kind.REGISTRY, False): ("registry.insecure",),
        (Kind.REGISTRY, True): ("registry.insecure",),
        (Kind.LOCAL, False): ("tag", "digest"),
        (Kind.LOCAL, True): ("tag",),
        (Kind.S3, False): _BUCKET,
        (Kind.S3, True): (*_BUCKET, "upload_parallelism"),
        (Kind.ACTIONS, False): ("scope",),
        (Kind.ACTIONS, True): ("scope",),
    }
)
_OF_WORKFLOWS = MappingProxyType({"url_v2": "ACTIONS_RESULTS_URL", "token": "ACTIONS_RUNTIME_TOKEN"})
"""What an action may see of its workflow, and has to export for programs that it runs."""
_FORMS = ("oci-mediatypes", "image-manifest")
"""Which form BuildKit gives to a cache. Ours has only one, that of an OCI image manifest."""


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Which caches a build shares with other machines."""
    parser.add_argument(
        "--cache-from",
        action="append",
        default=[],
        metavar="SPEC",
        help="ask a cache: REF, type=registry,ref=REF, type=local,src=DIR, type=s3,bucket=NAME",
    )
    parser.add_argument(
        "--cache-to",
        action="append",
        default=[],
        metavar="SPEC",
        help="fill a cache: type=registry,ref=REF, local,dest=DIR, s3,bucket=NAME or inline [,mode=max]",
    )


def cache_sources(texts: Sequence[str], environment: Mapping[str, str]) -> tuple[CachePlace, ...]:
    """What each --cache-from means; UsageError for what it cannot mean. `environment` is a workflow's of GitHub."""
    return tuple(_Parsing("--cache-from", text, environment).source() for text in texts)


def cache_targets(
    texts: Sequence[str], build_args: Mapping[str, str], environment: Mapping[str, str]
) -> tuple[CacheTarget, ...]:
    """What each --cache-to means; the build argument BUILDKIT_INLINE_CACHE is an old way to say type=inline."""
    targets = [_Parsing("--cache-to", text, environment).target() for text in texts]
    inline = CacheTarget(CachePlace(Kind.INLINE))
    if build_args.get("BUILDKIT_INLINE_CACHE", "") in {"1", "true"} and inline not in targets:
        targets.append(inline)
    return tuple(targets)


_HIDDEN = r"(?i)\b(secret_access_key|session_token|token)=[^,]*"
"""What no error message repeats."""


class _Parsing:
    """One option; each question takes its fields away, so that those left over are the unknown ones."""

    def __init__(self, name: str, text: str, environment: Mapping[str, str]) -> None:
        self._option = name + " " + re.sub(_HIDDEN, r"\1=...", text)
        self._fields = self._read(text)
        self._kind = self._take_kind()
        if self._kind is Kind.ACTIONS:
            for key, variable in _OF_WORKFLOWS.items():
                self._fields.setdefault(key, environment.get(variable, ""))

    def source(self) -> CachePlace:
        """A cache to ask."""
        if self._kind is Kind.INLINE:
            raise self._wrong(
                "an image that carries its cache is asked for by its name", hint="type=registry,ref=IMAGE"
            )
        place = self._place(written=False)
        self._refuse_others()
        return place

    def target(self) -> CacheTarget:
        """A cache to fill."""
        mode = self._fields.pop("mode", "")
        if mode not in _MODES:
            raise self._wrong(f"there is no mode {mode}", hint="min: the steps of the image; max: of all stages")
        if self._kind is Kind.INLINE:
            if _MODES[mode]:
                raise self._wrong("an image can carry only its own steps: mode=min")
            self._refuse_others()
            return CacheTarget(CachePlace(Kind.INLINE))
        for key in _FORMS:
            if not self._boolean(key, default=True):
                raise self._wrong(f"{key}=false is not supported: a cache is an OCI image manifest")
        may_fail = self._boolean("ignore-error", default=False)
        compression, level = compression_of(
            self._fields.pop("compression", ""), self._fields.pop("compression-level", ""), self._option
        )
        if compression is Compression.ESTARGZ:  # makes other layers of them, and nothing that stands on one is found
            raise self._wrong("estargz is for images, and not supported for caches")
        if not self._boolean("force-compression", default=True):
            raise self._wrong("force-compression=false is not supported: the compression is that of all layers")
        place = self._place(written=True)
        self._refuse_others()
        return CacheTarget(place, _MODES[mode], may_fail, compression, level)

    def _read(self, text: str) -> dict[str, str]:
        import csv  # few builds share a cache

        parts = next(csv.reader([text]), [])
        if parts == [text] and "=" not in text:
            return {"type": "registry", "ref": text}
        fields = {}
        for part in parts:
            key, equals, value = part.partition("=")
            if not key or not equals:
                raise self._wrong(f"{part!r} is not written KEY=VALUE")
            fields[key.strip().lower()] = value
        return fields

    def _take_kind(self) -> Kind:
        name = self._fields.pop("type", "")
        if not name:
            raise self._wrong("type= is missing")
        if name not in set(Kind):
            raise self._wrong(f"there is no type {name}", hint=f"the types are {', '.join(Kind)}")
        kind = Kind(name)
        if kind is not Kind.INLINE and (kind, True) not in _NEEDED:
            raise self._wrong(f"type={kind} is not supported")
        return kind

    def _place(self, *, written: bool) -> CachePlace:
        needed, allowed = _NEEDED[self._kind, written], _ALLOWED[self._kind, written]
        settings = {key: self._fields.pop(key) for key in (*needed, *allowed) if key in self._fields}
        for key in needed:
            if not settings.get(key):
                hint = f"a workflow of GitHub hands it on as {_OF_WORKFLOWS[key]}" if key in _OF_WORKFLOWS else ""
                raise self._wrong(f"{key}= is missing", hint=hint)
        if not settings.get("upload_parallelism", "1").isdecimal() or settings.get("upload_parallelism") == "0":
            raise self._wrong("upload_parallelism is a number")
        try:
            reference = Reference.parse(settings["ref"]) if "ref" in settings else None
            Digest(settings["digest"]) if "digest" in settings else None
        except (ImageError, DigestError) as error:
            raise self._wrong(error.message, hint=error.hint) from error
        if reference and reference.digest and written:
            raise self._wrong("a digest cannot be chosen", hint="leave out what begins with @")
        return CachePlace(self._kind, settings)

    def _boolean(self, key: str, *, default: bool) -> bool:
        text = self._fields.pop(key, None)
        if text is None:
            return default
        if text not in _BOOLEANS:
            raise self._wrong(f"{key} is true or false")
        return _BOOLEANS[text]

    def _refuse_others(self) -> None:
        if self._fields:
            what = ", ".join(self._fields)
            raise self._wrong(f"{self._kind} caches have no {what} here", hint="docs/registries.md lists all keys")

    def _wrong(self, what: str, *, hint: str = "") -> UsageError:
        return UsageError(f"{self._option}: {what}", hint=hint)
