"""Large layers are unpacked by processes of their own, to the same trees, with the same errors."""

import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import users
from grants import LISTENER, NAMESPACES, demand
from images import Project
from processes import runs, soon
from registries import Asked, FakeRegistry, MadeImage, Reply
from tars import tar_of
from test_trees import leftovers, tree_of

from builder.images import open_layout
from cache.store import Store
from layers.data import replace
from layers.digest import Digest
from layers.entry import Change, Entry, Kind, whiteout
from layers.errors import PybuildError
from layers.index import LayerIndex
from layers.layer import Layer, write_layer
from layers.layout import Layout
from layers.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, Manifest

pytestmark = pytest.mark.kernel

LARGE = os.urandom(5_000_000)
"""More than is worth a process, compressed too."""


def of(path: str, kind: Kind = Kind.FILE, content: bytes = b"", **rest: object) -> Change:
    return Change(Entry(path, kind, size=len(content), **rest), content if kind is Kind.FILE else None)  # type: ignore[arg-type]  # names of fields


CHANGES = [
    of("", Kind.DIRECTORY, mode=0o751),
    of("srv", Kind.DIRECTORY, mode=0o2750, uid=33, gid=44, mtime_ns=10**18),
    of("srv/large", content=LARGE, mode=0o640, uid=33, gid=44, mtime_ns=-(10**9)),
    of("srv/small", content=b"small", mode=0o4755, uid=1, gid=2),
    of("srv/empty"),
    of("srv/first", content=b"linked", inode=1, xattrs=(("user.mark", b"\0\xff"),)),
    of("srv/second", content=b"linked", inode=1),
    of("srv/gr\udcfc\u00df", content=b"name"),
    of("srv/link", Kind.SYMLINK, mode=0o777, target="../gr\udcfc\u00df", uid=5),
    of("srv/pipe", Kind.FIFO, mode=0o620),
    of("srv/some", Kind.DIRECTORY),
    *(of(f"srv/some/{number}", content=b"%d" % number * number) for number in range(700)),
    whiteout("srv/some/gone"),
    whiteout("srv/some/.wh..opq"),
]


