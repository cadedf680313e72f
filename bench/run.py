#!/usr/bin/env python3
"""Times pybuild and its peers side by side, and writes a table of ratios.

    bench/run.py --work DIR [-n 3] [--scale 1.0] [-w W2 W5] [--builders pybuild buildah docker] [--markdown FILE]

Builders take turns within each repetition, so that a machine that is slow for a while is slow for all. Times are those
of the commands that a person would type, and CPU seconds count what daemons used meanwhile. Run as root; base images
come from a registry on loopback that this starts and fills with Debian's own packages.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from builders import HOST, Buildah, Builder, Docker, Pybuild
from workloads import WORKLOADS, Workload

HERE = os.path.dirname(os.path.abspath(__file__))
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Run:
    """One timed build."""

    wall: float
    cpu: float
    """Seconds of user and system time, of the commands and of daemons."""
    memory: int
    """Bytes of the largest process."""
    size: int
    """Bytes of the archive, if one was asked for."""


def main() -> int:
    """Measure what the command line asks for."""
    given = _arguments()
    os.makedirs(given.work, exist_ok=True)
    chosen = [workload for workload in WORKLOADS if not given.workloads or workload.name in given.workloads]
    with registry(given.work) as address:
        fill(given.work, address, given.pybuild.split())
        kinds = {"pybuild": (Pybuild, given.pybuild), "buildah": (Buildah, "buildah"), "docker": (Docker, given.docker)}
        builders = [
            kind(name, f"{given.work}/{name}", address, program.split())
            for name, (kind, program) in kinds.items()
            if name in given.builders
        ]
        results = measure(builders, chosen, given)
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
    parser.add_argument("-w", dest="workloads", nargs="*", default=[])
    parser.add_argument("--builders", nargs="*", default=["pybuild", "buildah", "docker"])
    parser.add_argument("--pybuild", default="pybuild", help="its command")
    parser.add_argument("--docker", default="/usr/bin/docker", help="the client of the same age as dockerd")
    parser.add_argument("--markdown", default="", help="write the table there too")
    given = parser.parse_args()
    given.work = os.path.abspath(given.work)
    return given


def measure(builders: Sequence[Builder], chosen: Sequence[Workload], given: argparse.Namespace) -> dict[str, list[Run]]:
    """All runs, by `workload/builder`."""
    results: dict[str, list[Run]] = {}
    present = [builder for builder in builders if not _left_out(builder)]
    for builder in present:
        builder.start()
    try:
        for workload in chosen:
            context = make_context(given.work, workload, given.scale, builders[0].registry)
            for _ in range(given.n):
                for builder in present:
                    if builder.supports(workload):
                        run = once(builder, workload, context, f"{given.work}/archive.tar")
                        results.setdefault(f"{workload.name}/{builder.name}", []).append(run)
                        sys.stderr.write(f"{workload.name:4} {builder.name:8} {run.wall:7.2f} s {run.cpu:7.2f} s CPU\n")
    finally:
        for builder in present:
            builder.stop()
    return results


def _left_out(builder: Builder) -> bool:
    reason = builder.missing()
    if reason:
        sys.stderr.write(f"{builder.name} is left out: {reason}\n")
    return bool(reason)


def make_context(work: str, workload: Workload, scale: float, registry_address: str) -> str:
    """The context folder of a workload. Its files are made once; the registry is another one in each run."""
    folder = f"{work}/contexts/{workload.name}-{scale:g}"
    template = f"{folder}.Dockerfile"
    if not os.path.exists(template):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        dockerfile = workload.make(folder, scale)
        with open(template, "w", encoding="utf-8") as file:
            file.write(dockerfile)
    with open(template, encoding="utf-8") as file:
        dockerfile = file.read()
    for word, image in HOST.items():
        dockerfile = dockerfile.replace(word, f"{registry_address}/{image}")
    with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(dockerfile)
    return folder


def once(builder: Builder, workload: Workload, context: str, archive: str) -> Run:
    """One build from an empty store; the base is there already, unless pulling it is what is timed."""
    builder.wipe()
    if workload.warm or workload.touched:
        timed(builder, workload, context, archive)
    elif workload.name != "W9":
        prepare(builder, context)
    if workload.touched:
        with open(f"{context}/changed", "ab") as file:
            file.write(os.urandom(8))
    time.sleep(0.02)  # no file is as young as the clock's last tick
    return timed(builder, workload, context, archive)


def prepare(builder: Builder, context: str) -> None:
    """Have the base images pulled and unpacked."""
    with open(f"{context}/Dockerfile", encoding="utf-8") as file:
        bases = sorted({line.split()[1] for line in file if line.startswith("FROM ")})
    for base in bases:
        folder = f"{builder.folder}-base"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as file:
            file.write(f"FROM {base}\nRUN true\n")
        timed(builder, Workload("base", "", lambda _, __: ""), folder, "")


def timed(builder: Builder, workload: Workload, context: str, archive: str) -> Run:
    """Run the builder's commands for a workload."""
    if os.path.exists(archive):
        os.unlink(archive)
    daemons = builder.daemons()
    for pid in daemons:
        _forget_peak(pid)
    cpu = -_used(daemons)
    memory = 0
    started = time.monotonic()
    for command in builder.commands(context, workload, archive):
        usage = run_command(command, {**os.environ, **builder.environment})
        cpu += usage.ru_utime + usage.ru_stime
        memory = max(memory, usage.ru_maxrss << 10)
    wall = time.monotonic() - started
    size = os.path.getsize(archive) if archive and os.path.exists(archive) else 0
    return Run(wall, cpu + _used(daemons), max([memory, *map(_peak, daemons)]), size)


