"""What a build leaves for the next one that is asked the same: all that it saw, if that can be looked at again."""

from collections.abc import Iterable, Iterator

from builder.context.sources import Contexts
from builder.events import Cached, Event, Job, Warned
from builder.export.image import Packaged
from builder.graph import Graph, ImageStart
from builder.images import OCI_LAYOUT, Images
from builder.options import BuildOptions
from builder.planner import StagePlan
from builder.steps.step import Copy
from cache.receipts import Receipt
from cache.stamps import is_racy
from cache.store import Store
from layers.oci import IMAGE_NAME, Index

HARMLESS = frozenset(
    {
        *("allowed", "backend", "build_args", "context", "contexts", "dockerfile", "environment", "labels", "limits"),
        *("network", "platforms", "registries", "root", "run_settings", "step_timeout", "tags", "target"),
        *("unset_env", "unset_labels"),
    }
)
"""Options with which a build that the cache answers reads nothing more, and makes nothing but an image in the store."""


def is_repeatable(options: BuildOptions, store: Store) -> bool:
    """Whether a build with these options may leave a receipt. Logins do not get to the disk, so none has them."""
    plain = BuildOptions(options.context, options.root)
    others = [name for name in BuildOptions.__match_args__ if name not in HARMLESS]
    usual = all(getattr(options, name) == getattr(plain, name) for name in others)
    layouts = any(source.startswith(OCI_LAYOUT) for source in options.contexts.values())
    secret = options.registries.logins or options.registries.auth_document
    return usual and not layouts and not secret and not store.note


def look_back(contexts: Contexts, graph: Graph, images: Images, started_ns: int) -> Receipt | None:
    """What was seen since `started_ns`; None if the next build could see something else without this showing."""
    receipt = contexts.seen()
    actions = (step.action for stage in graph.stages for step in stage.steps)
    fetches = any(isinstance(action, Copy) and action.remotes for action in actions)
    if receipt is None or fetches or not images.are_here:
        return None
    stamps = [*receipt.places.values(), *(stamp for folder in receipt.folders.values() for stamp in folder.values())]
    if any(is_racy(stamp, started_ns) for stamp in stamps):
        return None
    return receipt


def with_image(receipt: Receipt, packaged: Packaged, names: Iterable[str], store: Store) -> Receipt | None:
    """The receipt, once the image has its names; None if it has lost them again."""
    index = store.layout.index_bytes()
    manifests = Index.parse(index).manifests if index is not None else ()
    named = {manifest.annotations.get(IMAGE_NAME): manifest.digest for manifest in manifests}
    if any(named.get(name) != packaged.root.digest for name in names):
        return None
    receipt.texts[store.layout.index_path] = index
    for image in packaged.images:
        for blob in (packaged.root, image.descriptor, image.manifest.config, *image.manifest.layers):
            receipt.sizes[store.layout.path(blob.digest)] = blob.size
    return receipt


def answered(plans: Iterable[StagePlan]) -> Iterator[str]:
    """The titles of what the cache answered, of the stages that it answered as a whole."""
    for stage_plan in plans:
        if stage_plan.complete:
            if isinstance(stage_plan.stage.start, ImageStart):
                yield stage_plan.stage.start.title
            yield from stage_plan.hits()


def events_of(warnings: Iterable[Warned], titles: Iterable[str]) -> tuple[Event, ...]:
    """What a build that the cache answers as a whole tells its listener."""
    return *warnings, *(Cached(Job(number, title)) for number, title in enumerate(titles, 1))
