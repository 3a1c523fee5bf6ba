"""The two pictures of the page: rates by depth as lines, and rates at one depth as bars beside the machine's limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from benchmarks.sample import Spread
from benchmarks.svg import HUES, Drawing

Series = Mapping[int, Spread]
LINE_HEIGHT = 16
UNITS = ((1e6, "M"), (1e3, "k"), (1, ""))


def short(figure: float) -> str:
    """Three digits: ``2.31 M``, ``84.9 k``, ``512``."""
    scale, letter = next((unit for unit in UNITS if figure >= unit[0]), UNITS[-1])
    scaled = figure / scale
    digits = max(0, 2 - int(math.log10(scaled))) if scaled >= 1 else 2
    return f"{scaled:.{digits if letter else 0}f} {letter}".strip()


def lines(title: str, series: Mapping[str, Series]) -> str:
    """Rate by depth, both growing by factors, with each line's name at its end."""
    drawing = Drawing(860, 420, title)
    left, right, top, bottom = 62.0, 520.0, 20.0, 370.0
    depths = sorted({depth for row in series.values() for depth in row})
    figures = [each for row in series.values() for found in row.values() for each in found]
    low, high = 10 ** math.floor(math.log10(min(figures))), max(figures) * 1.15

    def at_x(depth: float) -> float:
        return left + (right - left) * math.log2(depth / depths[0]) / max(1, math.log2(depths[-1] / depths[0]))

    def at_y(rate: float) -> float:
        return bottom - (bottom - top) * math.log(rate / low) / math.log(high / low)

    _grid_lines(drawing, low, high, at_y, (left, right))
    for depth in depths:
        drawing.text(at_x(depth), bottom + 20, str(depth), "small", "middle")
    drawing.text((left + right) / 2, bottom + 40, "requests in flight", "ink", "middle")
    drawing.text(left - 50, top - 6, "requests a second", "small")
    ends = {}
    for hue, (name, row) in zip(HUES, series.items(), strict=False):
        for depth, found in row.items():
            drawing.line(at_x(depth), at_y(found.low), at_x(depth), at_y(found.high), hue)
            drawing.dot(at_x(depth), at_y(found.median), hue)
        drawing.path([(at_x(depth), at_y(found.median)) for depth, found in sorted(row.items())], hue)
        ends[name, hue] = at_y(row[max(row)].median)
    for ((name, hue), end), y in zip(
        sorted(ends.items(), key=lambda each: each[1]), spaced(ends.values()), strict=True
    ):
        drawing.line(right + 4, end, right + 16, y, "grid")
        drawing.text(right + 20, y + 4, name, hue)
    return str(drawing)


def bars(title: str, rows: Mapping[str, tuple[str, Spread]], limits: Mapping[str, float]) -> str:
    """Rates, longest first as given, with the machine's limits as upright lines; each row has its hue."""
    left, right, top, step = 320.0, 700.0, 34.0, 24.0
    drawing = Drawing(760, int(top + step * len(rows) + 34), title)
    most = max([*(found.high for _, found in rows.values()), *limits.values()]) * 1.02
    bottom = top + step * len(rows)

    def at_x(rate: float) -> float:
        return left + (right - left) * rate / most

    for number, (name, limit) in enumerate(limits.items()):
        drawing.line(at_x(limit), top - 6, at_x(limit), bottom, "limit")
        drawing.text(at_x(limit), top - 10 - 12 * (number % 2), f"{name} {short(limit)}", "small", "middle")
    for number, (name, (hue, found)) in enumerate(rows.items()):
        y = top + step * number
        drawing.text(left - 8, y + 14, name, "ink", "end")
        drawing.box(left, y + 2, at_x(found.median) - left, step - 8, hue)
        drawing.line(at_x(found.low), y + 10, at_x(found.high), y + 10, "whisker")
        drawing.text(at_x(found.high) + 6, y + 14, short(found.median), "small")
    drawing.text(left, bottom + 20, "requests a second, median; the thin line spans the middle half", "small")
    return str(drawing)


def spaced(wanted: Iterable[float]) -> list[float]:
    """The places, in order, moved down or up as far as is needed for a line of text each."""
    found: list[float] = []
    for y in sorted(wanted):
        found.append(max(y, found[-1] + LINE_HEIGHT) if found else y)
    return found


def _tick(figure: float) -> str:
    scale, letter = next((unit for unit in UNITS if figure >= unit[0]), UNITS[-1])
    return f"{figure / scale:g} {letter}".strip()


def _grid_lines(
    drawing: Drawing, low: float, high: float, at_y: Callable[[float], float], span: tuple[float, float]
) -> None:
    decade = low
    while decade <= high:
        for part in (1, 2, 5):
            if decade * part <= high:
                y = at_y(decade * part)
                drawing.line(*(span[0], y), *(span[1], y), "grid")
                drawing.text(span[0] - 8, y + 4, _tick(decade * part), "small", "end")
        decade *= 10
