"""Back-ends that hostile messages and hostile rings bring down, and programs that do not end as they should."""

from __future__ import annotations

import os
import signal
from typing import Any

import trio

from tests.conformance.mutants.registry import edit, mutant, replace, wrap
from vhostuser.backend.connection import Backend
from vhostuser.backend.ring import Ring
from vhostuser.backend.worker import Worker
from vhostuser.cli import serving
from vhostuser.conformance import Grade
from vhostuser.protocol import memory_table, rings
from vhostuser.protocol.framing import Deframer
from vhostuser.protocol.responder import Responder
from vhostuser.protocol.state import ProtocolState
from vhostuser.transport import unix
from vhostuser.transport.channel import Channel
from vhostuser.virtqueue.split_device import SplitDevice
from vhostuser.virtqueue.split_walk import SplitWalker

KEPT: list[object] = []


# --- messages --------------------------------------------------------------------------------------------------------


@mutant("B-HOS-03", "B-HOS-01")
def half_message_ends_the_program() -> None:
    """A connection that ends inside a message ends the program."""
    edit(
        Channel,
        "_check_received",
        "if self._deframer.idle:",
        "assert self._deframer.idle\n            if self._deframer.idle:",
    )


@mutant("B-HOS-04")
def four_gib_awaited() -> None:
    """A payload of any size is waited for."""
    edit(Deframer, "_take_header", "if header.size > self._max_payload:", "if header.size >> 32:")


@mutant("B-HOS-06")
def short_payload_ends_the_program() -> None:
    """A payload that is too short ends the program."""
    edit(Responder, "_read", "except FormatError as error:", "except ZeroDivisionError as error:")


@mutant("B-HOS-09", "B-HOS-08")
def unknown_request_ends_the_program() -> None:
    """A request that nobody knows ends the program."""
    edit(Responder, "_read", "if spec is None:", "assert spec is not None\n        if spec is None:")


@mutant("B-HOS-10")
def version_asserted() -> None:
    """Another version than 1 ends the program."""
    edit(Responder, "_read", "expect(header.version == 1,", "assert header.version == 1; expect(True,")


@mutant("B-HOS-11")
def replies_asserted_away() -> None:
    """A request that is marked as a reply ends the program."""
    edit(Responder, "_read", "expect(not header.is_reply,", "assert not header.is_reply; expect(True,")


@mutant("B-HOS-13")
def surplus_descriptors_stay_open() -> None:
    """Descriptors that come with a message that takes none stay open."""

    @wrap(Backend, "_handle")
    async def handle(original: Any, self: Backend, frame: Any) -> Any:
        KEPT.extend(fd.duplicate() for fd in frame.fds)
        return await original(self, frame)


@mutant("B-HOS-17", "B-HOS-19")
def region_count_asserted() -> None:
    """A memory table with more regions than bytes for them ends the program."""
    edit(
        Responder,
        "_read",
        "except FormatError as error:",
        "except FormatError as error:\n            assert frame.header.request != 5",
    )
    edit(
        memory_table,
        "replaced",
        "expect(len(regions) <= MAX_REGIONS,",
        "assert len(regions) <= MAX_REGIONS; expect(True,",
    )


@mutant("B-HOS-20")
def regions_without_descriptors_end_the_program() -> None:
    """A memory table with fewer descriptors than regions ends the program."""
    edit(
        ProtocolState,
        "_check_fds",
        "expect(fd_count in limits,",
        "assert spec.request != 5 or fd_count in limits; expect(fd_count in limits,",
    )


@mutant("B-HOS-23")
def file_cut_short_is_touched() -> None:
    """Nothing catches SIGBUS when a memory file is cut short."""
    edit(serving, "serve_device", "guard.install()", "pass")


@mutant("B-HOS-25")
def unmappable_descriptor_ends_the_program() -> None:
    """A descriptor that cannot be mapped ends the program."""
    edit(Backend, "_carry_out", "MappingError, ", "")
    edit(Backend, "_carry_out", ", OSError)", ")")


@mutant("B-HOS-27", "B-HOS-28")
def region_end_asserted() -> None:
    """A region that ends beyond 64 bits ends the program."""
    edit(
        memory_table,
        "_check",
        "where = _place(region)",
        "where = _place(region); assert max(region.guest_addr, region.user_addr) + region.size <= _END",
    )


@mutant("B-HOS-39")
def ring_size_asserted() -> None:
    """A ring that is larger than any may be ends the program."""
    edit(rings, "check_size", "fits =", "assert size <= limit\n    fits =")


