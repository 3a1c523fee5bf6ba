"""The message loop: what is answered, in which order, and what messages do to the device."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.backend.devices import Echo
from tests.backend.scripted import PROTOCOL_FEATURES, raw, served
from vhostuser.backend import Backend
from vhostuser.device import ConfigError
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.devices.rng import RngDevice
from vhostuser.fd import Fd, Fds
from vhostuser.protocol import FrontendResponder, RequestRefused
from vhostuser.transport import Channel, channel_pair, socket_pair
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.backend_messages import BackendConfigChangeMsg
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.records import U64, Config, ConfigFlags
from vhostuser.wire.requests import FrontendRequest as R
from vhostuser.wire.requests import HeaderFlags

if TYPE_CHECKING:
    from tests.backend.scripted import Script


def disk(num_queues: int = 2) -> BlkDevice:
    return BlkDevice(MemoryStorage(1 << 20), num_queues=num_queues)


class Writable(Echo):
    """A device whose configuration space is a byte that the driver may write."""

    byte = b"\7"

    @property
    def config(self) -> bytes:
        return self.byte

    def write_config(self, offset: int, data: bytes) -> None:
        if (offset, len(data)) != (0, 1):
            raise ConfigError(f"found {len(data)} bytes at {offset}, expected one at 0")
        self.byte = data


# --- the stream ----------------------------------------------------------------------------------------------------


async def test_messages_in_one_piece_are_answered_in_order() -> None:
    async with served(disk()) as script:
        questions = [R.GET_FEATURES, R.GET_PROTOCOL_FEATURES, R.GET_FEATURES, R.GET_PROTOCOL_FEATURES]
        glued = b"".join(raw(request).build() for request in (*questions, R.SET_OWNER, R.GET_FEATURES))
        await script.say_bytes(glued)
        assert [(await script.hear()).header.request for _ in range(5)] == [*questions, R.GET_FEATURES]


async def test_a_message_byte_by_byte_is_answered_as_a_whole_one() -> None:
    async with served(disk()) as script:
        await script.negotiate()
        for byte in raw(R.GET_CONFIG, f.GetConfig(0, 8, data=bytes(8)).build()).build():
            await script.say_bytes(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert Config.parse((await script.hear()).payload).data == (2048).to_bytes(8, "little")


async def test_a_payload_may_come_in_a_message_of_its_own() -> None:
    async with served(disk()) as script:
        data = raw(R.SET_FEATURES, bytes(8)).build()
        await script.say_bytes(data[:12])
        await trio.testing.wait_all_tasks_blocked()
        await script.say_bytes(data[12:])
        assert await script.alive()


async def test_descriptors_stay_with_their_message_when_messages_are_glued() -> None:
    async with served(disk()) as script:
        await script.ready()
        ours, theirs = os.pipe()
        await script.say_bytes(raw(R.SET_OWNER).build())
        await script.say(raw(R.SET_VRING_CALL, f.SetVringCall.of(0).build(), Fd(theirs)))
        await script.say_bytes(raw(R.SET_OWNER).build())
        assert await script.alive()
        assert os.read(ours, 8)  # a new call descriptor is signalled at once
        os.close(ours)


@pytest.mark.parametrize("flags", [1, 1 | HeaderFlags.NEED_REPLY])
async def test_a_reply_has_exactly_the_version_and_the_reply_bit(flags: int) -> None:
    async with served(disk()) as script:
        await script.negotiate()
        await script.say(raw(R.GET_FEATURES, flags=flags))
        frame = await script.hear()
        assert (frame.header.flags, frame.header.size, len(frame.payload)) == (5, 8, 8)
        assert await script.alive()  # one answer, not two


async def test_need_reply_means_nothing_before_it_is_agreed_on() -> None:
    async with served(disk()) as script:
        await script.say(raw(R.SET_OWNER, ack=True))
        assert await script.alive()


async def test_a_slow_reader_loses_no_answer() -> None:
    async with served(disk()) as script, trio.open_nursery() as nursery:
        nursery.start_soon(script.say_bytes, raw(R.GET_FEATURES).build() * 1000)
        await trio.testing.wait_all_tasks_blocked(0.01)
        for _ in range(1000):
            assert (await script.hear()).header.request == R.GET_FEATURES


# --- what is offered -----------------------------------------------------------------------------------------------


async def test_a_disk_offers_its_features_the_rings_and_bit_30() -> None:
    async with served(disk()) as script:
        offered = await script.number(f.GetFeatures())
        expected = VirtioFeature.VERSION_1 | VirtioFeature.INDIRECT_DESC | VirtioFeature.PROTOCOL_FEATURES
        assert offered & expected == expected
        assert offered & disk().features == disk().features
        assert not offered & (VirtioFeature.LOG_ALL | VirtioFeature.ACCESS_PLATFORM)


async def test_configuration_is_offered_by_devices_that_have_any() -> None:
    for device, has_it in ((disk(), True), (RngDevice(), False)):
        async with served(device) as script:
            await script.number(f.GetFeatures())
            offered = ProtocolFeature(await script.number(f.GetProtocolFeatures()))
            assert bool(offered & ProtocolFeature.CONFIG) is has_it
            assert offered & ProtocolFeature.MQ


@pytest.mark.parametrize("num_queues", [1, 7])
async def test_the_number_of_queues_is_the_devices(num_queues: int) -> None:
    async with served(disk(num_queues)) as script:
        await script.negotiate()
        assert await script.number(f.GetQueueNum()) == num_queues


async def test_memory_slots_are_answered() -> None:
    async with served(disk()) as script:
        await script.negotiate()
        assert await script.number(f.GetMaxMemSlots()) == 509


async def test_the_device_hears_which_features_were_chosen() -> None:
    device = Echo(features=0b11)
    async with served(device) as script:
        await script.negotiate()
        await script.ask(f.SetFeatures(VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES | 0b10))
    assert device.chosen[-1] == VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES | 0b10


# --- configuration space, status -----------------------------------------------------------------------------------


async def test_qemu_reads_57_bytes_of_a_disks_configuration() -> None:
    device = disk()
    async with served(device) as script:
        await script.negotiate()
        value = await script.ask(f.GetConfig(0, 57, data=bytes(57)))
        assert value == Config(0, 57, ConfigFlags(0), device.config[:57])


async def test_bytes_behind_the_configuration_are_zero() -> None:
    async with served(disk()) as script:
        await script.negotiate()
        value = await script.ask(f.GetConfig(56, 200, data=bytes(200)))
        assert isinstance(value, Config)
        assert value.data == b"\1" + bytes(199)


async def test_a_device_may_let_its_driver_write_configuration() -> None:
    device = Writable()
    async with served(device) as script:
        await script.negotiate()
        await script.ask(f.SetConfig(0, 1, ConfigFlags(0), b"\x2a"))
        assert device.byte == b"\x2a"
        with pytest.raises(RequestRefused):
            await script.ask(f.SetConfig(1, 1, ConfigFlags(0), b"x"))
        value = await script.ask(f.GetConfig(0, 1, data=bytes(1)))
        assert isinstance(value, Config)
        assert value.data == b"\x2a"


async def test_the_device_status_reads_as_it_was_written() -> None:
    async with served(disk()) as script:
        await script.negotiate()
        for status in (1, 3, 11, 15, 0):
            await script.ask(f.SetStatus(status))
            assert await script.number(f.GetStatus()) == status


# --- what is not done yet ------------------------------------------------------------------------------------------


async def test_what_nobody_here_carries_out_is_refused_not_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async with served(disk()) as script:
        await script.negotiate()
        await script.say(raw(R.SET_LOG_FD, b"", Fd(os.open(os.devnull, os.O_RDWR)), ack=True))
        assert U64.parse((await script.hear()).payload).value != 0
        assert "refused: SET_LOG_FD is not implemented" in caplog.text
        assert await script.alive()
        await script.say(raw(R.SET_LOG_FD, b"", Fd(os.open(os.devnull, os.O_RDWR))))
        assert await script.hung_up()
    assert "SET_LOG_FD: not implemented, and no answer can say so [VHOST_USER_SET_LOG_FD]" in caplog.text


# --- the backend channel -------------------------------------------------------------------------------------------


class Changing(BlkDevice):
    """A disk that says it has changed."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage(1 << 20))

    def change(self) -> None:
        self.config_changed.set()


