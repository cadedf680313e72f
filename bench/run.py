#!/usr/bin/env python3
"""Times pybuild and its peers side by side, and writes tables of ratios.

    scripts/bench [-n 3] [--scale 1.0] [-w W2 W5] [--builders pybuild buildah docker] [--markdown FILE]

Builders take turns within each repetition, so that a machine that is slow for a while is slow for all. What is timed
are the commands that a person would type; CPU seconds, memory and bytes written count what daemons had of them. Run as
root; base images come from a registry on loopback that this starts, and fills with Debian's own packages.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

from bases import IMAGES, fill, registry
from builders import Builder, Commands, Job, choose
from measure import Run, run
from report import report
from workloads import WORKLOADS, Before, Context, Workload

_ROOM = 30_000_000_000
"""Bytes of disk that should be free: as long as they are, old stores are removed when all is measured."""


def main() -> int:
    """Measure what the command line asks for."""
    given = _arguments()
    os.makedirs(given.work, exist_ok=True)
    chosen = [workload for workload in WORKLOADS if not given.workloads or workload.name in given.workloads]
    with registry(given.work) as address:
        contexts = {each.context: make_context(given.work, each.context, given.scale, address) for each in chosen}
        fill(given.work, address, given.pybuild.split(), _words(contexts))
        others = {"buildkitd": given.buildkitd, "buildctl": given.buildctl, "kaniko": given.kaniko}
        builders = choose(given.work, address, given.pybuild, given.docker, others)
        builders = [builder for builder in builders if builder.name in given.builders and not _left_out(builder)]
        results: dict[str, list[Run]] = {}
        for builder in builders:
            builder.start()
        try:
            for workload in chosen:
                measure(workload, contexts[workload.context], builders, given.n, given.work, results)
                for builder in builders if shutil.disk_usage(given.work).free < _ROOM else ():
                    builder.clean()
        finally:
            for builder in builders:
                builder.stop()
                builder.clean()
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({name: [asdict(each) for each in runs] for name, runs in results.items()}, file, indent=1)
    text = report(results, chosen, [builder.name for builder in builders])
    if given.markdown:
        with open(given.markdown, "w", encoding="utf-8") as file:
            file.write(text)
    sys.stdout.write(text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--work", default="bench-work", help="contexts and stores; several GB")
    parser.add_argument("-n", type=int, default=3, help="repetitions")
    parser.add_argument("--scale", type=float, default=1.0, help="of numbers of files, bytes and steps")
    parser.add_argument("-w", dest="workloads", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--builders", nargs="*", default=["pybuild", "buildah", "docker", "buildkit", "kaniko"])
    parser.add_argument("--pybuild", default="pybuild", help="its command")
    parser.add_argument("--docker", default="/usr/bin/docker", help="the client of the same age as dockerd")
    parser.add_argument("--buildkitd", default="", metavar="FILE", help="compare with this BuildKit too")
    parser.add_argument("--buildctl", default="", metavar="FILE", help="its client")
    parser.add_argument("--kaniko", default="", metavar="FILE", help="compare with this executor of kaniko too")
    parser.add_argument("--markdown", default="", metavar="FILE", help="write the tables there too")
    parser.add_argument("--json", default="", metavar="FILE", help="write all runs there")
    given = parser.parse_args()
    given.work = os.path.abspath(given.work)
    return given


def _left_out(builder: Builder) -> bool:
    reason = builder.missing()
    if reason:
        sys.stderr.write(f"{builder.name} is left out: {reason}\n")
    return bool(reason)


def _words(contexts: dict[Context, str]) -> set[str]:
    """The base images that the contexts need."""
    found = set()
    for folder in contexts.values():
        with open(f"{folder}.Dockerfile", encoding="utf-8") as file:
            text = file.read()
        found |= {word for word in IMAGES if word in text}
    return found


def make_context(work: str, context: Context, scale: float, address: str) -> str:
    """The context folder. Its files are made once; the registry is another one in each run."""
    folder = f"{work}/contexts/{context.name}-{scale:g}"
    template = f"{folder}.Dockerfile"
    if not os.path.exists(template):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        dockerfile = context.make(folder, scale)
        with open(template, "w", encoding="utf-8") as file:
            file.write(dockerfile)
    with open(template, encoding="utf-8") as file:
        dockerfile = file.read()
    for word, image in IMAGES.items():
        dockerfile = dockerfile.replace(word, f"{address}/{image}")
    with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(dockerfile)
    return folder


def measure(
    workload: Workload, context: str, builders: Sequence[Builder], times: int, work: str, results: dict[str, list[Run]]
) -> None:
    """Run one workload, all builders in turn, several times."""
    for repetition in range(times):
        for builder in builders:
            if not builder.supports(workload):
                continue
            one = once(builder, Job(workload, context, f"{work}/out.tar" if workload.archive else ""), repetition)
            results.setdefault(f"{workload.name}/{builder.name}", []).append(one)
            figures = f"{one.wall:7.2f} s {one.cpu:7.2f} s CPU {one.memory / 1e6:6.0f} MB"
            sys.stderr.write(f"{workload.name:4} {builder.name:8} {figures}\n")


def once(builder: Builder, job: Job, repetition: int) -> Run:
    """One timed run, after what has to be there before it."""
    before = job.workload.before
    repository = f"{builder.registry}/{builder.name}-{job.workload.name.lower()}-{os.urandom(3).hex()}"
    if before is Before.IMAGE:
        job = replace(job, tag=f"{repository}:latest")
    if before is Before.REMOTE:
        job = replace(job, cache=f"{repository}:cache")
    builds = before in {Before.SAME, Before.CHANGED, Before.IMAGE}
    if not builds or not repetition:  # else the builds of the repetitions before are what has to be there
        builder.wipe()
        if before is Before.BASE:
            prepare(builder, job)
        elif before is Before.REMOTE:
            execute(builder, builder.fill(replace(job, archive="")), "")
            builder.wipe()
        elif before is not Before.NOTHING:
            execute(builder, builder.build(job), job.archive)
    if before in {Before.CHANGED, Before.IMAGE}:
        change(job.context)
    if before is Before.IMAGE:
        execute(builder, builder.build(job), "")
    os.sync()
    time.sleep(0.02)  # no file is as young as the clock's last tick
    return execute(builder, builder.push(job) if before is Before.IMAGE else builder.build(job), job.archive)


def change(context: str) -> None:
    """Change the bytes of the file `changed`, which every layer of the context holds."""
    with open(f"{context}/changed", "r+b") as file:
        file.write(os.urandom(8))


def prepare(builder: Builder, job: Job) -> None:
    """Have the base images pulled and unpacked."""
    with open(f"{job.context}/Dockerfile", encoding="utf-8") as file:
        bases = sorted({line.split()[1] for line in file if line.startswith("FROM ")})
    for base in bases:
        folder = f"{builder.folder}-base"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as file:
            file.write(f"FROM {base}\nRUN true\n")
        execute(builder, builder.build(replace(job, context=folder, archive="", tag="base:latest")), "")


def execute(builder: Builder, commands: Commands, archive: str) -> Run:
    """Run commands of a builder, and weigh the archive if they make one."""
    if archive and os.path.exists(archive):
        os.unlink(archive)
    found = run(commands, {**os.environ, **builder.environment}, builder.daemons())
    return replace(found, size=os.path.getsize(archive)) if archive else found


if __name__ == "__main__":
    sys.exit(main())
