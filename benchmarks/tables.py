"""The tables of the page: rows of cells out of `Results`, the first one the head; none where nothing was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks import backends as b
from benchmarks.experiments import BUSY, FRONTENDS, IMAGE, MACHINE
from benchmarks.laboratory import MIB
from benchmarks.plots import short
from benchmarks.sample import Place, Results, Spread

NOTHING = "-"
Rows = Callable[[Results], Iterator[Sequence[str]]]


def busy_rows(results: Results) -> Iterator[Sequence[str]]:
    """At depth 128: both clients, ratios, and what a request costs."""
    head = ("back-end", "client polls", "x io_uring", "x threads", "client sleeps", "x io_uring", "CPU, ns")
    shown = [row for each in b.ALL if (row := _busy_row(results, each.name))]
    limits = [
        (f"*limit: {name} in C*", _rate(results, Place("busy", MACHINE, 0, name)), "", "", "", "", "")
        for name in ("memcpy", "preadv")
        if results.spread(Place("busy", MACHINE, 0, name))
    ]
    yield from [head, *shown, *limits] if shown else []


def _busy_row(results: Results, name: str) -> tuple[str, ...]:
    polls, sleeps = Place("busy", name, BUSY), Place("busy, sleeping", name, BUSY)
    if results.spread(polls) is None:
        return ()
    cpu = results.spread(Place("busy", name, BUSY, "cpu_ns"))
    return (
        b.TITLES[name],
        _rate(results, polls),
        _ratio(results, polls, b.QSD_URING.name),
        _ratio(results, polls, b.QSD_THREADS.name),
        _rate(results, sleeps),
        _ratio(results, sleeps, b.QSD_URING.name),
        f"{cpu.median:.0f}" if cpu else NOTHING,
    )


def alone_rows(results: Results) -> Iterator[Sequence[str]]:
    """One request at a time."""
    rows = []
    for experiment, client in (("asleep", "sleeps"), ("watched", "polls")):
        for name, title in b.TITLES.items():
            place = Place(experiment, name, 1)
            if results.spread(place):
                p50, p99 = (results.spread(place._replace(value=value)) for value in ("p50_us", "p99_us"))
                rows.append((title, client, _rate(results, place), _ratio(results, place, b.QSD_THREADS.name),
                             *(f"{found.median:.1f}" if found else NOTHING for found in (p50, p99))))  # fmt: skip
    for name, title in (("eventfd_two_cpus", "two processors"), ("eventfd_one_cpu", "one processor")):
        place = Place("asleep", MACHINE, 0, name)
        if (found := results.spread(place)) is not None:
            rows.append((f"*eventfd ping-pong in C, {title}*", "sleeps", _rate(results, place), "",
                         f"{1e6 / found.median:.1f}", ""))  # fmt: skip
    if rows:
        yield ("back-end", "client", "requests/s", "x threads", "p50, µs", "p99, µs")
        yield from rows


def by_x(experiment: str, label: str) -> Rows:
    """Rows by what an experiment varies, a column each."""

    def rows(results: Results) -> Iterator[Sequence[str]]:
        xs = results.xs(experiment)
        shown = [each for each in b.ALL if results.xs(experiment, each.name)]
        if shown:
            yield (label, *map(str, xs))
            for each in shown:
                yield (each.title, *(_rate(results, Place(experiment, each.name, x)) for x in xs))

    return rows


def frontend_rows(results: Results) -> Iterator[Sequence[str]]:
    """Ours and libblkio, by back-end."""
    served = [each for each in b.ALL if results.xs("front-ends", f"libblkio on {each.name}")]
    if served:
        yield ("front-end", *(column for each in served for column in (each.title, "x libblkio")))
        for name, title in FRONTENDS.items():
            places = [Place("front-ends", f"{name} on {each.name}", BUSY) for each in served]
            cells = ((_rate(results, place), _frontend_ratio(results, place)) for place in places)
            yield (title, *(cell for pair in cells for cell in pair))


def _frontend_ratio(results: Results, place: Place) -> str:
    theirs = place._replace(subject=f"libblkio on {place.subject.partition(' on ')[2]}")
    return NOTHING if place == theirs else _times(results.ratio(place, theirs))


def start_rows(results: Results) -> Iterator[Sequence[str]]:
    """What happens once."""
    rows = [
        (f"connect to the first request's end: {each.title}", f"{found.median / 1000:.2f}")
        for each in b.ALL
        if (found := results.spread(Place("first request", each.name, 1, "first_us"))) is not None
    ]
    subjects = sorted({each.subject for each in results.samples if each.experiment == "start"})
    rows += [
        (f"`{subject}`", f"{found.median:.1f}")
        for subject in subjects
        if (found := results.spread(Place("start", subject, 0, "ms"))) is not None
    ]
    if rows:
        yield ("", "ms")
        yield from rows


def _rate(results: Results, place: Place) -> str:
    found = results.spread(place)
    return NOTHING if found is None else short(found.median)


def _ratio(results: Results, place: Place, to: str) -> str:
    return _times(results.ratio(place, place._replace(subject=to)))


def _times(found: Spread | None) -> str:
    return NOTHING if found is None else f"{found.median:.2f}"


TABLES: dict[str, Rows] = {
    f"{BUSY} requests in flight": busy_rows,
    "By depth": by_x("depths", "requests in flight"),
    "One request at a time": alone_rows,
    f"By queues, {BUSY} requests in flight on each": by_x("queues", "queues"),
    f"By the size of the image in MiB, {IMAGE // MIB} elsewhere": by_x("images", "MiB"),
    "Writes": by_x("writes", "requests in flight"),
    "Front-ends": frontend_rows,
    "What happens once": start_rows,
}
"""By their titles, in the order of the page."""