async def hear_of_change(script: Script, channel: Channel) -> None:
    responder = FrontendResponder(script.protocol.state)
    with trio.fail_after(10):
        frame = await channel.receive()
    assert responder.receive(frame) == BackendConfigChangeMsg()
    assert not frame.header.needs_reply  # or two ends could wait for each other


async def test_a_change_of_configuration_is_told_on_the_newest_backend_channel() -> None:
    device = Changing()
    async with served(device) as script:
        await script.ready()
        first, fd = socket_pair()
        async with first:
            await script.ask(f.SetBackendReqFd(), fd)
            device.change()
            await hear_of_change(script, first)
            second, fd = socket_pair()
            async with second:
                await script.ask(f.SetBackendReqFd(), fd)
                with pytest.raises(trio.EndOfChannel):
                    await first.receive()
                device.change()
                await hear_of_change(script, second)


async def test_several_changes_before_anybody_may_hear_of_them_are_one() -> None:
    device = Changing()
    async with served(device) as script:
        await script.negotiate()
        channel, fd = socket_pair()
        async with channel:
            await script.ask(f.SetBackendReqFd(), fd)
            for _ in range(3):
                device.change()
            await trio.testing.wait_all_tasks_blocked()
            await script.share_memory()
            await script.start(script.make_queue())
            await hear_of_change(script, channel)
            await script.base()
            await trio.testing.wait_all_tasks_blocked()
            script.hang_up()
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()


