"""Receiving: cut anywhere, glued together, truncated, cancelled, late, ended; and no descriptor lost or left."""

from __future__ import annotations

import os
import random
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.links import cancelled_at, frame, linked, no_free_fds, null, open_fds, send_with_fds
from vhostuser.errors import Hint, RemoteProtocolError
from vhostuser.fd import Fds
from vhostuser.transport import ancillary
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from trio.testing import MockClock

    from vhostuser.protocol.framing import Frame
    from vhostuser.transport import Channel

PAYLOAD = b"payload."
MESSAGE = frame(PAYLOAD).build()
CUTS = range(1, len(MESSAGE))


async def received(channel: Channel) -> tuple[bytes, int]:
    """Payload and number of descriptors of the next frame, which is closed."""
    got = await channel.receive()
    with got.fds:
        return got.payload, len(got.fds)


async def test_a_frame_arrives_with_header_payload_and_fds() -> None:
    async with linked() as (channel, peer):
        send_with_fds(peer, MESSAGE, *null(3))
        got = await channel.receive()
        with got.fds as fds:
            assert (got.header, got.payload) == (Header(1, HeaderFlags.VERSION_1, len(PAYLOAD)), PAYLOAD)
            assert [os.fstat(fd.fileno()).st_rdev for fd in fds] == [os.stat(os.devnull).st_rdev] * 3


async def test_a_message_without_payload_is_a_frame() -> None:
    async with linked() as (channel, peer):
        peer.send(frame().build())
        assert await received(channel) == (b"", 0)


@pytest.mark.parametrize("cut", CUTS)
async def test_a_message_cut_anywhere_is_put_together(cut: int) -> None:
    async with linked() as (channel, peer), trio.open_nursery() as nursery:
        send_with_fds(peer, MESSAGE[:cut], *null())

        @nursery.start_soon
        async def receive() -> None:
            assert await received(channel) == (PAYLOAD, 1)

        await wait_all_tasks_blocked()
        peer.send(MESSAGE[cut:])


