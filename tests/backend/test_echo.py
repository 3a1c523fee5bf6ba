"""A network device whose frames come back: two loops without the GIL, and a wire between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from frontend.queue import Segment
from tests.backend.requests import break_ring
from tests.backend.scripted import FEATURES, reaping, served
from tests.engines import needs_native
from tests.kinds import NOTIFIERS
from vhostuser.devices.echo import MAC, RECEIVE, TRANSMIT, EchoDevice
from vhostuser.memory.map import GuestAddr
from vhostuser.transport.notifier import event_pair
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.virtqueue.ring import UnsupportedRing
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.virtio.net import NetConfig, NetHeader

if TYPE_CHECKING:
    from frontend.queue import Queue
    from tests.backend.scripted import Script
    from vhostuser.transport.notifier import NotifierKind

SPLIT, PACKED = VirtioFeature(0), VirtioFeature.RING_PACKED
HEADER = 12
HEADER_OF_ONE = NetHeader(num_buffers=1).build()
ROOM = 2048

pytestmark = needs_native
formats = pytest.mark.parametrize(("ring_format", "base"), [(SPLIT, 0), (PACKED, 0x8000_8000)], ids=["split", "packed"])


async def ready(
    script: Script, ring_format: VirtioFeature = SPLIT, base: int = 0, kind: NotifierKind | None = None
) -> tuple[Queue, Queue]:
    await script.negotiate(FEATURES | ring_format)
    await script.share_memory()
    receive, transmit = (script.make_queue(index, base=base, notifier=kind) for index in (RECEIVE, TRANSMIT))
    await script.start(receive)
    await script.start(transmit)
    return receive, transmit


async def send(script: Script, transmit: Queue, frame: bytes, *, cut: int = HEADER) -> None:
    """One frame behind an empty header, the chain's first segment of ``cut`` bytes."""
    buffer = script.ram.buffer(HEADER + len(frame))
    buffer.view[:] = bytes(HEADER) + frame
    behind = Segment(GuestAddr(buffer.addr + cut), len(buffer.view) - cut)
    assert await transmit.submit([Segment(buffer.addr, cut), *([behind] if behind.length else [])], []) == 0
    script.ram.release(buffer)


async def receive_one(script: Script, receive: Queue, room: int = ROOM) -> bytes:
    """The next frame, with its header."""
    buffer = script.ram.buffer(room)
    half = room // 2
    pieces = [Segment(buffer.addr, half), Segment(GuestAddr(buffer.addr + half), room - half)]
    found = bytes(buffer.view[: await receive.submit([], pieces)])
    script.ram.release(buffer)
    return found


@formats
@pytest.mark.parametrize("kind", NOTIFIERS)
async def test_frames_come_back_in_their_order(ring_format: VirtioFeature, base: int, kind: NotifierKind) -> None:
    device = EchoDevice()
    async with served(device, ring_features=RING_FEATURES | ring_format) as script:
        receive, transmit = await ready(script, ring_format, base, kind)
        async with reaping(receive, transmit):
            for number in range(100):
                frame = bytes([number]) * (number * 17 % 1500)
                await send(script, transmit, frame, cut=1 + number % (HEADER + len(frame)))
                assert await receive_one(script, receive) == HEADER_OF_ONE + frame
    assert device.counts == (100, 0)


@formats
async def test_buffers_wait_for_frames_and_frames_for_buffers(ring_format: VirtioFeature, base: int) -> None:
    async with served(EchoDevice(), ring_features=RING_FEATURES | ring_format) as script:
        receive, transmit = await ready(script, ring_format, base)
        found: list[bytes] = []

        async def collect() -> None:
            found.append(await receive_one(script, receive))

        async with reaping(receive, transmit):
            for _ in range(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(collect)
                    await send(script, transmit, b"waited for")
                for _ in range(3):
                    await send(script, transmit, b"waits")
                for _ in range(3):
                    await collect()
    assert found == ([HEADER_OF_ONE + b"waited for"] + [HEADER_OF_ONE + b"waits"] * 3) * 20


async def test_a_frame_that_does_not_fit_is_cut_and_what_is_no_frame_is_lost() -> None:
    device = EchoDevice()
    async with served(device) as script:
        receive, transmit = await ready(script)
        async with reaping(receive, transmit):
            for room in (20, 13, 12, 5, 1):
                await send(script, transmit, b"a long frame")
                assert (
                    await receive_one(script, receive, max(room, 2))
                    == (HEADER_OF_ONE + b"a long frame")[: max(room, 2)]
                )
            short = script.ram.buffer(HEADER - 1)
            assert await transmit.submit([Segment(short.addr, HEADER - 1)], []) == 0
            assert await transmit.submit([], [Segment(short.addr, 1)]) == 0
            await send(script, transmit, bytes(65550))
            await send(script, transmit, bytes(65551))
            assert await receive_one(script, receive, 1 << 17) == HEADER_OF_ONE + bytes(65550)
    assert device.counts == (6, 3)


async def test_a_wire_that_is_full_loses_frames_and_goes_on() -> None:
    device = EchoDevice()
    async with served(device) as script:
        receive, transmit = await ready(script)
        async with reaping(receive, transmit):
            for _ in range(40):
                await send(script, transmit, bytes(60000))
            frames, lost = device.counts
            assert (frames, lost) == ((1 << 20) // 60004, 40 - frames)
            for _ in range(frames):
                assert len(await receive_one(script, receive, 1 << 16)) == HEADER + 60000
            await send(script, transmit, b"again")
            assert await receive_one(script, receive) == HEADER_OF_ONE + b"again"


@formats
async def test_queues_are_stopped_and_go_on_and_old_frames_are_gone(ring_format: VirtioFeature, base: int) -> None:
    async with served(EchoDevice(), ring_features=RING_FEATURES | ring_format) as script:
        receive, transmit = await ready(script, ring_format, base)
        async with reaping(receive, transmit):
            for number in range(10):
                await send(script, transmit, b"for somebody who was here before")
                for queue in (receive, transmit):
                    queue.base = await script.base(queue.index)
                    await script.start(queue)
                await send(script, transmit, bytes([number]))
                assert await receive_one(script, receive) == HEADER_OF_ONE + bytes([number])


@pytest.mark.parametrize("index", [RECEIVE, TRANSMIT])
async def test_a_broken_ring_is_reported(index: int) -> None:
    async with served(EchoDevice()) as script:
        queues = await ready(script)
        notifier, consumer = event_pair()
        with notifier, consumer:
            await script.ask(f.SetVringErr.of(index), notifier.duplicate())
            async with reaping(queues[TRANSMIT]):
                if index == RECEIVE:
                    await send(script, queues[TRANSMIT], b"who looks for a buffer")
            break_ring(queues[index])
            with trio.fail_after(10):
                await consumer.wait()
        assert await script.alive()


async def test_its_address_can_be_read() -> None:
    device = EchoDevice()
    assert NetConfig.parse(device.config).mac == MAC
    with pytest.raises(NotImplementedError):
        await device.process(TRANSMIT, None)  # type: ignore[arg-type]  # it looks at nothing


def test_there_is_none_on_the_python_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VHOST_USER_ENGINE", "python")
    with pytest.raises(UnsupportedRing, match="does not run here: VHOST_USER_ENGINE is python"):
        EchoDevice()
