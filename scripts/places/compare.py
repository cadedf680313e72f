"""What differs between two images, and which of it may."""

import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from reading import Image, Item, Layer

FIELDS = tuple(field.name for field in fields(Item) if field.name != "path")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as in the reference."""

    step: str
    """The instruction whose layer it is in."""
    path: str
    field: str
    """Of `Item`, or `path` if the path itself is there but once."""
    theirs: str
    """In the reference."""
    ours: str

    def __str__(self) -> str:
        ours, theirs, step = (textwrap.shorten(text, 120) for text in (self.ours, self.theirs, self.step))
        return f"{self.path}: {self.field} {ours or '-'}, and not {theirs or '-'} ({step})"


@dataclass(frozen=True, slots=True)
class Exemption:
    """A difference that is allowed. `testdata/environments/exemptions.toml` has them all."""

    path: str
    """A pattern as of fnmatch; `*` matches slashes too."""
    fields: tuple[str, ...]
    reason: str
    environments: tuple[str, ...] = ()
    """Where; nothing means everywhere."""
    cases: tuple[str, ...] = ()
    """For which Dockerfiles; nothing means all."""

    def covers(self, difference: Difference, environment: str, case: str) -> bool:
        """Whether it allows this difference."""
        return (
            difference.field in self.fields
            and fnmatchcase(difference.path, self.path)
            and (not self.environments or environment in self.environments)
            and (not self.cases or case in self.cases)
        )


def read_exemptions(path: Path) -> tuple[Exemption, ...]:
    """The list of what may differ."""
    return tuple(
        Exemption(
            table["path"],
            tuple(table["fields"]),
            table["reason"],
            tuple(table.get("environments", ())),
            tuple(table.get("cases", ())),
        )
        for table in tomllib.loads(path.read_text())["exemption"]
    )


def differences(theirs: Image, ours: Image) -> Iterator[Difference]:
    """All that is not the same, in the order of the layers."""
    if theirs.config != ours.config:
        yield Difference("the image", "", "configuration", theirs.config, ours.config)
    if [layer.created_by for layer in theirs.layers] != [layer.created_by for layer in ours.layers]:
        yield Difference("the image", "", "steps", _steps(theirs.layers), _steps(ours.layers))
        return
    for one, other in zip(theirs.layers, ours.layers, strict=True):
        if one.diff_id != other.diff_id:
            yield from _in_layer(one, other)


def _in_layer(theirs: Layer, ours: Layer) -> Iterator[Difference]:
    before, after = ({item.path: item for item in layer.items} for layer in (theirs, ours))
    same = True
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if not one or not other:
            same = False
            yield Difference(theirs.created_by, path, "path", one.kind if one else "", other.kind if other else "")
            continue
        for name in FIELDS:
            if getattr(one, name) != getattr(other, name):
                same = False
                yield Difference(theirs.created_by, path, name, str(getattr(one, name)), str(getattr(other, name)))
    if same:
        yield Difference(theirs.created_by, "", "bytes", theirs.diff_id, ours.diff_id)


def _steps(layers: Sequence[Layer]) -> str:
    return "; ".join(layer.created_by for layer in layers)