@pytest.mark.parametrize("how", ["no channel", "closed channel", "not negotiated"])
async def test_a_change_that_cannot_be_told_stops_nothing(how: str, caplog: pytest.LogCaptureFixture) -> None:
    device = Changing()
    with caplog.at_level(logging.INFO, "vhostuser.backend"):
        async with served(device) as script:
            without = ProtocolFeature.CONFIG if how == "not negotiated" else ProtocolFeature(0)
            await script.negotiate(protocol_features=PROTOCOL_FEATURES & ~without)
            await script.share_memory()
            await script.start(script.make_queue())
            ours, fd = socket_pair()
            if how == "no channel":
                fd.close()
            else:
                await script.ask(f.SetBackendReqFd(), fd)
            if how == "closed channel":
                ours.close()
            device.change()
            await trio.testing.wait_all_tasks_blocked()
            assert await script.alive()
            ours.close()
    assert "configuration space changed; the front-end" in caplog.text


# --- without a server ----------------------------------------------------------------------------------------------


async def test_a_backend_that_is_cancelled_gives_everything_back() -> None:
    """The leak check at the end of each test is the judge."""
    async with served(Echo()) as script, trio.open_nursery() as nursery:
        ours, theirs = channel_pair()
        async with ours, theirs:
            backend = Backend(Echo())
            nursery.start_soon(backend.run, theirs)
            script.channel, served_by_other = ours, script.channel
            async with served_by_other:
                await script.ready()
                nursery.cancel_scope.cancel()
                await trio.lowlevel.checkpoint_if_cancelled()
    assert backend.memory.regions == ()


async def test_a_frame_that_is_refused_keeps_no_descriptor() -> None:
    async with served(disk()) as script:
        await script.negotiate()
        reader, writer = os.pipe()
        await script.say(raw(R.SET_OWNER, b"", Fd(writer), ack=True))
        assert await script.refused()
        assert os.read(reader, 1) == b""  # its only write end is closed
        os.close(reader)
        assert Fds.of() == ()
