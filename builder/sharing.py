"""The shared caches of one build: they are opened when they are needed, and filled in the end."""

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack

from builder.caches import CachePlace, CacheTarget, Kind
from builder.report import Report
from builder.supply import Supplier, Supply
from cache.answers import Answers
from cache.shared.cache import SharedCache
from cache.shared.facts import Facts
from cache.shared.folder import FolderShelf
from cache.shared.shelf import Shelf
from cache.store import Store
from layers.compress import Compression
from layers.data import replace
from layers.digest import Digest
from layers.errors import ImageError, PybuildError
from layers.layer import Layer
from layers.layout import Layout
from layers.oci import Descriptor, Platform
from layers.registry.reference import Reference
from layers.registry.settings import RegistrySettings

_TRUE = frozenset({"true", "1"})


class Sharing:
    """Opens shared caches for a build. What it opens is closed by `close`."""

    def __init__(
        self,
        sources: Sequence[CachePlace],
        targets: Sequence[CacheTarget],
        *,
        platforms: Sequence[Platform],
        registries: RegistrySettings,
        store: Store,
        supply: Supply,
        report: Report,
    ) -> None:
        self._sources = sources
        self._targets = targets
        self._platforms = platforms
        self._registries = registries
        self._store = store
        self._supply = supply
        self._report = report
        self._stack = ExitStack()
        self._suppliers: dict[SharedCache, Supplier] = {}
        self._answers: Answers | None = None
        self._anybody = Supplier(
            "fetching from shared caches", self._fetch_promised, None, self._lacking_promised, promises=True
        )
        self.stages: Collection[int] = ()
        """Those that the image itself is made of, once it is known."""

    def close(self) -> None:
        """Close connections, and remove what was on its way."""
        self._stack.close()

    def answers(self) -> Answers:
        """The answers of this build: those of the store, then those of its sources, in their order."""
        opener = self._open_sources if self._sources else None
        self._answers = Answers(self._store.records, self._store.layout, opener, self._offer)
        return self._answers

    def fill(self, answers: Answers, *, failed: bool) -> None:
        """Give the targets what was of use in the build.

        What goes wrong is an error, unless the target says otherwise, or the build `failed` anyway: then it is told.
        """
        for target in self._targets:
            if target.place.kind is Kind.INLINE:
                continue
            facts = answers.facts(None if target.every_stage else self.stages)
            if failed and not facts.records:  # the build did not come far
                continue
            try:
                self._fill(target, facts)
            except PybuildError as error:
                if not target.may_fail and not failed:
                    raise
                self._report.warn(f"the cache was not written: {error.message}")

    def _fill(self, target: CacheTarget, facts: Facts) -> None:
        shelf = self._shelf(target.place, self._platforms[0])
        with self._report.running(f"exporting cache to {shelf.title}") as job:

            def progress(blob: Descriptor, done: int) -> None:
                self._report.progress(job, blob.digest, done, blob.size)

            facts = self._compressed(target, facts, progress)
            cache = SharedCache(shelf, self._report.warn)
            count = cache.save(facts, self._supply.obtain, self._store, progress)
            self._report.output(job, f"{count} of {len(facts.records)} steps were new there\n".encode())

    def _compressed(self, target: CacheTarget, facts: Facts, progress: Callable[[Descriptor, int], None]) -> Facts:
        """The same with layers in the compression that the target wants, if it wants one."""
        from cache import packs  # nothing of it before there is something to fill

        records = dict(facts.records)
        for key, record in facts.records.items():
            if target.compression or packs.is_direct(record.layer, self._store):
                self._store.bring([record.layer])
                compression = target.compression or Compression.GZIP
                layer = packs.packed(record.layer, compression, target.level, self._store, progress)
                records[key] = replace(record, layer=layer)
        return replace(facts, records=records)

    def _open_sources(self) -> tuple[SharedCache, ...]:
        caches = []
        for place in self._sources:
            for platform in self._platforms:
                shelf = self._shelf(place, platform)
                cache = SharedCache(shelf, self._report.warn)
                with self._report.running(f"importing cache from {shelf.title}") as job:
                    if not cache.load():
                        self._report.output(job, b"there is no cache yet\n")
                caches.append(cache)
                if not shelf.by_platform:
                    break
        return tuple(caches)

    def _offer(self, layer: Layer, cache: SharedCache | None) -> bool:
        """Note that a cache, or None for any of them, has a layer; False if the store has another under its name."""
        self._supply.offer([layer], self._supplier(cache) if cache else self._anybody)
        return not self._store.layout.has(layer.descriptor) or self._supply.is_right(layer)

    def _fetch_promised(self, layers: tuple[Layer, ...], progress: Callable[[Descriptor, int], None]) -> None:
        for layer in layers:
            cache = self._keeper(layer)
            if cache is None:
                raise ImageError(f"none of the caches has the layer {layer.descriptor.digest}")
            cache.fetch([layer], self._store, progress)

    def _lacking_promised(self, layers: Sequence[Layer]) -> Collection[Digest]:
        lacking: set[Digest] = set()
        for layer in layers:
            cache = self._keeper(layer)
            lacking |= cache.lacking([layer]) if cache else {layer.descriptor.digest}
        return lacking

    def _keeper(self, layer: Layer) -> SharedCache | None:
        """Who has a layer after all; then it is known to the supply as well, which can have it mounted from there."""
        cache = self._answers.keeper(layer) if self._answers else None
        if cache:
            self._supply.offer([layer], self._supplier(cache))
        return cache

    def _supplier(self, cache: SharedCache) -> Supplier:
        def fetch(layers: tuple[Layer, ...], progress: Callable[[Descriptor, int], None]) -> None:
            cache.fetch(layers, self._store, progress)

        def lacking(layers: Sequence[Layer]) -> Collection[Digest]:
            return cache.lacking(layers)

        if cache not in self._suppliers:
            self._suppliers[cache] = Supplier(f"fetching from the cache {cache.title}", fetch, cache.home, lacking)
        return self._suppliers[cache]

    def _shelf(self, place: CachePlace, platform: Platform) -> Shelf:
        settings = place.settings
        match place.kind:
            case Kind.LOCAL:
                digest = Digest(settings["digest"]) if "digest" in settings else None
                folder = settings.get("dest") or settings["src"]
                return FolderShelf(folder, settings.get("tag", "latest"), digest)
            case Kind.S3:
                from cache.shared.s3 import BucketShelf  # boto3 is an extra

                return self._closing(BucketShelf(settings))
            case Kind.ACTIONS:
                from cache.shared.actions import ActionsShelf
                from layers.registry.connection import Connection

                connection = Connection(self._registries)
                self._stack.callback(connection.close)
                return ActionsShelf(connection, settings)
            case _:
                insecure = settings.get("registry.insecure") in _TRUE
                return self._registry_shelf(settings["ref"], platform, insecure=insecure)

    def _closing(self, shelf: Shelf) -> Shelf:
        self._stack.callback(shelf.close)
        return shelf

    def _registry_shelf(self, ref: str, platform: Platform, *, insecure: bool) -> Shelf:
        from builder.export.registry import neighbours  # folders need no HTTP
        from cache.shared.registry import RegistryShelf
        from layers.registry.client import Registry

        reference = Reference.parse(ref)
        registries = self._registries
        if insecure:
            registries = replace(registries, insecure=registries.insecure | {reference.host})
        registry = self._stack.enter_context(Registry(registries, warn=self._report.warn))
        # Not the scratch folder itself, which the store holds locked, as a layout does that is written to.
        scratch = Layout(os.path.join(self._stack.enter_context(self._store.scratch("cache")), "documents"))
        named: list[Callable[[str, Descriptor], str]] = []

        def neighbour(host: str, blob: Descriptor) -> str:
            if not named:  # only who writes looks for where its blobs are
                named.append(neighbours(self._store.layout, [reference]))
            return self._supply.home_of(host, blob) or named[0](host, blob)

        return RegistryShelf(registry, reference, platform, scratch, neighbour)
