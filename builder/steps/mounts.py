"""Opens what the mounts of a RUN need, for as long as it runs: copies, stacks, caches, secrets, agents."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from builder.credentials import Credentials
from builder.errors import ContextError, DockerfileError, SandboxError, UsageError
from builder.sandbox.attached import Access, Attached, Blank, Document, HostFile, Stack
from builder.steps.bound import Bound
from builder.steps.mounts_layout import ALONE, lay_out
from builder.steps.stage_tree import StageTree
from builder.steps.step import BindMount, CacheMount, Run, Script, SecretMount, SshMount, TmpfsMount
from builder.steps.tree import walk
from cache.mount_sharing import Sharing
from cache.mounts import CacheKind
from cache.store import Store
from layers.blob import explained
from layers.data import dataclass, field
from layers.digest import Digest
from layers.entry import Entry, Kind

if TYPE_CHECKING:
    from builder.steps.mounts_agent import Agents

SSH_SOCKET = "SSH_AUTH_SOCK"
_FOLDER = Entry("", Kind.DIRECTORY, 0o755)
_STRICTNESS = (Sharing.SHARED, Sharing.PRIVATE, Sharing.LOCKED)
_LOOK_AGAIN = 0.1
"""Seconds between two looks at a cache that others have to themselves; BuildKit waits as long."""


class ContextChangedError(Exception):
    """Files of the context are no longer those that the key of the step speaks of."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a command sees beside its image."""

    attached: tuple[Attached, ...]
    variables: tuple[tuple[str, str], ...] = field(repr=False)
    """Secrets, and where the agent is."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What opening depends on beside the step: it is another each time."""

    scratch: str
    """The private folder of the command."""
    moves: bool
    """Whether things are moved into place, not mounted (`Ground.moves`)."""
    stack: ExitStack
    """Closes what is opened."""
    unchanged: Callable[[], bool]
    """Whether the contexts are still as the key has them."""
    check_cancelled: Callable[[], None]
    say: Callable[[str], None]
    """Tell the person something, as part of the command's output."""


class Opener:
    """One for a build. Any thread may call it."""

    def __init__(self, store: Store, credentials: Credentials, warn: Callable[[str], None]) -> None:
        self.store = store
        self.secrets = credentials.secrets
        self.warn = warn
        self._credentials = credentials
        self._agents: Agents | None = None
        self._laid_out: dict[Digest, str] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """End what outlives commands."""
        if self._agents:
            self._agents.close()

    def agents(self) -> "Agents":
        """The SSH agents of the build."""
        from builder.steps.mounts_agent import Agents  # brings subprocess, which few builds need

        with self._lock:
            if self._agents is None:
                self._agents = Agents(self._credentials.agents, self.store.temporary)
            return self._agents

    def open(self, run: Run, bound: Sequence[Bound], occasion: Occasion) -> Opened:
        """Open everything; `bound` is what `run.binds` lead to. On an error the occasion's stack closes the rest.

        ContextChangedError if the context has changed since it was looked at; UsageError for a secret or an agent that
        is required and was not given.
        """
        return _Opening(self, run, bound, occasion).opened()

    def laid_out(self, bound: Bound, unchanged: Callable[[], bool]) -> str:
        """A folder with a copy of what a context has; the same copy for the same content. It is only ever read."""
        with self._lock:
            folder = self._laid_out.get(bound.digest)
            if folder is None:
                folder = self.store.temporary("context")
                _copy(bound, folder, unchanged)
                self._laid_out[bound.digest] = folder
            return folder


def _copy(bound: Bound, folder: str, unchanged: Callable[[], bool]) -> None:
    """Copy what a mount leads to; ContextChangedError if that is not what the key speaks of any more."""
    if isinstance(bound.tree, StageTree):
        bound.tree.fetch(walk(bound.tree, bound.entry))
    try:
        lay_out(bound.tree, walk(bound.tree, bound.entry), bound.entry, folder)
    except (OSError, ContextError) as error:
        if bound.layers is None and not unchanged():
            raise ContextChangedError from error
        if isinstance(error, OSError):
            raise explained(error, folder) from error
        raise
    if bound.layers is None and not unchanged():
        raise ContextChangedError


