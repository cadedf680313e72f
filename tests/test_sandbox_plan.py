"""What a step would mount, who we would become, and how refusals are told: all without any privilege."""

import errno

import pytest

from builder.errors import SandboxError
from builder.sandbox.idmap import Range, own_ids, subordinate_ranges
from builder.sandbox.mount_points import NEW
from builder.sandbox.mounts import Bind, Devices, Masks, Overlay, Proc, Sys
from builder.sandbox.names import hosts, resolver
from builder.sandbox.plan import Plan, RootSpec, mount_plan
from builder.sandbox.process import DOCKER_CAPABILITIES
from builder.sandbox.refusal import remedy, setup_refused
from layers.entry import Entry, Kind
from layers.index import LayerIndex
from layers.view import View

FOLDER, FILE, LINK = Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK
USUAL = (Entry("dev", FOLDER), Entry("proc", FOLDER), Entry("sys", FOLDER))


def plan_of(*entries: Entry, lowers: tuple[str, ...] = ("/trees/a",)) -> Plan:
    index = LayerIndex({entry.path: entry for entry in entries})
    return mount_plan(RootSpec(lowers, View([index]), "/nowhere/scratch"))


def targets(plan: Plan) -> list[str]:
    return [mount.target for mount in plan.mounts if isinstance(mount, Bind | Devices | Proc | Sys)]


def paths(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.path for entry in entries]


def test_missing_dev_proc_and_sys_are_made_in_the_upper_for_the_layer_to_have() -> None:
    plan = plan_of(Entry("dev", FOLDER, 0o755))

    assert plan.upper[1:] == (Entry("proc", FOLDER, 0o755, mtime_ns=NEW), Entry("sys", FOLDER, 0o755, mtime_ns=NEW))


def test_the_upper_begins_with_the_attributes_of_the_root() -> None:
    root = Entry("", FOLDER, 0o1711, uid=3, gid=4, mtime_ns=17)

    plan = plan_of(root, *USUAL)

    assert plan.upper == (root,)


def test_resolv_conf_and_hosts_never_stand_in_the_upper() -> None:
    plan = plan_of()

    assert not [path for path in paths(plan.upper) if path.startswith("etc")]
    assert paths(plan.stub) == ["etc", "etc/resolv.conf", "etc/hosts"]


def test_the_folder_above_a_stub_has_the_attributes_of_the_image() -> None:
    etc = Entry("etc", FOLDER, 0o2750, uid=7, gid=8, mtime_ns=99, xattrs=(("user.note", b"x"),))

    plan = plan_of(etc, *USUAL)

    assert plan.stub[0] == etc


def test_files_that_the_image_has_need_no_stub() -> None:
    plan = plan_of(Entry("etc", FOLDER), Entry("etc/resolv.conf", FILE), Entry("etc/hosts", FILE))

    assert plan.stub == ()


def test_the_stub_is_the_uppermost_lower() -> None:
    plan = plan_of(lowers=("/trees/a", "/trees/b"))

    assert plan.root == Overlay(
        lowers=("/trees/a", "/trees/b", "/nowhere/scratch/stub"),
        target="/nowhere/scratch/root",
        upper="/nowhere/scratch/upper",
        work="/nowhere/scratch/work",
    )


def test_an_image_without_layers_still_has_a_root() -> None:
    plan = plan_of(lowers=())

    assert plan.root.lowers == ("/nowhere/scratch/stub",)


def test_a_resolv_conf_that_is_an_absolute_link_is_mounted_where_it_leads_inside() -> None:
    plan = plan_of(Entry("etc", FOLDER), Entry("etc/resolv.conf", LINK, target="/run/resolve/stub.conf"))

    assert targets(plan)[0] == "/run/resolve/stub.conf"
    assert paths(plan.stub) == ["run", "run/resolve", "run/resolve/stub.conf", "etc", "etc/hosts"]


def test_a_proc_that_is_a_link_out_of_the_root_stays_inside() -> None:
    plan = plan_of(Entry("etc", FOLDER), Entry("proc", LINK, target="../../../etc"))

    assert targets(plan)[4] == "/etc"


