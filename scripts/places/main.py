"""Builds the same Dockerfiles in every environment, and tells what differs from the layers that root makes.

    scripts/environments                              all of them: more than half an hour
    scripts/environments --only E2 E4 --case owners   some; a cell takes a minute or less
    scripts/environments --reuse --only E2            compared with what root made the last time
    scripts/environments --overhead                   instead, how long a RUN takes beyond its command
    scripts/environments --itself                     instead, pybuild's own image, by itself in a default container

Run as root, on Debian or Ubuntu. It uses the Docker daemon of DOCKER_HOST, or starts one without a bridge and stops it
again; into that daemon it imports an image of Debian and Python, `pybuild-environments`. On the machine it adds the
users pbsub and pbsingle, as the tests do. All else is in .cache/environments.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import users
from cases import BASE, CASES, EPOCH, Case
from compare import Difference, Exemption, differences, read_exemptions
from daemon import Daemon, daemon
from environments import DEFAULT_CONTAINER, ENVIRONMENTS, REFERENCE, Environment, Place
from hosts import Host
from itself import build_itself
from overhead import measure, write_contexts
from reading import read_archive

CACHE = users.CHECKOUT / ".cache/environments"
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
REFUSED = 8
"""The exit status of a build whose RUN the place does not allow."""


@dataclass(frozen=True, slots=True)
class Cell:
    """How one Dockerfile fared in one environment."""

    environment: Environment
    case: Case
    verdict: str
    fine: bool
    seconds: float
    wrong: tuple[Difference, ...] = ()
    allowed: tuple[tuple[Difference, Exemption], ...] = ()
    said: str = ""
    """What pybuild said, if it failed."""


def main() -> int:
    """Build, compare, and print the table; 1 if anything is not as it has to be."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # so that containers are removed
    if os.geteuid():
        print("environments: only root can be everybody else", file=sys.stderr)
        return 2
    cases = [case for case in CASES if not given.case or case.name in given.case]
    chosen = [each for each in ENVIRONMENTS if not given.only or each.name in given.only]
    if REFERENCE not in chosen and not given.reuse and not given.overhead:
        chosen.insert(0, REFERENCE)
    if given.overhead:
        return _overheads(chosen, given.work)
    if given.itself:
        return _itself(given.work)
    exemptions = read_exemptions(users.CHECKOUT / "testdata/environments/exemptions.toml")
    _make_base()
    cells = []
    for place, case in ((place, case) for place in _places(chosen, given.work) for case in cases):
        cell = _cell(place, case, exemptions)
        name = f"{place.environment.name} {case.name}"
        print(f"{name}: {cell.verdict} ({cell.seconds:.0f} s)", file=sys.stderr, flush=True)
        print("".join(f"    {difference}\n" for difference in cell.wrong) + cell.said[-4000:], end="", file=sys.stderr)
        cells.append(cell)
    _report(cells, cases, chosen)
    return int(not all(cell.fine for cell in cells))


def _arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="E", choices=[each.name for each in ENVIRONMENTS])
    parser.add_argument("--case", nargs="+", metavar="NAME", choices=[case.name for case in CASES])
    parser.add_argument("--reuse", action="store_true", help="compare with what is in .cache/environments/E1")
    parser.add_argument("--work", default="/var/tmp", metavar="DIR", help="for stores: /var/tmp; memory is faster")
    parser.add_argument("--overhead", action="store_true", help="measure the steps' overhead, and compare nothing")
    parser.add_argument("--itself", action="store_true", help="build pybuild's own image where kaniko is used, twice")
    return parser.parse_args()


def _overheads(chosen: Sequence[Environment], work: str) -> int:
    """Print the table of overheads."""
    write_contexts(CACHE / "steps")
    print("| environment | a step - its bare command = overhead, ms | the same of processors, ms |\n|---|---|---|")
    for place in _places([environment for environment in chosen if environment.runs], work):
        meaning = f"{place.environment.name}: {place.environment.meaning}"
        print(f"| {meaning} | {measure(place, '.cache/environments/steps')} |", flush=True)
    return 0


def _itself(work: str) -> int:
    """Print how the image that pybuild's own image makes differs from it."""
    _make_base()
    with ExitStack() as stack:
        docker = _docker(stack, work)
        folder = stack.enter_context(users.place_of(users.ROOT, work))
        place = _enter(DEFAULT_CONTAINER, docker, stack, work)
        found = build_itself(place, docker, folder, _proxies())
    print("".join(f"{difference}\n" for difference in found) or "the same image\n", end="")
    return int(bool(found))


