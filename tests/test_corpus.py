"""The corpus: every case of testdata/cases is built, and what comes out is what its table says."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import corpus
import images
import pytest
import users
from grants import NAMESPACES, demand

CASES = corpus.cases()
NOT_WITHOUT_NAMESPACES = {
    "several here-documents feed one command": "/dev/fd leads to /proc, which nobody may mount",
    "a bind mount shows the context, and may not be written": "only a mount can be read-only",
    "a tmpfs has a limit": "only a mount has one",
    "a command has a host name and few rights": "the name is the container's, and /proc tells of the rights",
    "processes end with their command": "they do, but the command is not process 1",
    "--network=none leaves the loopback alone": "the network is the container's",
}
"""What the chroot back-end cannot do like the others, and why."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder for each topic: its cases share a store, as the builds of one person do."""
    places: dict[str, Path] = {}
    return lambda topic: places.setdefault(topic, tmp_path_factory.mktemp(topic))


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, corpus.Outcome]]:
    """What came of the cases of a topic in which commands run: in a process of its own, since it enters namespaces."""
    base = tmp_path_factory.mktemp("base")
    known: dict[tuple[str, str], dict[str, corpus.Outcome]] = {}

    def outcomes_of(topic: str, backend: str) -> dict[str, corpus.Outcome]:
        if (topic, backend) not in known:
            if not (base / "index.json").exists():
                images.make_base(base)
            place = tmp_path_factory.mktemp(topic)
            command = [sys.executable, "-P", str(Path(corpus.__file__)), topic, str(place), str(base)]
            environment = images.environment(place, **{corpus.FORCED: backend})
            done = subprocess.run(command, env=environment, cwd=users.CHECKOUT, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr.decode()
            known[topic, backend] = {name: corpus.Outcome(**fields) for name, fields in json.loads(done.stdout).items()}
        return known[topic, backend]

    return outcomes_of


@pytest.mark.parametrize("case", [case for case in CASES if not case.runs], ids=str)
def test_a_case_gives_what_its_table_says(case: corpus.Case, place: Callable[[str], Path]) -> None:
    outcome = corpus.outcome_of(case, place(case.topic))

    assert corpus.differences(case, outcome) == []


@pytest.mark.kernel
@pytest.mark.parametrize("backend", ["overlay", "chroot"])
@pytest.mark.parametrize("case", [case for case in CASES if case.runs], ids=str)
def test_a_case_with_commands_gives_what_its_table_says(
    case: corpus.Case, backend: str, outcomes: Callable[[str, str], dict[str, corpus.Outcome]]
) -> None:
    if backend == "overlay":
        demand(NAMESPACES)
    outcome = outcomes(case.topic, backend)[case.name]

    is_exception = backend == "chroot" and case.name in NOT_WITHOUT_NAMESPACES
    assert bool(corpus.differences(case, outcome)) == is_exception, corpus.differences(case, outcome)


def test_there_are_two_hundred_cases_and_each_says_what_it_expects() -> None:
    saying = [case for case in CASES if case.table.keys() & {"error", "files", "env", "config", "history", "warnings"}]

    assert len(CASES) >= 200
    assert len(saying) == len(CASES)


def test_every_proof_that_the_manual_names_is_there() -> None:
    text = (users.CHECKOUT / "docs" / "dockerfile.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    sentences = {str(case) for case in CASES}
    functions = {
        f"{path.name}::{name}"
        for path in (users.CHECKOUT / "tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }

    named = set(re.findall(r"`([a-z-]+: [^`]+|test_\w+\.py::\w+)`", text))

    assert named - sentences - functions == set()
    assert [row for row in rows if not re.search(r"\| `(test_\w+\.py::\w+|[a-z-]+: [^`]+)` \|$", row)] == []
