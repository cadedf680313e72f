"""`pybuild doctor`: what RUN can have on this machine."""

import json
from collections.abc import Sequence

from builder.cli.arguments import Parser
from builder.cli.run_options import add_backend_option, backend_of
from builder.cli.world import World
from builder.doctor.diagnosis import Diagnosis, diagnose
from builder.doctor.machine import existing, machine
from builder.doctor.trials import try_all
from builder.errors import SandboxError
from layers.data import asdict


def main(arguments: Sequence[str], world: World) -> int:
    """Print what was found; 0 if a RUN is possible, 8 if it is not. The store is neither made nor changed."""
    parser = Parser(prog="pybuild doctor", description="Tell what RUN can have on this machine, and what would help.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--root", default="", metavar="DIR", help="the store")
    add_backend_option(parser)
    given = parser.parse_args(arguments)
    backend = backend_of(given, world.environment)
    store = given.root or world.default_root()
    place = existing(store)
    diagnosis = diagnose(machine(place, world.environment), store, try_all(place, backend))
    world.out.write(_json(diagnosis) if given.json else _text(diagnosis))
    return 0 if diagnosis.works else SandboxError.exit_status


def _json(diagnosis: Diagnosis) -> str:
    return json.dumps({"works": diagnosis.works, **asdict(diagnosis)}, indent=2, ensure_ascii=False) + "\n"


def _text(diagnosis: Diagnosis) -> str:
    machine = diagnosis.machine
    rows = [
        ("user", machine.user),
        ("container", machine.container or "none that shows"),
        ("kernel", f"Linux {machine.kernel}, {machine.processor}"),
        ("store", f"{diagnosis.store} (on {machine.file_system})"),
    ]
    lines = [f"{name:10} {value}" for name, value in rows]
    lines += ["", "What RUN can have:"]
    for each in diagnosis.findings:
        lines.append(f"  {'yes' if each.fine else 'no ':3}  {each.name:16} {each.detail}".rstrip())
    verdict = f"RUN works, with the back-end {diagnosis.backend}" if diagnosis.works else "RUN does not work"
    lines += ["", f"{verdict}: {diagnosis.reason}."]
    if not diagnosis.works:
        lines.append("A Dockerfile without RUN is built all the same.")
    if diagnosis.advice:
        lines += ["", "What would make it better:", *(f"  - {each}" for each in diagnosis.advice)]
    return "\n".join(lines) + "\n"
