"""A build that is asked the same again looks whether all is as it was, and does nothing else."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import users
from images import Project, environment, pybuild

from cache.receipts import Receipt, find, keep
from cache.stamps import look_at

PROBE = """\
import os, sys
leave = os._exit
def told(status):
    sys.stdout.flush()
    sys.stderr.flush()
    with open("../quick", "w") as file:
        print("yes" if "builder.build" not in sys.modules else "no", file=file)
    leave(status)
os._exit = told
from builder.cli.start import entry
entry()
"""
"""The command line, which also tells whether a receipt was the answer."""

DOCKERFILE = "FROM scratch\nCOPY source /source\nCOPY *.txt /\nMAINTAINER me\nLABEL who=you\n"


@dataclass(frozen=True, slots=True)
class Said:
    """What a build printed, and how it came to it."""

    out: str
    err: str
    quick: bool


class Person:
    """Someone with a folder to build, who builds it again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = folder / "context"
        self.arguments = ["-t", "app", "."]
        self.variables: dict[str, str] = {}
        (self.context / "source" / "below").mkdir(parents=True)
        self.write("Dockerfile", DOCKERFILE)
        self.write(".dockerignore", "ignored\n")
        self.write("ignored", "1")
        self.write("a.txt", "1")
        self.write("source/file", "1")
        (self.context / "source" / "link").symlink_to("file")

    @property
    def root(self) -> Path:
        return self.folder / ".local" / "share" / "pybuild"

    def write(self, name: str, text: str) -> None:
        (self.context / name).write_text(text)

    def build(self, *more: str) -> Said:
        """Build with the usual arguments and some more; it must go well."""
        argv = [sys.executable, "-P", "-c", PROBE, *more, *self.arguments]
        done = subprocess.run(
            argv, cwd=self.context, env=self._environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return Said(done.stdout, done.stderr, self._was_quick())

    def build_on_terminal(self) -> Said:
        """Build with a terminal to look at."""
        ours, theirs = pty.openpty()
        argv = [sys.executable, "-P", "-c", PROBE, *self.arguments]
        with subprocess.Popen(argv, cwd=self.context, env=self._environment(), stderr=theirs) as process:
            os.close(theirs)
            err = b""
            try:
                while data := os.read(ours, 1024):
                    err += data
            except OSError:  # EIO: nobody is at the other end any more
                pass
        os.close(ours)
        assert process.returncode == 0, err
        return Said("", err.decode(), self._was_quick())

    def forget(self) -> None:
        """Have the next build go all the way."""
        shutil.rmtree(self.root / "receipts")

    def _environment(self) -> dict[str, str]:
        return environment(self.folder, **self.variables)

    def _was_quick(self) -> bool:
        return (self.folder / "quick").read_text() == "yes\n"


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def test_the_second_build_of_the_same_is_quick(person: Person) -> None:
    first = person.build()
    second = person.build()

    assert (first.quick, second.quick) == (False, True)


@pytest.mark.parametrize("options", [["--progress=plain"], ["-q"], []])
def test_it_says_what_a_cached_build_says(person: Person, options: list[str]) -> None:
    person.build(*options)

    quick = person.build(*options)
    person.forget()
    slow = person.build(*options)

    assert (quick.quick, slow.quick) == (True, False)
    assert (quick.out, quick.err) == (slow.out, slow.err)
    assert quick.out or "CACHED" in quick.err


def test_a_terminal_shows_what_a_cached_build_shows(person: Person) -> None:
    person.build_on_terminal()

    quick = person.build_on_terminal()
    person.forget()
    slow = person.build_on_terminal()

    assert (quick.quick, slow.quick) == (True, False)
    assert quick.err == re.sub(r"Building \d\.\ds", "Building 0.0s", slow.err)
    assert "FINISHED" in quick.err


def same_size_and_times(person: Person) -> None:
    path = person.context / "source" / "file"
    before = path.stat()
    path.write_text("2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def file_in_its_place(person: Person) -> None:
    (person.context / "new").write_text("2")
    (person.context / "new").replace(person.context / "a.txt")


def link_elsewhere(person: Person) -> None:
    (person.context / "source" / "link").unlink()
    (person.context / "source" / "link").symlink_to("below")


def other_tag(person: Person) -> None:
    person.write("Dockerfile", DOCKERFILE.replace("you", "him"))
    person.build("-f", "Dockerfile")
    person.write("Dockerfile", DOCKERFILE)


CHANGES: dict[str, Callable[[Person], object]] = {
    "a file is written": lambda person: person.write("source/file", "2"),
    "a file has other bytes, and else is the same": same_size_and_times,
    "another file takes its place": file_in_its_place,
    "a file appears": lambda person: person.write("b.txt", "2"),
    "a file appears further down": lambda person: person.write("source/below/file", "2"),
    "a file goes and another comes": lambda person: (person.context / "a.txt").rename(person.context / "c.txt"),
    "a mode changes": lambda person: (person.context / "source" / "file").chmod(0o755),
    "a folder's mode changes": lambda person: (person.context / "source" / "below").chmod(0o700),
    "a link leads elsewhere": link_elsewhere,
    "the Dockerfile changes": lambda person: person.write("Dockerfile", DOCKERFILE + "USER 1\n"),
    "the ignore file changes": lambda person: person.write(".dockerignore", "source/below\n"),
    "an ignore file of the Dockerfile's own appears": lambda person: person.write(
        "Dockerfile.dockerignore", "source/link\n"
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_is_built(person: Person, change: Callable[[Person], object]) -> None:
    before = person.build("-q")

    change(person)
    after = person.build("-q")

    assert not after.quick
    assert after.out != before.out


def test_what_the_ignore_file_leaves_out_may_change(person: Person) -> None:
    person.build()

    person.write("ignored", "2")

    assert person.build().quick


def test_an_image_that_has_lost_its_name_gets_it_back(person: Person) -> None:
    first = person.build("-q")
    index = person.root / "images" / "index.json"
    named = index.read_bytes()

    other_tag(person)
    assert index.read_bytes() != named
    again = person.build("-q")

    assert (again.quick, again.out) == (False, first.out)
    assert index.read_bytes() == named


def test_a_blob_that_is_gone_is_made_again(person: Person) -> None:
    person.build()
    blobs = person.root / "images" / "blobs" / "sha256"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)

    largest.unlink()

    assert not person.build().quick
    assert largest.exists()


def test_a_variable_that_is_asked_for_counts_and_others_do_not(person: Person) -> None:
    person.write("Dockerfile", DOCKERFILE + "ARG WHO\nENV WHO=$WHO\n")
    person.arguments = ["-q", "--build-arg=WHO", "."]
    person.variables = {"WHO": "me", "WEATHER": "fine"}
    first = person.build()

    person.variables = {"WHO": "me", "WEATHER": "foul"}
    same = person.build()
    person.variables = {"WHO": "you", "WEATHER": "foul"}
    other = person.build()

    assert (same.quick, other.quick) == (True, False)
    assert other.out != first.out


def test_a_context_behind_a_link_is_where_the_link_leads(person: Person) -> None:
    shutil.copytree(person.context, person.folder / "other")
    (person.folder / "other" / "a.txt").write_text("2")
    link = person.folder / "link"
    link.symlink_to("context")
    person.arguments = ["-q", "../link"]
    first = person.build()
    link.unlink()
    link.symlink_to("other")

    second = person.build()

    assert not second.quick
    assert second.out != first.out


@pytest.mark.parametrize(
    "options",
    [
        ["--no-cache"],
        ["--no-cache-filter=a"],
        ["-o", "type=tar,dest=../out.tar"],
        ["--iidfile=../id"],
        ["--metadata-file=../metadata"],
        ["--cache-to=type=local,dest=../cache"],
    ],
)
def test_who_wants_more_than_an_image_in_the_store_gets_it(person: Person, options: list[str]) -> None:
    person.build(*options)

    assert not person.build(*options).quick
    assert not (person.root / "receipts").exists()


def test_a_login_does_not_get_to_the_disk(person: Person) -> None:
    person.variables = {"DOCKER_AUTH_CONFIG": '{"auths": {"registry.example": {"auth": "bWU6c2VjcmV0"}}}'}
    person.build()

    assert not (person.root / "receipts").exists()


def test_a_file_that_may_still_change_unseen_leaves_no_receipt(person: Person) -> None:
    """Its times lie in the future, so none of them need change with it."""
    os.utime(person.context / "source" / "file", (2**33, 2**33))
    person.build()

    assert not person.build().quick


def test_a_dockerfile_on_standard_input_is_read(person: Person) -> None:
    argv = [sys.executable, "-P", "-c", PROBE, "-q", "-f", "-", "."]
    ids = [
        subprocess.run(
            argv,
            cwd=person.context,
            env=environment(person.folder),
            input=f"FROM scratch\nLABEL a={text}\n".encode(),
            check=True,
            capture_output=True,
        ).stdout
        for text in ("1", "2")
    ]

    assert ids[0] != ids[1]


def test_what_is_left_of_a_receipt_does_no_harm(person: Person) -> None:
    person.build()
    (receipt,) = (person.root / "receipts").iterdir()
    whole = receipt.read_bytes()

    for left in (b"", whole[: len(whole) // 2], bytes(len(whole)), b"i\x01\x00\x00\x00"):
        receipt.write_bytes(left)
        assert not person.build().quick

    assert person.build().quick


def test_a_store_keeps_a_bounded_number(tmp_path: Path) -> None:
    for number in range(100):
        keep(str(tmp_path), (number,), Receipt({}, {}, {}, {}, {}, {}))

    assert len(list((tmp_path / "receipts").iterdir())) == 64
    assert find(str(tmp_path), (99,)) is not None
    assert find(str(tmp_path), (0,)) is None


def test_a_receipt_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff")
    (tmp_path / name).write_bytes(b"1")
    stamp = look_at(str(tmp_path / name))
    receipt = Receipt({"NO": None}, {"/": "/"}, {"/no": None}, {}, {}, {str(tmp_path / name): stamp}, (b"o", b"e"))

    keep(str(tmp_path), ("a", 1), receipt)
    found = find(str(tmp_path), ("a", 1))

    assert found is not None
    assert found.holds(os.environ)
    assert (found.said, found.places) == ((b"o", b"e"), {str(tmp_path / name): stamp})


@pytest.mark.kernel
@pytest.mark.parametrize("user", [users.ROOT, users.RANGES, users.SINGLE])
def test_a_build_that_ran_commands_leaves_a_receipt(project_of: Callable[[str], Project], user: str) -> None:
    project = project_of(user)
    project.write({"Dockerfile": "FROM busybox\nLABEL of=me\n"})
    project.built()
    project.write({"Dockerfile": "FROM app\nRUN echo $RANDOM > /file\n"})
    arguments = ["build", f"--root={project.root}", "-q", "-t", "two", str(project.context)]

    ids = [pybuild(*arguments, cwd=project.place, user=user).out for _ in range(2)]
    (receipt,) = (project.root / "receipts").iterdir()
    before = receipt.stat().st_ino
    ids.append(pybuild(*arguments, cwd=project.place, user=user).out)

    assert len(set(ids)) == 1
    assert receipt.stat().st_ino == before
