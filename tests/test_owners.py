"""Owners and device nodes where the kernel keeps none: the layers are those that real ids make.

A user with subordinate ids and one with a single id build the same Dockerfile; each test looks at one of the layers.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import users
from grants import USER_NAMESPACES, demand
from images import Project
from machine_code import PROCESSORS, program

from builder.sandbox.seccomp import abi
from layers.compress import decompressed
from layers.owners import may_make_devices

pytestmark = pytest.mark.kernel

MACHINE = os.uname().machine
NUMBERS = {name: number for number, name in abi.ABIS[MACHINE][0].calls().items()}
WHO = program(PROCESSORS[MACHINE], (NUMBERS["geteuid"],))
"""Ends with status 0 as root, and 223 as user 33."""

CAPABILITY = "\1\0\0\2\0\x20" + "\0" * 14
"""cap_net_raw, permitted and effective."""

UNCHANGED = "what is given to those who have it"
STEPS = {
    "what is given away": """
        umask 027; mkdir /d /d/in; echo a > /d/a; chown 33:44 /d/a; chown www /d; ln -s a /d/l; chown -h 5:6 /d/l
        mkfifo /d/p; chown 7:8 /d/p; ln /d/a /d/b; touch /d/same; chown 33 /d/same; chown :44 /d/in""",
    "what is moved": "cd /d; mv a a2; mv l l2; mv p p2; mv in in2; mv /d/in2 /in3",
    "what is written to": "echo more >> /d/a2; touch /d/new; echo > /in3/x",
    "what is given back": "chown 0:0 /d/a2; chown -h 0:0 /d/l2; chown 0:0 /d/p2; chown 0 /in3",
    UNCHANGED: "chown 1 /d/same; chown 33 /d/same; chown 34:35 /d; chown 33:0 /d; chown 0 /bin; echo -n >> /d/b",
    "setuid bits": """
        for mode in 4755 2755 6755 2745 0755; do for owner in 0 33; do
        cp /who /s$mode$owner; chmod $mode /s$mode$owner; chown $owner /s$mode$owner; done; done
        for name in root www mail; do cp /who /$name-who; done; chown 33:34 /www-who /mail-who
        chmod 4755 /www-who; chmod 2755 /mail-who; cp /who /suid; chmod 4755 /suid""",
    "what a user makes": """
        cat > /make <<EOF
        cd /tmp; echo f > f; mkdir d d/d; ln -s f l; mkfifo p; echo > d/x; echo more >> f; umask 077; touch u; mkdir ud
        ln -s v dangling; echo > dangling; mknod n c 1 3 || chown 5 f || chown 33:44 f || chgrp 0 f || chgrp 1500 f
        id > id
        EOF
        su www -s /bin/sh /make 2>/dev/null""",
    "what is made in setgid folders": """
        mkdir -m 2775 /g; chown 33:44 /g; chmod 2775 /g; touch /g/x; mkdir /g/y; touch /g/y/z; ln -s x /g/l; mkfifo /g/p
        echo > /g/y/w; su www -s /bin/sh -c 'umask 007; touch /g/by-www; mkdir /g/deep'; mv /d/new /g/moved""",
    "copies": """
        cp -a /d /d2; mkdir /d3; cd /d; tar cf - . | tar xf - -C /d3; sed -i s/f/g/ /tmp/f; cp -p /tmp/f /tmp/f2
        su www -s /bin/sh -c 'mkdir /tmp/d2; cp -a /d/b /d/l2 /d/p2 /d/same /tmp/d2; mv /tmp/f2 /tmp/f3'
        mv /tmp/d /d4""",
    "devices": """
        mkdir /n; cd /n; mknod null c 1 3; mknod -m 600 loop b 7 200; chown 5:6 loop; ln null twice; mv null zero
        mknod zero c 1 5 2>/dev/null || mknod fifo p; mkdir -m 2755 g; chown 1:2 g; chmod 2755 g; mknod g/null c 1 3""",
    "who starts programs": """
        for program in /root-who /www-who /mail-who /suid; do $program; echo $? >> /tmp/started; done
        su www -s /bin/sh -c 'for p in /root-who /www-who /mail-who /suid; do $p; echo $? >> /tmp/www; done'""",
    "orphans": """
        su www -s /bin/sh -c '(setsid sh -c "sleep 0.2; id > /tmp/orphan" &)'; until [ -s /tmp/orphan ]; do :; done""",
    "roots": """
        mkdir /r /r/bin; cp /bin/busybox /r/bin/sh; mkdir -m 1777 /r/tmp; touch /tmp/outside
        chroot /r sh -c 'touch /tmp/a; chown 3:4 /tmp/a; cd tmp; chown 5:6 ../tmp'; chown 3:4 /tmp/outside""",
    "capabilities": "cp -a /owned/raised /owned/given; chown 33 /owned/given; mv /owned/raised /owned/kept",
}
"""A RUN each, by what it is about."""

AS_USER = {
    "a user": "id > /tmp/user; echo > /tmp/its-own; mkdir -p /tmp/its/folder; whoami >> /tmp/user; rm /tmp/u",
    "what a user sees": "stat -c '%n %u:%g %a %F' /d /d/* /g/l /tmp/f /n/g > /tmp/seen; find / -xdev -user www"
    " | sort >> /tmp/seen",
}
"""RUN as a user."""

ALL = (*STEPS, "a working directory", *AS_USER, "the last step")


class Told(NamedTuple):
    """All that a layer says of a path, but for its time."""

    path: str
    type: bytes
    mode: int
    owner: tuple[int, int]
    link: str
    device: tuple[int, int]
    xattrs: tuple[tuple[str, str], ...]
    data: bytes


Layer = tuple[Told, ...]


def dockerfile() -> str:
    runs = [f"# {name}\nRUN <<EOT\n{textwrap.dedent(text).strip()}\nEOT\n" for name, text in STEPS.items()]
    later = [f"# {name}\nRUN {text}\n" for name, text in AS_USER.items()]
    return (
        "FROM busybox\nCOPY --chmod=755 who /\nADD owned.tar /\n"
        f"{''.join(runs)}USER www:audio\nWORKDIR /d/w/x\n{''.join(later)}USER root\n"
        "RUN stat -c '%n %u:%g %a %F' /owned/* > /tmp/owned; mv /owned/l /owned/l2; echo >> /owned/f\n"
    )


def owned() -> bytes:
    """A tar with all that can have an owner."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, link in (
            ("owned", tarfile.DIRTYPE, ""),
            ("owned/f", tarfile.REGTYPE, ""),
            ("owned/l", tarfile.SYMTYPE, "f"),
            ("owned/p", tarfile.FIFOTYPE, ""),
            ("owned/h", tarfile.LNKTYPE, "owned/f"),
            ("owned/far", tarfile.REGTYPE, ""),
            ("owned/raised", tarfile.REGTYPE, ""),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, link, 0o750
            entry.uid, entry.gid = (33, 44) if name != "owned/far" else (60000, 65534)
            entry.pax_headers = {"SCHILY.xattr.security.capability": CAPABILITY} if name == "owned/raised" else {}
            tar.addfile(entry)
    return stream.getvalue()


