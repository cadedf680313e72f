"""A layer's tree, made in the pass that reads the layer; of a large one, by a process of its own.

Threads that parse and unpack would take turns in the interpreter. So this process reads, decompresses, hashes and
parses, and a second one makes the files. That is an interpreter which is started anew, since a fork copies what other
threads have locked. It knows nothing but a folder and what comes into it. If this process dies, no more comes, and the
other one ends as well.
"""

import fcntl
import io
import json
import marshal
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from layers import unpack
from layers.entry import FILE, Entry, Kind, new
from layers.errors import ImageError, PybuildError, StoreError
from layers.landing import Effect, Placed

_BATCH = 1 << 18
"""Bytes that go to the other process at a time."""
_ALONE = 1 << 16
"""Bytes of a file that goes by itself, which spares two copies of it."""
_COST_OF_AN_ENTRY = 1 << 10
_PIPE = 1 << 20
"""What the other process may lag behind; the most that Linux lets everybody ask for."""
_LENGTH = 4
_ENTRY = Effect.ENTRY  # for each of a hundred thousand files, as in `layers.entry`
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from cache.growing import serve; serve(sys.argv[2])"


class Sapling(Protocol):
    """A tree that may come to nothing, without this being anybody's error.

    It does if it would lean on the trees below, or if the kernel refuses something. ImageError and StoreError are those
    of `layers.unpack`.
    """

    def add(self, placed: Placed, content: BinaryIO, /) -> None:
        """Put an entry into the tree, if that is still worth it. Errors of the content's stream come as they are."""

    def finish(self) -> bool:
        """There are no more entries; whether the tree is whole."""


@contextmanager
def growing(folder: str, *, apart: bool) -> Iterator[Sapling]:
    """A tree in an empty folder; `apart`, in a process of its own, if one can be started."""
    process = _Process.start(folder) if apart else None
    if process:
        with process:
            yield process
    else:
        with unpack.growing(folder) as tree:
            yield _Here(tree)


class _Here:
    """A sapling of this process."""

    def __init__(self, tree: unpack.Tree) -> None:
        self._tree = tree
        self.is_good = True

    def add(self, placed: Placed, content: BinaryIO, /) -> None:
        if self.is_good:
            self._try(lambda: self._tree.add(placed, content))

    def finish(self) -> bool:
        if self.is_good:
            self._try(self._tree.finish)
        return self.is_good

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError:
            self.is_good = False
        except ImageError:
            self.is_good = False
            if not self._tree.leans:
                raise
        if self._tree.leans:
            self.is_good = False


class _Process:
    """A sapling of another process. Leaving the `with` block ends it, if it has not ended."""

    def __init__(self, pid: int, entries: int, answer: int) -> None:
        self._pid = pid
        self._entries = open(entries, "wb", buffering=0)  # noqa: SIM115 - closed on leaving
        self._answer = open(answer, "rb")  # noqa: SIM115 - closed on leaving
        self._is_good = True
        self._batch: list[tuple[object, ...]] = []
        self._left = _BATCH

    @classmethod
    def start(cls, folder: str) -> Self | None:
        """Start it; None if that is impossible."""
        above = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        reader, entries = os.pipe2(os.O_CLOEXEC)
        answer, writer = os.pipe2(os.O_CLOEXEC)
        try:
            with suppress(OSError):
                fcntl.fcntl(entries, fcntl.F_SETPIPE_SZ, _PIPE)
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-B", "-c", _CODE, above, folder],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reader, 0),
                    (os.POSIX_SPAWN_DUP2, writer, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setpgroup=0,  # Ctrl-C is for this process alone
            )
        except OSError:
            os.close(entries)
            os.close(answer)
            return None
        finally:
            os.close(reader)
            os.close(writer)
        return cls(pid, entries, answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import signal  # which the other process, that imports this too, does not need

        self._entries.close()
        self._answer.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def add(self, placed: Placed, content: BinaryIO, /) -> None:
        if not self._is_good:
            return
        effect, entry, replaces = placed
        size = entry.size if effect is _ENTRY and entry.kind is FILE else 0
        is_small = size < _ALONE
        data = content.read(size) if size and is_small else b""
        path, kind, *others, _ = entry  # whoever places entries knows no inodes
        self._batch.append((effect.value, path, kind.value, *others, replaces and replaces.value, data))
        self._left -= len(data) + _COST_OF_AN_ENTRY
        if self._left <= 0 or not is_small:
            self._flush()
        while not is_small and size:
            block = content.read(min(size, _BATCH))
            size -= len(block)
            self._write(block)

    def finish(self) -> bool:
        self._flush()
        self._entries.close()
        return self._is_good and self._answered()

    def _flush(self) -> None:
        data = marshal.dumps(self._batch)
        self._write(len(data).to_bytes(_LENGTH, "little"), data)
        self._batch = []
        self._left = _BATCH

    def _write(self, *pieces: bytes) -> None:
        if not self._is_good:
            return
        left = [memoryview(piece) for piece in pieces]
        try:
            while left:
                written = os.writev(self._entries.fileno(), left)
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if left:
                    left[0] = left[0][written:]
        except BrokenPipeError:
            self._is_good = self._answered()

    def _answered(self) -> bool:
        """What the other process says in the end; if it was killed, the tree is as good as none."""
        data = self._answer.read()
        if not data:
            return False
        answer = json.loads(data)
        if answer["error"]:
            kind = ImageError if answer["error"] == "image" else StoreError
            raise kind(answer["message"], hint=answer["hint"])
        return bool(answer["is_good"])


def serve(folder: str) -> None:
    """Be the other process: entries come from standard input, and to standard output goes what became of them."""
    answer: dict[str, object] = {"error": ""}
    try:
        with unpack.growing(folder) as tree, open(0, "rb", buffering=_BATCH) as stream:
            sapling = _Here(tree)
            for placed, content in _received(stream):
                sapling.add(placed, content)
                if not sapling.is_good:
                    break
            answer["is_good"] = sapling.finish()
    except PybuildError as error:
        kind = "image" if isinstance(error, ImageError) else "store"
        answer = {"error": kind, "message": error.message, "hint": error.hint}
    with open(1, "w", encoding="ascii") as writer:
        json.dump(answer, writer)


def _received(stream: BinaryIO) -> Iterator[tuple[Placed, BinaryIO]]:
    """The entries that were added in the other process."""
    effects = {effect.value: effect for effect in Effect}
    kinds = {kind.value: kind for kind in Kind}
    while head := stream.read(_LENGTH):
        batch = marshal.loads(stream.read(int.from_bytes(head, "little")))  # noqa: S302 - from our own program
        for effect, path, kind, *others, replaces, data in batch:
            entry = new(Entry, (path, kinds[kind], *others, None))
            yield new(Placed, (effects[effect], entry, kinds.get(replaces))), io.BytesIO(data) if data else stream
