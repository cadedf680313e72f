"""Whether an image is what a context builds: the first step that made something else, and what is different in it."""

from collections.abc import Sequence

from builder.blame import Blame
from builder.build import Result
from builder.compare import Comparison, Difference, Setting
from builder.side import Side, shown
from builder.steps.step import Copy, Step
from cache.store import Store
from layers.data import dataclass
from layers.errors import Location

_EXCERPT = 60
"""Bytes of each file that are shown around the first that differs."""
_BLOCK = 4096
_READ = 16 << 20
"""Bytes of a file in which the first difference is looked for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The first difference between an image and what was built now."""

    message: str
    location: Location | None = None
    """The instruction, if one is to blame."""
    differences: tuple[Difference, ...] = ()
    """Of the layer that the instruction made."""
    settings: tuple[Setting, ...] = ()
    excerpts: tuple[str, str] = ("", "")
    """Where the bytes of the first path part: in the image, and as built now."""
    origin: Location | None = None
    """Of a file that was copied from another stage: the instruction there that made it."""


def first_finding(reference: Side, result: Result, store: Store, *, times: bool) -> Finding | None:
    """What differs first, in the order of the Dockerfile; None if nothing does. `times` says whether times count."""
    rebuilt = Side(result.image, store)
    ids = reference.image.config.diff_ids, rebuilt.image.config.diff_ids
    base = result.drafts[0].base
    if ids[0][:base] != ids[1][:base]:
        return Finding("the base image is not the one that the image was built on")
    comparison = Comparison(reference, rebuilt, times=times)
    blame = Blame(result.plans, store)
    steps = blame.steps(result.targets[0])
    for number in range(base, max(map(len, ids))):
        step = steps[number] if number < len(steps) else None
        if number >= len(ids[0]):
            return Finding(f"the image has no layer of {_named(step)}", _location(step))
        if number >= len(ids[1]):
            return Finding(f"nothing makes the image's layer of {reference.instruction(number) or 'unknown origin'}")
        if ids[0][number] != ids[1][number]:
            differences = comparison.layer(number)
            if differences:
                return _in_layer(reference, rebuilt, number, step, differences, blame)
    settings = tuple(comparison.settings())
    return Finding("the configuration is not the same", settings=settings) if settings else None


def _in_layer(
    reference: Side, rebuilt: Side, number: int, step: Step | None, differences: Sequence[Difference], blame: Blame
) -> Finding:
    made = reference.instruction(number)
    message = f"{_named(step)} makes something else"
    if step is not None and made and made != shown(step.created_by):
        message = f"the image's layer {number + 1} was made by another instruction: {made}"
    first = differences[0]
    excerpts, origin = ("", ""), None
    if "content" in first.what or any(what.startswith("size") for what in first.what):
        excerpts = _excerpts(reference, rebuilt, number, first.path)
    if step is not None and isinstance(step.action, Copy):
        origin = blame.behind(step.action, first.path)
    return Finding(message, _location(step), tuple(differences), excerpts=excerpts, origin=_location(origin))


def _location(step: Step | None) -> Location | None:
    return step.location if step else None


def _named(step: Step | None) -> str:
    return shown(step.created_by) if step else "a squashed layer"


def _excerpts(reference: Side, rebuilt: Side, number: int, path: str) -> tuple[str, str]:
    """The bytes of a file around the first that differs, as text; empty if that is further on than anybody looks."""
    one, other = (side.content(number, path, _READ) for side in (reference, rebuilt))
    if one == other:
        return "", ""
    at = 0
    while one[at : at + _BLOCK] == other[at : at + _BLOCK]:
        at += _BLOCK
    while one[at : at + 1] == other[at : at + 1]:
        at += 1
    start = max(one.rfind(b"\n", 0, at) + 1, at - _EXCERPT // 2)
    return _text(one[start : start + _EXCERPT]), _text(other[start : start + _EXCERPT])


def _text(data: bytes) -> str:
    """Bytes as one line that a terminal may get."""
    text = data.partition(b"\n")[0].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
