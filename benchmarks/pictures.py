"""What the page shows of `Results` as pictures."""

from __future__ import annotations

from benchmarks import backends as b
from benchmarks.experiments import BUSY, MACHINE, SCALED
from benchmarks.plots import bars, lines
from benchmarks.sample import Place, Results


def busy_picture(results: Results) -> str:
    """Whoever serves the image at depth 128, as bars."""
    rows = {}
    for each in (each for each in b.ALL if each.file):
        found = results.spread(Place("busy", each.name, BUSY))
        if found is not None:
            rows[each.title] = ("h0" if each.engine == "native" else "h4" if each.engine else "h5", found)
    ordered = dict(sorted(rows.items(), key=lambda row: -row[1][1].median))
    limits = {}
    for name in ("memcpy", "preadv"):
        if (found := results.spread(Place("busy", MACHINE, 0, name))) is not None:
            limits[name] = found.median
    return bars(f"4 KiB reads a second, {BUSY} in flight", ordered, limits) if rows else ""


def depths_picture(results: Results) -> str:
    """How rates grow with depth."""
    series = {}
    for each in SCALED:
        xs = results.xs("depths", each.name)
        found = {x: row for x in xs if (row := results.spread(Place("depths", each.name, x))) is not None}
        if found:
            series[each.title] = found
    return lines("4 KiB reads a second by requests in flight", series) if series else ""
