"""Faults of the data path, whatever the format of the ring, and of split rings."""

from __future__ import annotations

from typing import Any

from tests.conformance.mutants.registry import RNG, edit, mutant, wrap
from vhostuser.backend import worker
from vhostuser.backend.task import TaskWorker
from vhostuser.virtqueue import walk
from vhostuser.virtqueue.chain import Chain, Reader, Writer
from vhostuser.virtqueue.device_side import DeviceSide
from vhostuser.virtqueue.split_device import SplitDevice
from vhostuser.virtqueue.split_walk import SplitWalker

BUMP = "self._next_avail = (self._next_avail + 1) & INDEX_MASK"


# --- both formats ----------------------------------------------------------------------------------------------------


@mutant("B-SPL-03", program=RNG)
def used_length_too_long() -> None:
    """The used length is the room that there was, not what was written."""
    edit(Writer, "written", "self._size - self.remaining", "self._size")
    edit(
        Writer,
        "write",
        "pieces = self._take(len(source))",
        "source = source[: len(source) // 2]; pieces = self._take(len(source))",
    )


@mutant("B-SPL-03")
def used_length_too_short() -> None:
    """The used length is one byte short."""
    edit(SplitDevice, "_give_back", "written << 32", "(written - 1) << 32")


@mutant("B-SPL-15")
def writes_to_readable_buffers() -> None:
    """What the device has read is overwritten with zeros."""

    @wrap(Reader, "read")
    def read(original: Any, self: Reader, length: int | None = None) -> bytes:
        pieces = list(self._pieces)
        data: bytes = original(self, length)
        pieces[0][:1] = b"\x5a"
        return data


@mutant("B-SPL-16")
def writes_beyond_the_buffer() -> None:
    """A byte behind each writable buffer is cleared."""

    @wrap(walk.Walker, "_assemble")
    def assemble(original: Any, self: walk.Walker, head: int, elements: Any, *rest: Any) -> Chain:
        for addr, length, flags in elements:
            if flags & walk.WRITE:
                self._memory.views(addr + length, 1)[0][:] = b"\0"
        chain: Chain = original(self, head, elements, *rest)
        return chain


@mutant("B-SPL-13")
def completes_twice() -> None:
    """Every chain is given back twice."""

    @wrap(DeviceSide, "complete")
    def complete(original: Any, self: DeviceSide, chains: Any) -> bool:
        chains = list(chains)
        original(self, chains)
        self._in_flight.update((chain.head, chain) for chain in chains)
        again: bool = original(self, chains)
        return again


@mutant("B-SPL-06")
def one_chain_for_each_kick() -> None:
    """A kick is good for one chain."""
    edit(worker.Worker, "_take", "self._queue.pop(BATCH)", "self._queue.pop(1 - self.__dict__.pop('had', 0))")
    edit(worker.Worker, "_take", "return chains", "self.had = len(chains)\n        return chains")
    edit(
        TaskWorker,
        "_wait",
        "if self.stopping or self._queue.arm():",
        "self._queue.arm()\n            if self.stopping:",
    )


# --- split -----------------------------------------------------------------------------------------------------------


@mutant("B-SPL-01")
def used_index_counts_double() -> None:
    """The used index grows by two for each chain."""
    edit(
        SplitDevice,
        "_give_back",
        "self._used[IDX] = self._next_used = next_used",
        "self._used[IDX] = 2 * next_used & INDEX_MASK; self._next_used = next_used",
    )


@mutant("B-SPL-02")
def used_element_names_the_slot() -> None:
    """The used element names its slot, not the head of the chain."""
    edit(SplitDevice, "_give_back", "written << 32 | chain.head", "written << 32 | next_used & slots")


@mutant("B-SPL-04")
def only_the_first_of_each_kind() -> None:
    """Of several readable buffers the last is lost."""
    edit(
        SplitWalker,
        "chain",
        "self._elements(head)",
        "[each for at, each in enumerate(self._elements(head)) if at != 1]",
    )


@mutant("B-SPL-05")
def chains_shorter_than_the_ring() -> None:
    """A chain with as many descriptors as the ring has entries is taken for a loop."""
    edit(SplitWalker, "_elements", "len(elements) > self._queue_size", "len(elements) >= self._queue_size")


@mutant("B-SPL-07", "B-VR-05")
def indices_do_not_wrap() -> None:
    """The available index is counted beyond 65535."""
    edit(SplitDevice, "_pop_into", BUMP, "self._next_avail += 1")
    edit(
        SplitDevice, "_pop_into", "(avail_idx - self._next_avail) & INDEX_MASK", "max(avail_idx - self._next_avail, 0)"
    )
    edit(SplitDevice, "arm", "self._avail[IDX] != self._next_avail", "self._avail[IDX] > self._next_avail")
    edit(SplitDevice, "arm", "self._used[-1] = self._next_avail", "self._used[-1] = self._next_avail & INDEX_MASK")


@mutant("B-SPL-08")
def only_the_first_of_a_table() -> None:
    """Of an indirect table only the first descriptor is used."""
    edit(SplitWalker, "_elements", "if not flags & NEXT:", "if not flags & NEXT or table is not self._table:")


@mutant("B-SPL-09")
def used_event_ignored() -> None:
    """With EVENT_IDX every completion is followed by a call."""
    edit(SplitDevice, "_should_notify", "signalled is None or needs_event(avail[-1], next_used, signalled)", "True")


@mutant("B-SPL-09")
def used_event_off_by_one() -> None:
    """With EVENT_IDX the call comes one completion late."""
    edit(SplitDevice, "_should_notify", "needs_event(avail[-1], next_used", "needs_event(avail[-1] + 1, next_used")


@mutant("B-SPL-10")
def avail_event_never_written() -> None:
    """With EVENT_IDX the device never says when it wants a kick."""
    edit(SplitDevice, "arm", "self._used[-1] = self._next_avail", "pass")


@mutant("B-SPL-11")
def no_interrupt_ignored() -> None:
    """NO_INTERRUPT is ignored: every completion is followed by a call."""
    edit(SplitDevice, "_should_notify", "not avail[FLAGS] & NO_INTERRUPT", "True")


@mutant("B-SPL-11")
def no_interrupt_upside_down() -> None:
    """A call follows only where NO_INTERRUPT is set."""
    edit(SplitDevice, "_should_notify", "not avail[FLAGS] & NO_INTERRUPT", "bool(avail[FLAGS] & NO_INTERRUPT)")


@mutant("B-SPL-12")
def no_notify_stays() -> None:
    """NO_NOTIFY is set while the device works, and never cleared."""
    edit(SplitDevice, "arm", "self._used[FLAGS] = 0", "pass")


@mutant("B-SPL-14")
def available_ring_cleared() -> None:
    """The device clears the entries of the available ring that it has taken."""
    edit(SplitDevice, "_pop_into", BUMP, f"ring[RING + (self._next_avail & slots)] = 0xFFFF; {BUMP}")


@mutant("B-SPL-14")
def descriptors_cleared() -> None:
    """The device clears the descriptors that it has used."""
    edit(
        SplitDevice, "_pop_into", "chains.append(chain)", "chains.append(chain); self._walker._table[head * 16 + 8] = 0"
    )