def run_command(command: Sequence[str], environment: dict[str, str]) -> resource.struct_rusage:
    """What a command used, with all its children; the benchmark ends if it fails."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{output.read().decode(errors='replace')[-3000:]}")
    return usage


def _used(daemons: Sequence[int]) -> float:
    """CPU seconds of daemons with their children, ended ones included."""
    total = 0.0
    for pid in [*daemons, *(child for daemon in daemons for child in _children(daemon))]:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / TICKS
    return total


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return [int(child) for child in file.read().split()]


def _forget_peak(pid: int) -> None:
    with open(f"/proc/{pid}/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")


def _peak(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def report(results: dict[str, list[Run]], chosen: Sequence[Workload], names: Sequence[str]) -> str:
    """A Markdown table: median seconds, CPU seconds and memory, and pybuild's ratio to the fastest peer."""
    lines = [
        f"| | workload | {' | '.join(f'{name}: s / CPU s / MB' for name in names)} | ratio, wall | ratio, CPU |",
        "|" + "---|" * (len(names) + 4),
    ]
    for workload in chosen:
        runs = {name: results.get(f"{workload.name}/{name}", []) for name in names}
        cells = [_cell(runs[name]) for name in names]
        peers = [name for name in names if name != "pybuild" and runs[name]]
        own = runs.get("pybuild", [])
        ratios = [_ratio(own, [runs[name] for name in peers], key) for key in ("wall", "cpu")]
        lines.append(f"| {workload.name} | {workload.what} | {' | '.join(cells)} | {' | '.join(ratios)} |")
    return "\n".join(lines) + "\n"


def _cell(runs: Sequence[Run]) -> str:
    if not runs:
        return "-"
    wall, cpu = (statistics.median(getattr(run, key) for run in runs) for key in ("wall", "cpu"))
    size = f" / {runs[-1].size / 1e6:.0f} MB out" if runs[-1].size else ""
    return f"{wall:.2f} / {cpu:.2f} / {max(run.memory for run in runs) / 1e6:.0f}{size}"


def _ratio(own: Sequence[Run], peers: Sequence[Sequence[Run]], key: str) -> str:
    """Median over the repetitions of pybuild's figure over that of the best peer in the same repetition."""
    if not own or not peers:
        return "-"
    best = min(peers, key=lambda runs: statistics.median(getattr(run, key) for run in runs))
    pairs = zip(own, best, strict=False)
    return f"{statistics.median(getattr(a, key) / getattr(b, key) for a, b in pairs):.2f}"


@contextmanager
def registry(work: str) -> Iterator[str]:
    """A registry on loopback with a folder of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": f"{work}/registry"}},
        "http": {"addr": address},
    }
    with open(f"{work}/registry.yml", "w", encoding="utf-8") as file:
        json.dump(config, file)
    with open(f"{work}/registry.log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", f"{work}/registry.yml"], stdout=log, stderr=log)
    try:
        yield address
    finally:
        process.terminate()
        process.wait()


def fill(work: str, address: str, pybuild: Sequence[str]) -> None:
    """Push the base images: Debian from scripts/base_image.py, and a busybox that is built here."""
    debian, busybox = f"{work}/debian-12", f"{work}/busybox"
    if not os.path.exists(f"{debian}/index.json"):
        subprocess.run([sys.executable, f"{HERE}/../scripts/base_image.py", debian], check=True)
    if not os.path.exists(f"{busybox}/index.json"):
        os.makedirs(f"{busybox}-context/bin", exist_ok=True)
        shutil.copy("/bin/busybox", f"{busybox}-context/bin/busybox")
        for applet in ("sh", "echo", "sleep", "true", "cat"):
            if not os.path.lexists(f"{busybox}-context/bin/{applet}"):
                os.symlink("busybox", f"{busybox}-context/bin/{applet}")
        with open(f"{busybox}-context/Dockerfile", "w", encoding="utf-8") as file:
            file.write('FROM scratch\nCOPY bin /bin\nCOPY bin /etc/\nCMD ["sh"]\n')
        output = ["-o", f"type=oci,dest={busybox},tar=false", "-t", "busybox", "--root", f"{work}/fill"]
        subprocess.run([*pybuild, "build", *output, f"{busybox}-context"], check=True)
    for folder, image in ((debian, "debian:12"), (busybox, "busybox:latest")):
        name = f"docker.io/library/{image}"
        source = f"oci:{folder}:{name}"
        target = f"docker://{address}/{image}"
        for _ in range(50):
            if not subprocess.run(
                ["skopeo", "copy", "-q", "--dest-tls-verify=false", source, target], check=False
            ).returncode:
                break
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
