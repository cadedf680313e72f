"""RUN with mounts, really executed: what commands see, what stays of it, and what the cache makes of it."""

import os
import threading
import time
from collections.abc import Callable

import pytest
import users
from images import Project, Result
from runs import build, fail, outcome, paths

pytestmark = pytest.mark.kernel

EVERYONE = pytest.mark.parametrize("user", [users.ROOT, users.RANGES, users.SINGLE])
WITH_IDS = pytest.mark.parametrize("user", [users.ROOT, users.RANGES])
ProjectOf = Callable[[str], Project]


# --- bind


@pytest.mark.usefixtures("namespaces")
@EVERYONE
def test_a_context_is_seen_whole_and_cannot_be_written(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    project.write({"a": "A", "d/b": "B"})

    image = build(project, "RUN --mount=target=/m cat /m/a /m/d/b > /o; touch /m/x 2>> /o || true")

    assert image.files["o"] == b"ABtouch: /m/x: Read-only file system\n"
    assert paths(image) == {"o"}


@WITH_IDS
def test_a_context_belongs_to_root_whoever_owns_it(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    text = "FROM busybox\nRUN --mount=target=/m cd /m && stat -c '%n %a %u:%g' a d d/b > /o\n"
    project.write({"a": "A", "d/b": "B", "Dockerfile": text})
    if user == users.ROOT:
        for path in project.context.rglob("*"):
            os.chown(path, 1234, 5678)
    (project.context / "a").chmod(0o4751)

    project.built()

    assert project.image().files["o"] == b"a 4751 0:0\nd 755 0:0\nd/b 644 0:0\n"


def test_what_dockerignore_names_is_not_seen(project: Project) -> None:
    project.write({"a": "", "b.log": "", "d/c.log": "", "d/kept": "", ".dockerignore": "**/*.log\nDockerfile\n"})

    image = build(project, "RUN --mount=target=/m cd /m && find . | sort > /o")

    assert image.files["o"] == b".\n./.dockerignore\n./a\n./d\n./d/kept\n"


def test_links_and_times_of_a_context_are_kept(project: Project) -> None:
    project.write({"a": "A"})
    os.link(project.context / "a", project.context / "b")
    os.symlink("a", project.context / "l")
    os.utime(project.context / "a", (1, 86400 * 365))

    image = build(project, "RUN --mount=target=/m cd /m && stat -c '%h %Y' a b > /o && readlink l >> /o && [ a -ef b ]")

    assert image.files["o"] == b"2 31536000\n2 31536000\na\n"


def test_a_command_sees_the_context_as_it_was_at_its_beginning(project: Project) -> None:
    """A copy is mounted: an editor that saves meanwhile changes neither what is seen nor what is kept of it."""
    project.write(
        {"a": "before", "Dockerfile": "FROM busybox\nRUN --mount=target=/m echo up; sleep 2; cat /m/a > /o\n"}
    )
    with project.start() as process:
        assert process.stdout is not None
        output = next(line for line in process.stdout if line.rstrip().endswith(" up"))
        (project.context / "a").write_text("after")
        output += process.stdout.read()

    assert process.returncode == 0, output
    assert project.image().files["o"] == b"before"
    assert outcome(project.built(), "RUN") == "DONE"


@EVERYONE
def test_a_single_file_is_mounted_as_a_file(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    project.write({"d/settings.ini": "x=1", "d/other": ""})

    image = build(
        project, "RUN --mount=source=d/settings.ini,target=/etc/app/conf cat /etc/app/conf > /o; ls /etc/app >> /o"
    )

    assert image.files["o"] == b"x=1conf\n"
    assert paths(image) == {"o"}


@EVERYONE
def test_what_is_written_to_a_writable_bind_is_forgotten(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    project.write({"a": "A", "d/f": "F"})

    image = build(
        project,
        "RUN --mount=target=/m,rw --mount=source=a,target=/one,rw"
        " echo new > /m/a; echo new > /one; rm -r /m/d; cat /m/a /one > /o; ls /m >> /o\n"
        "RUN --mount=target=/m,rw cat /m/a /m/d/f > /p\n",
    )

    assert image.files["o"] == b"new\nnew\nDockerfile\na\n"
    assert image.files["p"] == b"AF"
    assert (project.context / "a").read_text() == "A"


@EVERYONE
def test_a_stage_is_seen_with_all_its_layers(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    stages = (
        "FROM busybox AS one\nRUN mkdir /s && echo 1 > /s/a && echo 2 > /s/b && chmod 711 /s\n"
        "RUN echo 3 > /s/c && rm /s/b\n"
    )
    project.write(
        {
            "Dockerfile": f"{stages}FROM busybox\n"
            "RUN --mount=from=one,target=/all cat /all/s/* > /o; stat -c %a /all/s >> /o; ls /all/bin/busybox >> /o\n"
            "RUN --mount=from=one,source=s,target=/part,rw echo 4 > /part/d; cat /part/* > /p\n"
            "RUN --mount=from=0,source=/s/c,target=/deep/file cat /deep/file > /q\n"
        }
    )

    project.built()

    image = project.image()
    assert image.files["o"] == b"1\n3\n711\n/all/bin/busybox\n"
    assert image.files["p"] == b"1\n3\n4\n"
    assert image.files["q"] == b"3\n"
    assert paths(image) == {"q"}


@WITH_IDS
def test_a_stage_keeps_its_owners(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    project.write(
        {
            "Dockerfile": "FROM busybox AS one\nRUN mkdir /s && touch /s/a && chown 33:7 /s /s/a\n"
            "FROM busybox\nRUN --mount=from=one,source=/s,target=/m stat -c '%u:%g' /m /m/a > /o\n"
        }
    )

    project.built()

    assert project.image().files["o"] == b"33:7\n33:7\n"


def test_an_image_and_a_folder_can_be_mounted_by_name(project: Project) -> None:
    (project.place / "extra").mkdir()
    (project.place / "extra/file").write_text("named")

    image = build(
        project,
        "RUN --mount=from=busybox,source=/etc/passwd,target=/m cat /m | head -1 > /o\n"
        "RUN --mount=from=extra,target=/m cat /m/file > /p\n",
        f"--build-context=extra={project.place}/extra",
    )

    assert image.files["o"] == b"root:x:0:0:root:/root:/bin/sh\n"
    assert image.files["p"] == b"named"


def test_a_source_that_is_a_link_is_followed_inside_its_root(project: Project) -> None:
    project.write({"real/f": "F"})
    os.symlink("/real", project.context / "link")
    os.symlink("/etc/shadow", project.context / "out")

    image = build(project, "RUN --mount=source=link,target=/m cat /m/f > /o")
    error = fail(project, "RUN --mount=source=out,target=/m true").error

    assert image.files["o"] == b"F"
    assert '"/out": not found' in error


def test_an_empty_stage_is_an_empty_folder(project: Project) -> None:
    project.write(
        {
            "Dockerfile": "FROM scratch AS none\nFROM busybox\n"
            "RUN --mount=from=none,target=/m --mount=from=none,target=/n,rw ls /m > /o; echo x > /n/x; ls /n >> /o\n"
        }
    )

    project.built()

    assert project.image().files["o"] == b"x\n"


def test_a_missing_source_is_told_with_its_line(project: Project) -> None:
    result = fail(project, "\nRUN --mount=source=nope,target=/m true")

    assert result.status == 4
    assert result.error == '"/nope": not found, so it cannot be mounted on /m'
    assert "Dockerfile:3" in result.err


# --- what the cache makes of binds


def test_a_run_is_keyed_on_the_subpath_that_it_mounts(project: Project) -> None:
    text = "FROM busybox\nRUN --mount=source=d,target=/m cat /m/f > /o\n"
    project.write({"Dockerfile": text, "d/f": "1", "e": "1"})
    first = project.built()
    project.write({"e": "2"})
    beside = project.built()
    os.utime(project.context / "d/f", (1, 1))
    touched = project.built()
    project.write({"d/f": "2"})
    changed = project.built()

    assert [outcome(result, "RUN") for result in (first, beside, touched, changed)] == [
        "DONE",
        "CACHED",
        "CACHED",
        "DONE",
    ]
    assert project.image().files["o"] == b"2"


def test_a_run_is_keyed_on_what_it_mounts_of_a_stage(project: Project) -> None:
    text = (
        "FROM busybox AS one\nARG A\nRUN mkdir /s && echo same > /s/f && echo $A > /noise\n"
        "FROM busybox\nRUN --mount=from=one,source=/s,target=/m cp /m/f /o\n"
    )
    project.write({"Dockerfile": text})
    project.built("--build-arg=A=1")

    result = project.built("--build-arg=A=2")

    assert outcome(result, "echo same") == "DONE"
    assert outcome(result, "cp /m/f") == "CACHED"


def test_a_cached_run_needs_neither_secret_nor_agent(project: Project) -> None:
    text = "RUN --mount=type=secret,id=s,required --mount=type=cache,target=/c echo ran > /o"
    (project.place / "s").write_text("x")
    build(project, text, f"--secret=id=s,src={project.place}/s")

    result = project.built()

    assert outcome(result, "RUN") == "CACHED"


def test_another_value_of_a_secret_changes_no_key(project: Project) -> None:
    text = "RUN --mount=type=secret,id=s,env=S true"
    build(project, text, "--secret=id=s,env=A", A="1")

    result = project.built("--secret=id=s,env=A", A="2")

    assert outcome(result, "RUN") == "CACHED"


# --- mount points


@EVERYONE
def test_mount_points_leave_no_trace(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    project.write({"f": ""})

    image = build(
        project,
        "RUN --mount=type=cache,target=/new/a/b --mount=type=tmpfs,target=/var/t --mount=source=f,target=/root/x/f.txt"
        " --mount=type=tmpfs,target=/bin/deep/er ls -d /new/a/b /var/t /root/x/f.txt /bin/deep/er;"
        " mkdir /new/q; rmdir /new/q\n"
        "RUN ls -d /new /var/t /root/x /bin/deep > /o 2>&1 || true\n",
    )

    assert paths(image, 1) == set()
    assert image.files["o"].count(b"No such file or directory") == 4


def test_what_a_command_wrote_beside_a_mount_point_stays(project: Project) -> None:
    image = build(
        project,
        "RUN --mount=type=tmpfs,target=/m/n echo x > /m/beside; echo gone > /m/n/inside\nRUN find /m > /o; rm -rf /m\n",
    )

    assert paths(image, 1) == {"m", "m/beside"}
    assert image.files["o"] == b"/m\n/m/beside\n"


def test_a_folder_above_a_mount_point_is_as_it_was(project: Project) -> None:
    image = build(
        project,
        "RUN mkdir -m 2711 /d && chown 3:4 /d && touch -d '2001-01-01 00:00:00' /d\n"
        "RUN --mount=type=tmpfs,target=/d/x stat -c '%a %u:%g %Y' /d > /o\n"
        "RUN --mount=type=tmpfs,target=/d/x true\n",
    )

    assert image.files["o"] == b"2711 3:4 978307200\n"
    assert len(image.layers) == 3  # of the last RUN there is none


@EVERYONE
def test_targets_never_lead_out_of_the_image(project_of: ProjectOf, user: str) -> None:
    """A hostile image has links where mounts go, to what is a folder or a file of the host."""
    project = project_of(user)
    (project.place / "victim").mkdir()
    (project.place / "victim/file").write_text("untouched")
    users.hand_over(project.place / "victim", user)
    place = project.place / "victim"

    image = build(
        project,
        f"RUN ln -s {place} /one; ln -s ../../../..{place}/file /two; ln -s /proc/1/root{place} /three\n"
        "RUN --mount=type=tmpfs,target=/one --mount=type=secret,id=s,target=/two --mount=type=cache,target=/four"
        f" echo x > /one/x; cat /two > /o; ls {place}/x {place}/file >> /o; echo y > /four/y\n",
        f"--secret=id=s,src={project.context}/Dockerfile",
    )

    assert sorted(os.listdir(place)) == ["file"]
    assert (place / "file").read_text() == "untouched"
    assert image.files["o"].endswith(f"{place}/file\n{place}/x\n".encode())


def test_a_mount_stands_inside_another_in_whatever_order_they_are_named(project: Project) -> None:
    project.write({"sub/f": "F"})

    image = build(
        project,
        "RUN --mount=type=tmpfs,target=/t/in/ner --mount=type=tmpfs,target=/t --mount=target=/t/ctx"
        " --mount=type=tmpfs,target=/t/ctx/sub echo x > /t/in/ner/x; find /t > /o; ls /t/ctx/sub >> /o\n",
    )

    assert b"/t/in/ner/x\n" in image.files["o"]
    assert b"/t/ctx/Dockerfile\n" in image.files["o"]
    assert b"F" not in image.files["o"].replace(b"Dockerfile", b"")
    assert paths(image) == {"o"}


@pytest.mark.usefixtures("namespaces")
def test_a_mount_point_that_a_read_only_mount_lacks_is_told(project: Project) -> None:
    result = fail(project, "RUN --mount=target=/m --mount=type=cache,target=/m/node_modules true")

    assert "cannot make the mount point /m/node_modules: EROFS" in result.error


def test_a_folder_cannot_be_mounted_on_a_file(project: Project) -> None:
    result = fail(project, "RUN --mount=type=tmpfs,target=/etc/passwd true")

    assert result.status == 3
    assert "/etc/passwd of the image is no folder" in result.error


@pytest.mark.usefixtures("namespaces")
def test_shared_memory_can_be_replaced(project: Project) -> None:
    image = build(project, "RUN --mount=type=tmpfs,target=/dev/shm,size=1m df -k /dev/shm | tail -1 > /o")

    assert image.files["o"].split()[1] == b"1024"


# --- cache


@EVERYONE
def test_a_cache_stays_from_build_to_build_and_out_of_the_image(project_of: ProjectOf, user: str) -> None:
    project = project_of(user)
    build(project, "ARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/log; cat /c/log > /o", "--build-arg=N=1")

    project.built("--build-arg=N=2")

    image = project.image()
    assert image.files["o"] == b"1\n2\n"
    assert paths(image) == {"o"}


def test_caches_with_one_id_are_one(project: Project) -> None:
    image = build(
        project,
        "RUN --mount=type=cache,id=x,target=/a echo a > /a/f\n"
        "RUN --mount=type=cache,id=x,target=/b --mount=type=cache,id=x,target=/b2 cat /b/f /b2/f > /o\n"
        "RUN --mount=type=cache,target=/a ls /a > /p\n",
    )

    assert image.files["o"] == b"a\na\n"
    assert image.files["p"] == b""


@WITH_IDS
def test_a_cache_has_the_owner_and_mode_that_it_asks_for(project_of: ProjectOf, user: str) -> None:
    image = build(
        project_of(user),
        "RUN --mount=type=cache,target=/a stat -c '%a %u:%g' /a > /o\n"
        "USER 33\n"
        "RUN --mount=type=cache,target=/a,uid=33,gid=7,mode=0700 touch /a/mine; stat -c '%a %u:%g' /a > /tmp/p\n",
    )

    assert image.files["o"] == b"755 0:0\n"
    assert image.files["tmp/p"] == b"700 33:7\n"


@pytest.mark.usefixtures("namespaces")
def test_a_read_only_cache_cannot_be_written(project: Project) -> None:
    image = build(project, "RUN --mount=type=cache,target=/a,ro touch /a/x || echo refused > /o")

    assert image.files["o"] == b"refused\n"


def test_a_cache_begins_with_what_a_stage_has(project: Project) -> None:
    text = (
        "FROM busybox AS seed\nARG S=1\nRUN mkdir -m 750 -p /s && echo $S > /s/f && chown 5:6 /s/f\nFROM busybox\n"
        "RUN --mount=type=cache,target=/c,id=x,from=seed,source=/s stat -c '%a %u:%g' /c /c/f > /o; cat /c/f >> /o;"
        " echo more >> /c/f\n"
    )
    project.write({"Dockerfile": text})
    project.built()
    first = project.image().files["o"]
    project.write({"Dockerfile": text.replace("echo more", "echo again")})
    project.built()
    again = project.image().files["o"]
    project.built("--build-arg=S=2")
    other = project.image().files["o"]

    assert first == b"750 0:0\n644 5:6\n1\n"
    assert again == b"750 0:0\n644 5:6\n1\nmore\n"
    assert other == b"750 0:0\n644 5:6\n2\n"  # another beginning is another cache


def test_a_locked_cache_makes_other_builds_wait(project_of: ProjectOf) -> None:
    project = project_of(users.ROOT)
    text = (
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c,sharing=locked"
        " [ ! -e /c/busy ] && touch /c/busy && echo up $N && sleep 1 && rm /c/busy\n"
    )
    project.write({"Dockerfile": text})

    with project.start("--build-arg=N=1") as one, project.start("--build-arg=N=2") as two:
        outputs = [one.communicate(timeout=60)[0], two.communicate(timeout=60)[0]]

    assert [one.returncode, two.returncode] == [0, 0], outputs
    assert any("waiting for the cache /c" in output for output in outputs)


def test_a_killed_build_blocks_no_cache(project: Project) -> None:
    text = (
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c,sharing=locked"
        " [ -e /c/seen ] || (touch /c/seen; echo up; sleep 300)\n"
    )
    project.write({"Dockerfile": text})
    with project.start("--build-arg=N=1") as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.rstrip().endswith(" up"))
        process.kill()

    started = time.monotonic()
    project.built("--build-arg=N=2")

    assert time.monotonic() - started < 200


def test_private_caches_are_used_at_the_same_time(project: Project) -> None:
    stage = "RUN --mount=type=cache,target=/c,sharing=private"
    project.write(
        {
            "Dockerfile": f"FROM busybox AS a\n{stage} touch /c/a; sleep 1; ls /c > /a\n"
            f"FROM busybox AS b\n{stage} touch /c/b; sleep 1; ls /c > /b\n"
            "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
        }
    )

    project.built()

    assert {name: project.image().files[name] for name in "ab"} == {"a": b"a\n", "b": b"b\n"}
    assert len(list(project.root.glob("mounts/*/*/[0-9]"))) == 2


# --- tmpfs


@pytest.mark.usefixtures("namespaces")
@EVERYONE
def test_a_tmpfs_is_empty_executable_and_no_larger_than_asked(project_of: ProjectOf, user: str) -> None:
    image = build(
        project_of(user),
        "RUN --mount=type=tmpfs,target=/t,size=64k ls /t > /o; stat -c %a /t >> /o;"
        " cp /bin/busybox /t/b 2>/dev/null || echo full >> /o; rm -f /t/b;"
        " printf '#!/bin/sh\\necho runs' > /t/x; chmod +x /t/x; /t/x >> /o\n"
        "RUN --mount=type=tmpfs,target=/t,ro touch /t/x || echo read-only > /p\n",
    )

    assert image.files["o"] == b"1777\nfull\nruns\n"
    assert image.files["p"] == b"read-only\n"


# --- all together


def test_many_threads_open_mounts_at_once(project: Project) -> None:
    """Ten stages with every kind of mount; nothing waits for ever."""
    mounts = (
        "--mount=target=/m,rw --mount=type=cache,target=/a,sharing=locked --mount=type=cache,target=/b,sharing=locked"
        " --mount=type=tmpfs,target=/t --mount=type=secret,id=s"
    )
    swapped = mounts.replace("/a", "/x").replace("/b", "/a").replace("/x", "/b")
    stages = [
        f"FROM busybox AS s{number}\nRUN {swapped if number % 2 else mounts} wc -c < /run/secrets/s > /m/{number}\n"
        for number in range(10)
    ]
    copies = "".join(f"COPY --from=s{number} /etc/group /{number}\n" for number in range(10))
    project.write({"Dockerfile": "".join(stages) + "FROM scratch\n" + copies})

    result: list[Result] = []
    thread = threading.Thread(target=lambda: result.append(project.build("--secret=id=s,env=T", T="x")))
    thread.start()
    thread.join(120)

    assert result, "it did not end"
    assert result[0].status == 0, result[0].err
