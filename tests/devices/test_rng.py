"""The entropy device (virtio 1.3, 5.4)."""

from __future__ import annotations

import pytest

from tests.devices.driving import DrivenRing
from vhostuser.devices.rng import MAX_BYTES, RngDevice
from vhostuser.wire.virtio.ids import DeviceType


def counting(length: int) -> bytes:
    return bytes(number % 251 for number in range(length))


@pytest.mark.parametrize("length", [1, 64, 4097, MAX_BYTES])
async def test_a_buffer_is_filled_to_its_end(length: int) -> None:
    driven = DrivenRing(RngDevice(counting))
    buffer = driven.ring.buffer(length)
    assert await driven.used_length((buffer, True)) == length
    assert driven.ring.memory.read(*buffer) == counting(length)


async def test_a_huge_buffer_is_filled_in_part_and_the_used_length_says_how_far() -> None:
    driven = DrivenRing(RngDevice(counting))
    buffer = driven.ring.buffer(MAX_BYTES + 1)
    assert await driven.used_length((buffer, True)) == MAX_BYTES
    assert driven.ring.memory.read(buffer.addr + MAX_BYTES, 1) == b"\0"


async def test_buffers_in_pieces_are_filled_across_them() -> None:
    driven = DrivenRing(RngDevice(counting))
    one, other = driven.ring.buffer(10), driven.ring.buffer(7)
    assert await driven.used_length((one, True), (other, True)) == 17
    assert driven.ring.memory.read(*one) + driven.ring.memory.read(*other) == counting(17)


async def test_what_a_driver_wants_read_is_ignored() -> None:
    driven = DrivenRing(RngDevice(counting))
    assert await driven.used_length((driven.ring.buffer(5, b"hello"), False), (driven.ring.buffer(3), True)) == 3


async def test_several_buffers_get_different_bytes() -> None:
    driven = DrivenRing(RngDevice())
    buffers = [driven.ring.buffer(32) for _ in range(3)]
    for buffer in buffers:
        driven.offer((buffer, True))
    await driven.run()
    assert len({driven.ring.memory.read(*buffer) for buffer in buffers}) == 3
    assert sorted(driven.ring.used()) == [(0, 32), (1, 32), (2, 32)]


def test_an_entropy_device_has_one_queue_and_nothing_else() -> None:
    device = RngDevice()
    assert (device.type, device.num_queues, device.features, device.config) == (DeviceType.RNG, 1, 0, b"")
