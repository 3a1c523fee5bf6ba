"""Which engine drives the rings, and that the two of them say the same about whatever is in a ring."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines import ENGINES, need, python_only
from tests.virtqueue.formats import FEW
from vhostuser.memory.map import GuestAddr, GuestMemory
from vhostuser.testing.packed_rings import build_ring
from vhostuser.testing.rings import RingBuilder
from vhostuser.virtqueue.engine import Engine, NoSuchEngine, choose
from vhostuser.virtqueue.engine.lies import TEXTS, lie_text
from vhostuser.virtqueue.queue import BrokenQueue, Segment, open_device_queue
from vhostuser.virtqueue.ring import PUBLISH_EVERY
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.records import MemoryRegion

SOURCES = Path(sys.modules["vhostuser.virtqueue.engine"].__file__ or "").parent
SPLIT = int(VirtioFeature.VERSION_1 | VirtioFeature.INDIRECT_DESC)
PACKED = SPLIT | int(VirtioFeature.RING_PACKED)


@python_only
class TestTheChoice:
    def test_is_the_compiled_one_where_it_was_built(self) -> None:
        assert choose("", lambda: None) == "native"
        assert choose("", lambda: "no such module") == "python"

    def test_may_be_python_wherever_it_is(self) -> None:
        assert choose("python", lambda: None) == "python"

    def test_may_demand_the_compiled_one(self) -> None:
        assert choose("native", lambda: None) == "native"
        with pytest.raises(NoSuchEngine, match=r"not built \(no such module\).*VHOST_USER_BUILD_ENGINE=require"):
            choose("native", lambda: "no such module")

    def test_of_an_engine_that_nobody_knows_is_an_error(self) -> None:
        with pytest.raises(NoSuchEngine, match="'fast', expected native or python"):
            choose("fast")

    def test_is_made_by_the_environment(self) -> None:
        program = "from vhostuser.virtqueue.engine import ENGINE; print(ENGINE)"
        found = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"VHOST_USER_ENGINE": "python"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == "python"


@python_only
class TestConstants:
    """What both engines know, and each has to write down in its own language."""

    def test_there_is_a_text_for_each_lie_in_its_place(self) -> None:
        names = (SOURCES / "types.pxd").read_text("utf-8").partition("cdef enum LieCode:")[2].partition("cdef enum")[0]
        codes = [line.split()[0] for line in names.splitlines() if line.strip() and not line.strip().startswith("#")]
        assert codes[0] == "NO_LIE"
        assert codes[-1] == "NO_MEMORY", "which is ours, and has no text"
        assert len(codes) - 1 == len(TEXTS)
        assert codes.index("BAD_ADDRESS") == 10

    def test_used_elements_are_published_as_often(self) -> None:
        assert f"PUBLISH_EVERY = {PUBLISH_EVERY} " in (SOURCES / "types.pxd").read_text("utf-8")

    def test_an_address_is_named_without_memory_too(self) -> None:
        assert lie_text(10, (3, 0x1000, 16, 0)) == "chain 3: 0x1000 and 0x10 bytes from there: not in guest memory"


def told(engine: Engine, features: int, parts: tuple[bytes, bytes, bytes], base: int) -> list[object]:
    """What a device of this engine finds in a ring of these bytes: chains, the end, and what it leaves behind."""
    ring = build_ring(4, features, base=base)
    for view, content in zip((ring.layout.descriptor, ring.layout.driver, ring.layout.device), parts, strict=True):
        view[:] = content[: len(view)]
    story: list[object] = []
    try:
        queue = open_device_queue(ring.layout, ring.memory.guest, features, base=base, engine=engine)
        for _ in range(3):
            chains = queue.pop(3)
            story += [(chain.head, chain.readable.read(), chain.writable.remaining) for chain in chains]
            for chain in chains:
                chain.writable.wrote(chain.writable.remaining)
            story += [queue.complete(chains), queue.arm(), queue.base, queue.in_flight]
    except BrokenQueue as error:
        story.append(str(error))
    return [*story, *(bytes(part) for part in (ring.layout.descriptor, ring.layout.driver, ring.layout.device))]


_word = st.sampled_from([0, 1, 2, 3, 4, 5, 0x80, 0x81, 0x82, 0x84, 0x8000, 0x8001, 0xFFFF])
_desc = st.builds(
    lambda addr, length, flags, following: (
        addr.to_bytes(8, "little")
        + length.to_bytes(4, "little")
        + flags.to_bytes(2, "little")
        + following.to_bytes(2, "little")
    ),
    st.sampled_from([0x10_0000, 0x10_0010, 0x11_FFFF, 0x1000, 0x1010, 0, 2**64 - 1, 2**64 - 16]),
    st.sampled_from([0, 1, 16, 32, 48, 64, 80, 2**31, 2**32 - 1]),
    _word,
    _word,
)
_descs = st.lists(_desc, min_size=4, max_size=4).map(b"".join)
_words = st.lists(_word, min_size=7, max_size=7).map(lambda values: b"".join(v.to_bytes(2, "little") for v in values))


@python_only
@FEW
@given(
    features=st.sampled_from([SPLIT, PACKED]),
    events=st.booleans(),
    in_order=st.booleans(),
    descs=_descs,
    driver=_words,
    device=st.binary(min_size=38, max_size=38),
)
def test_the_engines_find_the_same_in_whatever_bytes(
    features: int, events: bool, in_order: bool, descs: bytes, driver: bytes, device: bytes
) -> None:
    need("native")
    features |= VirtioFeature.EVENT_IDX if events else 0
    features |= VirtioFeature.IN_ORDER if in_order else 0
    base = 0x8000_8000 if features & VirtioFeature.RING_PACKED else 0
    stories = [told(engine, features, (descs, driver, device), base) for engine in ENGINES]
    assert stories[0] == stories[1]


def test_memory_goes_with_the_last_view_of_it() -> None:
    """Whoever holds a chain, or a piece of one, may work on it after the memory was replaced and the queue closed."""
    mapping = mmap.mmap(-1, mmap.PAGESIZE)
    mapping[:4] = b"data"
    alive = weakref.ref(mapping)
    memory = GuestMemory.of((MemoryRegion(GuestAddr(0x5000), mmap.PAGESIZE, 0, 0), memoryview(mapping)))
    ring = RingBuilder(4)
    ring.chain(0, (Segment(GuestAddr(0x5000), 4), False), (Segment(GuestAddr(0x5004), 4), True))
    ring.offer(0)
    queue = open_device_queue(ring.layout, memory, ring.features, base=0)
    chains = queue.pop(1)
    queue.rebind(ring.layout, ring.memory.guest)
    del mapping, memory, queue
    assert alive() is not None
    chains[0].writable.write(b"ok")
    (view,) = chains[0].readable.views()
    chains.clear()
    assert alive() is not None
    assert bytes(view) == b"data"
    del view
    assert alive() is None
