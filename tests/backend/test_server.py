"""One front-end after the other: what a server survives."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.backend.devices import Echo, Patient
from tests.backend.requests import begin, echo
from tests.backend.scripted import Script, raw, reaping
from vhostuser.backend import serve, serve_one
from vhostuser.transport import Channel, listen
from vhostuser.wire.requests import FrontendRequest as R

if TYPE_CHECKING:
    from pathlib import Path


async def connected(path: Path) -> Script:
    return await Script.connect(path)


async def test_a_front_end_that_comes_back_finds_the_device_and_new_rings(tmp_path: Path) -> None:
    device = Echo()
    async with listen(tmp_path / "s") as listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve, device, listener)
        for visit in range(1, 4):
            with await connected(tmp_path / "s") as script:
                queue = await script.ready()
                async with reaping(queue):
                    assert await echo(script, queue) == b"olleh"
                assert await script.base() == 1  # rings begin anew
            assert len(device.served) == visit  # the device does not
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("data", [b"\xff" * 12, b"\x01", raw(R.SET_VRING_ENABLE, b"").build()])
async def test_a_front_end_that_breaks_the_protocol_costs_its_own_connection(tmp_path: Path, data: bytes) -> None:
    async with listen(tmp_path / "s") as listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve, Echo(), listener)
        for _ in range(3):
            with await connected(tmp_path / "s") as script:
                await script.say_bytes(data)
        with await connected(tmp_path / "s") as script:
            queue = await script.ready()
            async with reaping(queue):
                assert await echo(script, queue) == b"olleh"
        nursery.cancel_scope.cancel()


async def test_a_front_end_that_hangs_up_in_the_middle_of_io_is_let_go_when_the_device_has_finished(
    tmp_path: Path,
) -> None:
    device = Patient()
    async with listen(tmp_path / "s") as listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve, device, listener)
        with await connected(tmp_path / "s") as script:
            begin(script, await script.ready())
            await trio.testing.wait_all_tasks_blocked()
        with await connected(tmp_path / "s") as script:
            await script.say(raw(R.GET_FEATURES))
            await trio.testing.wait_all_tasks_blocked()
            assert device.holds == 1
            device.gate.set()
            assert (await script.hear()).header.request == R.GET_FEATURES
        nursery.cancel_scope.cancel()
    assert device.served == [0]


async def test_a_front_end_that_resets_the_connection_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It asked, and went without reading the answer: the answer meets nobody."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.send(raw(R.GET_FEATURES).build())
    ours.close()
    with caplog.at_level(logging.INFO, "vhostuser.backend"):
        await serve_one(Echo(), Channel(theirs))
    assert "connection lost: " in caplog.text
    assert "front-end gone" in caplog.text


async def test_coming_and_going_is_told() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.close()
    channel = Channel(theirs)
    await serve_one(Echo(), channel)
    assert channel.closed


async def test_a_hundred_front_ends_that_say_nothing_leave_nothing(tmp_path: Path) -> None:
    async with listen(tmp_path / "s") as listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve, Echo(), listener)
        for _ in range(100):
            (await connected(tmp_path / "s")).close()
        with await connected(tmp_path / "s") as script:
            assert await script.alive()
        nursery.cancel_scope.cancel()
