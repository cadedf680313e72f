"""The trees that COPY, ADD and mounts read from, and what of them goes into a step's key."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from builder.bindings import Bindings, Finished, mount_rows
from builder.context.local import LocalTree
from builder.elsewhere import Elsewhere, Row
from builder.errors import ContextError
from builder.snapshot import Snapshot
from builder.steps.bound import Bound
from builder.steps.mode import SymbolicMode
from builder.steps.sources import Source, find_sources
from builder.steps.step import Action, Copy, FromContext, FromImage, FromStage, MakeDirectory, Origin, Run, RunSettings
from builder.steps.tree import Chosen, Tree, digest_of
from cache.answers import Answers
from cache.store import Store
from layers.data import dataclass, replace
from layers.digest import Digest, canonical_json
from layers.entry import SECOND

Material = dict[str, object]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a step reads: its material for the key and, for a copy, the files themselves."""

    material: Material
    tree: Tree | None = None
    sources: tuple[Source, ...] = ()
    bound: tuple[Bound, ...] = ()
    """What the binds of a RUN lead to."""


class Origins:
    """Gives trees to copies, and materials to keys. One for a build; `renewed` forgets what it saw of the context."""

    def __init__(
        self,
        store: Store,
        open_context: Callable[[str], LocalTree],
        elsewhere: Elsewhere,
        answers: Answers,
        epoch: int | None = None,
    ) -> None:
        self._epoch = epoch
        self._store = store
        self._answers = answers
        self._open_context = open_context
        self._elsewhere = elsewhere
        self._contexts: dict[str, LocalTree] = {}
        self._bindings = Bindings(store, answers, self._context_tree, _snapshot)
        self._selected: dict[Copy, Selection] = {}

    def renewed(self) -> "Origins":
        """The same with a fresh look at the context."""
        return Origins(self._store, self._open_context, self._elsewhere, self._answers, self._epoch)

    def known_material(self, action: Action, finished: Finished) -> Material | None:
        """The material as far as it needs no layer to be read; None: it does, or it waits for another stage."""
        material = self._known_material(action, finished)
        return None if material is None else self._dated(material)

    def select(self, action: Action, finished: Finished) -> Selection:
        """What an action reads, ready to be read. A copy's stage must be finished, and its layers in the store."""
        selection = self._select(action, finished)
        return replace(selection, material=self._dated(selection.material))

    def _dated(self, material: Material) -> Material:
        """The material of a step that makes a layer: with an epoch, the times in it depend on that."""
        return material if self._epoch is None else {**material, "source_date_epoch": self._epoch}

    def _known_material(self, action: Action, finished: Finished) -> Material | None:
        if isinstance(action, Run):
            digests = [self._bindings.digest(bind, finished) for bind in action.binds]
            known = [digest for digest in digests if digest]
            return self._run_material(action, known) if len(known) == len(digests) else None
        if isinstance(action, MakeDirectory):
            return _directory_material(action)
        if isinstance(action.origin, FromContext):
            return self._of_context(action, action.origin).material
        snapshot = _snapshot(finished, action.origin)
        digest = self._answers.find_content(_selector(action, snapshot)) if snapshot else None
        return _copy_material(action, digest) if digest else None

    def _select(self, action: Action, finished: Finished) -> Selection:
        if isinstance(action, Run):
            bound = tuple(self._bindings.bound(bind, finished) for bind in action.binds)
            return Selection(self._run_material(action, [each.digest for each in bound]), bound=bound)
        if isinstance(action, MakeDirectory):
            return Selection(_directory_material(action))
        if isinstance(action.origin, FromContext):
            return self._of_context(action, action.origin)
        snapshot = _snapshot(finished, action.origin)
        assert snapshot is not None, "the solver waits for the stage"
        from builder.steps.stage_tree import StageTree  # brings the reading of tars, which the cache may spare

        stage_tree = StageTree(snapshot.layers, self._store)
        sources = find_sources_here(action, stage_tree)
        stage_tree.fetch(chosen.entry for source in sources for chosen in source.chosen(stage_tree))
        digest = Digest.of(canonical_json(_digests(sources, stage_tree, owners=True)))
        self._answers.add_content(_selector(action, snapshot), digest)
        return Selection(_copy_material(action, digest), stage_tree, sources)

    def unchanged(self, action: Action, selection: Selection) -> bool:
        """Whether the context still holds what was selected: files may change while they are being copied."""
        if all(tree.is_as_seen() for tree in self._contexts.values()):
            return True  # mostly, and at a third of the time that it takes to select again
        if not isinstance(action, Run):
            return self.renewed().known_material(action, {}) == selection.material
        bindings = self.renewed()._bindings  # noqa: SLF001 - of its own kind
        return all(
            bindings.digest(bind, {}) == bound.digest
            for bind, bound in zip(action.binds, selection.bound, strict=True)
            if isinstance(bind.origin, FromContext)
        )

    def _of_context(self, action: Copy, origin: FromContext) -> Selection:
        """What a copy takes of a context; what was found once stays, as the tree does."""
        selection = self._selected.get(action)
        if selection is None:
            tree = self._context_tree(origin)
            found = list(self._found(action, tree))
            material = _copy_material(action, [row for row, _ in found])
            sources = tuple(source for _, source in found)
            if self._epoch is not None:
                material["earlier"] = _earlier_times(sources, tree, self._epoch)
            selection = self._selected[action] = Selection(material, tree, sources)
        return selection

    def _found(self, action: Copy, tree: LocalTree) -> Iterator[tuple[Row, Source]]:
        """What the sources name, of this context or elsewhere, each with what of it shows in the result."""
        remotes = {remote.text: remote for remote in action.remotes}
        for text in action.sources:
            if text in remotes:
                yield self._elsewhere.source(remotes[text], action.excludes)
            else:
                sources = find_sources_here(replace(action, sources=(text,)), tree)
                for source in sources:
                    chosen = list(source.chosen(tree))
                    tree.fetch([each.entry for each in chosen])
                    yield _row(source, tree, chosen, owners=False), source

    def _context_tree(self, origin: FromContext) -> LocalTree:
        tree = self._contexts.get(origin.name)
        if tree is None:
            tree = self._contexts[origin.name] = self._open_context(origin.name)
        return tree

    def _run_material(self, run: Run, digests: Sequence[Digest]) -> Material:
        """`digests` are those of `run.binds`."""
        return {
            **_settings_material(run.settings),
            "argv": run.argv,
            "directory": run.directory,
            "environment": run.environment,
            "hostname": run.hostname,
            "insecure": run.insecure,
            "mounts": mount_rows(run, digests),
            "network": run.network,
            "platform": str(run.platform),
            "script": run.script.text if run.script else None,
            "user": run.user,
        }


