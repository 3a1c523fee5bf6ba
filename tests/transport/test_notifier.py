"""One contract for both kinds of notifier, and what only one of them has: death notices, ends, and hostile sharing.

A call that blocks would be ended by the time limit of the test: that is how "never blocks" is tested.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import select
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.links import cancelled_at, frame, no_free_fds, open_fds
from vhostuser.fd import ClosedFd, Fd
from vhostuser.transport import (
    EventConsumer,
    EventNotifier,
    NotANotifier,
    NotifierKind,
    PeerClosed,
    channel_pair,
    default_kind,
    event_pair,
    notifier,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EVENTFD, PIPE = NotifierKind.EVENTFD, NotifierKind.PIPE
KINDS = [PIPE] if default_kind({}) is PIPE else [EVENTFD, PIPE]  # these tests also run where there is no eventfd


@pytest.fixture(params=["RWF_NOWAIT", "poll"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways never to block: the kernel's, and the one for systems that do not have it."""
    if request.param == "poll":
        monkeypatch.setattr(notifier, "_RWF_NOWAIT", 0)
    return str(request.param)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.value)
def kind(request: pytest.FixtureRequest, way: str) -> NotifierKind:
    assert isinstance(request.param, NotifierKind)
    return request.param


@pytest.fixture
def pair(kind: NotifierKind) -> Iterator[tuple[EventNotifier, EventConsumer]]:
    notifier, consumer = event_pair(kind)
    yield notifier, consumer
    notifier.close()
    consumer.close()


@pytest.fixture
def pipe(way: str) -> Iterator[tuple[EventNotifier, EventConsumer]]:
    notifier, consumer = event_pair(PIPE)
    yield notifier, consumer
    notifier.close()
    consumer.close()


Pair = tuple[EventNotifier, EventConsumer]


async def test_wait_returns_after_a_notification_that_came_before(pair: Pair) -> None:
    notifier, consumer = pair
    notifier.notify()
    await consumer.wait()


async def test_wait_returns_when_a_notification_comes(pair: Pair) -> None:
    notifier, consumer = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consumer.wait)
        await wait_all_tasks_blocked()
        notifier.notify()


async def test_many_notifications_are_one(pair: Pair) -> None:
    notifier, consumer = pair
    for _ in range(1000):
        notifier.notify()
    await consumer.wait()
    assert not consumer.drain()


async def test_without_a_notification_wait_waits(pair: Pair) -> None:
    _, consumer = pair
    with trio.move_on_after(0.01) as scope:
        await consumer.wait()
    assert scope.cancelled_caught


async def test_a_notification_after_a_wait_is_a_new_one(pair: Pair) -> None:
    notifier, consumer = pair
    for _ in range(3):
        notifier.notify()
        await consumer.wait()
        assert not consumer.drain()


def test_without_waiting(pair: Pair) -> None:
    notifier, consumer = pair
    with pytest.raises(trio.WouldBlock):
        consumer.wait_nowait()
    notifier.notify()
    consumer.wait_nowait()
    notifier.notify()
    assert [consumer.drain(), consumer.drain()] == [True, False]


async def test_cancelled_at_every_checkpoint_no_notification_is_lost(pair: Pair) -> None:
    notifier, consumer = pair
    for yields in range(4):
        notifier.notify()

        async def wait() -> bool:
            await consumer.wait()
            return True

        if not await cancelled_at(yields, wait):
            assert consumer.drain()
        assert not consumer.drain()


async def test_cancelled_and_notified_in_the_same_moment_no_notification_is_lost(pair: Pair) -> None:
    notifier, consumer = pair
    waited = False
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            nonlocal waited
            await consumer.wait()
            waited = True

        await wait_all_tasks_blocked()
        notifier.notify()
        nursery.cancel_scope.cancel()
    assert waited or consumer.drain()


async def test_wait_is_a_checkpoint_even_when_notified(pair: Pair) -> None:
    notifier, consumer = pair
    notifier.notify()
    with trio.testing.assert_checkpoints():
        await consumer.wait()