def _make_base() -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "scripts/base_image.py", BASE], cwd=users.CHECKOUT, check=True)


def _proxies() -> dict[str, str]:
    return {name: os.environ[name] for name in PROXIES if name in os.environ}


def _places(chosen: Sequence[Environment], work: str) -> Iterator[Place]:
    """One environment after the other, each there until the next one is asked for."""
    with ExitStack() as stack:
        docker = None
        if any(environment.container is not None for environment in chosen):
            docker = _docker(stack, work)
        for environment in chosen:
            with ExitStack() as inner:
                yield _enter(environment, docker, inner, work)


def _docker(stack: ExitStack, work: str) -> Daemon:
    """A daemon that can make the containers."""
    docker = stack.enter_context(daemon(stack.enter_context(users.place_of(users.ROOT, work)), CACHE))
    docker.prepare()
    return docker


def _enter(environment: Environment, docker: Daemon | None, stack: ExitStack, work: str) -> Place:
    """Make the place of an environment, with a folder that only it uses."""
    if environment.container is None:
        return Host(environment, stack.enter_context(users.place_of(environment.user, work)))
    assert docker
    folder = stack.enter_context(users.place_of(users.ROOT, work))
    return stack.enter_context(docker.container(environment, folder))


def _cell(place: Place, case: Case, exemptions: Sequence[Exemption]) -> Cell:
    """Build a case, and judge what comes of it."""
    environment = place.environment
    archive = CACHE / environment.name / f"{case.name}.tar"
    archive.parent.mkdir(exist_ok=True)
    proxies = _proxies()
    variables = {"SOURCE_DATE_EPOCH": EPOCH, **case.variables, **proxies}
    program = case.program(f"{place.folder}/store", *proxies)
    started = time.monotonic()
    with archive.open("wb") as file:
        done = place.run(program, variables, file)
    seconds = time.monotonic() - started
    said = done.stderr.decode(errors="replace")
    if case.runs and not environment.runs:
        fine = done.returncode == REFUSED and "\nhint: " in said
        verdict = "refused" if fine else f"not refused: status {done.returncode}"
        return Cell(environment, case, verdict, fine, seconds, said="" if fine else said)
    if done.returncode:
        failure = Difference("the build", "", "status", "0", str(done.returncode))
        if exemption := _exemption(failure, environment, case, exemptions):
            return Cell(environment, case, "cannot be built", True, seconds, allowed=((failure, exemption),))
        return Cell(environment, case, f"FAILED: status {done.returncode}", False, seconds, said=said)
    if environment is REFERENCE:
        return Cell(environment, case, "built", True, seconds)
    return _compared(environment, case, archive, exemptions, seconds)


def _compared(
    environment: Environment, case: Case, archive: Path, exemptions: Sequence[Exemption], seconds: float
) -> Cell:
    ours, theirs = read_archive(archive), read_archive(CACHE / REFERENCE.name / archive.name)
    if ours.digest == theirs.digest:
        return Cell(environment, case, "same bytes", True, seconds)
    wrong, allowed = [], []
    for difference in differences(theirs, ours):
        if exemption := _exemption(difference, environment, case, exemptions):
            allowed.append((difference, exemption))
        else:
            wrong.append(difference)
    verdict = f"{len(wrong)} DIFFERENCES" if wrong else f"same, {len(allowed)} allowed"
    return Cell(environment, case, verdict, not wrong, seconds, tuple(wrong), tuple(allowed))


def _exemption(
    difference: Difference, environment: Environment, case: Case, exemptions: Sequence[Exemption]
) -> Exemption | None:
    return next((each for each in exemptions if each.covers(difference, environment.name, case.name)), None)


def _report(cells: Sequence[Cell], cases: Sequence[Case], chosen: Sequence[Environment]) -> None:
    """The table; then what is not the same, and why it may."""
    verdicts = {(cell.environment.name, cell.case.name): cell.verdict for cell in cells}
    print("\n| environment |", " | ".join(case.name for case in cases), "|")
    print("|---|" + "---|" * len(cases))
    for environment in chosen:
        row = (verdicts[environment.name, case.name] for case in cases)
        print(f"| {environment.name}: {environment.meaning} |", " | ".join(row), "|")
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        for difference, exemption in cell.allowed:
            where = f"{cell.environment.name} {cell.case.name}: {difference.path}: {difference.field}"
            reasons.setdefault(exemption.reason, []).append(where)
    for reason, places in reasons.items():
        print(f"\nallowed, since {reason}")
        print("".join(f"    {place}\n" for place in places), end="")


if __name__ == "__main__":
    sys.exit(main())
