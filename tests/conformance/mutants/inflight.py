"""Faults of what is recorded of requests in flight, and of going on with it."""

from __future__ import annotations

from typing import Any

from tests.conformance.backends import area, resuming
from tests.conformance.backends.area import Area, Part
from tests.conformance.backends.recorded import Recorded
from tests.conformance.backends.recorded_packed import RecordedPacked
from tests.conformance.backends.recorded_split import RecordedSplit
from tests.conformance.backends.resuming import Resuming
from tests.conformance.mutants.registry import RESUMING, edit, mutant, replace, wrap
from vhostuser.memory.region import MappingError
from vhostuser.protocol.framing import Frame
from vhostuser.protocol.state import ProtocolState
from vhostuser.wire.requests import Header


def _slowly() -> None:
    """Requests that are seen in flight are so still when the back-end is killed, however late that is."""
    replace(resuming, "PAUSE")(0.1)


# --- the area --------------------------------------------------------------------------------------------------------


@mutant("B-INF-01", program=RESUMING)
def area_without_a_size() -> None:
    """GET_INFLIGHT_FD says that the area has no bytes."""
    edit(Resuming, "_make_area", "Inflight(len(block.view)", "Inflight(0")


@mutant("B-INF-02", program=RESUMING)
def area_described_without_padding() -> None:
    """The reply to GET_INFLIGHT_FD has 20 bytes."""

    @wrap(Resuming, "_make_area")
    def make(original: Any, self: Resuming, asked: Any) -> Frame:
        frame = original(self, asked)
        return Frame(Header(frame.header.request, frame.header.flags, 20), frame.payload[:20], frame.fds)


@mutant("B-INF-03", program=RESUMING)
def area_for_other_sizes() -> None:
    """GET_INFLIGHT_FD answers with twice the queue size that it was asked for."""
    edit(Resuming, "_make_area", "asked.num_queues, asked.queue_size", "asked.num_queues, 2 * asked.queue_size")


@mutant("B-INF-04", program=RESUMING)
def area_full_of_rubbish() -> None:
    """A new area has ones in it."""
    edit(Resuming, "_make_area", "told = ", 'block.view[:] = b"\\1" * len(block.view)\n            told = ')


@mutant("B-INF-05[packed]", program=RESUMING)
def area_always_for_split_rings() -> None:
    """The area of packed rings is as large as that of split ones."""
    edit(area, "_stride", "packed_region_size(size) if packed else split_region_size(size)", "split_region_size(size)")


@mutant("B-INF-19", program=RESUMING)
def area_after_memory() -> None:
    """SET_INFLIGHT_FD is refused as long as there is no memory table."""

    @wrap(Resuming, "_act")
    async def act(original: Any, self: Resuming, message: Any, frame: Any) -> Any:
        if message.spec.request == 32 and not self.memory.mapped:
            raise MappingError("too early")
        return await original(self, message, frame)


@mutant("B-INF-21", "B-INF-24", program=RESUMING)
def area_sizes_asserted() -> None:
    """An area for no queues, or for more than there are, ends the program."""
    edit(area, "check_sizes", "raise MappingError(", "raise AssertionError(")


@mutant("B-INF-23", program=RESUMING)
def ring_larger_than_its_area() -> None:
    """A ring may have more entries than its area: the program ends behind the last of them."""
    edit(Area, "part", "size > self._queue_size or ", "")


@mutant("B-INF-25", program=RESUMING)
def area_without_a_descriptor_ends_the_program() -> None:
    """SET_INFLIGHT_FD without a descriptor ends the program."""
    edit(ProtocolState, "_check_fds", "expect(fd_count in limits,", "expect(fd_count in limits or spec.request == 32,")


# --- what is recorded ------------------------------------------------------------------------------------------------


@mutant("B-INF-07[split]", program=RESUMING)
def done_and_still_in_flight() -> None:
    """Split: what is done stays in flight."""
    edit(RecordedSplit, "_settle", ".inflight = 0", ".inflight = 1")


