"""What is measured, and how long.

Experiments in the order in which they run; each is interleaved in itself.  Whatever is compared later has to stand in
one experiment.  Writing comes last: the system goes on for a while to bring to the disk what was written.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import backends as b
from benchmarks.clients import (
    Failed,
    Load,
    by_libblkio,
    by_the_machine,
    by_us,
    has_option,
    time_of_command,
    time_of_import,
)
from benchmarks.laboratory import MIB, Case, Laboratory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from benchmarks.sample import Values

IMAGE = 256 * MIB
BUSY = 128
MACHINE = "machine"
SCALED = (b.PYTHON, b.RING, b.RING_COPY, b.LOOP, b.LOOP_MAPPED, b.QSD_THREADS, b.QSD_URING)
FAST = (b.LOOP_MAPPED, b.QSD_NULL)
"""Back-ends that leave a front-end to itself; the first that is there is taken."""
FRONTENDS = {
    "libblkio": "libblkio, polling",
    "us-native": "ours, compiled, polling",
    "us-asleep": "ours, compiled, sleeping",
    "us-python": "ours, Python",
}


@dataclass(frozen=True)
class Scale:
    """How much time to take.

    Attributes:
        seconds: for a measurement.
        rounds: of everything.
        depths: on the way to 256.
        images: sizes in bytes.
        writes: whether to measure them too.
    """

    seconds: float
    rounds: int
    depths: Sequence[int]
    images: Sequence[int]
    writes: bool


QUICK = Scale(0.2, 3, (1, 4, 16, 64, 256), (16 * MIB, IMAGE), writes=False)
FULL = Scale(0.5, 7, (1, 2, 4, 8, 16, 32, 64, 128, 256), (16 * MIB, IMAGE, 2048 * MIB), writes=True)


def run_all(lab: Laboratory, scale: Scale, only: Sequence[str] = ()) -> None:
    """Every experiment, or only those of these titles; results are in the laboratory."""
    for title, cases in EXPERIMENTS.items():
        if not only or title in only:
            lab.rounds(title, list(cases(lab, scale)), scale.rounds)
        lab.release()


def loads(lab: Laboratory, experiment: str, served: Iterable[b.Backend], load: Load, x: int) -> Iterator[Case]:
    """``load`` on each back-end that can be started."""
    for backend in served:
        if (case := on(lab, experiment, backend, load, x, IMAGE)) is not None:
            yield case


def on(lab: Laboratory, experiment: str, backend: b.Backend, load: Load, x: int, size: int) -> Case | None:
    """``load`` on one back-end; None if that cannot be started."""
    running = lab.backend(backend, size)
    if running is None:
        return None
    return Case(experiment, backend.name, x, lambda: by_libblkio(lab.programs, running, load))


def limits(lab: Laboratory, experiment: str, seconds: float) -> Case:
    """The machine's own limits, in the same rounds."""
    return Case(experiment, MACHINE, 0, lambda: by_the_machine(lab.programs, lab.image(IMAGE), seconds))


def busy(lab: Laboratory, scale: Scale) -> Iterator[Case]:
    """128 requests in flight; a client that polls, and one that sleeps when nothing has ended."""
    yield limits(lab, "busy", scale.seconds / 2)
    yield from loads(lab, "busy", b.ALL, Load(BUSY, scale.seconds), BUSY)
    yield from loads(lab, "busy, sleeping", b.ALL, Load(BUSY, scale.seconds, sleeping=True), BUSY)


def asleep(lab: Laboratory, scale: Scale) -> Iterator[Case]:
    """One request at a time; both sides sleep."""
    yield limits(lab, "asleep", scale.seconds / 2)
    yield from loads(lab, "asleep", b.ALL, Load(1, scale.seconds, sleeping=True), 1)