async def test_a_message_may_come_byte_by_byte() -> None:
    async with linked() as (channel, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            assert await received(channel) == (PAYLOAD, 2)

        for place in range(len(MESSAGE)):
            send_with_fds(peer, MESSAGE[place : place + 1], *(null(2) if place == 0 else []))
            await wait_all_tasks_blocked()


async def test_fds_are_collected_on_every_read_of_a_message() -> None:
    """qemu-storage-daemon sends header and payload separately; nothing forbids fds beside the second part."""
    async with linked() as (channel, peer):
        send_with_fds(peer, MESSAGE[:12], *null(1))
        send_with_fds(peer, MESSAGE[12:], *null(2))
        assert await received(channel) == (PAYLOAD, 3)


async def test_several_messages_in_one_send_are_told_apart() -> None:
    async with linked() as (channel, peer):
        peer.send(b"".join(frame(bytes(size)).build() for size in range(5)))
        assert [await received(channel) for _ in range(5)] == [(bytes(size), 0) for size in range(5)]


async def test_fds_of_a_following_message_do_not_come_with_a_plain_one() -> None:
    """The kernel joins the two in one read if it is asked for too much."""
    async with linked() as (channel, peer):
        peer.send(MESSAGE)
        send_with_fds(peer, MESSAGE, *null(2))
        peer.send(MESSAGE)
        assert [await received(channel) for _ in range(3)] == [(PAYLOAD, 0), (PAYLOAD, 2), (PAYLOAD, 0)]


async def test_received_fds_are_not_inherited() -> None:
    async with linked() as (channel, peer):
        send_with_fds(peer, MESSAGE, *null())
        with (await channel.receive()).fds as fds:
            assert not os.get_inheritable(fds[0].fileno())


async def test_received_fds_are_not_inherited_where_the_system_cannot_say_so_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """macOS has no MSG_CMSG_CLOEXEC."""
    monkeypatch.setattr(ancillary, "MSG_CMSG_CLOEXEC", 0)
    async with linked() as (channel, peer):
        send_with_fds(peer, MESSAGE, *null())
        with (await channel.receive()).fds as fds:
            assert not os.get_inheritable(fds[0].fileno())


async def test_a_peer_that_clears_o_nonblock_cannot_block_us() -> None:
    """The flag of an adopted socket is shared with whoever holds the same open file."""
    async with linked() as (channel, peer):
        os.set_blocking(channel.fileno(), True)
        with trio.move_on_after(0.01) as scope:
            await channel.receive()
        assert scope.cancelled_caught
        peer.send(MESSAGE)
        assert await received(channel) == (PAYLOAD, 0)


async def test_a_system_that_refuses_the_flag_is_asked_again_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """MSG_OOB stands in for a flag that this kernel refuses with EINVAL."""
    monkeypatch.setattr(ancillary, "MSG_CMSG_CLOEXEC", socket.MSG_OOB)
    async with linked() as (channel, peer):
        send_with_fds(peer, MESSAGE, *null())
        with (await channel.receive()).fds as fds:
            assert not os.get_inheritable(fds[0].fileno())


@pytest.mark.parametrize("sent", [33, 34, 60])
async def test_more_fds_than_accepted_end_the_connection_and_none_stays(sent: int) -> None:
    async with linked() as (channel, peer):
        before = open_fds()
        send_with_fds(peer, MESSAGE, *null(sent))
        with pytest.raises(RemoteProtocolError, match=r"file descriptors.* limit 32") as caught:
            await channel.receive()
        assert caught.value.hint is Hint.CLOSE
        assert open_fds() == before


async def test_an_odd_limit_holds_although_the_kernel_rounds_the_space_up() -> None:
    async with linked(max_fds=1) as (channel, peer):
        before = open_fds()
        send_with_fds(peer, MESSAGE, *null(2))
        with pytest.raises(RemoteProtocolError, match="found 2 file descriptors with one message, limit 1"):
            await channel.receive()
        assert open_fds() == before


async def test_the_limit_counts_a_whole_message_not_one_read() -> None:
    async with linked(max_fds=4) as (channel, peer):
        before = open_fds()
        send_with_fds(peer, MESSAGE[:12], *null(3))
        send_with_fds(peer, MESSAGE[12:], *null(2))
        with pytest.raises(RemoteProtocolError, match="found 5 file descriptors with one message, limit 4"):
            await channel.receive()
        assert open_fds() == before


async def test_as_many_fds_as_accepted_arrive_with_each_message() -> None:
    async with linked(max_fds=5) as (channel, peer):
        for _ in range(3):
            send_with_fds(peer, MESSAGE, *null(5))
        assert [await received(channel) for _ in range(3)] == [(PAYLOAD, 5)] * 3


@pytest.mark.parametrize("free", [0, 1, 3])
async def test_no_free_descriptor_ends_the_connection_and_none_stays(free: int) -> None:
    async with linked() as (channel, peer):
        send_with_fds(peer, MESSAGE, *null(5))
        before = open_fds()
        with no_free_fds(but=free), pytest.raises(RemoteProtocolError, match=f"MSG_CTRUNC.*: found {free},"):
            await channel.receive()
        assert open_fds() == before


async def test_after_a_broken_message_the_channel_receives_no_more() -> None:
    async with linked(max_payload=8) as (channel, peer):
        send_with_fds(peer, frame(bytes(9)).build() + MESSAGE, *null())
        before = open_fds()
        with pytest.raises(RemoteProtocolError, match="payload of 9 bytes, limit 8"):
            await channel.receive()
        assert open_fds() == before
        with pytest.raises(trio.BrokenResourceError, match="payload of 9 bytes, limit 8"):
            await channel.receive()
        assert "broken: request 1 announces" in repr(channel)
        await channel.send(frame())  # a nack may still go out


async def test_the_end_between_two_messages_is_the_end_of_the_channel() -> None:
    async with linked() as (channel, peer):
        peer.send(MESSAGE)
        peer.close()
        assert await received(channel) == (PAYLOAD, 0)
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()


@pytest.mark.parametrize("cut", CUTS)
async def test_the_end_inside_a_message_says_how_much_was_there(cut: int) -> None:
    async with linked() as (channel, peer):
        before = open_fds() - {peer.fileno()}
        send_with_fds(peer, MESSAGE[:cut], *null())
        peer.close()
        part = f"{cut} bytes of its header, expected 12" if cut < 12 else f"{cut} bytes .* expected {len(MESSAGE)}"
        with pytest.raises(RemoteProtocolError, match=f"ended inside a message: found {part}") as caught:
            await channel.receive()
        assert caught.value.hint is Hint.CLOSE
        assert open_fds() == before


@pytest.mark.parametrize("sent", [0, 5])
async def test_a_reset_connection_is_broken(sent: int) -> None:
    async with linked() as (channel, peer):
        await channel.send(frame())  # unread data at close: the kernel resets
        send_with_fds(peer, MESSAGE[:sent], *(null() if sent else []))
        peer.close()
        with pytest.raises(trio.BrokenResourceError, match="connection is lost: Connection reset"):
            await channel.receive()
        with pytest.raises(trio.BrokenResourceError):
            await channel.receive()


@pytest.mark.parametrize("cut", range(len(MESSAGE)))
async def test_cancelled_in_the_middle_the_next_receive_goes_on(cut: int) -> None:
    async with linked() as (channel, peer):
        send_with_fds(peer, MESSAGE[:cut], *(null() if cut else []))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.receive)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        send_with_fds(peer, MESSAGE[cut:], *([] if cut else null()))
        assert await received(channel) == (PAYLOAD, 1)


