"""Which back-end a build gets: the one that is asked for, or the best that really works here.

Nothing is looked up in settings. The overlay is entered, which is its probe: what the kernel refuses at the door leaves
this process as it was. Only root of a container may be let in and find itself unable to mount; it could go on without
namespaces, so there a child process tries first.
"""

from collections.abc import Callable, Iterator

from builder.errors import SandboxError
from builder.options import AUTO, NONE
from builder.sandbox import idmap
from builder.sandbox.backend import Backend
from cache.store import Store


def entered(name: str, store: Store) -> Backend:
    """The back-end of this name, entered. SandboxError tells all that was tried, and what could be changed."""
    if name == NONE:
        raise SandboxError("RUN is not possible with --backend=none", hint="leave --backend away: auto takes the best")
    refusals: list[SandboxError] = []
    for begin in _ways(name):
        try:
            return begin(store)
        except SandboxError as refusal:
            refusals.append(refusal)
    if len(refusals) == 1:
        raise refusals[0]
    reasons = "; ".join(refusal.message for refusal in refusals)
    hints = [refusal.hint for refusal in refusals if refusal.hint]
    raise SandboxError(f"nothing here can run commands: {reasons}", hint="; or ".join(dict.fromkeys(hints)))


def _ways(name: str) -> Iterator[Callable[[Store], Backend]]:
    if name in {AUTO, "overlay"}:
        yield _overlay if name != AUTO or idmap.identity().way is not idmap.Way.CONTAINER_ROOT else _tried_overlay
    if name in {AUTO, "chroot"}:
        yield _chroot


def _overlay(store: Store) -> Backend:
    from builder.sandbox.overlay import OverlayBackend  # not before something has to run

    backend = OverlayBackend()
    backend.enter(store)
    return backend


def _tried_overlay(store: Store) -> Backend:
    from builder.sandbox.probe import probe_entering  # containers alone need it

    refusal = probe_entering()
    if refusal:
        raise SandboxError(str(refusal), hint=refusal.remedy)
    return _overlay(store)


def _chroot(store: Store) -> Backend:
    from builder.sandbox.chroot import ChrootBackend  # containers alone need it
    from builder.sandbox.probe import probe_chroot

    with store.scratch("probe") as folder:
        refusal = probe_chroot(folder)
    if refusal:
        raise SandboxError(str(refusal), hint=refusal.remedy)
    backend = ChrootBackend()
    backend.enter()
    return backend
