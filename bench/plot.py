"""Curves of how builds grow, as an SVG: a panel for each thing that grows, both axes logarithmic."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 250, 190
MARGIN_LEFT, MARGIN_TOP, MARGIN_BOTTOM, GAP = 46, 34, 34, 26
COLOURS = ("#1f6fb2", "#d1731f", "#3a8f4b", "#8a5aa8")


@dataclass(frozen=True, slots=True)
class Panel:
    """One thing that grows."""

    title: str
    sizes: Sequence[int]
    curves: Mapping[str, Sequence[float]]
    """By name, a value for each size."""


def svg(panels: Sequence[Panel], unit: str) -> str:
    """The panels side by side. A dashed line rises as what is linear does."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    width = len(panels) * (MARGIN_LEFT + WIDTH + GAP)
    height = MARGIN_TOP + HEIGHT + MARGIN_BOTTOM + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"',
        ' font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        left = number * (MARGIN_LEFT + WIDTH + GAP) + MARGIN_LEFT
        parts.append(f'<g transform="translate({left},{MARGIN_TOP})">{_panel(panel, unit, names)}</g>')
    for number, name in enumerate(names):
        at = MARGIN_LEFT + number * 130
        parts.append(f'<circle cx="{at}" cy="{height - 12}" r="4" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(f'<text x="{at + 9}" y="{height - 8}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, unit: str, names: Sequence[str]) -> str:
    values = [value for curve in panel.curves.values() for value in curve if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 0.001)
    first, last = math.log10(min(panel.sizes)), math.log10(max(panel.sizes)) or 1.0

    def x(size: float) -> float:
        return (math.log10(size) - first) / max(last - first, 1e-9) * WIDTH

    def y(value: float) -> float:
        return HEIGHT - (math.log10(max(value, 10**low)) - low) / (high - low) * HEIGHT

    parts = [
        f'<text x="{WIDTH / 2}" y="-14" text-anchor="middle" font-weight="bold">{panel.title}</text>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<line x1="0" x2="{WIDTH}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="-5" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g} {unit}</text>')
    parts += [
        f'<text x="{x(size):.1f}" y="{HEIGHT + 15}" text-anchor="middle">{_short(size)}</text>' for size in panel.sizes
    ]
    parts.append(_linear(panel, x, y, 10.0**high))
    for name, curve in panel.curves.items():
        points = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in zip(panel.sizes, curve, strict=True))
        colour = COLOURS[names.index(name) % len(COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return "".join(parts)


def _linear(panel: Panel, x: Callable[[float], float], y: Callable[[float], float], top: float) -> str:
    """From where the first curve begins, as far as it stays in the panel."""
    begin = next(iter(panel.curves.values()))[0]
    end = min(max(panel.sizes), min(panel.sizes) * top / begin)
    value = begin * end / min(panel.sizes)
    return (
        f'<line x1="{x(min(panel.sizes)):.1f}" y1="{y(begin):.1f}" x2="{x(end):.1f}" y2="{y(value):.1f}"'
        ' stroke="#777" stroke-dasharray="4 4"/>'
    )


def _short(number: int) -> str:
    """`10k`, `1M`."""
    for power, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= power:
            return f"{number / power:g}{letter}"
    return str(number)
