"""One device served over one connection: the message loop, and what each message does to memory and rings.

`BackendProtocol` decides whether a message may be here and keeps the numbers; this file is the only place where
messages have effects.  A message is handled completely before the next one is read, because the protocol answers in
order; the rings run meanwhile, as tasks or on threads of their own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from vhostuser.backend.requester import ConfigNotifier
from vhostuser.backend.ring import Ring
from vhostuser.device import ConfigError
from vhostuser.errors import Hint, RemoteProtocolError
from vhostuser.memory.map import GuestMemory
from vhostuser.memory.region import MappingError
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.transport.notifier import EventConsumer, EventNotifier, NotANotifier
from vhostuser.transport.unix import NotAChannel
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    AddMemReg,
    GetConfig,
    GetVringBase,
    RemMemReg,
    ResetDevice,
    SetBackendReqFd,
    SetConfig,
    SetFeatures,
    SetMemTable,
    SetStatus,
    SetVringBase,
    SetVringCall,
    SetVringErr,
    SetVringKick,
)
from vhostuser.wire.records import Config, VringState

if TYPE_CHECKING:
    from vhostuser.device import Device
    from vhostuser.protocol.framing import Frame
    from vhostuser.transport.channel import Channel
    from vhostuser.wire.catalog import Message

log = logging.getLogger("vhostuser.backend")

PROTOCOL_FEATURES = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.STATUS
)


class Backend:
    """Serves ``device`` to one front-end.

    Args:
        device: keeps its state from one connection to the next; its rings and its memory end with the connection.
        ring_features: ring features to offer; RING_PACKED is added by those who want it.
    """

    def __init__(self, device: Device, *, ring_features: VirtioFeature = RING_FEATURES) -> None:
        self.device = device
        self.protocol = BackendProtocol(
            # int: flags with bits that have no name are made anew by each operator, in 20 µs.
            features=int(device.features) | int(ring_features | VirtioFeature.PROTOCOL_FEATURES),
            protocol_features=_protocol_features(device),
            num_queues=device.num_queues,
        )
        self.memory = GuestMemory.EMPTY
        self.rings = [Ring(index, device) for index in range(device.num_queues)]
        self.interrupted = False
        """`run` ended while rings were running: requests were cut off in the middle."""
        self._config = ConfigNotifier(self.protocol)

    async def run(self, channel: Channel) -> None:
        """Serve until the front-end hangs up.

        Everything the front-end handed over is given back on return: rings are drained, descriptors closed,
        memory unmapped.

        Raises:
            RemoteProtocolError: the front-end broke the protocol so that nothing more can be understood.
            trio.BrokenResourceError: the connection was lost.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._config.run, self.device.config_changed)
                try:
                    await self._serve(channel)
                except BaseException:
                    self.interrupted = self._any_running()
                    raise
                await self._stop_rings()
                self._nursery.cancel_scope.cancel()
        finally:
            self._release()

    # --- messages ---

    async def _serve(self, channel: Channel) -> None:
        while True:
            try:
                frame = await channel.receive()
            except trio.EndOfChannel:
                return
            try:
                answer = await self._handle(frame)
            finally:
                frame.close()
            if answer is not None:
                await channel.send(answer)

    async def _handle(self, frame: Frame) -> Frame | None:
        try:
            message = self.protocol.receive(frame)
            return self._answer(message) or await self._carry_out(message, frame)
        except RemoteProtocolError as error:
            if error.hint is Hint.CLOSE:
                raise
            log.error("refused: %s", str(error))
            return self.protocol.nack()

    def _answer(self, message: Message) -> Frame | None:
        refusal = self.protocol.refusal(message)
        if refusal is not None:
            log.error("refused: %s is not implemented", message.spec.name)
        return refusal or self.protocol.answer(message)

    async def _carry_out(self, message: Message, frame: Frame) -> Frame | None:
        """Act; a request that is legal and cannot be carried out is refused, or ends the connection where it cannot."""
        try:
            return await self._act(message, frame)
        except (MappingError, NotANotifier, NotAChannel, ConfigError, OSError) as error:
            spec, answer = message.spec, self.protocol.nack()
            blame = RemoteProtocolError(f"{spec.name}: {error}", section=spec.section)
        if answer is None:
            raise blame
        log.error("refused: %s", str(blame))
        return answer

    async def _act(self, message: Message, frame: Frame) -> Frame | None:
        match message:
            case SetFeatures(features):
                self.device.negotiated(features)
                await self._follow_all()
            case SetMemTable(regions):
                await self._use_memory(GuestMemory.map(regions, frame.fds.take_all()))
            case AddMemReg(region):
                await self._use_memory(self.memory.with_region(region, frame.fds[0].move()))
            case RemMemReg(region):
                await self._use_memory(self.memory.without_region(region))
            case SetVringBase(index) if not self.rings[index].running:
                self.rings[index].forget()
            case SetVringKick():
                await self.rings[message.index].set_kick(_consumer(frame))
            case SetVringCall():
                await self.rings[message.index].set_call(_notifier(frame))
            case SetVringErr():
                self.rings[message.index].set_err(_notifier(frame, tolerant=True))
            case GetVringBase(index):
                return self.protocol.reply(message, VringState(index, await self._take_base(index)))
            case GetConfig(offset, size, flags):
                data = self.device.read_config(offset, size)
                return self.protocol.reply(message, Config(offset, size, flags, data))
            case SetConfig(offset, _, _, data):
                self.device.write_config(offset, data)
            case SetBackendReqFd():
                self._config.use(frame.fds[0].move())
            case ResetDevice() | SetStatus(0):
                await self._stop_rings()
                self.device.reset()
        await self._follow_named(message)
        return self.protocol.ack()

    # --- effects ---

    async def _use_memory(self, memory: GuestMemory) -> None:
        # One assignment: chains in flight keep their views of the old map, which is unmapped with the last of them.
        # Rings with a thread of their own stop before they go on in the new one.
        self.memory = memory
        await self._follow_all()

    async def _follow_all(self) -> None:
        for ring in self.rings:
            await self._follow(ring)

    async def _follow_named(self, message: Message) -> None:
        """Let the ring that ``message`` names, if it names one, do as the protocol now says."""
        index: int | None = getattr(message, "index", None)
        if index is not None:
            await self._follow(self.rings[index])

    async def _follow(self, ring: Ring) -> None:
        state = self.protocol.state
        await ring.follow(state.rings[ring.index], self.memory, state.features, self._nursery)
        if ring.running:
            self._config.resume()

    async def _take_base(self, index: int) -> int:
        ring = self.rings[index]
        await ring.stop()
        base = ring.base(self.protocol.state.rings[index])
        ring.forget()
        # The err descriptor stays: QEMU sends it once per connection, not once per start.
        await ring.set_kick(None)
        await ring.set_call(None)
        return base

    async def _stop_rings(self) -> None:
        for ring in self.rings:
            await ring.stop()
            ring.forget()

    def _any_running(self) -> bool:
        return any(ring.running for ring in self.rings)

    def _release(self) -> None:
        for ring in self.rings:
            ring.close()
        self._config.close()
        self.memory = GuestMemory.EMPTY


def _protocol_features(device: Device) -> ProtocolFeature:
    # QEMU prints a warning when CONFIG is offered by a device that it needs no configuration space for.
    return PROTOCOL_FEATURES | (ProtocolFeature.CONFIG if device.config else ProtocolFeature(0))


def _consumer(frame: Frame) -> EventConsumer | None:
    return EventConsumer.adopt(frame.fds[0].move()) if frame.fds else None


def _notifier(frame: Frame, *, tolerant: bool = False) -> EventNotifier | None:
    return EventNotifier.adopt(frame.fds[0].move(), tolerant=tolerant) if frame.fds else None
