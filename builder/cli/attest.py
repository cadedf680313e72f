"""--attest, --sbom and --provenance: what is said of an image beside it, in `docker buildx build`'s grammar."""

import argparse
from collections.abc import Mapping

from builder.errors import UsageError
from builder.export.output import Attestations, Provenance
from layers.data import replace

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MODES = {"min": False, "max": True}
_VERSIONS = ("v1", "v0.2")


def add_attest_options(parser: argparse.ArgumentParser) -> None:
    """The three options."""
    parser.add_argument(
        "--attest", action="append", default=[], metavar="SPEC", help="type=sbom, or type=provenance[,KEY=VALUE]"
    )
    parser.add_argument("--sbom", metavar="true|false", help="list the packages of the image: --attest type=sbom")
    parser.add_argument(
        "--provenance", metavar="SPEC", help="true, false, mode=min|max[,version=v1|v0.2]: --attest type=provenance"
    )


def attestations_of(given: argparse.Namespace) -> Attestations:
    """What is asked for; none is made of itself. The last option of a kind counts."""
    asked = Attestations()
    for text in given.attest:
        fields = _fields(text, f"--attest {text}")
        kind = fields.pop("type", "")
        if kind == "sbom":
            asked = replace(asked, sbom=_sbom(fields, f"--attest {text}"))
        elif kind == "provenance":
            asked = replace(asked, provenance=_provenance(fields, f"--attest {text}"))
        else:
            raise UsageError(f"--attest {text}: the type is sbom or provenance")
    if given.sbom is not None:
        asked = replace(asked, sbom=_sbom(_short(given.sbom, "--sbom"), f"--sbom {given.sbom}"))
    if given.provenance is not None:
        fields = _short(given.provenance, "--provenance")
        asked = replace(asked, provenance=_provenance(fields, f"--provenance {given.provenance}"))
    return asked


def _short(text: str, option: str) -> dict[str, str]:
    """`true` and `false`, or fields."""
    if text in _BOOLEANS:
        return {"disabled": "false" if _BOOLEANS[text] else "true"}
    return _fields(text, f"{option} {text}")


def _fields(text: str, option: str) -> dict[str, str]:
    import csv  # few builds are attested

    fields = {}
    for part in next(csv.reader([text]), []):
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise UsageError(f"{option}: {part!r} is not written KEY=VALUE")
        fields[key] = value
    return fields


def _sbom(fields: dict[str, str], option: str) -> bool:
    if "generator" in fields:
        raise UsageError(f"{option}: there are no generators: pybuild looks for packages itself")
    wanted = not _boolean(fields, "disabled", option)
    _refuse_others(fields, option)
    return wanted


def _provenance(fields: dict[str, str], option: str) -> Provenance | None:
    wanted = not _boolean(fields, "disabled", option)
    mode, version = fields.pop("mode", "min"), fields.pop("version", "v1")
    if mode not in _MODES:
        raise UsageError(f"{option}: the mode is min or max")
    if version not in _VERSIONS:
        raise UsageError(f"{option}: the version is {' or '.join(_VERSIONS)}")
    asked = Provenance(_MODES[mode], version, fields.pop("builder-id", ""), _boolean(fields, "reproducible", option))
    if not _boolean(fields, "inline-only", option, default=True):
        raise UsageError(f"{option}: provenance goes into images alone, so inline-only can only be true")
    _refuse_others(fields, option)
    return asked if wanted else None


def _boolean(fields: dict[str, str], key: str, option: str, *, default: bool = False) -> bool:
    text = fields.pop(key, None)
    if text is None:
        return default
    if text not in _BOOLEANS:
        raise UsageError(f"{option}: {key} is true or false")
    return _BOOLEANS[text]


def _refuse_others(fields: Mapping[str, str], option: str) -> None:
    if fields:
        raise UsageError(f"{option}: there is no {', '.join(fields)}")
