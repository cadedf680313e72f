"""Attestations beside an image, in the form in which BuildKit stores them (docs/attestations/attestation-storage.md).

They are layers of a manifest of their own, whose platform is unknown/unknown so that nobody takes it for an image, and
that names the image's digest in its annotations. Each is an in-toto statement about the image's manifest.
"""

from typing import Any

from builder.attest.evidence import Evidence
from builder.attest.package import image_purl
from builder.attest.provenance import V1, predicate_type, provenance
from builder.attest.scan import Found, contents_of
from builder.attest.spdx import PREDICATE, Described, spdx_document
from builder.blame import Blame
from builder.export.output import Attestations
from builder.report import Report
from builder.steps.step import Copy, Step
from cache.store import Store
from layers.data import replace
from layers.digest import canonical_json
from layers.errors import StoreError
from layers.layer import Layer
from layers.layout import Layout
from layers.oci import CONFIG, Descriptor, Image, ImageConfig, Manifest, Platform

IN_TOTO = "application/vnd.in-toto+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"
_REFERENCE_TYPE, _REFERENCE_DIGEST = "vnd.docker.reference.type", "vnd.docker.reference.digest"
_LONGEST = 100
"""Letters of an instruction in a comment; each of its packages has one."""
_NOWHERE = Platform("unknown", "unknown")

Json = dict[str, Any]


def attach(image: Image, evidence: Evidence, asked: Attestations, store: Store, report: Report) -> Descriptor:
    """Write what is asked for about an image, and say how an index lists it."""
    statements = []
    if asked.sbom:
        statements.append(_statement(image, evidence, PREDICATE, _sbom(image, evidence, store, report)))
    if asked.provenance is not None:
        kind = predicate_type(asked.provenance)
        statements.append(_statement(image, evidence, kind, provenance(evidence, asked.provenance)))
    return _manifest(image, statements, store.layout)


def _statement(image: Image, evidence: Evidence, kind: str, predicate: Json) -> Json:
    """An in-toto statement (https://in-toto.io/Statement); its subject is the manifest, by each of its names."""
    digest = image.descriptor.digest
    names = [image_purl(name, image.config.platform) for name in evidence.names] or ["_"]
    return {
        "_type": "https://in-toto.io/Statement/v1" if kind == V1 else "https://in-toto.io/Statement/v0.1",
        "predicateType": kind,
        "subject": [{"name": name, "digest": {digest.algorithm: digest.hex}} for name in names],
        "predicate": predicate,
    }


def _manifest(image: Image, statements: list[Json], layout: Layout) -> Descriptor:
    """The manifest around statements, as an index lists it."""
    layers = []
    for statement in statements:
        blob = layout.put(canonical_json(statement), IN_TOTO)
        layers.append(replace(blob, annotations={PREDICATE_TYPE: statement["predicateType"]}))
    config = ImageConfig(_NOWHERE, diff_ids=tuple(layer.digest for layer in layers))
    manifest = Manifest(layout.put(config.serialise(), CONFIG), tuple(layers))
    annotations = {_REFERENCE_TYPE: "attestation-manifest", _REFERENCE_DIGEST: image.descriptor.digest}
    return replace(layout.put(manifest.serialise(), manifest.media_type), platform=_NOWHERE, annotations=annotations)


def _sbom(image: Image, evidence: Evidence, store: Store, report: Report) -> Json:
    """The packages of the image as SPDX; databases that could not be read are warned of."""
    pairs = zip(image.config.diff_ids, image.manifest.layers, strict=True)
    layers = [Layer(diff_id, blob, 0) for diff_id, blob in pairs]
    with report.running("looking for packages") as job:
        contents = contents_of(layers, store, lambda blob, done: report.progress(job, blob.digest, done, blob.size))
    for note in contents.notes:
        report.warn(note)
    blame = Blame(evidence.plans, store)
    steps = blame.steps(evidence.target)
    is_squashed = len(steps) != len(layers)
    if is_squashed:
        steps = [None] * len(layers)
    nobody = "" if is_squashed else "the base image"
    described = Described(
        name=evidence.names[0] if evidence.names else image.config.platform.os,
        created=image.config.created,
        diff_ids=image.config.diff_ids,
        origins=tuple(_origin(step) or nobody for step in steps),
        made=tuple(_origin(_behind(found, steps[found.layer], blame)) for found in contents.packages),
    )
    return spdx_document(contents, described)


def _origin(step: Step | None) -> str:
    """The instruction as it is written: with variables expanded, it could tell what nobody else is told."""
    if step is None:
        return ""
    text = " ".join(step.title.partition("] ")[2].split())
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"{step.location.file}:{step.location.first} {short}"


def _behind(found: Found, step: Step | None, blame: Blame) -> Step | None:
    """What made a package in the stage that it was copied from."""
    if step is None or not isinstance(step.action, Copy):
        return None
    try:
        return blame.behind(step.action, found.path)
    except StoreError:  # layers of a stage that the cache answered need not be there any more
        return None
