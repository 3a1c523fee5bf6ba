"""Two processors at one ring: what another process sees of our loads and stores while we make them.

The other side is a small C program with real atomics.  What these tests were seen to find, in as many seconds as they
run: deciding about a kick before publishing loses one wake-up in six, looking at the ring before arming one in
seventeen, and an index stored with ``struct.pack_into`` shows a torn value now and then.  What they were not seen to
find is a missing fence: CPython puts some 100 ns between a store and the next load, which was long enough for the store
in four million rounds.  Rarer is not never, so the fences stay; see ``vhostuser/memory/ordering.py``.
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from vhostuser.memory.map import GuestAddr, GuestMemory
from vhostuser.virtqueue.queue import RingLayout, Segment, initial_base, open_device_queue, open_driver_queue
from vhostuser.wire import packed, split
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.records import MemoryRegion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vhostuser.virtqueue.queue import PartSizes

STOP, ROUND, LOOKED, DONE, WOKEN, SEEN = range(6)  # the words of other_side.c
DESC, AVAIL, USED, BUFFER, SIZE = 512, 1024, 2048, 3072, 4096  # bytes; parts on cache lines of their own
QUEUE_SIZE = 16
SECONDS = 0.4
"""How long both sides play; longer where a machine is so slow that they have hardly met by then."""
MEETINGS, LOOKS = 20, 1000


class Format(NamedTuple):
    """Where a ring of one format says what, as 16-bit words of the page.

    A packed ring of one entry says everything in one place, whatever goes through it.
    """

    features: int
    queue_size: int
    available: int
    used: int
    driver_sleeps: int
    device_sleeps: int
    publish: str

    @property
    def sizes(self) -> PartSizes:
        return RingLayout.sizes(self.queue_size, self.features)


_AVAIL_FLAGS, _USED_FLAGS = (AVAIL + split.FLAGS_OFFSET) // 2, (USED + split.FLAGS_OFFSET) // 2
_DRIVER_FLAGS, _DEVICE_FLAGS = (AVAIL + packed.EVENT_FLAGS_OFFSET) // 2, (USED + packed.EVENT_FLAGS_OFFSET) // 2
_AVAIL_IDX, _USED_IDX = (AVAIL + split.IDX_OFFSET) // 2, (USED + split.IDX_OFFSET) // 2
_TURN = (DESC + packed.PackedDesc.wire_offset("flags")) // 2
SPLIT = Format(0, QUEUE_SIZE, _AVAIL_IDX, _USED_IDX, _AVAIL_FLAGS, _USED_FLAGS, "wake")
PACKED = Format(int(VirtioFeature.RING_PACKED), 1, _TURN, _TURN, _DRIVER_FLAGS, _DEVICE_FLAGS, "offer")
formats = pytest.mark.parametrize("ring", [pytest.param(SPLIT, id="split"), pytest.param(PACKED, id="packed")])


@pytest.fixture(scope="module")
def other_side(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    compiler = shutil.which("cc")
    if compiler is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no C compiler called cc")
    program = tmp_path_factory.mktemp("other_side") / "other_side"
    source = Path(__file__).with_name("other_side.c")
    subprocess.run([compiler, "-std=c11", "-O2", "-Wall", "-Werror", "-o", program, source], check=True)
    return program


class Table:
    """A page of shared memory with a ring in it and room to talk, and both sides of the ring.

    Tests make it themselves: what a fixture returns lives longer than the leak check looks.
    """

    def __init__(self, path: Path, ring: Format = SPLIT) -> None:
        self.path = path
        path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            page = memoryview(mmap.mmap(file.fileno(), SIZE))
        parts = (page[at : at + size] for at, size in zip((DESC, AVAIL, USED), ring.sizes, strict=True))
        layout = RingLayout(ring.queue_size, *parts)
        self.words = page.cast("H")
        self.driver = open_driver_queue(layout, ring.features)
        memory = GuestMemory.of((MemoryRegion(0, SIZE, 0, 0), page))
        self.device = open_device_queue(layout, memory, ring.features, base=initial_base(ring.features))
        self.segment = Segment(GuestAddr(BUFFER), 1)

    @contextmanager
    def played(self, other_side: Path, game: str, one: int, other: int) -> Iterator[list[int]]:
        """Run the other side; the list holds its two numbers when it is done."""
        command = [str(other_side), game, str(self.path), str(one), str(other)]
        result: list[int] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield result
            finally:
                self.words[STOP] = 1
                output, _ = process.communicate(timeout=5)
        result += map(int, output.split())

    def play(self, prepare: Callable[[], object], act: Callable[[], bool], clean_up: Callable[[], object]) -> None:
        """Act once a round, at the same time as the other side, until time is up."""
        until = time.monotonic() + SECONDS
        number = met = 0
        prepare()
        while time.monotonic() < until or met <= MEETINGS:
            met += 1
            number = (number + 1) % 65536
            self.wait_for(ROUND, number)
            self.words[WOKEN] = act()
            self.wait_for(LOOKED, number)
            clean_up()
            prepare()
            self.words[DONE] = number

    def watched(self) -> Iterator[int]:
        """Rounds of one who does something while the other side looks, until it has looked often enough."""
        until = time.monotonic() + SECONDS
        number = 0
        while time.monotonic() < until or self.words[SEEN] <= LOOKS:
            number = (number + 1) % 65536
            yield number

    def wait_for(self, word: int, number: int) -> None:
        """Spin: going to sleep would take a thousand times as long as the race."""
        spins = 0
        while self.words[word] != number:
            spins += 1
            if not spins % 256:
                os.sched_yield()

    def add(self) -> None:
        self.driver.add([], [self.segment], None)

    def drain(self) -> None:
        self.device.complete(self.device.pop(QUEUE_SIZE))
        self.driver.reap(QUEUE_SIZE)


def test_an_index_is_never_torn(tmp_path: Path, other_side: Path) -> None:
    """avail.idx and used.idx only grow, for whoever looks whenever."""
    table = Table(tmp_path / "page")
    with table.played(other_side, "watch", SPLIT.available, SPLIT.used) as result:
        for _ in table.watched():
            table.add()
            table.driver.publish()
            table.drain()
    looks, torn = result
    assert looks > LOOKS
    assert torn == 0


def test_a_packed_chain_is_there_in_full_when_its_flags_say_so(tmp_path: Path, other_side: Path) -> None:
    table = Table(tmp_path / "page", PACKED)
    with table.played(other_side, "read", PACKED.available, DESC // 2) as result:
        for number in table.watched():
            length = 1 + number % 400
            table.words[ROUND] = number
            table.driver.add([Segment(GuestAddr(2 * length), length)], [], None)
            table.driver.publish()
            table.drain()
    looks, wrong = result
    assert looks > LOOKS
    assert wrong == 0


def test_a_packed_chain_is_used_in_full_when_its_flags_say_so(tmp_path: Path, other_side: Path) -> None:
    table = Table(tmp_path / "page", PACKED)
    with table.played(other_side, "used", PACKED.used, DESC // 2) as result:
        for number in table.watched():
            length = 1 + number % 400
            table.words[ROUND] = number
            table.driver.add([], [Segment(GuestAddr(4 * length), 2 * length)], None)
            table.driver.publish()
            (chain,) = table.device.pop(1)
            chain.writable.wrote(length)
            table.device.complete([chain])
            assert table.driver.reap(1) == [(None, length)]
    looks, wrong = result
    assert looks > LOOKS
    assert wrong == 0


@formats
def test_a_device_that_goes_to_sleep_while_we_publish_is_woken(tmp_path: Path, other_side: Path, ring: Format) -> None:
    table = Table(tmp_path / "page", ring)
    with table.played(other_side, "sleep", ring.device_sleeps, ring.available) as result:
        table.play(table.add, table.driver.publish, table.drain)
    rounds, lost = result
    assert rounds >= MEETINGS
    assert lost == 0


@formats
def test_a_driver_that_goes_to_sleep_while_we_complete_is_woken(tmp_path: Path, other_side: Path, ring: Format) -> None:
    table = Table(tmp_path / "page", ring)

    def prepare() -> None:
        table.add()
        table.driver.publish()

    def act() -> bool:
        return table.device.complete(table.device.pop(QUEUE_SIZE))

    with table.played(other_side, "sleep", ring.driver_sleeps, ring.used) as result:
        table.play(prepare, act, lambda: table.driver.reap(QUEUE_SIZE))
    rounds, lost = result
    assert rounds >= MEETINGS
    assert lost == 0


@formats
def test_we_never_sleep_on_a_chain_that_arrives_while_we_arm(tmp_path: Path, other_side: Path, ring: Format) -> None:
    """The other side offers a chain that nobody wrote: one empty element, which is legal."""
    table = Table(tmp_path / "page", ring)

    def clean_up() -> None:
        table.device.complete(table.device.pop(QUEUE_SIZE))

    with table.played(other_side, ring.publish, ring.device_sleeps, ring.available) as result:
        table.play(table.device.disarm, table.device.arm, clean_up)
    rounds, lost = result
    assert rounds >= MEETINGS
    assert lost == 0