async def test_a_full_notifier_has_been_notified(pair: Pair) -> None:
    notifier, consumer = pair
    saturate(notifier)
    notifier.notify()
    await consumer.wait()


async def test_a_peer_that_clears_o_nonblock_and_fills_it_cannot_block_notify(pair: Pair) -> None:
    """File status flags belong to the open file, and the peer has the same one."""
    notifier, consumer = pair
    saturate(notifier)
    os.set_blocking(notifier.fileno(), True)
    notifier.notify()
    await consumer.wait()


async def test_a_peer_that_clears_o_nonblock_cannot_block_the_waiting_end(pair: Pair) -> None:
    _, consumer = pair
    os.set_blocking(consumer.fileno(), True)
    assert not consumer.drain()


async def test_another_process_wakes_us(pair: Pair) -> None:
    notifier, consumer = pair
    script = "import os, sys; os.write(int(sys.argv[1]), (1).to_bytes(8, sys.byteorder))"
    with notifier.duplicate() as fd:
        command = [sys.executable, "-S", "-c", script, str(fd.fileno())]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(trio.run_process, command, pass_fds=[fd.fileno()]))
            await consumer.wait()


async def test_the_right_ends_travel(kind: NotifierKind) -> None:
    """Kick: the peer waits; call: the peer signals.  Each is adopted from a message of the real channel."""
    frontend, backend = channel_pair()
    async with frontend, backend:
        kick, kick_consumer = event_pair(kind)
        call_notifier, call = event_pair(kind)
        async with kick, call:
            await frontend.send(frame(bytes(8), kick_consumer.take_fd(), request=12))
            await frontend.send(frame(bytes(8), call_notifier.take_fd(), request=13))
            with (await backend.receive()).fds as kick_fds, (await backend.receive()).fds as call_fds:
                their_kick, their_call = (
                    EventConsumer.adopt(kick_fds[0].move()),
                    EventNotifier.adopt(call_fds[0].move()),
                )
            async with their_kick, their_call:
                kick.notify()
                await their_kick.wait()
                their_call.notify()
                await call.wait()


def test_a_taken_end_is_closed_here_and_the_fd_lives(pair: Pair) -> None:
    notifier, consumer = pair
    with notifier.take_fd() as fd:
        assert notifier.closed
        os.write(fd.fileno(), bytes([1, *bytes(7)]))
        assert consumer.drain()
        with pytest.raises(ClosedFd):
            notifier.take_fd()


def test_a_duplicate_works_as_the_original(pair: Pair) -> None:
    notifier, consumer = pair
    with EventNotifier(notifier.duplicate()) as other_end:
        other_end.notify()
    assert consumer.drain()


async def test_a_task_that_is_woken_together_with_a_waiter_may_close_its_end(kind: NotifierKind) -> None:
    """Which of the two runs first is a matter of luck; so there are many of them."""
    for _ in range(20):
        (notifier, consumer), (other_notifier, other) = event_pair(kind), event_pair(kind)
        with notifier, consumer, other_notifier, other:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def wait(consumer: EventConsumer = consumer) -> None:
                    with contextlib.suppress(trio.ClosedResourceError):
                        await consumer.wait()

                @nursery.start_soon
                async def close(other: EventConsumer = other, consumer: EventConsumer = consumer) -> None:
                    await other.wait()
                    consumer.close()

                await wait_all_tasks_blocked()
                notifier.notify()
                other_notifier.notify()


async def test_closing_wakes_whoever_waits(pair: Pair) -> None:
    _, consumer = pair
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await consumer.wait()

        await wait_all_tasks_blocked()
        consumer.close()
    with pytest.raises(trio.ClosedResourceError):
        await consumer.wait()


async def test_closed_ends_do_nothing_more(pair: Pair) -> None:
    notifier, consumer = pair
    for end in pair:
        await end.aclose()
        await end.aclose()
        assert end.closed
    assert repr(consumer) == "<EventConsumer closed>"
    with pytest.raises(ClosedFd):
        notifier.notify()
    with pytest.raises(ClosedFd):
        consumer.drain()


