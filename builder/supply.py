"""Where layers come from that the store does not have: registries of base images, layouts, shared caches.

They are fetched when somebody needs their bytes, and not before: an image that is only given a label and pushed back
to its registry is never downloaded.
"""

import threading
from collections.abc import Callable, Collection, Sequence

from builder.errors import CancelledError
from builder.report import Report
from cache.store import Store
from layers.data import dataclass, field
from layers.digest import Digest
from layers.errors import ImageError, PybuildError, StoreError
from layers.layer import Layer, read_layer
from layers.oci import Descriptor

Progress = Callable[[Descriptor, int], None]
"""Called with a blob and how many of its bytes have come."""


class LostLayersError(ImageError):
    """A shared cache does not have, or not rightly, what it says that it has: the steps have to be done again."""

    def __init__(self, message: str, blobs: Collection[Digest], *, expected: bool) -> None:
        super().__init__(message, hint="build again with --no-cache, or without this cache")
        self.blobs = blobs
        self.expected = expected
        """Whether nobody has said for certain that the layers are there."""


@dataclass(frozen=True, slots=True, eq=False)
class Supplier:
    """One place that has layers."""

    title: str
    """As a person reads it where layers are fetched."""
    fetch: Callable[[tuple[Layer, ...], Progress], None]
    """Brings layers into the store, each verified against its digest and its diff_id."""
    home: tuple[str, str] | None = None
    """Host and repository, if it is a registry: blobs can be mounted from there."""
    lacking: Callable[[Sequence[Layer]], Collection[Digest]] | None = None
    """Of a shared cache: which blobs it does not have after all. It may promise what it cannot keep."""
    promises: bool = False
    """Whether it is not even said for certain that it has the layers."""
    alone: threading.Lock = field(default_factory=threading.Lock)
    """Held by who fetches, so that two stages do not fetch the same."""


class Supply:
    """The suppliers of one build. For any thread."""

    def __init__(self, store: Store, report: Report) -> None:
        """The store asks this from now on for the layers that it lacks."""
        self._store = store
        self._report = report
        self._suppliers: dict[Digest, list[Supplier]] = {}
        self._layers: dict[Digest, Layer] = {}
        self._lock = threading.Lock()
        self.check_cancelled: Callable[[], None] = lambda: None
        """Raises if nobody wants the layers any more; called all the while."""
        store.supply = self.bring

    def offer(self, layers: Sequence[Layer], supplier: Supplier) -> None:
        """Note that a place has layers. Those that were offered before are fetched from there."""
        with self._lock:
            for layer in layers:
                known = self._suppliers.setdefault(layer.descriptor.digest, [])
                if supplier not in known:
                    known.append(supplier)
                self._layers.setdefault(layer.descriptor.digest, layer)

    def is_right(self, layer: Layer) -> bool:
        """Whether a blob of the store is the layer of its diff_id, which somebody says who is not believed."""
        try:
            with self._store.layout.open(layer.descriptor) as blob:
                self._store.keep_index(layer.diff_id, read_layer(layer.descriptor, layer.diff_id, blob))
        except ImageError:
            return False
        return True

    def bring(self, layers: Sequence[Layer], title: str = "") -> None:
        """Bring layers into the store, as far as they are not there.

        LostLayersError if a shared cache is the only one that should have had them; else what its supplier raises.
        """
        while missing := [layer for layer in layers if not self._store.layout.has(layer.descriptor)]:
            groups: dict[Supplier, list[Layer]] = {}
            for layer in missing:
                groups.setdefault(self._supplier_of(layer), []).append(layer)
            for supplier, group in groups.items():
                with supplier.alone:
                    left = tuple(layer for layer in group if not self._store.layout.has(layer.descriptor))
                    if left:
                        self._fetch(supplier, left, title or supplier.title)

    def obtain(self, blob: Descriptor) -> None:
        """Bring one of the layers that were offered."""
        layer = self._layers.get(blob.digest)
        if layer is not None:
            self.bring([layer])

    def check(self, layers: Sequence[Layer]) -> None:
        """LostLayersError if shared caches do not have layers which are nowhere else, as far as they say."""
        promised: dict[Supplier, list[Layer]] = {}
        for layer in layers:
            if not self._store.layout.has(layer.descriptor):
                supplier = self._supplier_of(layer)
                if supplier.lacking:
                    promised.setdefault(supplier, []).append(layer)
        for supplier, group in promised.items():
            assert supplier.lacking
            lost = {digest for digest in supplier.lacking(group) if not self._withdraw(digest, supplier)}
            if lost:
                raise LostLayersError(
                    f"{supplier.title}: {len(lost)} layers are not there any more", lost, expected=supplier.promises
                )

    def home_of(self, host: str, blob: Descriptor) -> str:
        """A repository of a registry that has the blob; empty if none is known."""
        homes = [supplier.home for supplier in self._suppliers.get(blob.digest, ())]
        return next((home[1] for home in homes if home and home[0] == host), "")

    def _supplier_of(self, layer: Layer) -> Supplier:
        suppliers = self._suppliers.get(layer.descriptor.digest)
        if not suppliers:
            raise StoreError(
                f"the store has lost the layer {layer.descriptor.digest}", hint="build or pull the image again"
            )
        return suppliers[0]

    def _fetch(self, supplier: Supplier, layers: tuple[Layer, ...], title: str) -> None:
        with self._report.running(title) as job:

            def progress(blob: Descriptor, done: int) -> None:
                self.check_cancelled()
                self._report.progress(job, blob.digest, done, blob.size)

            try:
                supplier.fetch(layers, progress)
            except (CancelledError, StoreError):
                raise
            except PybuildError as error:
                if not supplier.lacking:
                    raise
                self._give_up(supplier, self._wrong(supplier, layers, progress), error)

    def _wrong(self, supplier: Supplier, layers: Sequence[Layer], progress: Progress) -> list[Layer]:
        """Which of the layers are to blame for an error: each is tried alone."""
        wrong = []
        for layer in layers:
            try:
                if not self._store.layout.has(layer.descriptor):
                    supplier.fetch((layer,), progress)
                elif not self.is_right(layer):
                    wrong.append(layer)
            except (CancelledError, StoreError):
                raise
            except PybuildError:
                wrong.append(layer)
        return wrong

    def _give_up(self, supplier: Supplier, layers: Sequence[Layer], error: PybuildError) -> None:
        """Ask others from now on for these layers; LostLayersError for those that nobody else has."""
        lost = {layer.descriptor.digest for layer in layers if not self._withdraw(layer.descriptor.digest, supplier)}
        if lost:
            raise LostLayersError(f"{supplier.title}: {error.message}", lost, expected=supplier.promises) from error

    def _withdraw(self, blob: Digest, supplier: Supplier) -> bool:
        """Do not ask a supplier for a blob again; whether there is another one."""
        with self._lock:
            others = self._suppliers[blob] = [each for each in self._suppliers[blob] if each is not supplier]
        return bool(others)
