"""Sending: whole messages or none, descriptors with the first byte, and closed whatever happens."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.links import cancelled_at, fill, frame, linked, null, open_fds, read_exactly
from vhostuser.fd import ClosedFd, Fds
from vhostuser.transport import Channel, PeerCredentials, channel_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

SMALLEST = 1  # bytes asked for in SO_SNDBUF: the kernel takes its minimum
LARGE = bytes(range(256)) * 256
LARGE_MESSAGE = frame(LARGE).build()


def control_of(sock: socket.socket, size: int) -> tuple[bytes, Fds]:
    """What one read gives: bytes and descriptors."""
    data, numbers, _, _ = socket.recv_fds(sock, size, 64, socket.MSG_DONTWAIT)
    return data, Fds.adopt(numbers)


@contextlib.asynccontextmanager
async def narrow(message_timeout: float = 5) -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A link that takes a large message only in several pieces."""
    async with linked(message_timeout=message_timeout) as (channel, peer):
        with socket.socket(fileno=os.dup(channel.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALLEST)
        yield channel, peer


async def read_slowly(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Bytes as they come, and after how many of them descriptors came; these are closed."""
    data, places = b"", list[int]()
    while len(data) < size:
        await trio.lowlevel.wait_readable(sock)
        more, fds = control_of(sock, min(1000, size - len(data)))
        with fds:
            places += [len(data)] * len(fds)
        data += more
    return data, places


async def test_a_frame_goes_out_in_one_piece_with_its_fds_which_are_closed_here() -> None:
    async with linked() as (channel, peer):
        before = open_fds()
        await channel.send(frame(b"payload.", *null(3)))
        assert open_fds() == before
        data, fds = control_of(peer, 1000)
        with fds:
            assert (data, len(fds)) == (frame(b"payload.").build(), 3)


async def test_without_fds_there_is_no_control_data() -> None:
    async with linked() as (channel, peer):
        await channel.send(frame(b"x"))
        data, control, _, _ = peer.recvmsg(1000, 1000)
        assert (data, control) == (frame(b"x").build(), [])


async def test_what_is_sent_is_received() -> None:
    ours, theirs = channel_pair()
    async with ours, theirs:
        await ours.send(frame(b"payload.", *null(2), request=7))
        with (got := await theirs.receive()).fds as fds:
            assert (got.header, got.payload, len(fds)) == (frame(b"payload.", request=7).header, b"payload.", 2)


@pytest.mark.parametrize("size", [0, 1, 4096, 16384, 1 << 20])
async def test_payloads_of_any_accepted_size_pass(size: int) -> None:
    ours, theirs = channel_pair(max_payload=1 << 20)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, frame(bytes(size), *null()))
        with (got := await theirs.receive()).fds as fds:
            assert (len(got.payload), len(fds)) == (size, 1)


async def test_a_short_send_goes_on_without_the_fds() -> None:
    async with narrow() as (channel, peer), trio.open_nursery() as nursery:
        nursery.start_soon(channel.send, frame(LARGE, *null(2)))
        assert await read_slowly(peer, len(LARGE_MESSAGE)) == (LARGE_MESSAGE, [0, 0])


async def test_two_senders_do_not_mix_their_messages() -> None:
    async with narrow() as (channel, peer), trio.open_nursery() as nursery:
        small = frame(b"small")
        nursery.start_soon(channel.send, frame(LARGE))
        await wait_all_tasks_blocked()
        nursery.start_soon(channel.send, small)
        assert (await read_slowly(peer, len(LARGE_MESSAGE)))[0] == LARGE_MESSAGE
        assert (await read_slowly(peer, len(small.build())))[0] == small.build()


@pytest.mark.parametrize("yields", range(2))
async def test_cancelled_before_the_first_byte_nothing_was_sent(yields: int) -> None:
    async with linked() as (channel, peer):
        filling = fill_through(channel)
        before = open_fds()
        await cancelled_at(yields, lambda: channel.send(frame(b"never", *null())))
        assert open_fds() == before
        read_exactly(peer, filling)
        await channel.send(frame(b"next"))
        assert peer.recv(1000) == frame(b"next").build()


async def test_cancelled_at_every_checkpoint_a_message_is_sent_whole_or_not_at_all() -> None:
    for yields in range(5):
        async with linked() as (channel, peer):
            before = open_fds()
            await cancelled_at(yields, functools.partial(channel.send, frame(b"first", *null())))
            assert open_fds() == before
            await channel.send(frame(b"second"))
            data, fds = control_of(peer, 1000)
            fds.close()
            first, second = frame(b"first").build(), frame(b"second").build()
            assert data in (first, second, first + second)


async def test_cancelled_while_another_task_sends_nothing_was_sent() -> None:
    async with narrow() as (channel, peer), trio.open_nursery() as nursery:
        nursery.start_soon(channel.send, frame(LARGE))
        await wait_all_tasks_blocked()
        before = open_fds()
        with trio.move_on_after(0):
            await channel.send(frame(b"never", *null()))
        assert open_fds() == before
        assert (await read_slowly(peer, len(LARGE_MESSAGE)))[0] == LARGE_MESSAGE


async def test_cancelled_in_the_middle_the_message_is_finished_first() -> None:
    async with narrow() as (channel, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send, frame(LARGE, *null()))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                assert await read_slowly(peer, len(LARGE_MESSAGE)) == (LARGE_MESSAGE, [0])
        await channel.send(frame(b"next"))
        assert peer.recv(1000) == frame(b"next").build()


async def test_a_peer_that_stops_reading_inside_a_message_has_a_broken_channel(autojump_clock: MockClock) -> None:
    async with narrow(message_timeout=2) as (channel, _):
        before = open_fds()
        with pytest.raises(trio.BrokenResourceError, match=r"left the last \d+ bytes of a message unread for 2 s"):
            await channel.send(frame(LARGE, *null()))
        assert trio.current_time() == pytest.approx(2, abs=0.1)
        with pytest.raises(trio.BrokenResourceError, match=f"message of {len(LARGE_MESSAGE)} bytes was sent in part"):
            await channel.send(frame(b"next", *null()))
        assert open_fds() == before
        assert "broken: a message of" in repr(channel)


async def test_a_dead_peer_is_a_broken_channel_and_fds_are_closed() -> None:
    async with linked() as (channel, peer):
        before = open_fds() - {peer.fileno()}
        peer.close()
        with pytest.raises(trio.BrokenResourceError, match="connection is lost: Broken pipe"):
            await channel.send(frame(b"", *null()))
        assert open_fds() == before


async def test_a_peer_that_dies_inside_a_message_has_a_broken_channel() -> None:
    async with narrow() as (channel, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError, match="connection is lost"):
                await channel.send(frame(LARGE))

        await wait_all_tasks_blocked()
        peer.close()


async def test_what_the_kernel_refuses_was_not_sent_and_the_channel_goes_on() -> None:
    """Linux takes at most 253 descriptors with one message."""
    async with linked() as (channel, peer):
        before = open_fds()
        with pytest.raises(OSError, match="Invalid argument") as caught:
            await channel.send(frame(b"", *null(254)))
        assert caught.value.errno == errno.EINVAL
        assert open_fds() == before
        await channel.send(frame(b"next"))
        assert peer.recv(1000) == frame(b"next").build()


async def test_a_frame_whose_fd_was_taken_is_refused_and_the_others_are_closed() -> None:
    async with linked() as (channel, _):
        before = open_fds()
        one, other = null(2)
        message = frame(b"", one, other)
        other.close()
        with pytest.raises(ClosedFd):
            await channel.send(message)
        assert open_fds() == before


async def test_closing_wakes_a_sender_that_waits_for_room() -> None:
    async with linked() as (channel, _), trio.open_nursery() as nursery:
        fill_through(channel)

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await channel.send(frame(b"", *null()))

        await wait_all_tasks_blocked()
        channel.close()


async def test_closing_wakes_a_sender_in_the_middle_of_a_message() -> None:
    async with narrow() as (channel, _), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await channel.send(frame(LARGE))

        await wait_all_tasks_blocked()
        channel.close()


async def test_sending_on_a_closed_channel_is_refused_and_fds_are_closed() -> None:
    async with linked() as (channel, _):
        await channel.aclose()
        before = open_fds()
        with pytest.raises(trio.ClosedResourceError):
            await channel.send(frame(b"", *null()))
        assert open_fds() == before


async def test_send_is_a_checkpoint() -> None:
    async with linked() as (channel, _):
        with trio.testing.assert_checkpoints():
            await channel.send(frame())


async def test_a_peer_that_clears_o_nonblock_cannot_block_us() -> None:
    async with linked() as (channel, _):
        fill_through(channel)
        os.set_blocking(channel.fileno(), True)
        with trio.move_on_after(0.01) as scope:
            await channel.send(frame(b"never"))
        assert scope.cancelled_caught


async def test_an_observer_sees_sent_frames_with_their_fds() -> None:
    seen: list[tuple[str, bytes, list[int]]] = []
    async with linked(observer=lambda way, it: seen.append((way.value, it.payload, it.fds.numbers()))) as (channel, _):
        fds = null(2)
        numbers = [fd.fileno() for fd in fds]
        await channel.send(frame(b"x", *fds))
        assert seen == [("sent", b"x", numbers)]


async def test_an_observer_does_not_see_what_was_not_sent() -> None:
    seen: list[object] = []
    async with linked(observer=lambda *it: seen.append(it)) as (channel, _):
        fill_through(channel)
        with trio.move_on_after(0):
            await channel.send(frame(b"never"))
    assert seen == []


async def test_closing_twice_and_outside_of_trio_is_harmless() -> None:
    async with linked() as (channel, _):
        channel.close()
        channel.close()
        assert (channel.closed, channel.fileno(), repr(channel)) == (True, -1, "<Channel closed>")


def test_a_channel_can_be_made_and_closed_outside_of_trio() -> None:
    ours, theirs = channel_pair()
    assert repr(ours) == f"<Channel fd {ours.fileno()}>"
    ours.close()
    theirs.close()


async def test_a_trio_socket_is_taken_over() -> None:
    ours, theirs = trio.socket.socketpair()
    async with Channel(ours) as channel, Channel(theirs) as other:
        assert ours.fileno() == -1
        await channel.send(frame(b"x"))
        assert (await other.receive()).payload == b"x"


def test_the_kernel_knows_who_the_peer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = channel_pair()
    assert ours.peer_credentials() == PeerCredentials(os.getpid(), os.getuid(), os.getgid())
    monkeypatch.setattr("sys.platform", "darwin")
    assert ours.peer_credentials() is None
    ours.close()
    theirs.close()


def fill_through(channel: Channel) -> int:
    """Leave no room for even one byte of ``channel``; the number of bytes in the way."""
    with socket.socket(fileno=os.dup(channel.fileno())) as same:
        return fill(same)
