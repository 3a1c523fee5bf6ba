"""Connecting, listening, stale socket files, adopted sockets."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.links import frame, no_free_fds, null, open_fds
from vhostuser.fd import Fd
from vhostuser.transport import (
    Channel,
    Listener,
    NotAChannel,
    SocketPathError,
    adopt,
    adopt_channel,
    connect,
    listen,
    socket_pair,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "v.sock"


def leave_stale(path: Path) -> None:
    """The socket file of a process that is gone."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def exists(path: Path) -> bool:
    return path.exists()


async def assert_connected(one: Channel, other: Channel) -> None:
    await one.send(frame(b"there"))
    assert (await other.receive()).payload == b"there"
    await other.send(frame(b"back"))
    assert (await one.receive()).payload == b"back"


async def test_who_connects_and_who_accepts_hold_a_channel(path: Path) -> None:
    async with listen(path) as listener, await connect(path) as ours, await listener.accept() as theirs:
        await assert_connected(ours, theirs)
        assert repr(listener) == f"<Listener fd {listener.fileno()} at {path}>"
        assert repr(ours) == f"<Channel fd {ours.fileno()} at {path}>"


async def test_options_reach_the_channels(path: Path) -> None:
    seen: list[object] = []
    async with (
        listen(path, observer=lambda *it: seen.append(it)) as listener,
        await connect(path, max_payload=1) as ours,
        await listener.accept() as theirs,
    ):
        await ours.send(frame(b"long"))
        await theirs.receive()
        await theirs.send(frame(b"long"))
        assert len(seen) == 2
        with pytest.raises(Exception, match="limit 1"):
            await ours.receive()


async def test_trio_serves_a_listener(path: Path) -> None:
    async def echo(channel: Channel) -> None:
        await channel.send(await channel.receive())

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, [listen(path)])
        for payload in (b"one", b"two"):
            async with await connect(path) as channel:
                await channel.send(frame(payload))
                assert (await channel.receive()).payload == payload
        nursery.cancel_scope.cancel()
    assert not exists(path)


async def test_nothing_is_inherited_by_child_processes(path: Path) -> None:
    async with listen(path) as listener, await connect(path) as ours, await listener.accept() as theirs:
        assert not any(os.get_inheritable(it.fileno()) for it in (listener, ours, theirs))


async def test_closing_removes_the_socket_file(path: Path) -> None:
    listener = listen(path)
    assert exists(path)
    await listener.aclose()
    listener.close()
    assert not exists(path)
    assert repr(listener) == "<Listener closed>"


async def test_closing_removes_the_file_although_the_working_directory_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with listen("v.sock"):
        monkeypatch.chdir("/")
    assert not exists(tmp_path / "v.sock")


async def test_closing_leaves_the_file_of_a_successor(path: Path) -> None:
    async with listen(path):
        os.rename(path, path.with_suffix(".old"))  # keeps the inode in use, so that its number is not given out again
        async with listen(path) as successor:
            async with await connect(path) as ours, await successor.accept() as theirs:
                await assert_connected(ours, theirs)
            os.rename(path, path.with_suffix(".new"))
            os.rename(path.with_suffix(".old"), path)
        assert exists(path)  # the successor's close found somebody else's file
    assert not exists(path)


async def test_closing_does_not_mind_that_the_file_is_gone(path: Path) -> None:
    async with listen(path):
        os.unlink(path)


def test_a_listener_can_be_closed_outside_of_trio(path: Path) -> None:
    listen(path).close()
    assert not exists(path)


async def test_a_stale_socket_file_is_replaced(path: Path) -> None:
    leave_stale(path)
    async with listen(path) as listener, await connect(path) as ours, await listener.accept() as theirs:
        await assert_connected(ours, theirs)


async def test_a_path_where_somebody_listens_is_refused_and_stays_his(path: Path) -> None:
    async with listen(path) as listener:
        with pytest.raises(OSError, match="somebody listens here already") as caught:
            listen(path)
        assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, str(path))
        (await listener.accept()).close()  # our question whether anybody is there
        async with await connect(path) as ours, await listener.accept() as theirs:
            await assert_connected(ours, theirs)


