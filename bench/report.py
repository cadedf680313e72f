"""Tables of what was measured."""

import statistics
from collections.abc import Mapping, Sequence

from measure import Run
from workloads import Workload

Results = Mapping[str, Sequence[Run]]
"""All runs, by `workload/builder`."""


def report(results: Results, chosen: Sequence[Workload], names: Sequence[str]) -> str:
    """In Markdown: how pybuild stands to the fastest peer, and then what each builder took."""
    return f"{_ratios(results, chosen, names)}\n{_figures(results, chosen, names)}"


def _ratios(results: Results, chosen: Sequence[Workload], names: Sequence[str]) -> str:
    lines = ["| | workload | fastest peer | ratio, wall | ratio, CPU | target |", "|---|---|---|---|---|---|"]
    for workload in chosen:
        own = results.get(f"{workload.name}/pybuild", ())
        peers = {name: results.get(f"{workload.name}/{name}", ()) for name in names if name != "pybuild"}
        fastest = min(
            (name for name in peers if peers[name]), key=lambda name: _median(peers[name], "wall"), default=""
        )
        if own and fastest:
            wall, cpu = (_ratio(own, peers[fastest], key) for key in ("wall", "cpu"))
            cells = [
                fastest,
                f"**{wall:.2f}**",
                f"{cpu:.2f}",
                "" if workload.target is None else f"{workload.target:g}",
            ]
            lines.append(f"| {workload.name} | {workload.what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _figures(results: Results, chosen: Sequence[Workload], names: Sequence[str]) -> str:
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for workload in chosen:
        cells = [_cell(results.get(f"{workload.name}/{name}", ())) for name in names]
        lines.append(f"| {workload.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(runs: Sequence[Run]) -> str:
    """Medians of seconds, CPU seconds, and MB held, written and put out."""
    if not runs:
        return "-"
    written = _median(runs, "written") / 1e6
    parts = [f"{_median(runs, 'wall'):.2f} s", f"{_median(runs, 'cpu'):.2f} CPU"]
    parts += [f"{_median(runs, 'memory') / 1e6:.0f} MB", f"{written:.0f} written"]
    parts += [f"{runs[-1].size / 1e6:.0f} out"] if runs[-1].size else []
    return " / ".join(parts)


def _median(runs: Sequence[Run], key: str) -> float:
    return float(statistics.median(getattr(run, key) for run in runs))


def _ratio(own: Sequence[Run], other: Sequence[Run], key: str) -> float:
    """The median over the repetitions, in each of which both took their turn."""
    pairs = zip(own, other, strict=False)
    return float(statistics.median(getattr(a, key) / max(getattr(b, key), 1e-3) for a, b in pairs))
