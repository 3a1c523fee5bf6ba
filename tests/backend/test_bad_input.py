"""Whatever a front-end says wrong is named in the log, refused in its own words, and costs its connection at most."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from tests.backend.bad_input import CASES, NUM_QUEUES, Bad, says
from tests.backend.scripted import raw, served
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.wire.requests import FrontendRequest, Header, HeaderFlags


def disk() -> BlkDevice:
    return BlkDevice(MemoryStorage(1 << 20), num_queues=NUM_QUEUES)


@pytest.mark.parametrize("ack", [True, False], ids=["need_reply", "no reply"])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_it_is_named_and_refused(case: Bad, ack: bool, caplog: pytest.LogCaptureFixture) -> None:
    """With need_reply the answer is an error and the connection goes on; else hanging up is the only answer."""
    with caplog.at_level(logging.ERROR, "vhostuser.backend"):
        async with served(disk()) as script:
            await case.state(script)
            assert caplog.text == ""
            await script.say(case.say(script, ack))
            with trio.fail_after(10):
                refused = await script.refused()
                # REPLY_ACK is one of the things that have to be negotiated before they count.
                counts = case.answered and script.protocol.state.reply_ack
                assert refused == (case.refusable or (ack and counts))
                assert not refused or await script.alive()
    assert says(case, caplog.text), caplog.text


@pytest.mark.parametrize("size", [1, 5, 11])
async def test_a_connection_that_ends_inside_a_header_is_named(size: int, caplog: pytest.LogCaptureFixture) -> None:
    async with served(disk()) as script:
        await script.say_bytes(bytes(size))
    assert f"inside a message: found {size} bytes of its header, expected 12 [Header]" in caplog.text


@pytest.mark.parametrize("size", [0, 1, 39])
async def test_a_connection_that_ends_inside_a_payload_is_named(size: int, caplog: pytest.LogCaptureFixture) -> None:
    header = Header(FrontendRequest.SET_VRING_ADDR, HeaderFlags.VERSION_1, 40)
    async with served(disk()) as script:
        await script.negotiate()
        await script.say_bytes(header.build() + bytes(size))
    assert f"inside a message: found {12 + size} bytes of header and payload, expected 52 [Header]" in caplog.text


async def test_a_message_that_does_not_go_on_costs_its_connection_after_five_seconds(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(disk()) as script:
        await script.say_bytes(bytes(5))
        before = trio.current_time()
        assert await script.hung_up()
        assert trio.current_time() - before == pytest.approx(5)
    assert "the peer stopped inside a message for 5 s" in caplog.text


async def test_flag_bits_that_nobody_assigned_are_passed_over() -> None:
    async with served(disk()) as script:
        await script.say(raw(FrontendRequest.GET_FEATURES, flags=0xFFFFFFF1))
        assert (await script.hear()).header.flags == HeaderFlags.VERSION_1 | HeaderFlags.REPLY