@pytest.mark.parametrize("cut", range(len(MESSAGE)))
async def test_bytes_and_cancellation_in_the_same_moment_lose_nothing(cut: int) -> None:
    async with linked() as (channel, peer):
        got: list[Frame] = []

        async def receive() -> None:
            got.append(await channel.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            peer.send(MESSAGE[:cut])
            await wait_all_tasks_blocked()
            send_with_fds(peer, MESSAGE[cut:], *null())
            nursery.cancel_scope.cancel()
        if not got:
            await receive()
        with got[0].fds as fds:
            assert (got[0].payload, len(fds)) == (PAYLOAD, 1)


async def test_cancelled_at_every_checkpoint_nothing_is_lost() -> None:
    async with linked() as (channel, peer):
        for yields in range(6):
            send_with_fds(peer, MESSAGE, *null(2))
            got = await cancelled_at(yields, channel.receive)
            got = got or await channel.receive()
            with got.fds as fds:
                assert (got.payload, len(fds)) == (PAYLOAD, 2)


async def test_a_receiver_cancelled_again_and_again_gets_every_message() -> None:
    chance = random.Random(20)
    sizes = [chance.randrange(40) for _ in range(60)]
    async with linked() as (channel, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send_in_pieces() -> None:
            for size in sizes:
                data, fds = frame(bytes(size)).build(), null(size % 3)
                while data:
                    step = chance.randrange(1, 30)
                    send_with_fds(peer, data[:step], *fds)
                    data, fds = data[step:], []
                    await trio.lowlevel.checkpoint()

        got: list[tuple[int, int]] = []
        while len(got) < len(sizes):
            one = await cancelled_at(chance.randrange(1, 4), channel.receive)
            if one is not None:
                got.append((len(one.payload), len(one.fds)))
                one.close()
        assert got == [(size, size % 3) for size in sizes]


async def test_receive_is_a_checkpoint_even_when_a_message_is_there() -> None:
    async with linked() as (channel, peer):
        peer.send(MESSAGE)
        with trio.testing.assert_checkpoints():
            await channel.receive()


async def test_a_peer_may_be_silent_between_messages(autojump_clock: MockClock) -> None:
    async with linked(message_timeout=5) as (channel, _):
        with trio.move_on_after(3600) as scope:
            await channel.receive()
        assert scope.cancelled_caught


@pytest.mark.parametrize("cut", [1, 11, 12, 19])
async def test_a_peer_may_not_be_silent_inside_a_message(cut: int, autojump_clock: MockClock) -> None:
    async with linked(message_timeout=5) as (channel, peer):
        before = open_fds()
        send_with_fds(peer, MESSAGE[:cut], *null())
        with pytest.raises(RemoteProtocolError, match=f"stopped inside a message for 5 s: found {cut} bytes"):
            await channel.receive()
        assert trio.current_time() == pytest.approx(5, abs=0.1)
        assert open_fds() == before


async def test_dripping_bytes_does_not_prolong_a_message(autojump_clock: MockClock) -> None:
    async with linked(message_timeout=5) as (channel, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def drip() -> None:
            for byte in MESSAGE:
                peer.send(bytes([byte]))
                await trio.sleep(1)

        with pytest.raises(RemoteProtocolError, match="stopped inside a message"):
            await channel.receive()
        assert trio.current_time() == pytest.approx(5, abs=0.1)
        nursery.cancel_scope.cancel()


async def test_cancelling_does_not_give_the_peer_new_time(autojump_clock: MockClock) -> None:
    async with linked(message_timeout=5) as (channel, peer):
        peer.send(MESSAGE[:1])
        for _ in range(2):
            with trio.move_on_after(2) as scope:
                await channel.receive()
            assert scope.cancelled_caught
        with trio.fail_after(1.1), pytest.raises(RemoteProtocolError, match="stopped inside a message"):
            await channel.receive()


async def test_our_own_pauses_are_not_the_peers(autojump_clock: MockClock) -> None:
    async with linked(message_timeout=5) as (channel, peer):
        peer.send(MESSAGE[:1])
        with trio.move_on_after(1):
            await channel.receive()
        await trio.sleep(60)
        peer.send(MESSAGE[1:])
        assert await received(channel) == (PAYLOAD, 0)


async def test_a_message_that_is_in_time_leaves_the_next_one_its_own_time(autojump_clock: MockClock) -> None:
    async with linked(message_timeout=5) as (channel, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def slowly() -> None:
            for _ in range(3):
                peer.send(MESSAGE[:5])
                await trio.sleep(4)
                peer.send(MESSAGE[5:])

        assert [await received(channel) for _ in range(3)] == [(PAYLOAD, 0)] * 3


async def test_a_second_receiver_is_refused() -> None:
    async with linked() as (channel, _), trio.open_nursery() as nursery:
        nursery.start_soon(channel.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await channel.receive()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("cut", [0, 5, 15])
async def test_closing_wakes_the_receiver_and_closes_what_a_half_read_message_holds(cut: int) -> None:
    async with linked() as (channel, peer):
        before = open_fds()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await channel.receive()

            send_with_fds(peer, MESSAGE[:cut], *(null() if cut else []))
            await wait_all_tasks_blocked()
            number = channel.fileno()
            await channel.aclose()
        assert open_fds() == before - {number}
        with pytest.raises(trio.ClosedResourceError):
            await channel.receive()


async def test_other_control_messages_are_ignored() -> None:
    """With SO_PASSCRED set (it is inherited from a listener) the kernel adds credentials to every message."""
    async with linked() as (channel, peer):
        with socket.socket(fileno=os.dup(channel.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        send_with_fds(peer, MESSAGE, *null(1))
        assert await received(channel) == (PAYLOAD, 1)


async def test_an_observer_sees_received_frames_with_their_fds() -> None:
    seen: list[tuple[str, bytes, list[int]]] = []
    async with linked(observer=lambda way, it: seen.append((way.value, it.payload, it.fds.numbers()))) as (
        channel,
        peer,
    ):
        send_with_fds(peer, MESSAGE, *null(2))
        with (await channel.receive()).fds as fds:
            assert seen == [("received", PAYLOAD, fds.numbers())]


async def test_an_observer_that_raises_leaves_no_fd_behind() -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("observer")

    async with linked(observer=refuse) as (channel, peer):
        before = open_fds()
        send_with_fds(peer, MESSAGE, *null(2))
        with pytest.raises(RuntimeError, match="observer"):
            await channel.receive()
        assert open_fds() == before


def test_received_fds_survive_until_taken() -> None:
    """`Fds` from ``receive_nowait`` own their numbers from the first moment."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_with_fds(theirs, b"x", *null(2))
        received = ancillary.receive_nowait(ours, 1, 2)
        assert isinstance(received.fds, Fds)
        with received.fds as fds:
            assert len(fds) == 2