def _settings_material(settings: RunSettings) -> Material:
    """What BuildKit has in its keys too: names but not their addresses, and what is limited for a command to see.

    What is not said is not in the key, so that these settings cost nobody a cache who does not use them.
    """
    material: Material = {}
    if settings.hosts:
        material["hosts"] = [host.name for host in settings.hosts]
    if settings.shared_memory is not None:
        material["shared_memory"] = settings.shared_memory
    if settings.ulimits:
        material["ulimits"] = [(each.name, each.soft, each.hard) for each in settings.ulimits]
    return material


def _snapshot(finished: Finished, origin: Origin) -> Snapshot | None:
    """The end of a stage, None as long as it has steps left; or what an image is."""
    if isinstance(origin, FromStage):
        return finished.get(origin.stage)
    assert isinstance(origin, FromImage)
    return Snapshot.of_image(origin.base.image)


def _directory_material(action: MakeDirectory) -> Material:
    return {"path": action.path, "user": action.user}


def find_sources_here(action: Copy, tree: Tree) -> tuple[Source, ...]:
    """The sources; the error for a missing one says where pybuild looked."""
    try:
        return find_sources(action, tree)
    except ContextError as error:
        if isinstance(action.origin, FromContext):
            error.hint = error.hint or "the path is relative to the build context; is it listed in .dockerignore?"
        raise


def _copy_material(action: Copy, files: object) -> Material:
    return {
        "chown": action.chown,
        "destination": action.destination,
        "files": files,
        "inline": [[file.name, Digest.of(file.data)] for file in action.inline],
        "link": action.link,
        "mode": action.mode.text if isinstance(action.mode, SymbolicMode) else action.mode,
        "owners": not isinstance(action.origin, FromContext),
        "unpack": action.unpack,
    }


def _digests(sources: Sequence[Source], tree: Tree, *, owners: bool) -> list[list[str]]:
    """What the sources have that shows in the result; of patterns it is what they select."""
    return [_row(source, tree, source.chosen(tree), owners=owners) for source in sources]


def _row(source: Source, tree: Tree, chosen: Iterable[Chosen], *, owners: bool) -> Row:
    return [_key_name(source), digest_of(tree, source.entry, chosen, owners=owners)]


def _key_name(source: Source) -> str:
    """The part of a source's name that shows in the result: none for a directory, whose contents are copied."""
    return "" if source.is_folder else source.named.rpartition("/")[2]


def _earlier_times(sources: Sequence[Source], tree: Tree, epoch: int) -> Digest:
    """The times of a copy that the epoch leaves as they are: with one, they are part of what is built from.

    What is fetched from elsewhere brings the same times to everybody.
    """
    rows = [
        [entry.path, entry.mtime_ns // SECOND]
        for source in sources
        if source.tree is None
        for entry in chain([source.entry], (chosen.entry for chosen in source.chosen(tree)))
        if entry.mtime_ns // SECOND < epoch
    ]
    return Digest.of(canonical_json(rows))


def _selector(action: Copy, snapshot: Snapshot) -> Digest:
    """Names the files that a copy takes from a stack of layers."""
    return Digest.of(canonical_json([snapshot.chain, action.sources, action.parents, action.excludes]))
