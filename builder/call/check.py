"""What `--check` answers: each finding with its lines, or the document that `docker buildx build --check` prints."""

from collections.abc import Sequence

from builder.call.document import document, range_of, source_data
from builder.checks.rule import Finding
from builder.dockerfile.reader import Source
from builder.excerpt import excerpt
from layers.data import dataclass
from layers.errors import PybuildError


@dataclass(frozen=True, slots=True)
class Checked:
    """What came out."""

    source: Source
    findings: Sequence[Finding]
    error: PybuildError | None
    """What would end a build."""


def check_answer(checked: Checked, *, json: bool) -> str:
    """The answer in full."""
    return document(_json(checked)) if json else _text(checked)


def _text(checked: Checked) -> str:
    parts = [_summary(checked)]
    parts += [
        f"WARNING: {finding.rule.name} - {finding.rule.url}\n{finding.detail}\n{excerpt(finding.location)}"
        for finding in checked.findings
    ]
    if checked.error:
        error = checked.error
        lines = [f"ERROR: {error.message}"]
        lines += [f"hint: {error.hint}"] if error.hint else []
        lines += [excerpt(error.location)] if error.location else []
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _summary(checked: Checked) -> str:
    count = len(checked.findings)
    if checked.error:
        return "Check ended at an error" + (f", with {_warnings(count)} before" if count else "") + "."
    return f"Check complete, {_warnings(count)}."


def _warnings(count: int) -> str:
    return f"{count or 'no'} warning{'' if count == 1 else 's'} found"


def _json(checked: Checked) -> dict[str, object]:
    value: dict[str, object] = {
        "warnings": [
            {
                "ruleName": finding.rule.name,
                "description": finding.rule.description,
                "url": finding.rule.url,
                "detail": finding.detail,
                "location": {"ranges": [range_of(finding.location)]},
            }
            for finding in checked.findings
        ],
        "sources": [{"filename": checked.source.name, "language": "Dockerfile", "data": source_data(checked.source)}],
    }
    if checked.error:
        location = checked.error.location
        value["buildError"] = {
            "message": checked.error.message,
            "location": {"ranges": [range_of(location)]} if location else {},
        }
    return value
