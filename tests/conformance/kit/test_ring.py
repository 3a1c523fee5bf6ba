"""Rings that a case drives: what the device gives back, what it must not, and how long anybody waits for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from frontend.conformance.memory import SharedMemory
from frontend.conformance.model import Request, RngModel, model_of
from frontend.conformance.ring import TestRing
from tests.kinds import NOTIFIERS
from vhostuser.conformance import Failure, Wedged
from vhostuser.transport.notifier import NotifierKind
from vhostuser.virtqueue.queue import DeviceQueue, open_device_queue
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.split import IDX_OFFSET
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 0.05
FORMATS = pytest.mark.parametrize("features", [0, int(VirtioFeature.RING_PACKED)], ids=["split", "packed"])
INDIRECT = pytest.mark.parametrize("indirect", [0, int(VirtioFeature.INDIRECT_DESC)], ids=["direct", "indirect"])


@contextmanager
def ring_and_device(features: int = 0, *, size: int = 8) -> Iterator[tuple[TestRing, DeviceQueue]]:
    """A ring, and the device's side of it."""
    with SharedMemory() as memory:
        ring = TestRing(memory, size=size, features=features, patience=SOON)
        try:
            yield ring, open_device_queue(ring.layout, memory.guest, features, base=ring.base)
        finally:
            ring.close()


def entropy(ring: TestRing, number: int = 0) -> Request:
    return RngModel().request(ring.memory, number)


def serve(device: DeviceQueue, data: bytes = b"\x5a" * 32) -> None:
    """Fill and give back all that is there."""
    chains = device.pop(64)
    for chain in chains:
        chain.writable.write(data)
    device.complete(chains)


@FORMATS
@INDIRECT
async def test_a_request_comes_back_with_what_the_device_wrote(features: int, indirect: int) -> None:
    with ring_and_device(features | indirect) as (ring, device):
        for _ in range(3):  # once around
            for number in range(4):
                ring.add(entropy(ring, number))
            ring.publish(kick=True)
            serve(device)
            done = await ring.finish()
            assert [used for _, used in done] == [32] * 4
            for request, used in done:
                request.check(used)


@FORMATS
async def test_a_request_that_is_never_done_is_wedged(features: int) -> None:
    with ring_and_device(features) as (ring, _device):
        ring.add(entropy(ring))
        ring.publish()
        with pytest.raises(Wedged, match="ring 0: 0 of 1 requests were done within"):
            await ring.finish()
        with pytest.raises(Wedged, match="ring 0: nobody came"):
            await ring.until(lambda: False, "nobody came")


async def test_a_device_that_gives_back_what_it_was_not_given_broke_the_ring() -> None:
    with ring_and_device() as (ring, _device):
        ring.device.view.cast("H")[IDX_OFFSET // 2] = 5
        with pytest.raises(Failure, match="the back-end broke the ring"):
            ring.reap()


@FORMATS
async def test_what_should_stay_is_seen_when_it_does_not(features: int) -> None:
    with ring_and_device(features) as (ring, device):
        ring.add(entropy(ring))
        ring.publish()
        await ring.stays_idle(0.01)
        serve(device)
        with pytest.raises(Failure, match="1 requests were done, expected none"):
            await ring.stays_idle(5)


@FORMATS
async def test_it_can_begin_anew_in_the_same_place(features: int) -> None:
    with ring_and_device(features) as (ring, device):
        ring.add(entropy(ring))
        ring.publish()
        serve(device)
        assert len(ring.reap()) == 1
        for part in (ring.descriptor, ring.driver, ring.device):
            part.view[:] = bytes(len(part))
        ring.reset()
        serve(fresh := open_device_queue(ring.layout, ring.memory.guest, features, base=ring.base))
        assert ring.reap() == []
        ring.add(entropy(ring))
        ring.publish()
        serve(fresh)
        assert len(ring.reap()) == 1


@pytest.mark.parametrize("kind", NOTIFIERS)
async def test_signals_are_seen_once(kind: NotifierKind) -> None:
    with ring_and_device() as (ring, _device):
        ring.renew_call(kind)
        assert not await ring.called(0)
        assert not ring.drain_call()
        ring._call_end.notify()
        assert await ring.called(5)
        assert not await ring.called(0)
        assert not await ring.errored(0)


async def test_a_kick_that_nobody_gets_is_no_error() -> None:
    with ring_and_device() as (ring, _device):
        ring.renew_kick(NotifierKind.PIPE)
        ring._kick_end.close()
        ring.notify()


# --- what a request is ---


@pytest.mark.parametrize("kind", [None, DeviceType.BLOCK, DeviceType.RNG, DeviceType.NET, DeviceType.FS])
def test_a_used_length_that_cannot_be_true_is_found_out(kind: DeviceType | None) -> None:
    with SharedMemory() as memory:
        request = model_of(kind).request(memory)
        with pytest.raises(Failure, match=r"used length|FUSE answer"):
            request.check(request.room + 1)
        assert sum(map(len, request.writable)) == request.room


def test_answers_of_devices_that_are_known_are_checked() -> None:
    with SharedMemory() as memory:
        disk = model_of(DeviceType.BLOCK).request(memory)
        with pytest.raises(Failure, match="GET_ID: found status 255, expected 0"):
            disk.check(21)
        disk.writable[-1].view[0] = 0
        disk.check(21)
        with pytest.raises(Failure, match="found used length 7, expected 21"):
            disk.check(7)
        entropy = model_of(DeviceType.RNG).request(memory)
        for used, said in ((0, "no byte of entropy"), (32, "all of them 0")):
            with pytest.raises(Failure, match=said):
                entropy.check(used)
        files = model_of(DeviceType.FS).request(memory, 7)
        with pytest.raises(Failure, match="expected 16 for 1007"):
            files.check(16)
        files.writable[0].view[8:16] = (1007).to_bytes(8, "little")
        files.check(16)