@mutant("B-HOS-49", "B-HOS-50")
def start_of_an_unready_ring_ends_the_program() -> None:
    """A ring that is started without addresses or without a size ends the program."""
    edit(rings, "check_startable", "expect(ring.size > 0,", "assert ring.size and ring.addr; expect(ring.size > 0,")


@mutant("B-HOS-45")
def ring_outside_memory_ends_the_program() -> None:
    """A ring that lies outside memory ends the program."""
    edit(rings, "check_startable", "expect(inside,", "assert inside; expect(inside,")


# --- rings -----------------------------------------------------------------------------------------------------------


def _lies_end_the_program(word: str) -> None:
    """A ring that breaks because of ``word`` takes the program along."""

    @wrap(Worker, "broken")
    def broken(original: Any, self: Worker, error: Exception) -> None:
        if word in str(error):
            os.abort()
        original(self, error)


@mutant("B-HOR-01")
def head_unchecked() -> None:
    """A head that is no descriptor is a crash."""
    _lies_end_the_program("goes to descriptor")


@mutant("B-HOR-02", "B-HOR-03")
def index_jump_unchecked() -> None:
    """An available index that jumps is a crash."""
    _lies_end_the_program("jumped")


@mutant("B-HOR-05", "B-HOR-06", "B-HOR-07")
def loops_are_followed() -> None:
    """A chain that is a loop is followed for ever."""
    edit(SplitWalker, "_elements", "range(self._queue_size + 1)", "iter(int, 1)")
    edit(SplitWalker, "_elements", "elements.append(element)", "elements[:] = [element]")


@mutant("B-HOR-08")
def tables_in_tables_are_a_crash() -> None:
    """A table inside a table is a crash."""
    _lies_end_the_program("inside an indirect table")


@mutant("B-HOR-10", "B-HOR-11")
def table_length_unchecked() -> None:
    """A table whose length is no number of descriptors is a crash."""
    _lies_end_the_program("indirect table of")


@mutant("B-HOR-16", "B-HOR-18")
def address_of_nothing_is_a_crash() -> None:
    """A buffer outside guest memory is a crash."""
    _lies_end_the_program("bytes at 0x")


@mutant("B-HOR-26")
def head_in_flight_is_a_crash() -> None:
    """A chain that is made available twice is a crash."""
    edit(
        SplitDevice,
        "_pop_into",
        "if head in in_flight:",
        "if head in in_flight: __import__('os').abort()\n            if False:",
    )


@mutant("B-HOR-35")
def a_broken_ring_breaks_all() -> None:
    """When a ring is broken, no ring is served any more."""
    broken: list[Worker] = []

    @wrap(Worker, "broken")
    def on_broken(original: Any, self: Worker, error: Exception) -> None:
        broken.append(self)
        original(self, error)

    edit(Worker, "_take", "self._queue.pop(BATCH)", "self._queue.pop(0 if BROKEN else BATCH)")
    Worker._take.__globals__["BROKEN"] = broken


@mutant("B-HOR-36")
def a_broken_ring_stays_broken() -> None:
    """A ring that was broken once never runs again."""

    @wrap(Worker, "broken")
    def on_broken(original: Any, self: Worker, error: Exception) -> None:
        original(self, error)
        KEPT.append(self._index)

    @wrap(Ring, "_start")
    def start(original: Any, self: Ring, *args: Any) -> None:
        if self.index not in KEPT:
            original(self, *args)


@mutant("B-HOR-22", "B-HOR-23")
def request_without_a_header_is_a_crash() -> None:
    """A request that is shorter than its header ends the program."""
    from vhostuser.devices.blk import BlkDevice

    edit(BlkDevice, "_parse", "return None", "__import__('os').abort()")


# --- the end ---------------------------------------------------------------------------------------------------------


@mutant("B-PRG-08")
def deaf_to_sigterm() -> None:
    """SIGTERM is ignored."""

    @replace(serving, "_watch")
    async def watch(*_: object) -> None:
        await trio.sleep_forever()


@mutant("B-OWN-01", grade=Grade.LITTER)
def socket_left_behind() -> None:
    """The program leaves its socket in the file system."""
    replace(unix._SocketFile, "remove")(lambda self: None)


@mutant("B-OWN-01", grade=Grade.STATUS)
def sigterm_is_a_failure() -> None:
    """SIGTERM ends the program with status 3."""

    @replace(serving, "_watch")
    async def watch(signals: Any, *_: object) -> None:
        async for number in signals:
            if number == signal.SIGTERM:
                os._exit(3)
