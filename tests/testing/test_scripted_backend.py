"""The scripted back-end, with front-ends that block and front-ends that do not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from frontend import RngDriver, open_device
from vhostuser.errors import RemoteProtocolError
from vhostuser.fd import NO_FDS
from vhostuser.protocol.frontend import RequestRefused
from vhostuser.testing.line import PeerSilent
from vhostuser.testing.scripted_backend import ScriptedPeer
from vhostuser.wire.frontend_messages import (
    GetConfig,
    GetFeatures,
    GetVringBase,
    SetFeatures,
    SetMemTable,
    SetVringKick,
    SetVringNum,
)
from vhostuser.wire.records import U64, Config, VringState

if TYPE_CHECKING:
    from vhostuser.testing.plugin import BackendFactory, FrontendFactory


def test_a_good_back_end_answers_everything(
    vhost_user_backend: BackendFactory, vhost_user_frontend: FrontendFactory
) -> None:
    backend = vhost_user_backend(ScriptedPeer.run, config=b"0123456789")
    frontend = vhost_user_frontend(backend.path)
    frontend.negotiate()
    frontend.share_memory()
    frontend.open_ring(0)
    assert frontend.ask(GetVringBase(0), VringState) == VringState(0, 0)
    assert frontend.ask(GetConfig(8, 4, data=bytes(4)), Config).data == b"89\0\0"
    frontend.close()
    names = [message.spec.name for message in backend.join()]
    assert names[0] == "GET_FEATURES"
    assert names[-1] == "GET_CONFIG"


def test_a_script_refuses_and_goes_on(vhost_user_backend: BackendFactory, vhost_user_frontend: FrontendFactory) -> None:
    def script(peer: ScriptedPeer) -> int:
        peer.until(SetMemTable)
        found = len(peer.fds)
        peer.refuse()
        peer.until(SetVringNum)
        peer.answer()
        return found

    backend = vhost_user_backend(script)
    frontend = vhost_user_frontend(backend.path)
    frontend.negotiate()
    with pytest.raises(RequestRefused):
        frontend.share_memory()
    frontend.call(SetVringNum(0, 8))
    assert backend.join() == 1


def test_a_script_answers_what_it_likes(
    vhost_user_backend: BackendFactory, vhost_user_frontend: FrontendFactory
) -> None:
    def script(peer: ScriptedPeer) -> None:
        peer.take()
        peer.reply(U64(7))
        peer.take()
        peer.line.send_bytes(b"nonsense" * 3, NO_FDS)

    frontend = vhost_user_frontend(vhost_user_backend(script).path)
    assert frontend.ask(GetFeatures(), U64) == U64(7)
    with pytest.raises(RemoteProtocolError):
        frontend.call(GetFeatures())


def test_what_a_front_end_breaks_comes_out_of_the_script(
    vhost_user_backend: BackendFactory, vhost_user_frontend: FrontendFactory
) -> None:
    backend = vhost_user_backend(ScriptedPeer.run)
    frontend = vhost_user_frontend(backend.path)
    frontend.line.send_bytes(b"nonsense" * 3, NO_FDS)
    with pytest.raises(RemoteProtocolError):
        backend.join()


def test_a_front_end_that_never_comes(vhost_user_backend: BackendFactory) -> None:
    with pytest.raises(PeerSilent, match="no front-end came"):
        vhost_user_backend(ScriptedPeer.run, timeout=0.05).join()


def test_a_back_end_that_nobody_needed_is_just_closed(vhost_user_backend: BackendFactory) -> None:
    backend = vhost_user_backend(ScriptedPeer.run)
    backend.close()
    assert backend.join() is None


def test_a_path_that_is_taken(vhost_user_backend: BackendFactory) -> None:
    from vhostuser.testing.scripted_backend import ScriptedBackend

    path = vhost_user_backend(ScriptedPeer.run).path
    with pytest.raises(OSError, match="in use"):
        ScriptedBackend(path, ScriptedPeer.run)


async def test_an_asynchronous_front_end_can_be_tested_too(vhost_user_backend: BackendFactory) -> None:
    def script(peer: ScriptedPeer) -> int:
        peer.until(SetFeatures)
        peer.answer()
        index = peer.until(SetVringKick).index
        peer.answer()
        peer.run()
        return index

    backend = vhost_user_backend(script)
    with trio.fail_after(5):
        async with open_device(backend.path, RngDriver):
            pass
    assert await trio.to_thread.run_sync(partial(backend.join)) == 0
