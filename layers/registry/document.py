"""What a document that a registry sent is, and whether it is the one that was asked for."""

import hashlib
import json
from typing import Any

from layers.digest import Digest, DigestError
from layers.oci import INDEX, INDEXES, MANIFEST, MANIFESTS
from layers.registry.errors import RegistryError

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"


def check(data: bytes, digest: Digest, what: str) -> None:
    """RegistryError if these are not the bytes that the digest is of."""
    found = f"{digest.algorithm}:{hashlib.new(digest.algorithm, data).hexdigest()}"
    if found != digest:
        raise RegistryError(f"{what}: the registry sends wrong bytes, of digest {found} instead of {digest}")


def check_header(data: bytes, header: str, what: str) -> None:
    """The same for a `Docker-Content-Digest`; registries may leave it out or write something else there."""
    try:
        digest = Digest(header)
    except DigestError:
        return
    check(data, digest, what)


def kind_of(data: bytes, content_type: str, what: str) -> str:
    """The media type of a manifest or index: what it says itself, else the header, else what its fields show.

    RegistryError if it is neither of both. One that could be read as both is refused, since two tools could take it
    for two different images (CVE-2021-41190).
    """
    value = _object(data, what)
    header = content_type.partition(";")[0].strip().lower()
    if value.get("schemaVersion") == 1 or header.startswith(_SCHEMA_1):
        raise RegistryError(
            f"{what} is a manifest of schema 1, which pybuild does not read",
            hint="it was pushed by a tool of before 2017; push the image again with a current one",
        )
    if "manifests" in value and ("layers" in value or "config" in value):
        raise RegistryError(f"{what} could be read as a manifest and as an index")
    shown = INDEX if "manifests" in value else MANIFEST
    named = value.get("mediaType") or header
    kinds = INDEXES if shown == INDEX else MANIFESTS
    if named in INDEXES | MANIFESTS and named not in kinds:
        raise RegistryError(f"{what} says that it is {named}, and is of another form")
    return named if named in kinds else shown


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{what}: the answer is not a manifest", hint="is it a registry?") from error
    if not isinstance(value, dict) or not isinstance(value.get("mediaType") or "", str):
        raise RegistryError(f"{what}: the answer is not a manifest", hint="is it a registry?")
    return value
