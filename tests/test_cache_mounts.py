"""Caches of RUN --mount=type=cache: who gets which folder, who waits, and what a dead holder leaves."""

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cache.mount_sharing import Sharing
from cache.mounts import CacheKind, CacheMounts
from cache.store import Store
from layers.digest import Digest
from layers.errors import StoreError

KIND = CacheKind("/c")


class MustWaitError(Exception):
    """Raised where a lease would wait."""


def refuse_to_wait() -> None:
    raise MustWaitError


def nothing(_: str) -> None:
    """What a new cache begins with."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def caches(store: Store) -> CacheMounts:
    return store.mounts


@pytest.fixture
def lease(caches: CacheMounts) -> Iterator[Callable[..., str]]:
    """Leases that last as long as the test."""
    with ExitStack() as stack:

        def take(sharing: Sharing, kind: CacheKind = KIND, fill: Callable[[str], None] = nothing) -> str:
            return stack.enter_context(caches.lease(kind, sharing, fill=fill, wait=refuse_to_wait))

        yield take


def test_a_new_cache_is_empty_and_open_to_all_whatever_the_umask(lease: Callable[..., str]) -> None:
    before = os.umask(0o077)
    try:
        path = lease(Sharing.SHARED)
    finally:
        os.umask(before)

    assert os.listdir(path) == []
    assert os.stat(path).st_mode & 0o7777 == 0o755


def test_what_was_written_is_there_the_next_time(caches: CacheMounts) -> None:
    with caches.lease(KIND, Sharing.LOCKED, fill=nothing, wait=refuse_to_wait) as path:
        Path(path, "f").write_text("kept")

    with caches.lease(KIND, Sharing.SHARED, fill=nothing, wait=refuse_to_wait) as again:
        assert Path(again, "f").read_text() == "kept"


def test_shared_caches_are_one_folder_at_the_same_time(lease: Callable[..., str]) -> None:
    assert lease(Sharing.SHARED) == lease(Sharing.SHARED)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Sharing.LOCKED, Sharing.LOCKED),
        (Sharing.LOCKED, Sharing.SHARED),
        (Sharing.SHARED, Sharing.LOCKED),
        (Sharing.PRIVATE, Sharing.LOCKED),
    ],
)
def test_whoever_wants_a_cache_alone_waits_and_is_waited_for(
    lease: Callable[..., str], first: Sharing, second: Sharing
) -> None:
    lease(first)

    with pytest.raises(MustWaitError):
        lease(second)


def test_a_private_cache_is_another_folder_while_the_first_is_used(caches: CacheMounts) -> None:
    with ExitStack() as stack:
        taken = [
            stack.enter_context(caches.lease(KIND, Sharing.PRIVATE, fill=nothing, wait=refuse_to_wait))
            for _ in range(3)
        ]

    with caches.lease(KIND, Sharing.PRIVATE, fill=nothing, wait=refuse_to_wait) as again:
        assert again == taken[0]
    assert len(set(taken)) == 3


@pytest.mark.parametrize(
    "other",
    [
        CacheKind("/d"),
        CacheKind("/c", Digest.of(b"seed")),
        CacheKind("/c", uid=0),
        CacheKind("/c", gid=0),
        CacheKind("/c", mode=0o755),
    ],
)
def test_what_differs_in_anything_is_another_cache(lease: Callable[..., str], other: CacheKind) -> None:
    assert lease(Sharing.LOCKED) != lease(Sharing.LOCKED, other)


def test_a_cache_is_filled_once(caches: CacheMounts) -> None:
    fills: list[str] = []

    def fill(folder: str) -> None:
        fills.append(folder)
        Path(folder, "seed").write_text("s")

    for _ in range(2):
        with caches.lease(KIND, Sharing.SHARED, fill=fill, wait=refuse_to_wait) as path:
            assert os.listdir(path) == ["seed"]
    assert len(fills) == 1


def test_a_cache_that_could_not_be_filled_is_not_there(caches: CacheMounts) -> None:
    def fail(folder: str) -> None:
        Path(folder, "half").write_text("")
        raise StoreError("no space")

    with pytest.raises(StoreError), caches.lease(KIND, Sharing.SHARED, fill=fail, wait=refuse_to_wait):
        pass

    with caches.lease(KIND, Sharing.SHARED, fill=nothing, wait=refuse_to_wait) as path:
        assert os.listdir(path) == []


def test_the_mode_is_that_of_the_kind_or_else_of_what_it_began_with(lease: Callable[..., str]) -> None:
    def fill(folder: str) -> None:
        os.chmod(folder, 0o711)

    modes = [lease(Sharing.SHARED, kind, fill) for kind in (CacheKind("a"), CacheKind("b", mode=0o1770))]

    assert [os.stat(path).st_mode & 0o7777 for path in modes] == [0o711, 0o1770]


def test_two_that_want_a_new_cache_make_one(caches: CacheMounts) -> None:
    begin = threading.Barrier(4)
    paths: set[str] = set()

    def take() -> None:
        begin.wait()
        with caches.lease(KIND, Sharing.SHARED, fill=nothing, wait=refuse_to_wait) as path:
            paths.add(path)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(paths) == 1


def test_a_waiting_step_goes_on_when_the_holder_ends(caches: CacheMounts) -> None:
    held = threading.Event()
    let_go = threading.Event()

    def hold() -> None:
        with caches.lease(KIND, Sharing.LOCKED, fill=nothing, wait=refuse_to_wait):
            held.set()
            let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    waits = 0

    def wait() -> None:
        nonlocal waits
        waits += 1
        let_go.set()
        holder.join()

    with caches.lease(KIND, Sharing.LOCKED, fill=nothing, wait=wait):
        pass

    assert waits == 1


def test_a_killed_holder_blocks_nobody(caches: CacheMounts) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with caches.lease(KIND, Sharing.LOCKED, fill=nothing, wait=refuse_to_wait):
            os.write(writer, b"!")
            signal.pause()
        os._exit(0)
    os.read(reader, 1)
    with pytest.raises(MustWaitError), caches.lease(KIND, Sharing.LOCKED, fill=nothing, wait=refuse_to_wait):
        pass

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    with caches.lease(KIND, Sharing.LOCKED, fill=nothing, wait=refuse_to_wait):
        pass
    os.close(reader)
    os.close(writer)


def test_a_step_may_lock_the_folder_that_it_sees(lease: Callable[..., str]) -> None:
    path = lease(Sharing.LOCKED)
    fd = os.open(path, os.O_RDONLY)

    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    os.close(fd)


def test_a_folder_says_what_it_is_for(store: Store, lease: Callable[..., str]) -> None:
    lease(Sharing.SHARED, CacheKind("go-build", mode=0o700))

    (about,) = Path(store.root).glob("mounts/*/*/about")

    assert about.read_text().splitlines()[0] == "go-build"