def test_a_dangling_link_at_a_mount_point_is_filled_with_the_attributes_kept_on_the_way() -> None:
    var = Entry("var", FOLDER, 0o711, uid=5, mtime_ns=6)

    plan = plan_of(var, *USUAL[1:], Entry("dev", LINK, target="/var/deep/dev"))

    assert plan.upper[1:] == (
        var,
        Entry("var/deep", FOLDER, 0o755, mtime_ns=NEW),
        Entry("var/deep/dev", FOLDER, 0o755, mtime_ns=NEW),
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Entry("dev", FILE), "/dev of the image is no folder"),
        (Entry("proc", LINK, target="/"), "/proc of the image is no folder"),
        (Entry("etc", FILE), "/etc of the image is no folder"),
        (Entry("etc/hosts", FOLDER), "/etc/hosts of the image is a folder"),
    ],
)
def test_an_image_that_has_something_else_at_a_mount_point_is_refused(entry: Entry, words: str) -> None:
    with pytest.raises(SandboxError, match=words):
        plan_of(entry)


def test_more_layers_than_an_overlay_takes_are_refused() -> None:
    plan_of(lowers=("/trees/a",) * 499)

    with pytest.raises(SandboxError, match="500 layers"):
        plan_of(lowers=("/trees/a",) * 500)


def test_the_files_are_mounted_before_what_could_cover_them() -> None:
    plan = plan_of(*USUAL)

    assert targets(plan) == ["/etc/resolv.conf", "/etc/hosts", "/dev", "/sys", "/proc"]


def test_each_mount_says_what_it_is() -> None:
    plan = plan_of(*USUAL)

    assert [plan.root.describe(), *(mount.describe() for mount in plan.mounts)] == [
        "stack 2 layers as an overlay on /nowhere/scratch/root",
        "bind /nowhere/scratch/names/resolv.conf to /etc/resolv.conf",
        "bind /nowhere/scratch/names/hosts to /etc/hosts",
        "make devices in /dev",
        "mount sysfs on /sys",
        "mount proc on /proc",
        "mount message queues on /dev/mqueue",
    ]
    assert Masks(("/a",), ("/b",), ("/c",)).describe() == "mask /a /b /c"
    assert Bind("/a", "/b", read_only=True).describe() == "bind /a to /b (read-only)"


def test_dockers_capabilities_are_fourteen() -> None:
    assert DOCKER_CAPABILITIES.bit_count() == 14


def test_subordinate_ids_are_found_by_name_and_by_number_on_several_lines() -> None:
    text = "eve:100000:65536\n1000:300000:1000\nother:1:1\neve:500000:10\n"

    ranges = subordinate_ranges(text, {"eve", "1000"}, 1000)

    assert ranges == (
        Range(0, 1000, 1),
        Range(1, 100000, 65536),
        Range(65537, 300000, 1000),
        Range(66537, 500000, 10),
    )


@pytest.mark.parametrize(
    "text", ["", "eve\n", "eve:1\n", "eve:x:5\n", "eve:5:0\n", "eve:-1:5\n", "# eve:1:2\n", "mallory:1:2\n"]
)
def test_lines_that_grant_nothing_give_no_range(text: str) -> None:
    assert subordinate_ranges(text, {"eve"}, 1000) == ()


def test_root_of_a_container_maps_every_id_it_has_to_itself() -> None:
    assert own_ids("         0     100000      65536\n     65536      1000          1\n") == (
        Range(0, 0, 65536),
        Range(65536, 65536, 1),
    )


def test_hosts_names_the_step_as_buildkit_does() -> None:
    assert hosts("buildkitsandbox") == (
        b"127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    )


def test_a_host_without_resolver_configuration_gives_an_empty_one() -> None:
    assert resolver("/nowhere/resolv.conf") == b""


def test_a_chown_that_needs_more_ids_is_explained() -> None:
    error = setup_refused("become user 33", errno.EINVAL, "", single_id="ask for subordinate ids")

    assert error.message == "cannot become user 33: EINVAL, invalid argument"
    assert error.hint == "ask for subordinate ids"


def test_a_store_that_cannot_carry_an_overlay_is_explained() -> None:
    error = setup_refused("stack 2 layers as an overlay on /x", errno.EINVAL, "", single_id="")

    assert "--root" in error.hint


def test_a_machine_out_of_namespaces_is_told_which_setting_to_raise() -> None:
    assert "user.max_user_namespaces" in remedy(OSError(errno.ENOSPC, "no space left on device"))