def watched(lab: Laboratory, scale: Scale) -> Iterator[Case]:
    """One request at a time; the client polls, and ours watch for 50 microseconds before they sleep."""
    ours = (each.watching() for each in b.ALL if each.engine)
    yield from loads(lab, "watched", (*ours, b.QSD_THREADS, b.QSD_URING, b.QSD_NULL), Load(1, scale.seconds), 1)


def depths(lab: Laboratory, scale: Scale) -> Iterator[Case]:
    """How rates grow with what is in flight."""
    for depth in scale.depths:
        yield from loads(lab, "depths", SCALED, Load(depth, scale.seconds), depth)


def queues(lab: Laboratory, scale: Scale) -> Iterator[Case]:
    """One queue and two, each with a client's thread."""
    for count in (1, 2):
        yield from loads(lab, "queues", SCALED, Load(BUSY, scale.seconds, queues=count), count)


def images(lab: Laboratory, scale: Scale) -> Iterator[Case]:
    """Small disks that fit into the processor's caches, and large ones."""
    for size in scale.images:
        for backend in (b.LOOP, b.LOOP_MAPPED, b.PYTHON, b.QSD_URING):
            if (case := on(lab, "images", backend, Load(BUSY, scale.seconds), size // MIB, size)) is not None:
                yield case


def frontends(lab: Laboratory, scale: Scale) -> Iterator[Case]:
    """Ours beside libblkio, on qemu-storage-daemon and on the fastest back-end there is; the subject names both."""
    fast = next((each for each in FAST if lab.backend(each, IMAGE) is not None), None)
    for backend in filter(None, (b.QSD_URING, fast)):
        running = lab.backend(backend, IMAGE)
        if running is None:
            continue
        load = Load(BUSY, scale.seconds)
        for name in FRONTENDS:
            yield Case("front-ends", f"{name} on {backend.name}", BUSY, _frontend(lab, running, load, name))


def first(lab: Laboratory, _scale: Scale) -> Iterator[Case]:
    """From connecting to the first request's end."""
    yield from loads(lab, "first request", (*SCALED, b.THREAD), Load(1, 0.01, sleeping=True), 1)


def start(_lab: Laboratory, _scale: Scale) -> Iterator[Case]:
    """How long people wait for help, and scripts for an import."""
    script = Path(sys.executable).with_name("vhost-user")
    command = [str(script)] if script.exists() else list(b.PROGRAM)
    yield Case("start", "vhost-user --help", 0, lambda: {"ms": time_of_command(*command, "--help")})
    for module in ("vhostuser.wire.catalog", "vhostuser.backend"):
        yield Case("start", f"import {module}", 0, _importing(module))
    yield Case("start", "python -c pass", 0, lambda: {"ms": time_of_command(sys.executable, "-c", "pass")})


def writes(lab: Laboratory, scale: Scale) -> Iterator[Case]:
    """4 KiB written at random places, into the page cache."""
    if scale.writes:
        yield from loads(lab, "writes", SCALED, Load(BUSY, scale.seconds, write=True), BUSY)


def _frontend(lab: Laboratory, running: b.Running, load: Load, name: str) -> Callable[[], Values]:
    if name == "libblkio":
        return lambda: by_libblkio(lab.programs, running, load)
    engine = "python" if name == "us-python" else "native"
    load = replace(load, sleeping=name != "us-native")
    if engine == "native" and not (has_option("--engine") and b.has_native_engine()):
        return _nothing
    return lambda: by_us(running, load, engine)


def _importing(module: str) -> Callable[[], Values]:
    return lambda: {"ms": time_of_import(module)}


def _nothing() -> Values:
    raise Failed("the native engine is not built, or `vhost-user bench` has no --engine")


EXPERIMENTS: dict[str, Callable[[Laboratory, Scale], Iterable[Case]]] = {
    "busy": busy,
    "asleep": asleep,
    "watched": watched,
    "depths": depths,
    "queues": queues,
    "images": images,
    "front-ends": frontends,
    "first request": first,
    "start": start,
    "writes": writes,
}
