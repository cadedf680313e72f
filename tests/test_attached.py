"""What a step sees beside its image, as a plan: mount points, stubs and order, without any privilege."""

import pytest

from builder.errors import DockerfileError, SandboxError
from builder.sandbox.attached import Access, Attached, Attachments, Blank, Document, HostFile, Stack, attach
from builder.sandbox.mount_points import NEW, MountPoints
from builder.sandbox.mounts import Bind, Memory, MemoryFile, MountPoint, Overlay, Tmpfs
from builder.sandbox.plan import RootSpec, mount_plan
from builder.sandbox.syscalls import MS_NOSUID, MS_RDONLY
from layers.entry import Entry, Kind
from layers.index import LayerIndex
from layers.view import View

FOLDER, FILE, LINK = Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK
ROOT = Entry("", FOLDER, 0o755)
USUAL = (Entry("dev", FOLDER), Entry("proc", FOLDER), Entry("sys", FOLDER), Entry("etc", FOLDER))


def points_of(*entries: Entry) -> MountPoints:
    return MountPoints(View([LayerIndex({entry.path: entry for entry in (*USUAL, *entries)})]))


def plan(*attached: Attached, points: MountPoints | None = None) -> Attachments:
    return attach(attached, points or points_of(), "/s")


def test_nothing_attached_needs_nothing() -> None:
    assert plan() == Attachments((), (), ())


def test_one_folder_is_bound_where_it_is() -> None:
    stack = Stack(("/host/a",), ROOT)

    planned = plan(Attached("/m", stack))

    assert planned.mounts == (Bind("/host/a", "/m", read_only=True),)
    assert planned.before == ()


def test_a_path_in_one_folder_is_bound_by_its_whole_name() -> None:
    planned = plan(Attached("/m", Stack(("/host/a",), Entry("x/y", FILE), Access.WRITE)))

    assert planned.mounts == (Bind("/host/a/x/y", "/m"),)


def test_several_layers_are_stacked_and_the_path_in_them_bound() -> None:
    planned = plan(Attached("/m", Stack(("/host/a", "/host/b"), Entry("x", FOLDER))))

    assert planned.before == (Overlay(("/host/a", "/host/b"), "/s/attached/0-merged"),)
    assert planned.mounts == (Bind("/s/attached/0-merged/x", "/m", read_only=True),)
    assert planned.folders == (("/s/attached", ()), ("/s/attached/0-merged", ()))


def test_the_root_of_stacked_layers_looks_as_the_image_says() -> None:
    root = Entry("", FOLDER, 0o1711, uid=5, mtime_ns=9)

    planned = plan(Attached("/m", Stack(("/host/a", "/host/b"), root)))

    assert planned.before == (Overlay(("/host/a", "/host/b", "/s/attached/0-top"), "/s/attached/0-merged"),)
    assert ("/s/attached/0-top", (root,)) in planned.folders


def test_what_is_to_be_forgotten_goes_to_an_upper_of_its_own() -> None:
    planned = plan(Attached("/m", Stack(("/host/a",), Entry("f", FILE), Access.WRITE_AND_FORGET)))

    folder = "/s/attached/0"
    assert planned.before == (Overlay(("/host/a",), f"{folder}-merged", f"{folder}-upper", f"{folder}-work"),)
    assert planned.mounts == (Bind(f"{folder}-merged/f", "/m"),)


def test_no_layer_at_all_is_an_empty_folder() -> None:
    planned = plan(Attached("/m", Stack((), ROOT)))

    assert planned.before == (Overlay(("/s/attached/0-top",), "/s/attached/0-merged"),)


def test_documents_are_in_memory_and_cannot_be_changed() -> None:
    secret, script = Document(b"s", 0o440, 5, 6), Document(b"#!", 0o755, name="EOF")

    planned = plan(Attached("/run/secrets/s", secret), Attached("/dev/pipes", script))

    files = (MemoryFile("0/EOF", b"#!", 0o755), MemoryFile("1/file", b"s", 0o440, 5, 6))
    assert planned.before == (Memory("/s/attached/memory", files),)
    assert planned.mounts == (
        Bind("/s/attached/memory/0", "/dev/pipes", read_only=True),
        Bind("/s/attached/memory/1/file", "/run/secrets/s", read_only=True, inert=True),
    )


