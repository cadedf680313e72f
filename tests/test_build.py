"""Whole builds by the command line: what runs, what is answered by the cache, and what the image has in the end."""

import json
import os
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable

import pytest
import users
from grants import NAMESPACES, USER_NAMESPACES, demand
from images import ImageRead, Project, Result, command, environment, pybuild, validate
from processes import running

pytestmark = pytest.mark.kernel

PROJECT = {
    "Dockerfile": """\
FROM busybox AS tools
RUN echo tool > /tool

FROM busybox
WORKDIR /app
COPY --from=tools /tool .
COPY first .
RUN cat first > copy
COPY second .
RUN cat second >> copy
CMD ["cat", "copy"]
""",
    "first": "1",
    "second": "2",
}
STEPS = [
    "RUN echo tool > /tool",
    "WORKDIR /app",
    "COPY --from=tools /tool .",
    "COPY first .",
    "RUN cat first > copy",
    "COPY second .",
    "RUN cat second >> copy",
]
EVERYONE = pytest.mark.parametrize("user", [users.ROOT, users.RANGES])


def dockerfile(project: Project, text: str) -> None:
    project.write({"Dockerfile": text})


def outcomes(result: Result) -> dict[str, str]:
    """How the steps ended that are no FROM."""
    return {title: outcome for title, outcome in result.steps.items() if not title.startswith("FROM ")}


# --- what the cache answers


@EVERYONE
def test_a_second_build_runs_nothing_and_gives_the_same_image(project_of: Callable[[str], Project], user: str) -> None:
    project = project_of(user)
    project.write(PROJECT)
    first = project.built()
    image = project.image()

    second = project.built()

    assert outcomes(first) == dict.fromkeys(STEPS, "DONE")
    assert outcomes(second) == dict.fromkeys(STEPS, "CACHED")
    assert set(second.steps.values()) == {"CACHED"}
    assert project.image() == image


def test_touching_a_file_changes_nothing(project: Project) -> None:
    project.write(PROJECT)
    project.built()
    image = project.image()
    for path in project.context.iterdir():
        os.utime(path, (1_000_000_000, 1_000_000_000))

    result = project.built()

    assert outcomes(result) == dict.fromkeys(STEPS, "CACHED")
    assert project.image() == image


def test_writing_a_file_anew_with_the_same_bytes_changes_nothing(project: Project) -> None:
    project.write(PROJECT)
    project.built()
    (project.context / "second").unlink()
    project.write({"second": "2"})

    result = project.built()

    assert outcomes(result) == dict.fromkeys(STEPS, "CACHED")


def test_a_changed_file_runs_the_steps_from_its_copy_on(project: Project) -> None:
    project.write(PROJECT)
    project.built()
    project.write({"second": "3"})

    result = project.built()

    assert outcomes(result) == {**dict.fromkeys(STEPS[:5], "CACHED"), **dict.fromkeys(STEPS[5:], "DONE")}
    assert project.image().files["app/copy"] == b"13"


def test_a_changed_mode_runs_the_copy_again(project: Project) -> None:
    project.write(PROJECT)
    project.built()
    (project.context / "second").chmod(0o755)

    result = project.built()

    assert outcomes(result)["COPY second ."] == "DONE"