@pytest.fixture
def unpackers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give each layer a process of its own, wherever this runs; these are the processes."""
    started: list[int] = []
    spawn = os.posix_spawn

    def noted(*arguments: object, **options: object) -> int:
        started.append(spawn(*arguments, **options))  # type: ignore[arg-type]  # they are passed on
        return started[-1]

    monkeypatch.setattr(os, "posix_spawn", noted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("cache.trees._WORTH_A_PROCESS", 0)
    return started


def grow(store: Store, layer: Layer, stream: io.RawIOBase | None = None) -> LayerIndex:
    """Read a layer as it is when it comes from a registry."""
    with store.layout.open(layer.descriptor) as blob:
        return store.trees.grow(layer.descriptor, layer.diff_id, io.BufferedReader(stream) if stream else blob)


def put(store: Store, tar: bytes, blob: bytes | None = None) -> Layer:
    """A layer that nobody would write."""
    descriptor = store.layout.put(gzip.compress(tar) if blob is None else blob, LAYER_GZIP)
    return Layer(Digest.of(tar), descriptor, len(tar))


def error_of(work: Callable[[], object]) -> tuple[type[PybuildError], str, str]:
    with pytest.raises(PybuildError) as caught:
        work()
    return type(caught.value), caught.value.message, caught.value.hint


class Interrupted(io.RawIOBase):
    """A blob in the middle of which something happens."""

    def __init__(self, data: bytes, happens: Callable[[], None]) -> None:
        self._data = io.BytesIO(data)
        self._middle = len(data) // 2
        self._happens = happens

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # what BufferedReader gives
        if self._data.tell() >= self._middle:
            happens, self._happens = self._happens, lambda: None
            happens()
        return self._data.readinto(buffer)


# --- the same as in this process


def test_another_process_makes_the_same_tree(
    tmp_path: Path, unpackers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = []
    for place in ("apart", "here"):
        store = Store(str(tmp_path / place))
        layer, index = write_layer(CHANGES, store.layout)
        assert grow(store, layer) == index
        path = store.trees.path(layer.diff_id)
        grown.append((tree_of(path), os.getxattr(f"{path}/srv/first", "user.mark"), os.stat(path).st_mode))
        assert leftovers(store) == []
        store.close()
        monkeypatch.setattr("cache.trees._WORTH_A_PROCESS", 1 << 60)

    assert len(unpackers) == 1
    assert grown[0] == grown[1]
    assert grown[0][0]["srv/large"][3] == LARGE


def test_another_process_keeps_owners_and_devices(store: Store, unpackers: list[int]) -> None:
    device = Change(Entry("null", Kind.CHARACTER, 0o666, device=(1, 3)))
    layer, _ = write_layer([*CHANGES, device], store.layout)

    grow(store, layer)

    path = store.trees.path(layer.diff_id)
    owners = {name: os.lstat(f"{path}/srv/{name}") for name in ("", "large", "small", "link")}
    assert {name: (status.st_uid, status.st_gid) for name, status in owners.items()} == {
        "": (33, 44),
        "large": (33, 44),
        "small": (1, 2),
        "link": (5, 0),
    }
    assert os.getxattr(f"{path}/srv/some", "user.overlay.opaque") == b"y"
    assert (os.path.lexists(f"{path}/null"), len(unpackers)) == (True, 1)


HOSTILE = {
    "a name that leads out": tar_of(Entry("../x", Kind.FILE)).getvalue(),
    "entries below a file": tar_of(Entry("a", Kind.FILE), Entry("a/b", Kind.FILE)).getvalue(),
    "a device with a wrong number": tar_of(Entry("a", Kind.BLOCK, device=(1 << 13, 0))).getvalue(),
    "an attribute that cannot be set": tar_of(Entry("a", Kind.FILE, xattrs=(("nobody.knows", b"1"),))).getvalue(),
    "no tar": bytes(range(256)) * 4,
    "a tar that is cut off": tar_of(Entry("a", Kind.FILE)).getvalue()[:512],
}


@pytest.mark.parametrize("tar", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("files", [0, 300], ids=["at once", "after more than a pipe holds"])
def test_another_process_tells_the_same_errors(
    store: Store, unpackers: list[int], monkeypatch: pytest.MonkeyPatch, tar: bytes, files: int
) -> None:
    entries = [Entry(f"f{number}", Kind.FILE) for number in range(files)]
    before = tar_of(*entries, contents={entry.path: bytes(1 << 13) for entry in entries}).getvalue()
    before = before[: files * (512 + (1 << 13))]  # without the end of an archive
    layer = put(store, before + tar)

    apart = error_of(lambda: grow(store, layer))
    monkeypatch.setattr("cache.trees._WORTH_A_PROCESS", 1 << 60)
    here = error_of(lambda: grow(store, layer))

    assert apart == here
    assert len(unpackers) == 1
    assert (leftovers(store), store.trees.has(layer.diff_id)) == ([], False)


def test_another_process_makes_no_tree_of_a_wrong_layer(store: Store, unpackers: list[int]) -> None:
    layer, _ = write_layer(CHANGES, store.layout)
    wrong = Layer(Digest.of(b"another"), layer.descriptor, layer.size)
    with store.layout.open(layer.descriptor) as blob:
        cut_off = blob.read()[:-1000]

    assert "unpacks to" in error_of(lambda: grow(store, wrong))[1]
    assert "gzip data is cut off" in error_of(lambda: grow(store, layer, io.BytesIO(cut_off)))[1]  # type: ignore[arg-type]  # as good as raw

    assert len(unpackers) == 2
    assert (leftovers(store), store.trees.has(layer.diff_id), store.trees.has(wrong.diff_id)) == ([], False, False)


def test_another_process_makes_no_tree_that_would_lean(store: Store, unpackers: list[int]) -> None:
    changes = [of("folder/file", content=b"1"), of("large", content=LARGE)]
    layer, index = write_layer(changes, store.layout)

    assert grow(store, layer) == index

    assert len(unpackers) == 1
    assert (leftovers(store), store.trees.has(layer.diff_id)) == ([], False)


# --- a process that ends, or never begins


def test_a_process_that_is_killed_takes_nothing_but_its_tree_along(store: Store, unpackers: list[int]) -> None:
    layer, index = write_layer(CHANGES, store.layout)
    with store.layout.open(layer.descriptor) as blob:
        data = blob.read()

    found = grow(store, layer, Interrupted(data, lambda: os.kill(unpackers[0], signal.SIGKILL)))

    assert found == index
    assert (leftovers(store), store.trees.has(layer.diff_id)) == ([], False)
    assert tree_of(store.trees.ensure(layer, store.layout, ()))["srv/large"][3] == LARGE


def test_an_error_ends_the_process(store: Store, unpackers: list[int]) -> None:
    layer, _ = write_layer(CHANGES, store.layout)
    with store.layout.open(layer.descriptor) as blob:
        data = blob.read()

    def cancel() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(store, layer, Interrupted(data, cancel))

    assert len(unpackers) == 1
    assert not os.path.exists(f"/proc/{unpackers[0]}")
    assert (leftovers(store), store.trees.has(layer.diff_id)) == ([], False)


def test_what_is_typed_reaches_this_process_alone(store: Store, unpackers: list[int]) -> None:
    """Ctrl-C is for all of a group; the other process ends when this one has nothing more for it."""
    layer, _ = write_layer(CHANGES, store.layout)
    with store.layout.open(layer.descriptor) as blob:
        data = blob.read()
    groups = []

    grow(store, layer, Interrupted(data, lambda: groups.append(os.getpgid(unpackers[0]))))

    assert groups == unpackers


def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from cache.growing import growing\n"
        "with growing(sys.argv[1], apart=True) as sapling:\n"
        "    print(sapling._pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=False, cwd=users.CHECKOUT
    )

    pid = int(done.stdout)

    assert done.returncode == -signal.SIGKILL
    assert soon(lambda: not runs(pid))


def test_without_a_further_process_the_tree_is_made_here(
    store: Store, unpackers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, index = write_layer(CHANGES, store.layout)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    assert grow(store, layer) == index

    assert (unpackers, leftovers(store), store.trees.has(layer.diff_id)) == ([], [], True)


def test_a_small_layer_starts_no_process(store: Store, unpackers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(os, "posix_spawn", lambda *_: unpackers.append(0))
    layer, _ = write_layer([of("a", content=b"1")], store.layout)

    grow(store, layer)

    assert (unpackers, store.trees.has(layer.diff_id)) == ([], True)


# --- layers whose blobs are here


def test_large_layers_of_the_store_are_unpacked_side_by_side(store: Store, unpackers: list[int]) -> None:
    below, _ = write_layer(CHANGES, store.layout)
    leaning, _ = write_layer([of("srv/more", content=LARGE[::-1])], store.layout)

    stacks = [store.trees.stack([below, leaning], store.layout) for _ in range(2)]

    assert stacks[0] == stacks[1]
    assert stacks[0][0] == store.trees.path(below.diff_id)
    assert stacks[0][1].startswith(store.trees.path(leaning.diff_id) + ".")
    assert os.stat(f"{stacks[0][1]}/srv").st_uid == 33
    assert len(unpackers) == 2
    assert leftovers(store) == []


def test_a_layer_that_is_known_to_lean_is_tried_alone_no_more(store: Store, unpackers: list[int]) -> None:
    first, _ = write_layer(CHANGES, store.layout)
    second, _ = write_layer([of("srv", Kind.DIRECTORY, mode=0o700)], store.layout)
    leaning, _ = write_layer([of("srv/more", content=LARGE[::-1])], store.layout)
    store.trees.stack([first, leaning], store.layout)
    started = len(unpackers)

    stack = store.trees.stack([second, leaning], store.layout)

    assert os.stat(f"{stack[1]}/srv").st_mode & 0o7777 == 0o700
    assert (started, len(unpackers)) == (2, 3)


def test_a_damaged_layer_of_the_store_is_told(store: Store, unpackers: list[int]) -> None:
    sound, _ = write_layer(CHANGES, store.layout)
    wrong = Layer(Digest.of(b"another"), sound.descriptor, sound.size)

    kind, message, _ = error_of(lambda: store.trees.stack([wrong], store.layout))

    assert (kind.exit_status, "unpacks to" in message) == (6, True)
    assert len(unpackers) == 1
    assert leftovers(store) == []


# --- whole builds


class Pausing(FakeRegistry):
    """A registry that breaks off large blobs, and lets something happen before it gives the rest."""

    meanwhile: Callable[[], object]

    def answer(self, asked: Asked) -> Reply:
        if "range" in asked.headers:
            self.meanwhile()
        return super().answer(asked)

    def add(self, repository: str, tag: str, image: MadeImage) -> None:
        super().add(repository, tag, image)
        for digest, blob in image.blobs.items():
            if len(blob) > len(LARGE):
                path = f"/v2/{repository}/blobs/{digest}"
                self.first[path] = [Reply(body=blob, cut=len(blob) // 2)]


def large_image(base: Path, place: Path) -> MadeImage:
    """The image with busybox, and upon it a large layer with owners."""
    _, image = open_layout(str(base), None)
    below, above = Layout(str(base)), Layout(str(place))
    layer, _ = write_layer(CHANGES, above)
    config = replace(image.config, diff_ids=(*image.config.diff_ids, layer.diff_id), history=()).serialise()
    layers = (*image.manifest.layers, layer.descriptor)
    manifest = Manifest(Descriptor(CONFIG, Digest.of(config), len(config)), layers)
    blobs = {Digest.of(config): config, layer.descriptor.digest: above.open(layer.descriptor).read()}
    blobs |= {descriptor.digest: below.open(descriptor).read() for descriptor in image.manifest.layers}
    return MadeImage(MANIFEST, manifest.serialise(), {}, blobs, layers)


def unpackers_of(project: Project) -> list[int]:
    """The processes that unpack for a build."""
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError), open(f"/proc/{name}/cmdline", encoding="utf-8") as file:
            words = file.read().split("\0")
            if any(word.startswith(str(project.root)) and word.endswith("/tree") for word in words):
                found.append(int(name))
    return found


@pytest.mark.parametrize("killed", [False, True], ids=["in peace", "killed"])
@pytest.mark.parametrize("user", [users.ROOT, users.RANGES, users.SINGLE])
def test_a_build_stands_on_what_another_process_unpacked(
    project_of: Callable[[str], Project], base: Path, tmp_path: Path, user: str, *, killed: bool
) -> None:
    others = 1 if len(os.sched_getaffinity(0)) > 1 else 0
    demand(NAMESPACES)
    if user == users.SINGLE:
        demand(LISTENER)
    project = project_of(user)
    unpackers: list[int] = []

    def meanwhile() -> None:
        soon(lambda: len(unpackers_of(project)) == others)
        unpackers.extend(unpackers_of(project))
        for pid in unpackers if killed else ():
            os.kill(pid, signal.SIGKILL)

    with Pausing() as registry:
        registry.meanwhile = meanwhile
        registry.add("team/app", "1", large_image(base, tmp_path))
        look = "RUN cd /srv && stat -c '%n %F %u %g %a %s' . * > /seen && sha256sum large > /sum"
        project.write({"Dockerfile": f"FROM {registry.host}/team/app:1\n{look}\n"})
        project.built()

    files = project.image().files
    seen = os.fsdecode(files["seen"]).splitlines()
    assert seen[:2] == [
        ". directory 33 44 2750 4096",
        "empty regular empty file 0 0 644 0",
    ]
    assert f"large regular file 33 44 640 {len(LARGE)}" in seen
    assert files["sum"].decode().split()[0] == hashlib.sha256(LARGE).hexdigest()
    assert len(unpackers) == others
    assert unpackers_of(project) == []
    assert os.listdir(project.root / "tmp") == []
