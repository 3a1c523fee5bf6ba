"""What this project wants to reach, as ratios: to other back-ends, and to what the machine gives at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import backends as b
from benchmarks.experiments import BUSY, FAST, MACHINE
from benchmarks.sample import Place, Results, Spread

Measured = Callable[[Results], Spread | None]


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to reach.

    Attributes:
        what: of ours.
        compared: to what, or in which unit.
        must: at least this, or at most when ``less`` is better.
        aim: what would be fine.
        measured: where it stands.
    """

    what: str
    compared: str
    must: float
    aim: float
    measured: Measured
    less: bool = False

    def verdict(self, found: Spread | None) -> str:
        """What the median says."""
        if found is None:
            return "not measured"
        if self._reaches(found.median, self.aim):
            return "aim reached"
        return "reached" if self._reaches(found.median, self.must) else "missed"

    def _reaches(self, found: float, wanted: float) -> bool:
        return found <= wanted if self.less else found >= wanted


def targets() -> Iterator[Target]:
    """All of them, in the order of the page."""
    mapped = f"compiled loop, mapped image, depth {BUSY}"
    yield Target(mapped, "qsd io_uring", 5, 8, _busy(b.LOOP_MAPPED, b.QSD_URING))
    yield Target(mapped, "qsd threads", 10, 15, _busy(b.LOOP_MAPPED, b.QSD_THREADS))
    yield Target(mapped, "memcpy limit", 0.6, 0.8, _limit("busy", b.LOOP_MAPPED, BUSY, "memcpy"))
    preadv = f"compiled loop, preadv, depth {BUSY}"
    yield Target(preadv, "qsd io_uring", 3, 3.7, _busy(b.LOOP, b.QSD_URING))
    yield Target(preadv, "C preadv loop", 0.8, 0.9, _limit("busy", b.LOOP, BUSY, "preadv"))
    yield Target("ring cost of a request, no I/O", "ns", 100, 60, _cpu(b.LOOP_NULL), less=True)
    python = f"Python device that copies, compiled ring, depth {BUSY}"
    yield Target(python, "qsd io_uring", 3, 4, _busy(b.RING_COPY, b.QSD_URING))
    pure = f"Python alone, preadv, depth {BUSY}"
    yield Target(pure, "qsd io_uring", 1, 1.4, _busy(b.PYTHON, b.QSD_URING))
    yield Target(pure, "qsd threads", 2, 2.5, _busy(b.PYTHON, b.QSD_THREADS))
    watching = "depth 1, client polls, ours watches 50 µs"
    yield Target(watching, "fastest qsd", 3, 9, _to_fastest("watched", b.LOOP_MAPPED.watching()))
    yield Target(watching, "p50, µs", 6, 1.2, _value("watched", b.LOOP_MAPPED.watching(), 1, "p50_us"), less=True)
    yield Target("depth 1, everybody sleeps", "fastest qsd", 1, 1.1, _to_fastest("asleep", b.LOOP))
    yield Target(
        "depth 1, everybody sleeps", "eventfd ping-pong", 0.9, 0.95, _limit("asleep", b.LOOP, 1, "eventfd_two_cpus")
    )
    yield Target(f"front-end, depth {BUSY}, on qsd", "libblkio", 0.95, 1, _frontend((b.QSD_URING,)))
    yield Target(f"front-end, depth {BUSY}, on a fast back-end", "libblkio", 0.7, 1, _frontend(FAST))
    yield Target("connect to first request's end", "ms", 2, 0.8, _first, less=True)
    yield Target("vhost-user --help", "ms", 250, 120, _start("vhost-user --help"), less=True)
    yield Target("import vhostuser.wire.catalog", "ms", 60, 40, _start("import vhostuser.wire.catalog"), less=True)


def _busy(ours: b.Backend, theirs: b.Backend) -> Measured:
    return lambda results: results.ratio(Place("busy", ours.name, BUSY), Place("busy", theirs.name, BUSY))


def _limit(experiment: str, ours: b.Backend, depth: int, limit: str) -> Measured:
    machine = Place(experiment, MACHINE, 0, limit)
    return lambda results: results.ratio(Place(experiment, ours.name, depth), machine)


def _to_fastest(experiment: str, ours: b.Backend) -> Measured:
    """To qemu-storage-daemon with a file, whichever way is the faster one here."""

    def measured(results: Results) -> Spread | None:
        theirs = results.fastest(Place(experiment, each.name, 1) for each in (b.QSD_THREADS, b.QSD_URING))
        return None if theirs is None else results.ratio(Place(experiment, ours.name, 1), theirs)

    return measured


def _cpu(ours: b.Backend) -> Measured:
    return _value("busy", ours, BUSY, "cpu_ns")


def _value(experiment: str, ours: b.Backend, x: int, value: str) -> Measured:
    return lambda results: results.spread(Place(experiment, ours.name, x, value))


def _frontend(served: tuple[b.Backend, ...]) -> Measured:
    """The faster one of ours; on the first of ``served`` that was there."""

    def measured(results: Results) -> Spread | None:
        for backend in served:
            theirs = Place("front-ends", f"libblkio on {backend.name}", BUSY)
            ours = results.fastest(
                Place("front-ends", f"{each} on {backend.name}", BUSY) for each in ("us-native", "us-python")
            )
            if ours is not None:
                return results.ratio(ours, theirs)
        return None

    return measured


def _first(results: Results) -> Spread | None:
    for backend in (b.LOOP, b.PYTHON):
        found = results.spread(Place("first request", backend.name, 1, "first_us"))
        if found is not None:
            return Spread(*(each / 1000 for each in found))
    return None


def _start(what: str) -> Measured:
    return lambda results: results.spread(Place("start", what, 0, "ms"))