@mutant("B-INF-08", program=RESUMING)
def counter_stands_still() -> None:
    """All requests have the same counter."""
    edit(Recorded, "_count", "self._counter + 1", "1")


@mutant("B-INF-09", program=RESUMING)
def used_index_not_followed() -> None:
    """The area's used index stays what it was in the beginning."""
    edit(RecordedSplit, "_settle", "self._part.header.used_idx = self._next_used", "pass")


@mutant("B-INF-10[split]", "B-INF-10[packed]", program=RESUMING)
def version_never_written() -> None:
    """The area stays one of version 0."""
    edit(Recorded, "_open_part", "header.version = VERSION", "pass")
    edit(Recorded, "_open_part", "header.version != VERSION or ", "")


@mutant("B-INF-10[split]", program=RESUMING)
def size_of_the_area_taken_for_that_of_the_ring() -> None:
    """desc_num is twice the size of the ring."""
    edit(Recorded, "_open_part", "header.features = self._queue_size, 0", "header.features = 2 * self._queue_size, 0")
    edit(Recorded, "_open_part", "or header.desc_num != self._queue_size", "")


@mutant("B-VR-14", program=RESUMING)
def taken_and_not_recorded() -> None:
    """Split: a request that is taken is not recorded."""
    _slowly()
    edit(RecordedSplit, "_record", "entry.inflight = 1", "pass")


# --- going on --------------------------------------------------------------------------------------------------------


@mutant("B-INF-11[split]", program=RESUMING)
def goes_on_where_it_is_told() -> None:
    """Split: what is in flight is taken up again, and what is available from SET_VRING_BASE on as well."""
    _slowly()
    edit(RecordedSplit, "__init__", "self._next_avail = (self._next_used + len(self._again)) & INDEX_MASK", "pass")


@mutant("B-INF-11[packed]", "B-INF-26[split]", program=RESUMING)
def nothing_taken_up_again() -> None:
    """What is in flight is passed over."""
    _slowly()
    edit(Recorded, "_pop_into", "while self._again and", "self._again.clear()\n        while self._again and")


@mutant("B-INF-12", program=RESUMING)
def taken_up_in_any_order() -> None:
    """What is in flight is taken up in the order of its entries."""
    edit(Part, "in_flight", "sorted(found, key=lambda number: self.entries[number].counter)", "found")


@mutant("B-INF-14", program=RESUMING)
def last_batch_not_looked_at() -> None:
    """Split: what was used and not yet struck out is done again."""
    edit(RecordedSplit, "_recover", "range(unsettled)", "range(0)")


@mutant("B-INF-15", program=RESUMING)
def last_of_a_batch_struck_out() -> None:
    """Split: of the batch that was used and not yet struck out, all but one are done again."""
    edit(RecordedSplit, "_recover", "range(unsettled)", "range(min(unsettled, 1))")


@mutant("B-INF-16", program=RESUMING)
def version_0_believed() -> None:
    """What stands in an area of version 0 is taken up."""
    edit(Recorded, "_open_part", "            self._begin()\n", "            header.used_idx = self._next_used\n")


@mutant("B-INF-17", program=RESUMING)
def always_rolled_back() -> None:
    """Packed: what was being completed is done again, whether the driver has seen it or not."""
    edit(RecordedPacked, "_recover", "and self._seen_by_driver()", "and False")


@mutant("B-INF-17", program=RESUMING)
def free_entries_stay_in_flight() -> None:
    """Packed: what has gone back to the list of free entries is taken up again."""
    edit(RecordedPacked, "_recover", "for number in self._free():", "for number in ():")


@mutant("B-INF-18", program=RESUMING)
def always_committed() -> None:
    """Packed: what was being completed is taken to be done, whether the driver has seen it or not."""
    edit(RecordedPacked, "_recover", "and self._seen_by_driver()", "and True")


@mutant("B-INF-22", program=RESUMING)
def last_batch_unchecked() -> None:
    """Split: a last batch that begins behind the ring ends the program."""
    edit(RecordedSplit, "_recover", "if number >= self._queue_size:", "if False:")
