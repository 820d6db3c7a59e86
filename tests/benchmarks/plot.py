"""Two panels as SVG, written by hand: writers against throughput, and latency by size.

python -m tests.benchmarks.plot bench.json bench.svg
"""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 118, 44, 44
COLOURS = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce")
GAP = 13
"""Between the baselines of two labels, at least."""


@dataclass(frozen=True, slots=True)
class Line:
    """Points by rising x; a floor is dashed."""

    label: str
    colour: str
    dashed: bool
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over logarithmic axes."""

    title: str
    x_title: str
    lines: Sequence[Line]

    def svg(self, left: float) -> str:
        """The panel, moved to the right."""
        xs = sorted({x for line in self.lines for x, _ in line.points})
        ys = [y for line in self.lines for _, y in line.points]
        low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
        high += low == high

        def at(x: float, y: float) -> tuple[float, float]:
            span = math.log(xs[-1] / xs[0]) or 1.0
            across = LEFT + (WIDTH - LEFT - RIGHT) * math.log(x / xs[0]) / span
            return across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(y) - low) / (high - low)

        parts = [f'<text x="{LEFT}" y="20" font-size="14" font-weight="600">{escape(self.title)}</text>']
        for power in range(low, high + 1):
            _, y = at(xs[0], 10**power)
            parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d4d4d4"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:,g}</text>')
        for x in xs:
            across, _ = at(x, 10**low)
            parts.append(f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:,g}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(self.x_title)}</text>')
        for line, label_y in zip(self.lines, _apart([at(*line.points[-1])[1] for line in self.lines]), strict=True):
            places = [at(*point) for point in line.points]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            dash = ' stroke-dasharray="5 4"' if line.dashed else ""
            parts.append(f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>' for x, y in places]
            x = WIDTH - RIGHT + 8
            parts.append(f'<text x="{x}" y="{label_y + 4:.1f}" fill="{line.colour}">{escape(line.label)}</text>')
        return f'<g transform="translate({left:g} 0)">{"".join(parts)}</g>'


def _apart(places: Sequence[float]) -> list[float]:
    """The places of labels, moved down where they would cover each other."""
    moved = [0.0] * len(places)
    last = -math.inf
    for number in sorted(range(len(places)), key=places.__getitem__):
        last = moved[number] = max(places[number], last + GAP)
    return moved


def plot(figures: Iterable[dict[str, Any]]) -> str:
    """The SVG of figures as `as_json` writes them; parts that were not measured are left out."""
    placed = [figure for figure in figures if figure["at"] is not None]
    panels = [
        panel
        for panel in (
            Panel(
                "Memories stored a second, one a request, with vectors",
                "writers",
                _lines([figure for figure in placed if figure["part"] == "writers"], "rate"),
            ),
            Panel(
                "Milliseconds of a search, p50, on PostgreSQL",
                "memories",
                _lines([figure for figure in placed if figure["part"] == "searches"], "p50_ms"),
            ),
        )
        if panel.lines
    ]
    body = "".join(panel.svg(number * WIDTH) for number, panel in enumerate(panels))
    width = WIDTH * max(len(panels), 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="#262626">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{body}</svg>\n'
    )


def _lines(figures: Sequence[dict[str, Any]], value: str) -> list[Line]:
    lines = []
    for colour, series in zip(COLOURS, dict.fromkeys(figure["series"] for figure in figures), strict=False):
        ours = sorted((figure for figure in figures if figure["series"] == series), key=lambda figure: figure["at"])
        for side, dashed in (("ours", False), ("theirs", True)):
            points = [(figure["at"], figure[side][value]) for figure in ours if figure[side][value]]
            if points:
                lines.append(Line(f"{series}, bare" if dashed else series, colour, dashed, points))
    return lines


def main() -> None:
    """Reads the figures, writes the plot."""
    source, target = map(Path, sys.argv[1:3])
    target.write_text(plot(json.loads(source.read_text())["figures"]), encoding="utf-8")


if __name__ == "__main__":
    main()