class _Opening:
    """The mounts of one RUN, while they are opened."""

    def __init__(self, opener: Opener, run: Run, bound: Sequence[Bound], occasion: Occasion) -> None:
        self._opener = opener
        self._run = run
        # By identity: images among the origins have no hash.
        self._bound = {id(bind): each for bind, each in zip(run.binds, bound, strict=True)}
        self._occasion = occasion
        self._attached: list[Attached] = []
        self._variables: list[tuple[str, str]] = []
        self._leased: dict[CacheKind, str] = {}

    def opened(self) -> Opened:
        self._lease_all()
        for mount in self._run.mounts:
            match mount:
                case BindMount():
                    self._attach(mount.target, self._stack(mount))
                case CacheMount():
                    # What is moved goes home again, with what was written to it: nothing could forbid that.
                    read_only = mount.read_only and not self._occasion.moves
                    access = Access.READ if read_only else Access.WRITE
                    self._attach(mount.target, Stack((self._leased[self._kind(mount)],), _FOLDER, access))
                case TmpfsMount():
                    self._attach(mount.target, Blank(mount.size, mount.read_only))
                case SecretMount():
                    self._secret(mount)
                case SshMount():
                    self._agent(mount)
        if self._run.script:
            self._script(self._run.script)
        return Opened(tuple(self._attached), tuple(self._variables))

    def _attach(self, target: str, source: Stack | HostFile | Document | Blank) -> None:
        self._attached.append(Attached(target, source))

    def _stack(self, mount: BindMount) -> Stack:
        bound = self._bound[id(mount)]
        access = Access.WRITE_AND_FORGET if mount.writable else Access.READ
        if self._occasion.moves:
            return self._copied(bound)
        if bound.layers is not None:
            return Stack(self._opener.store.trees.stack(bound.layers, self._opener.store.layout), bound.entry, access)
        folder = self._opener.laid_out(bound, self._occasion.unchanged)
        path = "" if bound.entry.kind is Kind.DIRECTORY else ALONE
        return Stack((folder,), bound.entry._replace(path=path), access)

    def _copied(self, bound: Bound) -> Stack:
        """A copy for this command alone, which is thrown away with all that it writes there."""
        folder = f"{self._occasion.scratch}/bind-{len(self._attached)}"
        os.mkdir(folder, 0o755)
        _copy(bound, folder, self._occasion.unchanged)
        path = "" if bound.entry.kind is Kind.DIRECTORY else ALONE
        return Stack((folder,), bound.entry._replace(path=path), Access.WRITE_AND_FORGET)

    def _lease_all(self) -> None:
        """Get hold of the caches: each once, and all builds in the same order, so that no two wait for each other."""
        sharing: dict[CacheKind, Sharing] = {}
        seeds: dict[CacheKind, BindMount | None] = {}
        for mount in self._run.mounts:
            if isinstance(mount, CacheMount):
                kind = self._kind(mount)
                seeds[kind] = mount.seed
                # A folder that is moved can be seen by one command at a time.
                least = Sharing.LOCKED if self._occasion.moves and mount.sharing is Sharing.SHARED else mount.sharing
                sharing[kind] = max(sharing.get(kind, least), least, key=_STRICTNESS.index)
        for kind in sorted(sharing, key=lambda kind: kind.name):
            lease = self._opener.store.mounts.lease(
                kind, sharing[kind], fill=partial(self._fill, seeds[kind]), wait=self._waiter(kind)
            )
            self._leased[kind] = self._occasion.stack.enter_context(lease)

    def _kind(self, mount: CacheMount) -> CacheKind:
        seed = self._bound[id(mount.seed)].digest if mount.seed else None
        return CacheKind(mount.id, seed, mount.mode, mount.uid, mount.gid)

    def _fill(self, seed: BindMount | None, folder: str) -> None:
        """Put into a new cache what it begins with."""
        if seed is None:
            return
        bound = self._bound[id(seed)]
        if bound.entry.kind is not Kind.DIRECTORY:
            raise DockerfileError(f"a cache cannot begin with /{bound.entry.path}, which is no folder")
        _copy(bound, folder, self._occasion.unchanged)

    def _waiter(self, kind: CacheKind) -> Callable[[], None]:
        told = False

        def wait() -> None:
            nonlocal told
            if not told:
                self._occasion.say(f"waiting for the cache {kind.id}, which another step uses")
                told = True
            self._occasion.check_cancelled()
            time.sleep(_LOOK_AGAIN)

        return wait

    def _secret(self, mount: SecretMount) -> None:
        secret = self._opener.secrets.get(mount.id)
        if secret is None and mount.required:
            raise UsageError(
                f"secret {mount.id}: not found",
                hint=f"give it to the build: --secret id={mount.id},src=FILE or --secret id={mount.id},env=VARIABLE",
            )
        if secret is not None and secret.unset:
            self._opener.warn(f"the secret {mount.id} is empty: the variable {secret.unset} is not set")
        value = secret.value if secret else b""
        if mount.variable:
            if b"\0" in value:
                raise UsageError(f"secret {mount.id}: it has a NUL byte, and no variable can hold one")
            self._variables.append((mount.variable, os.fsdecode(value)))
        if mount.target and secret is not None:
            self._attach(mount.target, Document(value, mount.mode, mount.uid, mount.gid))

    def _agent(self, mount: SshMount) -> None:
        if not any(name == SSH_SOCKET for name, _ in (*self._run.environment, *self._variables)):
            self._variables.append((SSH_SOCKET, mount.target))
        agents = self._opener.agents()
        if mount.id in agents:
            from builder.steps.mounts_agent import forwarded  # see Opener.agents

            agents.check(mount.id)
            path = f"{self._occasion.scratch}/ssh-{len(self._attached)}"
            connect = partial(agents.connect, mount.id)
            socket = forwarded(path, connect, mode=mount.mode, uid=mount.uid, gid=mount.gid)
            try:
                self._occasion.stack.enter_context(socket)
            except OSError as error:
                raise SandboxError(
                    f"the socket {mount.target} cannot be made for {mount.uid}:{mount.gid}: {error.strerror}",
                    hint="an owner other than root needs subordinate ids" if mount.uid or mount.gid else "",
                ) from error
            self._attach(mount.target, HostFile(path))
        elif mount.required:
            raise UsageError(
                f'no SSH key "{mount.id}" forwarded from the client',
                hint=f"forward an agent or a key: --ssh {mount.id}, or --ssh {mount.id}=FILE",
            )

    def _script(self, script: Script) -> None:
        folder, name = os.path.split(script.target)
        self._attach(folder, Document(os.fsencode(script.text), 0o755, name=name))
