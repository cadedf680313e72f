"""A list of packages as an SPDX 2.3 document (https://spdx.github.io/spdx-spec/v2.3/), always with the same bytes.

The image, each of its layers and each package are packages to SPDX. The image contains layers, and a layer the packages
that it brought; a comment tells in words which instruction that was.
"""

import hashlib
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from builder.attest.package import Distribution
from builder.attest.scan import Contents, Found
from layers.data import dataclass
from layers.digest import Digest, canonical_json

PREDICATE = "https://spdx.dev/Document"
_DOCUMENT, _IMAGE = "SPDXRef-DOCUMENT", "SPDXRef-Image"
_TOOL = "Tool: pybuild"
_UNKNOWN = "NOASSERTION"


@dataclass(frozen=True, slots=True)
class Described:
    """The image that a document is about."""

    name: str
    created: str
    """RFC 3339."""
    diff_ids: tuple[Digest, ...]
    origins: tuple[str, ...]
    """What made each layer, such as `Dockerfile:3 RUN make`; "" where nobody has said."""
    made: tuple[str, ...]
    """For each package: what made it in the stage that it was copied from; "" for one that was not copied."""


def spdx_document(contents: Contents, image: Described) -> dict[str, Any]:
    """The document. Its name space, which must be its alone, is a digest of all else that is in it."""
    packages = [
        _package(found, contents.distribution, image, made)
        for found, made in zip(contents.packages, image.made, strict=True)
    ]
    layers = [_layer(number, image) for number in range(len(image.diff_ids))]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": image.name,
        "creationInfo": {"created": _whole_seconds(image.created), "creators": [_TOOL]},
        "packages": [_image(image), *layers, *packages],
        "relationships": list(_relationships(contents.packages, packages, layers)),
    }
    if contents.notes:
        document["comment"] = "\n".join(contents.notes)
    digest = hashlib.sha256(canonical_json(document)).digest()
    return document | {"documentNamespace": uuid.UUID(bytes=digest[:16], version=5).urn}


def _image(image: Described) -> dict[str, Any]:
    return {**_entry(_IMAGE, image.name), "primaryPackagePurpose": "CONTAINER"}


def _layer(number: int, image: Described) -> dict[str, Any]:
    diff_id = image.diff_ids[number]
    entry = {
        **_entry(f"SPDXRef-Layer-{number}", diff_id),
        "primaryPackagePurpose": "ARCHIVE",
        "checksums": [{"algorithm": diff_id.algorithm.upper(), "checksumValue": diff_id.hex}],
    }
    return entry | ({"comment": image.origins[number]} if image.origins[number] else {})


def _package(found: Found, distribution: Distribution, image: Described, made: str) -> dict[str, Any]:
    package = found.package
    purl = package.purl(distribution)
    digest = hashlib.sha256(canonical_json([purl, found.path])).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", package.name)
    entry = {
        **_entry(f"SPDXRef-Package-{package.type}-{readable}-{digest}", _plain(package.name)),
        "versionInfo": _plain(package.version),
        "sourceInfo": f"listed in /{_plain(found.path)}",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl},
        ],
        "comment": "; ".join(_brought(found, image, made)),
    }
    said = f"The package says: {_plain(package.license)}"
    return entry | ({"licenseComments": said} if package.license else {})


def _brought(found: Found, image: Described, made: str) -> Iterator[str]:
    yield f"layer {image.diff_ids[found.layer]}"
    if image.origins[found.layer]:
        yield image.origins[found.layer]
    if made:
        yield f"made by {made}"


def _entry(identifier: str, name: str) -> dict[str, Any]:
    """The fields that SPDX asks of every package."""
    return {
        "SPDXID": identifier,
        "name": name,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
    }


def _relationships(
    found: Sequence[Found], packages: Sequence[dict[str, Any]], layers: Sequence[dict[str, Any]]
) -> Iterator[dict[str, str]]:
    yield _relation(_DOCUMENT, "DESCRIBES", _IMAGE)
    for layer in layers:
        yield _relation(_IMAGE, "CONTAINS", layer["SPDXID"])
    for each, package in zip(found, packages, strict=True):
        yield _relation(layers[each.layer]["SPDXID"], "CONTAINS", package["SPDXID"])


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _plain(text: str) -> str:
    """A text that may stand in JSON: bytes of a name that are no UTF-8 could not."""
    return text.encode("utf-8", "replace").decode()


def _whole_seconds(created: str) -> str:
    """A time as SPDX has it: UTC, and no fraction."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return "1970-01-01T00:00:00Z"
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