def test_a_listener_whose_queue_is_full_is_alive(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        with pytest.raises(OSError, match="cannot tell whether anybody listens"):
            listen(path)
    assert exists(path)


def test_a_socket_of_another_type_is_not_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(OSError, match="cannot tell whether anybody listens") as caught:
            listen(path)
        assert caught.value.errno == errno.EPROTOTYPE


def test_a_file_that_is_no_socket_is_not_replaced(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="not a socket") as caught:
        listen(path)
    assert caught.value.filename == str(path)
    assert path.read_text() == "precious"


def test_a_folder_that_does_not_exist_is_named(path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        listen(path / "deeper")
    assert caught.value.filename == str(path / "deeper")


def test_a_path_of_103_bytes_is_taken_and_of_104_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listen("x" * 103).close()
    with pytest.raises(SocketPathError, match="socket path of 104 bytes, at most 103 are possible: ééé"):
        listen("é" * 52)
    with pytest.raises(SocketPathError, match="socket path of 104 bytes, at most 103 are possible: xxx"):
        listen("x" * 104)


@pytest.mark.parametrize("bad", ["", "\0abstract", "a\0b"])
async def test_a_path_that_is_not_in_the_file_system_is_refused(bad: str) -> None:
    with pytest.raises(SocketPathError, match="empty or contains a NUL"):
        listen(bad)
    with pytest.raises(SocketPathError, match="empty or contains a NUL"):
        await connect(bad)


async def test_too_long_a_path_is_refused_by_connect_too() -> None:
    with pytest.raises(SocketPathError, match="socket path of 108 bytes"):
        await connect("x" * 108)


async def test_nobody_there_is_an_error_at_once_with_the_path(path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await connect(path)
    assert caught.value.filename == str(path)
    leave_stale(path)
    with pytest.raises(ConnectionRefusedError) as refused:
        await connect(path)
    assert refused.value.filename == str(path)


async def test_connect_waits_for_a_daemon_that_is_still_starting(path: Path, autojump_clock: MockClock) -> None:
    leave_stale(path)
    async with trio.open_nursery() as nursery:
        listeners: list[Listener] = []

        @nursery.start_soon
        async def start_late() -> None:
            await trio.sleep(3)
            os.unlink(path)
            await trio.sleep(3)
            listeners.append(listen(path))

        async with await connect(path, retry_for=30) as ours:
            assert 6 <= trio.current_time() < 8
            async with listeners[0] as listener, await listener.accept() as theirs:
                await assert_connected(ours, theirs)


async def test_connect_gives_up_in_time(path: Path, autojump_clock: MockClock) -> None:
    with pytest.raises(FileNotFoundError):
        await connect(path, retry_for=10)
    assert 10 <= trio.current_time() < 11.1


async def test_other_errors_are_not_retried(path: Path, autojump_clock: MockClock) -> None:
    leave_stale(path)
    with pytest.raises(NotADirectoryError):
        await connect(path / "deeper", retry_for=10)
    assert trio.current_time() == 0


async def test_connect_waits_for_a_listener_that_is_busy(path: Path, autojump_clock: MockClock) -> None:
    """On Linux a full queue is EAGAIN, and nothing is under way: the connection has to be tried again."""
    async with listen(path, backlog=0) as listener, trio.open_nursery() as nursery:
        first = await connect(path)
        channels: list[Channel] = []

        @nursery.start_soon
        async def connect_second() -> None:
            channels.append(await connect(path))

        await trio.sleep(5)
        assert channels == []
        async with first, await listener.accept():
            pass
        async with await listener.accept() as theirs:
            await wait_all_tasks_blocked()
            async with channels[0] as ours:
                await assert_connected(ours, theirs)


async def test_a_cancelled_connect_leaves_nothing_open(path: Path) -> None:
    before = open_fds()
    with trio.move_on_after(0.03) as scope:
        await connect(path, retry_for=60)
    assert scope.cancelled_caught
    assert open_fds() == before


async def test_closing_wakes_whoever_accepts(path: Path) -> None:
    listener = listen(path)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        await wait_all_tasks_blocked()
        listener.close()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_accept_without_a_free_fd_waits_and_goes_on(
    path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with listen(path) as listener, await connect(path) as ours:
        with no_free_fds(), trio.move_on_after(1), caplog.at_level(logging.WARNING):
            await listener.accept()
        assert len(caplog.messages) == pytest.approx(10, abs=1)
        assert "cannot accept now: Too many open files; trying again in 0.1 s" in caplog.messages[0]
        async with await listener.accept() as theirs:
            await assert_connected(ours, theirs)


async def test_other_errors_of_accept_are_passed_on() -> None:
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError, match="Invalid argument"):
        await Listener(sock).accept()  # not listening


async def test_a_connected_socket_is_adopted_as_a_channel() -> None:
    ours, fd = socket_pair()
    os.set_inheritable(fd.fileno(), True)
    theirs = adopt(fd)
    assert isinstance(theirs, Channel)
    async with ours, theirs:
        assert fd.closed
        assert not os.get_inheritable(theirs.fileno())
        await assert_connected(ours, theirs)


async def test_a_socket_that_came_with_a_message_is_adopted() -> None:
    """SET_BACKEND_REQ_FD: a channel for requests in the other direction."""
    ours, fd = socket_pair()
    requests, other_end = socket_pair()
    async with ours, adopt_channel(fd) as theirs, requests:
        await ours.send(frame(bytes(8), other_end, request=21))
        with (await theirs.receive()).fds as fds:
            async with adopt_channel(fds[0].move()) as answers:
                await assert_connected(requests, answers)


async def test_a_listening_socket_is_adopted_as_a_listener_and_its_file_stays(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        listener = adopt(Fd(sock.detach()))
    assert isinstance(listener, Listener)
    async with listener, await connect(path) as ours, await listener.accept() as theirs:
        await assert_connected(ours, theirs)
    assert exists(path)


def unix_stream() -> Fd:
    return Fd(socket.socket(socket.AF_UNIX).detach())


def unix_datagrams() -> Fd:
    return Fd(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach())


def tcp() -> Fd:
    return Fd(socket.socket(socket.AF_INET).detach())


def null_device() -> Fd:
    return null()[0]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (null_device, "is not a socket"),
        (tcp, "AF_INET.* expected a unix stream socket"),
        (unix_datagrams, "SOCK_DGRAM.* expected a unix stream socket"),
        (unix_stream, "not connected"),
    ],
)
def test_what_cannot_be_a_channel_is_refused_and_closed(make: Callable[[], Fd], complaint: str) -> None:
    before = open_fds()
    for take in (adopt, adopt_channel):
        with pytest.raises(NotAChannel, match=complaint):
            take(make())
    assert open_fds() == before


def test_a_listening_socket_is_no_channel(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        with pytest.raises(NotAChannel, match="not connected"):
            adopt_channel(Fd(sock.detach()))
