"""`pybuild diff`: what differs between two images, and which instruction made the difference."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing

from builder.cli.arguments import Parser
from builder.cli.refs import find_image
from builder.cli.world import World
from builder.compare import Comparison, Difference, Setting
from builder.side import Side
from cache.store import Store


def main(arguments: Sequence[str], world: World) -> int:
    """Print the differences; the status is 1 if there are any, as that of diff."""
    parser = Parser(prog="pybuild diff", description="Tell what differs between two images, and what made it so.")
    for name in ("first", "second"):
        parser.add_argument(name, metavar="IMAGE", help="a name, an id, or oci-layout://DIR[:TAG]")
    parser.add_argument("--times", action="store_true", help="times of files and of the build count too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    given = parser.parse_args(arguments)
    with closing(Store(given.root or world.default_root())) as store:
        first, second = (Side(find_image(text, store)[1], store) for text in (given.first, given.second))
        comparison = Comparison(first, second, times=given.times)
        settings, files = list(comparison.settings()), comparison.files()
        lines = _json(settings, files, first, second) if given.json else _lines(settings, files, first, second)
        for line in lines:
            world.out.write(line + "\n")
    return 1 if settings or files else 0


def _lines(settings: list[Setting], files: list[Difference], first: Side, second: Side) -> Iterator[str]:
    for setting in settings:
        if setting.name != "history":
            yield f"config  {setting.name}: {value_text(setting.first)} -> {value_text(setting.second)}"
    if settings or files:  # else they differ in times at most
        yield from _layer_lines(first, second)
    for item in files:
        # In brackets the instruction that did it; of what was never there, the one that did it in the other image.
        below = f" (and {item.below} below it)" if item.below else ""
        what = ", ".join(item.what)
        if not item.is_in_second:
            remover = second.remover(item.path)
            by = _by(first, first.adder(item.path)) if remover is None else _by(second, remover)
            yield f"- /{item.path}{below}{by}"
        elif not item.is_in_first:
            yield f"+ /{item.path}{below}{_by(second, second.adder(item.path))}"
        else:
            yield f"~ /{item.path}: {what}{_by(second, item.second)}"


def _layer_lines(first: Side, second: Side) -> Iterator[str]:
    """The layers from the first that is not the same."""
    ids = first.image.config.diff_ids, second.image.config.diff_ids
    same = 0
    while same < min(map(len, ids)) and ids[0][same] == ids[1][same]:
        same += 1
    if same == len(ids[0]) == len(ids[1]):
        return
    yield f"layers  the lowest {same} are the same"
    for sign, side in (("-", first), ("+", second)):
        for number in range(same, len(side.layers)):
            digest = side.layers[number].diff_id.hex[:12]
            yield f"layers  {sign} {number + 1}: {digest} {side.instruction(number)}".rstrip()


def _by(side: Side, layer: int | None) -> str:
    instruction = side.instruction(layer)
    return f"   [{instruction}]" if instruction else ""


def value_text(value: object) -> str:
    """A setting as people read it."""
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _json(settings: list[Setting], files: list[Difference], first: Side, second: Side) -> Iterator[str]:
    document = {
        "config": [{"name": item.name, "first": item.first, "second": item.second} for item in settings],
        "layers": {"first": first.image.config.diff_ids, "second": second.image.config.diff_ids},
        "files": [
            {
                "path": item.path,
                "what": list(item.what) or ["removed" if item.is_in_first else "added"],
                "below": item.below,
                "first": first.instruction(item.first) or None,
                "second": second.instruction(item.second) or None,
            }
            for item in files
        ],
    }
    yield json.dumps(document, indent=2, ensure_ascii=False)