def layers_of(project: Project) -> list[Layer]:
    image = project.image()
    found = []
    for layer in image.manifest["layers"]:
        blob = project.store / "blobs" / layer["digest"].replace(":", "/")
        with blob.open("rb") as stream, tarfile.open(fileobj=io.BytesIO(decompressed(stream).read())) as tar:
            found.append(tuple(_told(tar, member) for member in tar))
    return found


def _told(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Told:
    stream = tar.extractfile(member) if member.isreg() else None
    return Told(
        member.name,
        member.type,
        member.mode,
        (member.uid, member.gid),
        member.linkname,
        (member.devmajor, member.devminor),
        tuple(sorted((key, value) for key, value in member.pax_headers.items() if "xattr" in key)),
        stream.read() if stream and member.size < 1 << 20 else b"",
    )


@pytest.fixture(scope="module")
def built(base: Path) -> Iterator[Mapping[str, Project]]:
    """The Dockerfile, built by both."""
    with ExitStack() as stack:
        projects = {}
        for user in (users.RANGES, users.SINGLE):
            demand(USER_NAMESPACES, user)
            project = Project(stack.enter_context(users.place_of(user)), base, user)
            project.context.mkdir()
            project.write({"Dockerfile": dockerfile(), "owned.tar": owned(), "who": WHO})
            project.built()
            projects[user] = project
        yield projects


@pytest.fixture(scope="module")
def layers(built: Mapping[str, Project]) -> Mapping[str, tuple[Layer, Layer]]:
    """What both made of each step: with real ids, and with one."""
    names = [name for name in ("base", "programs", "owned", *ALL) if name != UNCHANGED]  # which makes no layer
    real, noted = (layers_of(built[user]) for user in (users.RANGES, users.SINGLE))
    assert len(real) == len(noted) == len(names)
    return dict(zip(names, zip(real, noted, strict=True), strict=True))


@pytest.mark.parametrize("name", [name for name in ALL if name != UNCHANGED])
def test_a_layer_is_the_same_with_one_id_as_with_real_ones(
    layers: Mapping[str, tuple[Layer, Layer]], name: str
) -> None:
    real, noted = layers[name]

    assert noted == real
    assert noted


def test_owners_are_seen_in_trees_that_are_unpacked_again(built: Mapping[str, Project]) -> None:
    """As when an image comes from a registry, or a step is answered by the cache."""
    again = []
    for project in built.values():
        shutil.rmtree(project.root / "trees")
        text = dockerfile().replace("FROM busybox", "FROM busybox AS first")
        look = f"RUN rm /tmp/seen; {AS_USER['what a user sees']}"
        project.write({"Dockerfile": f"{text}FROM busybox\nUSER www:audio\nCOPY --from=first / /\n{look}\n"})
        result = project.built()
        assert "CACHED" in result.steps.values()
        again.append(layers_of(project))

    real, noted = again
    assert noted == real
    assert any(b"/d/b 33:44" in told.data for told in noted[-1])


def test_a_namespace_that_has_all_ids_makes_no_devices_either() -> None:
    """Root of a container maps all its ids: devices that were noted there became empty files in the layer."""
    demand(USER_NAMESPACES)
    script = "print('in', flush=True); input(); from layers.owners import may_make_devices as m; print(m())"
    command = ["unshare", "--user", sys.executable, "-c", script]
    environment = {"PYTHONPATH": str(users.CHECKOUT)}

    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "in\n"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text("0 0 4294967295\n")
        answer, _ = process.communicate("\n", timeout=60)

    assert answer == "False\n"
    assert may_make_devices()
