"""The scripted front-end, against a back-end that is a process of its own."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from vhostuser.errors import LocalProtocolError, RemoteProtocolError
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.protocol.frontend import RequestRefused
from vhostuser.testing.line import Line, PeerGone, PeerSilent
from vhostuser.testing.scripted_frontend import VIRTIO_FEATURES, ScriptedFrontend
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.frontend_messages import GetFeatures, GetQueueNum, SetOwner, SetVringNum
from vhostuser.wire.records import U64, Config
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vhostuser.testing.plugin import DeviceFactory, FrontendFactory

PACKED = VIRTIO_FEATURES | VirtioFeature.RING_PACKED


@pytest.fixture
def ends() -> Iterator[tuple[ScriptedFrontend, socket.socket]]:
    """A front-end that has little patience, and the other end of its connection."""
    ours, theirs = socket.socketpair()
    with ScriptedFrontend(ours, timeout=0.05) as frontend, theirs:
        yield frontend, theirs


@pytest.mark.parametrize("features", [VIRTIO_FEATURES, PACKED, VirtioFeature.VERSION_1])
def test_a_request_is_done(
    vhost_user_device: DeviceFactory, vhost_user_frontend: FrontendFactory, features: int
) -> None:
    program = vhost_user_device("rng", *(["--packed"] if features & VirtioFeature.RING_PACKED else []))
    frontend = vhost_user_frontend(program.socket_path)
    frontend.negotiate(features)
    frontend.share_memory()
    ring = frontend.open_ring(0)
    assert frontend.features == features
    for _ in range(20):  # more than the ring has entries
        done = ring.request(writable=[24, 8])
        assert (done.length, len(done.data[0]), len(done.data[1])) == (32, 24, 8)
    assert any(done.data[0])


def test_a_disk_reads_what_it_is_sent(vhost_user_device: DeviceFactory, vhost_user_frontend: FrontendFactory) -> None:
    frontend = vhost_user_frontend(vhost_user_device("blk", "--memory-size", "1M").socket_path)
    frontend.negotiate()
    frontend.share_memory()
    get_id = (8).to_bytes(4, "little") + bytes(12)
    done = frontend.open_ring(0).request([get_id], [20, 1])
    assert (done.length, done.data[1]) == (21, b"\0")


def test_without_memory_there_is_no_ring(ends: tuple[ScriptedFrontend, socket.socket]) -> None:
    with pytest.raises(RuntimeError, match="call share_memory"):
        ends[0].open_ring()


def test_memory_that_is_used_up_says_so(vhost_user_device: DeviceFactory, vhost_user_frontend: FrontendFactory) -> None:
    frontend = vhost_user_frontend(vhost_user_device("rng").socket_path)
    frontend.negotiate()
    frontend.share_memory(1 << 16)
    memory = frontend.share_memory(4096)
    memory.piece(4000)
    with pytest.raises(MemoryError, match="97 bytes wanted, 64 are left"):
        memory.piece(97)


def test_a_refusal_is_raised(vhost_user_device: DeviceFactory, vhost_user_frontend: FrontendFactory) -> None:
    frontend = vhost_user_frontend(vhost_user_device("rng").socket_path)
    frontend.negotiate()
    with pytest.raises(RequestRefused):
        frontend.call(SetVringNum(5, 8))  # it has one ring


def test_what_the_protocol_forbids_is_not_sent(ends: tuple[ScriptedFrontend, socket.socket]) -> None:
    frontend, far_end = ends
    with pytest.raises(LocalProtocolError):
        frontend.call(GetQueueNum())
    far_end.setblocking(False)
    with pytest.raises(BlockingIOError):
        far_end.recv(1)


def test_a_back_end_that_says_nothing_is_silent_and_one_that_hangs_up_is_gone(
    ends: tuple[ScriptedFrontend, socket.socket],
) -> None:
    frontend, far_end = ends
    with pytest.raises(PeerSilent, match="waited in vain for a message"):
        frontend.call(GetFeatures())
    far_end.close()
    with pytest.raises(PeerGone, match="the peer closed the connection"):
        frontend.call(SetOwner())


def test_a_reply_of_another_kind_is_a_type_error(ends: tuple[ScriptedFrontend, socket.socket]) -> None:
    frontend, far_end = ends
    flags = HeaderFlags.VERSION_1 | HeaderFlags.REPLY
    far_end.send(Header(GetFeatures.spec.request, flags, 8).build() + bytes(8))
    with pytest.raises(TypeError, match=r"GET_FEATURES: found .*, expected Config"):
        frontend.ask(GetFeatures(), Config)
    with pytest.raises(TypeError, match="SET_OWNER: found None, expected U64"):
        frontend.ask(SetOwner(), U64)


def test_nobody_listens(vhost_user_frontend: FrontendFactory) -> None:
    with pytest.raises(FileNotFoundError):
        vhost_user_frontend("/nonexistent/socket")


# --- the line ---


def test_a_message_that_ends_early_is_told_from_an_end() -> None:
    ours, theirs = socket.socketpair()
    with Line(ours, timeout=5) as line:
        theirs.send(bytes(5))
        theirs.close()
        with pytest.raises(PeerGone, match="inside a message"):
            line.receive()


def test_a_peer_that_leaves_something_unread_and_goes_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with Line(ours, timeout=5) as line:
        line.send_bytes(b"unread", NO_FDS)
        theirs.close()
        with pytest.raises(PeerGone):
            line.receive()


def test_a_peer_that_reads_nothing_is_silent() -> None:
    ours, theirs = socket.socketpair()
    with theirs, Line(ours, timeout=0.05) as line, pytest.raises(PeerSilent, match="room to send"):
        line.send_bytes(bytes(1 << 24), NO_FDS)


def test_descriptors_go_along_and_are_closed() -> None:
    ours, theirs = socket.socketpair()
    with Line(ours, timeout=5) as line, Line(theirs, timeout=5) as far_end:
        line.send_bytes(
            Header(GetFeatures.spec.request, HeaderFlags.VERSION_1, 0).build(), Fds.of(Fd(ours.dup().detach()))
        )
        frame = far_end.receive()
        assert len(frame.fds) == 1
        frame.close()


def test_a_payload_that_is_too_large_is_the_peers_fault() -> None:
    ours, theirs = socket.socketpair()
    with theirs, Line(ours, timeout=5) as line:
        theirs.send(Header(GetFeatures.spec.request, HeaderFlags.VERSION_1, 1 << 31).build())
        with pytest.raises(RemoteProtocolError, match="limit"):
            line.receive()