def test_a_document_says_nothing_of_what_is_in_it() -> None:
    planned = plan(Attached("/run/secrets/s", Document(b"hidden")))

    assert "hidden" not in repr(planned) + "".join(mount.describe() for mount in (*planned.before, *planned.mounts))


def test_a_blank_folder_is_as_large_as_asked_and_lets_programs_run() -> None:
    planned = plan(Attached("/a", Blank()), Attached("/b", Blank(4096, read_only=True)))

    assert planned.mounts == (
        Tmpfs("/a", size=None, flags=MS_NOSUID),
        Tmpfs("/b", size=4096, flags=MS_NOSUID | MS_RDONLY),
    )


def test_mount_points_that_the_image_lacks_are_stubs() -> None:
    points = points_of(Entry("var", FOLDER, 0o711, uid=3, mtime_ns=7))

    plan(Attached("/var/a/b", Blank()), Attached("/new/file", HostFile("/h")), points=points)

    assert list(points.stub.values()) == [
        Entry("new", FOLDER, 0o755, mtime_ns=NEW),
        Entry("new/file", FILE, 0o644, mtime_ns=NEW),
        Entry("var", FOLDER, 0o711, uid=3, mtime_ns=7),
        Entry("var/a", FOLDER, 0o755, mtime_ns=NEW),
        Entry("var/a/b", FOLDER, 0o755, mtime_ns=NEW),
    ]
    assert list(points.upper) == [""]


def test_a_folder_comes_before_what_is_mounted_in_it() -> None:
    points = points_of()

    planned = plan(Attached("/t/in/ner", Blank()), Attached("/t", Blank()), points=points)

    assert planned.mounts == (
        Tmpfs("/t", size=None, flags=MS_NOSUID),
        MountPoint("/t/in/ner", is_folder=True),
        Tmpfs("/t/in/ner", size=None, flags=MS_NOSUID),
    )
    assert list(points.stub) == ["t"]  # the other one is made in the first mount


def test_order_is_that_of_the_places_not_of_their_names() -> None:
    """/z is a link to /a: what is mounted on /z has to be there before what is mounted below /a."""
    points = points_of(Entry("a", FOLDER), Entry("z", LINK, target="a"))

    planned = plan(Attached("/a/b", Blank()), Attached("/z", Blank()), points=points)

    assert [mount.target for mount in planned.mounts if isinstance(mount, Tmpfs)] == ["/a", "/a/b"]


def test_places_in_the_systems_own_mounts_are_made_there() -> None:
    spec = RootSpec(
        ("/trees/a",),
        View([LayerIndex({entry.path: entry for entry in USUAL})]),
        "/nowhere/scratch",
        (Attached("/dev/pipes", Document(b"#!", 0o755, name="EOF")),),
    )

    planned = mount_plan(spec)

    assert MountPoint("/dev/pipes", is_folder=True) in planned.mounts
    assert [entry.path for entry in planned.stub] == ["etc", "etc/resolv.conf", "etc/hosts"]


@pytest.mark.parametrize(
    ("attached", "entry", "words"),
    [
        (Attached("/x", Blank()), Entry("x", FILE), "/x of the image is no folder"),
        (Attached("/x", HostFile("/h")), Entry("x", FOLDER), "/x of the image is a folder"),
        (Attached("/x/y", Blank()), Entry("x", FILE), "/x of the image is no folder"),
        (Attached("/x", Blank()), Entry("x", LINK, target="/"), "/x of the image is no folder"),
    ],
)
def test_a_target_that_is_something_else_is_the_dockerfiles_fault(attached: Attached, entry: Entry, words: str) -> None:
    with pytest.raises(DockerfileError, match=words):
        plan(attached, points=points_of(entry))


def test_more_layers_than_an_overlay_takes_are_refused() -> None:
    with pytest.raises(SandboxError, match="an image of 501 layers"):
        plan(Attached("/m", Stack(("/host/a",) * 501, Entry("x", FOLDER))))
