"""What the documents of all calls have in common; their form is that of BuildKit's subrequests."""

import base64
import json
from collections.abc import Sequence

from builder.dockerfile.reader import Source
from builder.errors import Location


def document(value: object) -> str:
    """A JSON document for a person's eyes or a program."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def range_of(location: Location) -> dict[str, dict[str, int]]:
    """The lines of a place, the first one counted as 1."""
    return {"start": {"line": location.first}, "end": {"line": location.last}}


def located(value: dict[str, object], location: Location) -> dict[str, object]:
    """An object without what says nothing, and with its place."""
    return {key: part for key, part in value.items() if part} | {"location": {"ranges": [range_of(location)]}}


def source_data(source: Source) -> str:
    """The text of the Dockerfile, with the line ends of Unix, in base64."""
    return base64.b64encode("".join(f"{line}\n" for line in source.lines).encode("utf-8", "surrogateescape")).decode()


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Columns with three blanks between them."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "".join(line.rstrip() + "\n" for line in lines)
