"""`pybuild verify`: whether an image is what a context builds."""

from collections.abc import Iterator, Sequence
from contextlib import closing

from builder.build import Clocks, build
from builder.cli.arguments import Parser
from builder.cli.build import add_build_options, options_of
from builder.cli.diff import value_text
from builder.cli.refs import find_image
from builder.cli.world import World
from builder.compare import Difference
from builder.errors import UsageError
from builder.excerpt import excerpt
from builder.progress.choose import open_listener
from builder.side import Side
from builder.verify import Finding, first_finding
from cache.store import Store
from layers.data import replace
from layers.oci import Image

_MOST_PATHS = 20
"""Paths that are shown; there may be thousands."""


def main(arguments: Sequence[str], world: World) -> int:
    """Build without the cache and compare; the status is 1 if the image is another one."""
    parser = Parser(prog="pybuild verify", description="Build again, without the cache, and compare with an image.")
    parser.add_argument("image", metavar="IMAGE", help="a name, an id, or oci-layout://DIR[:TAG]")
    add_build_options(parser)
    given = parser.parse_args(arguments)
    options = replace(options_of(given, world), tags=(), outputs=(), use_cache=False, keep_records=False)
    if len(options.platforms) > 1:
        raise UsageError("pybuild verify: one platform is verified at a time")
    with closing(Store(options.root)) as store:
        _, image = find_image(given.image, store, options.platforms[0] if options.platforms else None)
    epoch = options.source_date_epoch or options.build_args.get("SOURCE_DATE_EPOCH") or epoch_of(image)
    options = replace(options, source_date_epoch=epoch)
    with open_listener("quiet" if given.quiet else given.progress, world.err, world.monotonic) as listener:
        result = build(options, listener, Clocks(world.monotonic, world.now_ns))
    if result.image.descriptor.digest == image.descriptor.digest:
        world.out.write(f"{given.image} is what {given.context} builds, to the last bit: {image.descriptor.digest}\n")
        return 0
    with closing(Store(options.root)) as store:
        finding = first_finding(Side(image, store), result, store, times=bool(epoch))
    if finding is not None:
        for line in _lines(finding, given.image, given.context):
            world.out.write(line + "\n")
        return 1
    world.out.write(f"{given.image} is what {given.context} builds, {_but(image, result.image)}\n")
    return 0


def epoch_of(image: Image) -> str:
    """The SOURCE_DATE_EPOCH that an image says it was built with: the times of others have a fraction. Else nothing."""
    from datetime import datetime

    try:
        created = datetime.fromisoformat(image.config.created)
    except ValueError:
        return ""
    last = image.config.history[-1].created if image.config.history else ""
    is_epoch = "." not in image.config.created and last == image.config.created
    return str(int(created.timestamp())) if is_epoch and created.tzinfo else ""


def _but(image: Image, rebuilt: Image) -> str:
    """What is not the same where files and settings are."""
    if image.config == rebuilt.config:
        return "packed otherwise"
    return "but for times: it was built without SOURCE_DATE_EPOCH"


def _lines(finding: Finding, name: str, context: str) -> Iterator[str]:
    yield f"{name} is not what {context} builds: {finding.message}"
    if finding.location is not None:
        yield excerpt(finding.location)
    for number, item in enumerate(finding.differences[:_MOST_PATHS]):
        yield f"/{item.path}: {_what(item)}"
        if number == 0 and any(finding.excerpts):
            yield f"    image    {finding.excerpts[0]}"
            yield f"    rebuilt  {finding.excerpts[1]}"
        if number == 0 and finding.origin is not None:
            yield f"    it comes from {finding.origin.file}:{finding.origin.first}"
            yield excerpt(finding.origin)
    more = len(finding.differences) - _MOST_PATHS
    if more > 0:
        yield f"and {more} more paths"
    for setting in finding.settings:
        yield f"{setting.name}: {value_text(setting.first)} -> {value_text(setting.second)}"


def _what(item: Difference) -> str:
    if not item.is_in_second:
        return "only in the image"
    if not item.is_in_first:
        return "only in what is built now"
    return ", ".join(item.what)