def test_a_file_that_dockerignore_names_is_nothing_to_the_build(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nCOPY . /all/\n", ".dockerignore": "*.log\n", "kept": "", "a.log": "1"})
    project.built()
    project.write({"a.log": "2"})

    result = project.built()

    assert outcomes(result) == {"COPY . /all/": "CACHED"}
    assert list(project.image().contents[-1]) == ["all/.dockerignore", "all/Dockerfile", "all/kept"]


def test_a_change_that_is_taken_back_is_answered_by_the_cache(project: Project) -> None:
    project.write(PROJECT)
    project.built()
    image = project.image()
    project.write({"first": "x"})
    project.built()
    project.write({"first": "1"})

    result = project.built()

    assert outcomes(result) == dict.fromkeys(STEPS, "CACHED")
    assert project.image() == image


def test_a_stage_with_other_steps_and_the_same_files_leaves_the_copy_from_it_cached(project: Project) -> None:
    text = "FROM busybox AS made\nRUN {}\nFROM busybox\nCOPY --from=made /it /it\nRUN cat /it > /copy\n"
    dockerfile(project, text.format("echo same > /it"))
    project.built()
    dockerfile(project, text.format("echo same > /it; echo more > /other"))

    result = project.built()

    assert outcomes(result) == {
        "RUN echo same > /it; echo more > /other": "DONE",
        "COPY --from=made /it /it": "CACHED",
        "RUN cat /it > /copy": "CACHED",
    }


def test_no_cache_runs_every_step(project: Project) -> None:
    project.write(PROJECT)
    project.built()
    layers = project.image().layers

    result = project.built("--no-cache")

    assert outcomes(result) == dict.fromkeys(STEPS, "DONE")
    assert project.image().layers == layers


def test_stages_can_be_left_out_of_the_cache(project: Project) -> None:
    """What stands on them is answered by the cache again, if they came out as before."""
    dockerfile(
        project,
        "FROM busybox AS One\nRUN echo 1 > /1\nFROM busybox AS two\nRUN echo 2 > /2\nFROM one\nCOPY --from=two /2 /2",
    )
    project.built(SOURCE_DATE_EPOCH="1")

    result = project.built("--no-cache-filter=ONE", "--no-cache-filter=three,tw", SOURCE_DATE_EPOCH="1")

    assert outcomes(result) == {
        "RUN echo 1 > /1": "DONE",
        "RUN echo 2 > /2": "CACHED",
        "COPY --from=two /2 /2": "CACHED",
    }
    assert "--no-cache-filter names no stage with 'tw': did you mean two?" in result.err
    assert project.build("--no-cache", "--no-cache-filter=one").status == 2


INSPECTED = """\
import json, os, sys
from builder.cli.main import main
from builder.cli.world import World
spaces = lambda: [os.readlink(f"/proc/self/ns/{kind}") for kind in sorted(os.listdir("/proc/self/ns"))]
before = spaces()
assert main(sys.argv[1:], World.of_process()) == 0
print(json.dumps([spaces() == before, sorted(sys.modules)]))
"""


def test_a_cached_build_imports_little_and_enters_no_namespace(project: Project) -> None:
    project.write({**PROJECT, ".dockerignore": "*.log\n"})
    project.built()
    argv = [*command()[:-1], INSPECTED, *project.arguments()]

    done = users.run_as(users.ROOT, argv, cwd=project.place, env=environment(project.place))

    stayed, modules = json.loads(done.stdout)
    dear = (
        "requests rich pathspec zstandard isal concurrent.futures asyncio subprocess http email tempfile"
        " dataclasses inspect shutil bz2 lzma layers.tar builder.sandbox.backend builder.solver"
        " dockerfile_parse logging traceback textwrap string shlex signal locale datetime unicodedata"
    )
    assert stayed
    assert set(modules) & set(dear.split()) == set()


# --- which stages run, and when


def test_a_stage_that_nobody_needs_is_not_run(project: Project) -> None:
    dockerfile(
        project, "FROM busybox AS broken\nRUN exit 1\nFROM no.such.host/image AS lost\nFROM busybox\nRUN echo fine\n"
    )

    result = project.built()

    assert outcomes(result) == {"RUN echo fine": "DONE"}


def test_independent_stages_run_at_the_same_time(project: Project) -> None:
    """Both steps call the test and wait for an answer, which comes when both have called."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        step = f"RUN nc 127.0.0.1 {server.getsockname()[1]} > /answer; grep together /answer"
        dockerfile(
            project,
            f"FROM busybox AS one\n{step} # 1\nFROM busybox AS two\n{step} # 2\nFROM scratch\n"
            "COPY --from=one /answer /1\nCOPY --from=two /answer /2\n",
        )

        def answer() -> None:
            calls = [server.accept()[0] for _ in range(2)]
            for call in calls:
                call.sendall(b"together")
                call.close()

        thread = threading.Thread(target=answer)
        thread.start()
        result = project.build()
        thread.join()

    assert result.status == 0, result.err
    assert project.image().files == {"1": b"together", "2": b"together"}


def test_target_builds_a_stage_and_what_it_needs(project: Project) -> None:
    dockerfile(project, "FROM busybox AS a\nRUN echo a > /a\nFROM a AS b\nRUN echo b > /b\nFROM b\nRUN exit 1\n")

    result = project.built("--target=B")

    assert outcomes(result) == {"RUN echo a > /a": "DONE", "RUN echo b > /b": "DONE"}


# --- what the options say


def test_build_arg_sets_an_argument_and_is_part_of_the_key(project: Project) -> None:
    dockerfile(project, "ARG TAG=latest\nFROM busybox:$TAG\nARG WHO=nobody\nRUN echo $WHO > /who\n")
    project.built()

    told = project.built("--build-arg=WHO=me")
    again = project.built("--build-arg=WHO=me")

    assert (outcomes(told), outcomes(again)) == ({"RUN echo $WHO > /who": "DONE"}, {"RUN echo $WHO > /who": "CACHED"})
    assert project.image().files["who"] == b"me\n"


def test_build_arg_without_a_value_takes_the_callers(project: Project) -> None:
    dockerfile(project, "FROM busybox\nARG WHO\nRUN echo $WHO > /who\n")

    project.built("--build-arg=WHO", WHO="the caller")

    assert project.image().files["who"] == b"the caller\n"


def test_nothing_else_of_the_callers_environment_is_seen(project: Project) -> None:
    dockerfile(project, "FROM busybox\nENV A=1\nRUN env > /env\n")

    project.built(SECRET="x")

    lines = project.image().files["env"].decode().splitlines()
    assert sorted(line.partition("=")[0] for line in lines) == ["A", "HOME", "PATH", "PWD", "SHLVL"]


def test_label_adds_to_the_labels_of_the_image(project: Project) -> None:
    dockerfile(project, "FROM busybox\nLABEL a=file b=file\n")

    project.built("--label=b=option", "--label=c=option")

    assert project.image().config["config"]["Labels"] == {"a": "file", "b": "option", "c": "option"}


def test_label_without_a_value_is_empty(project: Project) -> None:
    dockerfile(project, "FROM busybox\nLABEL a=file\n")

    project.built("--label=a", "--label=b=")

    assert project.image().config["config"]["Labels"] == {"a": "", "b": ""}
    assert project.build("--label==c").status == 2


def test_switches_take_booleans(project: Project) -> None:
    """`--rm`, `--force-rm` and `--compress` are of docker build, and have nothing to do here."""
    dockerfile(project, "FROM busybox\nRUN true\n")
    project.built()

    again = project.built("--no-cache=false", "--pull=0", "--rm", "--force-rm=true", "--compress")
    anew = project.built("--no-cache=True", "--rm=false")

    assert outcomes(again) == {"RUN true": "CACHED"}
    assert outcomes(anew) == {"RUN true": "DONE"}
    assert project.build("--no-cache=maybe").status == 2


def test_a_build_that_fails_leaves_no_image_id(project: Project) -> None:
    dockerfile(project, "FROM busybox\nRUN false\n")
    (project.place / "iid").write_text("of an earlier build")

    result = project.build(f"--iidfile={project.place}/iid")

    assert result.status == 5
    assert not (project.place / "iid").exists()


def test_iidfile_and_quiet_tell_the_image_id(project: Project) -> None:
    dockerfile(project, "FROM busybox\nRUN echo noise\n")

    result = project.built("-q", f"--iidfile={project.place}/iid")

    image_id = project.image().id
    assert (result.out, result.err) == (f"{image_id}\n", "")
    assert (project.place / "iid").read_text() == image_id


def test_dash_reads_the_dockerfile_from_standard_input(project: Project) -> None:
    project.write({"Dockerfile": "FROM broken\n", "file": "text"})

    project.built("-f", "-", stdin=b"FROM scratch\nCOPY file /\n")

    assert project.image().files == {"file": b"text"}


def test_file_names_another_dockerfile(project: Project) -> None:
    project.write({"Dockerfile": "FROM broken\n", "file": "text"})
    (project.place / "Other").write_text("FROM scratch\nCOPY file /\n")

    project.built("-f", f"{project.place}/Other")

    assert project.image().files == {"file": b"text"}


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(project: Project, closed: str) -> None:
    """The numbers of closed streams went to the store's files, and what was printed into them."""
    dockerfile(project, "FROM busybox\nRUN echo noise; echo noise >&2; echo text > /file\n")
    shell = ["sh", "-c", f'"$@" {closed}', "sh", *command(*project.arguments())]

    done = users.run_as(users.ROOT, shell, cwd=project.place, env=environment(project.place))

    assert done.returncode == 0, done.stderr
    assert project.image().files["file"] == b"text\n"


# --- where the image goes

SMALL = {"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "text"}


def test_an_image_is_written_to_an_archive(project: Project) -> None:
    project.write(SMALL)

    project.built("-o", f"type=oci,dest={project.place}/app.tar")

    assert validate(project.place / "app.tar", "docker.io/library/app:latest").files == {"file": b"text"}


def test_the_same_image_gives_the_same_archive(project: Project) -> None:
    project.write(SMALL)
    project.built("-o", f"type=oci,dest={project.place}/1.tar")

    project.built("-o", f"type=oci,dest={project.place}/2.tar")

    assert (project.place / "1.tar").read_bytes() == (project.place / "2.tar").read_bytes()


def test_an_archive_is_written_to_standard_output(project: Project) -> None:
    project.write(SMALL)

    done = users.run_as(
        users.ROOT, command(*project.arguments("-o", "type=oci,dest=-")), cwd=project.place, env=environment("/")
    )

    (project.place / "app.tar").write_bytes(done.stdout)
    assert validate(project.place / "app.tar").files == {"file": b"text"}


def test_an_image_is_added_to_a_layout_and_all_else_there_stays(project: Project) -> None:
    output = ("-o", f"type=oci,dest={project.place}/layout,tar=false")
    project.write(SMALL)
    project.built(*output)
    before = validate(project.place / "layout")
    project.write({"file": "other"})

    project.built(*output, "-t", "app:2")

    assert validate(project.place / "layout", "docker.io/library/app:2").files == {"file": b"other"}
    assert validate(project.place / "layout", "docker.io/library/app:latest").files == {"file": b"other"}
    assert (project.place / "layout/blobs" / before.digest.replace(":", "/")).exists()


def test_an_image_with_an_output_gets_no_name_in_the_store(project: Project) -> None:
    project.write(SMALL)

    project.built("-o", f"type=oci,dest={project.place}/app.tar")

    assert pybuild("images", "-q", f"--root={project.root}", cwd=project.place).out == ""


# --- what instructions mean in a whole build


def test_triggers_of_a_base_image_run_in_the_image_built_on_it(project: Project) -> None:
    project.write({"Dockerfile": "FROM busybox\nONBUILD COPY file /\nONBUILD RUN cat /file > /copy\n", "file": "text"})
    project.built("-t", "parent")

    dockerfile(project, "FROM parent\nRUN cat /copy > /third\n")
    project.built()

    assert project.image("parent").config["config"]["OnBuild"] == ["COPY file /", "RUN cat /file > /copy"]
    assert "OnBuild" not in project.image().config["config"]
    assert project.image().files["third"] == b"text"


def test_files_are_copied_from_stages_by_name_and_number_and_from_images(project: Project) -> None:
    dockerfile(
        project,
        "FROM busybox AS one\nRUN echo 1 > /1\nFROM busybox\nRUN echo 2 > /2\nFROM scratch\n"
        "COPY --from=one /1 /\nCOPY --from=1 /2 /\nCOPY --from=busybox /etc/group /\n",
    )

    project.built()

    assert {path: data[:6] for path, data in project.image().files.items()} == {
        "1": b"1\n",
        "2": b"2\n",
        "group": b"root:x",
    }


@EVERYONE
def test_a_step_has_the_user_of_the_image_with_its_groups(project_of: Callable[[str], Project], user: str) -> None:
    demand(NAMESPACES if user == users.ROOT else USER_NAMESPACES, user)  # it reads /proc
    project = project_of(user)
    dockerfile(
        project,
        "FROM busybox\nUSER www\nRUN id > /tmp/www; echo $HOME >> /tmp/www\nUSER www:audio\nRUN id > /tmp/audio\n"
        "USER 7:8\nRUN id > /tmp/numbers\nUSER root\nRUN id > /tmp/root; grep CapEff /proc/self/status >> /tmp/root\n",
    )

    project.built()

    files = project.image().files
    assert files["tmp/www"] == b"uid=33(www) gid=33(www) groups=29(audio),33(www),1500(extra)\n/var/www\n"
    assert files["tmp/audio"] == b"uid=33(www) gid=29(audio) groups=29(audio)\n"
    assert files["tmp/numbers"] == b"uid=7 gid=8 groups=8\n"
    assert files["tmp/root"] == b"uid=0(root) gid=0(root) groups=0(root),1500(extra)\nCapEff:\t00000000a80425fb\n"


def test_what_a_step_leaves_running_ends_with_it(project: Project) -> None:
    dockerfile(project, "FROM busybox\nRUN (sleep 76549; echo late > /late) & echo early > /early\n")

    project.built()

    assert "early" in project.image().files
    assert running("76549") == []


def test_what_is_mounted_for_a_step_does_not_get_into_the_image(project: Project) -> None:
    dockerfile(project, "FROM busybox\nRUN echo x >> /etc/resolv.conf; echo x >> /etc/hosts; echo x > /dev/shm/x\n")

    project.built()

    assert [item.path for item in project.image().layers[-1]] == ["dev", "proc", "sys"]


# --- the same for everyone

EVERYTHING = r"""
FROM busybox
RUN echo plain > /plain && mkdir -p /deep/er/est && chmod 2750 /deep/er && chown www:audio /deep/er \
 && echo setuid > /deep/setuid && chown www /deep/setuid && chmod 4755 /deep/setuid \
 && ln /plain /hard && ln -s plain /soft && chown -h 33:33 /soft && mkfifo -m 640 /fifo \
 && mkdir -m 1777 /var/sticky && chmod 000 /etc/passwd
RUN rm -r /deep && mkdir /deep && echo new > /deep/new && rm /hard && mv /var/www /var/moved && chmod 700 /var
RUN echo more >> /plain && ln /plain /again && chmod 644 /etc/passwd && chown 1234:2345 /root
USER www
RUN echo mine > /tmp/mine && mkdir -p /tmp/a/b
WORKDIR /made/by/www
COPY --chown=www:extra files /copied/
COPY --chmod=4711 files/one /one
ADD packed.tar /unpacked/
"""


def test_root_and_a_user_with_subordinate_ids_make_the_same_layers(project_of: Callable[[str], Project]) -> None:
    images: list[ImageRead] = []
    for user in (users.ROOT, users.RANGES):
        project = project_of(user)
        project.write({"Dockerfile": EVERYTHING, "files/one": "1", "files/below/two": "2", "packed.tar": packed()})
        (project.context / "files/one").chmod(0o751)
        project.built()
        images.append(project.image())

    assert images[0].layers == images[1].layers
    assert images[0].contents == images[1].contents


def test_the_umask_of_the_caller_means_nothing(project_of: Callable[[str], Project]) -> None:
    images: list[ImageRead] = []
    for umask in (0o022, 0o077):
        project = project_of(users.RANGES)
        project.write({"Dockerfile": EVERYTHING, "files/one": "1", "packed.tar": packed()})
        before = os.umask(umask)
        try:
            project.built()
        finally:
            os.umask(before)
        images.append(project.image())

    assert images[0].layers == images[1].layers


def packed() -> bytes:
    """An archive with owners and modes of its own."""
    done = subprocess.run(
        ["tar", "-c", "--owner=55", "--group=66", "--mode=6640", "-C", users.CHECKOUT, "LICENSE"],
        capture_output=True,
        check=True,
    )
    return done.stdout


def test_the_command_of_an_image_runs(project: Project) -> None:
    project.write(PROJECT)
    project.built()

    result = pybuild("run", f"--root={project.root}", "app", cwd=project.place)

    warned = [line for line in result.err.splitlines() if not line.startswith("WARNING: RUN is not isolated")]
    assert (result.status, result.out, warned) == (0, "12", [])


def test_an_archive_holds_nothing_but_the_image(project: Project) -> None:
    project.write(SMALL)

    project.built("-o", f"type=oci,dest={project.place}/app.tar")

    with tarfile.open(project.place / "app.tar") as tar:
        names = [member.name for member in tar if member.isfile()]
    assert len(names) == 5, names  # manifest, configuration, layer, index.json, oci-layout
