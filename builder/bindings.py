"""What the mounts of RUN read of contexts, stages and images, and how a step's key speaks of mounts."""

from collections.abc import Callable, Mapping, Sequence

from builder.errors import ContextError
from builder.snapshot import Snapshot
from builder.steps.bound import Bound
from builder.steps.step import BindMount, CacheMount, FromContext, Origin, Run, SecretMount, SshMount, TmpfsMount
from builder.steps.tree import Tree, fingerprint, walk
from cache.answers import Answers
from cache.store import Store
from layers.digest import Digest, canonical_json
from layers.entry import Entry

Finished = Mapping[int, Snapshot | None]
"""The stages that have no step left, by index."""

_NOTHING = Digest.of(b"")


class Bindings:
    """Finds what mounts lead to. One for each look at the contexts; what was found there once stays."""

    def __init__(
        self,
        store: Store,
        answers: Answers,
        context: Callable[[FromContext], Tree],
        snapshot: Callable[[Finished, Origin], Snapshot | None],
    ) -> None:
        """`snapshot` gives the end of a stage, or an image; None as long as the stage has steps left."""
        self._store = store
        self._answers = answers
        self._context = context
        self._snapshot = snapshot
        self._in_contexts: dict[tuple[str, str], Bound] = {}

    def digest(self, bind: BindMount, finished: Finished) -> Digest | None:
        """The digest of what a mount shows, as far as no layer has to be read for it."""
        if isinstance(bind.origin, FromContext):
            return self._bound_in_context(bind, bind.origin).digest
        snapshot = self._snapshot(finished, bind.origin)
        if snapshot is None:
            return None
        return _whole(bind, snapshot) or self._answers.find_content(_selector(bind, snapshot))

    def bound(self, bind: BindMount, finished: Finished) -> Bound:
        """What a mount leads to; its stage must be finished, and the layers in the store. ContextError for nothing.

        Only in the namespaces in which commands run.
        """
        if isinstance(bind.origin, FromContext):
            return self._bound_in_context(bind, bind.origin)
        snapshot = self._snapshot(finished, bind.origin)
        assert snapshot is not None, "the solver waits for the stage"
        from builder.steps.stage_tree import StageTree  # brings the reading of tars, which the cache may spare

        tree = StageTree(snapshot.layers, self._store)
        entry = _entry(bind, tree)
        digest = _whole(bind, snapshot) or self._answers.find_content(_selector(bind, snapshot))
        if digest is None:
            self._store.trees.stack(
                snapshot.layers, self._store.layout
            )  # the mount will need it: so the files are read from there
            tree.fetch(walk(tree, entry))
            digest = fingerprint(tree, entry, owners=True)
            self._answers.add_content(_selector(bind, snapshot), digest)
        return Bound(digest, entry, tree, snapshot.layers)

    def _bound_in_context(self, bind: BindMount, origin: FromContext) -> Bound:
        bound = self._in_contexts.get((origin.name, bind.source))
        if bound is None:
            tree = self._context(origin)
            entry = _entry(bind, tree)
            bound = Bound(fingerprint(tree, entry, owners=False), entry, tree)
            self._in_contexts[origin.name, bind.source] = bound
        return bound


def mount_rows(run: Run, digests: Sequence[Digest]) -> list[dict[str, object]]:
    """What a key says of mounts; `digests` are those of `run.binds`. Of secrets and agents it knows the id alone."""
    left = iter(digests)
    return [_row(mount, lambda: next(left)) for mount in run.mounts]


def _row(mount: object, digest: Callable[[], Digest]) -> dict[str, object]:
    match mount:
        case BindMount():
            owners = not isinstance(mount.origin, FromContext)
            return {
                "type": "bind",
                "target": mount.target,
                "files": digest(),
                "owners": owners,
                "writable": mount.writable,
            }
        case CacheMount():
            return {
                "type": "cache",
                "target": mount.target,
                "id": mount.id,
                "sharing": mount.sharing,
                "seed": digest() if mount.seed else None,
                "read_only": mount.read_only,
                "owner": [mount.mode, mount.uid, mount.gid],
            }
        case TmpfsMount():
            return {"type": "tmpfs", "target": mount.target, "size": mount.size, "read_only": mount.read_only}
        case SecretMount():
            return {
                "type": "secret",
                "id": mount.id,
                "target": mount.target,
                "variable": mount.variable,
                "required": mount.required,
                "owner": [mount.mode, mount.uid, mount.gid],
            }
        case SshMount():
            return {
                "type": "ssh",
                "id": mount.id,
                "target": mount.target,
                "required": mount.required,
                "owner": [mount.mode, mount.uid, mount.gid],
            }
        case _:
            raise AssertionError(mount)


def _entry(bind: BindMount, tree: Tree) -> Entry:
    entry = tree.lookup(tree.resolve(bind.source))
    if entry is None:
        here = isinstance(bind.origin, FromContext)
        raise ContextError(
            f'"/{bind.source}": not found, so it cannot be mounted on {bind.target}',
            hint="the source is relative to the build context; is it listed in .dockerignore?" if here else "",
        )
    return entry


def _whole(bind: BindMount, snapshot: Snapshot) -> Digest | None:
    """The name of all that a stage or image holds, if that is what is mounted: no file has to be read for it."""
    return None if bind.source else snapshot.chain or _NOTHING


def _selector(bind: BindMount, snapshot: Snapshot) -> Digest:
    """Names what a mount shows of a stack of layers."""
    return Digest.of(canonical_json(["mount", snapshot.chain, bind.source]))