async def test_a_second_waiter_is_refused(pair: Pair) -> None:
    _, consumer = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consumer.wait)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await consumer.wait()
        nursery.cancel_scope.cancel()


def test_an_end_says_what_it_is(pair: Pair, kind: NotifierKind) -> None:
    notifier, consumer = pair
    assert (notifier.kind, consumer.kind) == (kind, kind)
    assert repr(notifier) == f"<EventNotifier {kind.value} fd {notifier.fileno()}>"
    assert not os.get_inheritable(notifier.fileno())
    assert not os.get_inheritable(consumer.fileno())


def test_a_notification_is_exactly_eight_bytes_of_value_one(pipe: Pair) -> None:
    notifier, consumer = pipe
    notifier.notify()
    assert os.read(consumer.fileno(), 100) == (1).to_bytes(8, sys.byteorder)


@pytest.mark.parametrize("size", [1, 7, 9, 511, 512, 513, 1024, 60_000])
def test_any_number_of_bytes_is_one_notification(pipe: Pair, size: int) -> None:
    notifier, consumer = pipe
    os.write(notifier.fileno(), bytes(size))
    assert [consumer.drain(), consumer.drain()] == [True, False]


def test_a_peer_that_never_stops_writing_does_not_hold_drain(way: str) -> None:
    ours, theirs = os.pipe()
    consumer = EventConsumer(Fd(ours))
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            os.write(theirs, bytes(4096))

    writer = threading.Thread(target=flood)
    writer.start()
    for _ in range(20):
        consumer.drain()
    stop.set()
    while writer.is_alive():
        consumer.drain()
        writer.join(0.001)
    os.close(theirs)
    consumer.close()


def test_a_pipe_without_writers_is_the_end_after_the_last_notification(pipe: Pair) -> None:
    notifier, consumer = pipe
    notifier.notify()
    notifier.close()
    consumer.wait_nowait()
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            consumer.drain()


async def test_wait_ends_when_the_last_writer_goes(pipe: Pair) -> None:
    notifier, consumer = pipe
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(trio.EndOfChannel):
                await consumer.wait()

        await wait_all_tasks_blocked()
        notifier.close()


def test_a_pipe_without_readers_is_a_dead_peer(pipe: Pair) -> None:
    notifier, consumer = pipe
    consumer.close()
    with pytest.raises(PeerClosed) as caught:
        notifier.notify()
    assert isinstance(caught.value, trio.BrokenResourceError)


def test_a_peer_that_reset_a_socket_is_the_end(way: str) -> None:
    """Nothing says that a notifier cannot be a socket."""
    ours, theirs = socket.socketpair()
    with EventConsumer.adopt(Fd(ours.detach())) as consumer:
        theirs.send(b"x")
        assert consumer.drain()
        os.write(consumer.fileno(), b"unread")
        theirs.close()
        with pytest.raises(trio.EndOfChannel):
            consumer.drain()


