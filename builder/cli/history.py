"""`pybuild history`: the instructions that made an image, and what each of them added."""

import json
from collections.abc import Sequence
from contextlib import closing

from builder.cli.arguments import Parser, add_platform_option, platform_of
from builder.cli.images import human_size
from builder.cli.refs import find_image
from builder.cli.world import World
from builder.side import Side, shown
from cache.store import Store
from layers.entry import Kind
from layers.index import LayerIndex

_WIDTH = 60
"""Columns for an instruction, unless it is wanted in full."""


def main(arguments: Sequence[str], world: World) -> int:
    """Print one line for each instruction, the last one first, as docker does."""
    parser = Parser(prog="pybuild history", description="List the instructions that made an image, the last one first.")
    parser.add_argument("image", metavar="IMAGE", help="a name, an id, or oci-layout://DIR[:TAG]")
    parser.add_argument("--no-trunc", action="store_true", help="show instructions in full")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line, with all that is known")
    add_platform_option(parser)
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    given = parser.parse_args(arguments)
    with closing(Store(given.root or world.default_root())) as store:
        _, image = find_image(given.image, store, platform_of(given.platform))
        rows = _rows(Side(image, store))
    if given.json:
        for row in reversed(rows):
            world.out.write(json.dumps(row, ensure_ascii=False) + "\n")
        return 0
    lines = [("CREATED", "CREATED BY", "SIZE", "LAYER")]
    for row in reversed(rows):
        text = shown(str(row["created_by"]))
        text = text if given.no_trunc or len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
        created = str(row["created"]).replace("T", " ")[:19] or "-"
        size = row["size"]
        layer = str(row["layer"]).removeprefix("sha256:")[:12] if row["layer"] else ""
        lines.append((created, text, human_size(size) if isinstance(size, int) else "-", layer))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        world.out.write("   ".join(cells).rstrip() + "\n")
    return 0


def _rows(side: Side) -> list[dict[str, object]]:
    """What is known of each item of the history; layers that it does not tell of come last."""
    left = list(zip(side.layers, side.indexes, strict=True))
    rows: list[dict[str, object]] = []
    for item in side.image.config.history:
        row: dict[str, object] = {"created": item.created, "created_by": item.created_by, "comment": item.comment}
        rows.append(row | {"size": 0, "layer": None, "diff_id": None})
        if not item.empty_layer and left:
            layer, index = left.pop(0)
            rows[-1] |= {"size": _size(index), "layer": layer.descriptor.digest, "diff_id": layer.diff_id}
    for layer, index in left:
        row = {"created": "", "created_by": "", "comment": "", "size": _size(index)}
        rows.append(row | {"layer": layer.descriptor.digest, "diff_id": layer.diff_id})
    return rows


def _size(index: LayerIndex) -> int:
    """Bytes of the files of a layer; hard links count once."""
    files = {entry.inode if entry.inode is not None else path: entry for path, entry in index.entries.items()}
    return sum(entry.size for entry in files.values() if entry.kind is Kind.FILE)