@pytest.mark.parametrize("adopt", [EventNotifier.adopt, EventConsumer.adopt])
@pytest.mark.parametrize("what", ["file", "folder", "null"])
def test_what_is_no_notifier_is_refused_and_closed(adopt: Callable[[Fd], object], what: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    names: dict[str, str | Path] = {"file": tmp_path / "file", "folder": tmp_path, "null": os.devnull}
    before = open_fds()
    with pytest.raises(NotANotifier, match=r"found a file of another type \(.*\), expected an eventfd or a pipe"):
        adopt(Fd(os.open(names[what], os.O_RDONLY)))
    assert open_fds() == before


def test_the_wrong_end_of_a_pipe_is_refused_and_closed(pipe: Pair) -> None:
    notifier, consumer = pipe
    before = open_fds()
    with pytest.raises(NotANotifier, match=r"open for the other direction .* to signal through"):
        EventNotifier.adopt(consumer.duplicate())
    with pytest.raises(NotANotifier, match=r"open for the other direction .* to wait for"):
        EventConsumer.adopt(notifier.duplicate())
    assert open_fds() == before


def test_the_read_end_that_qemu_sends_as_err_is_tolerated(pipe: Pair) -> None:
    _, consumer = pipe
    err = EventNotifier.adopt(consumer.duplicate(), tolerant=True)
    err.notify()
    assert not consumer.drain()
    err.close()


def test_a_tolerant_notifier_of_the_right_end_notifies(pair: Pair) -> None:
    notifier, consumer = pair
    err = EventNotifier.adopt(notifier.duplicate(), tolerant=True)
    err.notify()
    assert consumer.drain()
    err.close()


async def test_an_anonymous_file_of_another_kind_is_the_end(pipe: Pair) -> None:
    """Its type does not show before it is used: an epoll fd can be waited for, and not be read."""
    notifier, ready = pipe
    notifier.notify()
    with select.epoll() as epoll:
        epoll.register(ready.fileno(), select.EPOLLIN)
        async with EventConsumer.adopt(Fd(os.dup(epoll.fileno()))) as consumer:
            with pytest.raises(
                trio.EndOfChannel, match=r"cannot wait for <EventConsumer eventfd fd \d+>: Invalid argument"
            ):
                await consumer.wait()


async def test_what_the_system_does_not_let_us_wait_for_is_the_end(way: str) -> None:
    """Linux lets an epoll wait for another one, but not for any depth."""
    with contextlib.ExitStack() as stack:
        chain = [stack.enter_context(select.epoll()) for _ in range(5)]
        for outer, inner in itertools.pairwise(chain):
            outer.register(inner.fileno(), select.EPOLLIN)
        async with EventConsumer.adopt(Fd(os.dup(chain[0].fileno()))) as consumer:
            with pytest.raises(trio.EndOfChannel, match="cannot wait for"):
                await consumer.wait()
            with pytest.raises(trio.EndOfChannel, match="cannot wait for"):
                await consumer.wait()


def test_an_fd_that_takes_no_signals_is_a_closed_peer(pipe: Pair) -> None:
    notifier, consumer = pipe
    notifier.close()  # or poll says that there is no room, and we never try
    with (
        EventNotifier(consumer.duplicate()) as wrong,
        pytest.raises(PeerClosed, match=r"cannot signal through <EventNotifier pipe fd \d+>: Bad file descriptor"),
    ):
        wrong.notify()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
@pytest.mark.parametrize("free", [0, 1])
def test_without_free_descriptors_no_pair_and_no_leak(kind: NotifierKind, free: int) -> None:
    before = open_fds()
    with no_free_fds(but=free), pytest.raises(OSError, match="Too many open files"):
        event_pair(kind)
    assert open_fds() == before


def test_eventfds_are_the_default_where_they_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VHOST_USER_NOTIFIER", raising=False)
    for end in event_pair():
        assert end.kind is KINDS[0]
        end.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_environment_forces_a_kind(kind: NotifierKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VHOST_USER_NOTIFIER", kind.value)
    ends = event_pair()
    for end in ends:
        assert end.kind is kind
        end.close()


def test_an_unknown_kind_in_the_environment_is_an_error() -> None:
    with pytest.raises(ValueError, match="found VHOST_USER_NOTIFIER=socket, expected pipe or eventfd"):
        default_kind({"VHOST_USER_NOTIFIER": "socket"})


def test_a_system_call_that_is_missing_at_run_time_means_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "eventfd", missing)
    assert default_kind({}) is PIPE
    with pytest.raises(OSError, match="no eventfd: use pipes"):
        event_pair(EVENTFD)


def test_a_python_without_eventfd_means_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd", raising=False)
    assert default_kind({}) is PIPE


def test_other_failures_do_not_silently_mean_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(notifier, "_eventfd", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        default_kind({})


def saturate(notifier: EventNotifier) -> None:
    """Leave no room for one more notification: 64 KiB in a pipe, the largest count in an eventfd."""
    if notifier.kind is EVENTFD:
        os.eventfd_write(notifier.fileno(), 2**64 - 2)
        return
    for size in (4096, 8, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(notifier.fileno(), bytes(size))
