"""The only ring of the rare back-end: an entropy source, one chain after the other."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.conformance.backends.rare_memory import Miss
from vhostuser.memory.map import GuestAddressError
from vhostuser.transport.notifier import EventConsumer, EventNotifier, PeerClosed
from vhostuser.virtqueue.queue import BrokenQueue, DeviceQueue, RingLayout, open_device_queue
from vhostuser.wire.backend_messages import BackendIotlbMsg, BackendVringCall, BackendVringErr
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.packed import PackedDesc
from vhostuser.wire.records import IotlbPermission, IotlbType, VringAddrFlags

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.backends.rare_memory import AddressSpace, DirtyLog
    from vhostuser.protocol.rings import RingState
    from vhostuser.protocol.state import ProtocolState
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.catalog import Message

ANY = IotlbPermission.READ | IotlbPermission.WRITE


class Ring:
    """A ring: its descriptors, and its queue while its addresses are known.

    Args:
        protocol: tells what the front-end has said; looked at anew each time.
        space: where addresses lead.
        say: sends a request on the back-end channel.

    Attributes:
        kick: from the driver; None without a descriptor, as the others.
        call: to the driver.
        err: to the front-end.
        log: where writes are marked.
        asked: addresses of misses that are under way.
    """

    def __init__(
        self, protocol: Callable[[], ProtocolState], space: AddressSpace, say: Callable[[Message], None]
    ) -> None:
        self._protocol, self.space, self.say = protocol, space, say
        self.kick: EventConsumer | None = None
        self.call: EventNotifier | None = None
        self.err: EventNotifier | None = None
        self.log: DirtyLog | None = None
        self.asked: set[int] = set()
        self._queue: DeviceQueue | None = None
        self._base: int | None = None
        self._broken = False

    @property
    def features(self) -> int:
        """What was acknowledged."""
        return self._protocol().features

    @property
    def state(self) -> RingState:
        """What the front-end has said of this ring."""
        return self._protocol().rings[0]

    # --- where it stands ---

    def pause(self) -> None:
        """What was found out of addresses may be wrong now."""
        if self._queue is not None:
            self._base = self._queue.base
            self._queue = None

    def stop(self) -> int:
        """Where it stands, for GET_VRING_BASE; it has no kick and no call any more."""
        self.pause()
        base = self.base
        self._base, self._broken = None, False
        self.close(self.kick, self.call)
        self.kick = self.call = None
        return base

    @property
    def base(self) -> int:
        """Where it goes on."""
        return self.state.base if self._base is None else self._base

    def release(self) -> None:
        """Let go of everything."""
        self._queue = self.log = None
        self.close(self.kick, self.call, self.err)

    @staticmethod
    def close(*ends: EventConsumer | EventNotifier | None) -> None:
        """Close those that there are."""
        for end in filter(None, ends):
            end.close()

    # --- chains ---

    def serve(self) -> None:
        """Do all that is in the ring, as far as addresses are known."""
        if not self.state.running or self._broken:
            return
        try:
            while chain := self.pop():
                self.fill(chain)
        except Miss as miss:
            self.ask(miss.iova)
        except (BrokenQueue, GuestAddressError):
            self._broken = True
            self.tell(self.err, BackendVringErr(0))

    def pop(self) -> Chain | None:
        """The next chain, if there is one."""
        queue = self._queue = self._queue or self._open()
        self.space.seen.clear()
        while not (chains := queue.pop(1)):
            if not queue.arm():
                return None
        return chains[0]

    def _open(self) -> DeviceQueue:
        """The queue where the front-end says it is."""
        size, addr = self.state.size, self.state.addr
        assert addr is not None, "the protocol starts no ring without addresses"
        sizes = RingLayout.sizes(size, self.features)
        layout = RingLayout(
            size,
            self.space.part(addr.descriptor, sizes.descriptor),
            self.space.part(addr.available, sizes.driver),
            self.space.part(addr.used, sizes.device),
        )
        memory: Any = self.space
        return open_device_queue(layout, memory, self.features, base=self.base, engine="python")

    def fill(self, chain: Chain) -> None:
        """Write entropy to a chain, mark what was written, and give it back."""
        room = chain.writable.remaining
        with suppress(TypeError):  # behind an entry for reading only: nothing is written, and the driver is told so
            chain.writable.write(os.urandom(room))
        if self.logging:
            self.mark(room)
            self.mark_ring()
        self.give_back(chain)

    def give_back(self, chain: Chain) -> None:
        """Complete a chain, and call the driver if it wants to be called."""
        assert self._queue is not None
        if self._queue.complete([chain]):
            self.tell(self.call, BackendVringCall(0))

    # --- marks ---

    @property
    def logging(self) -> bool:
        """Whether writes are to be marked."""
        return self.log is not None and bool(self.features & VirtioFeature.LOG_ALL)

    def mark(self, room: int) -> None:
        """Mark ``room`` bytes that were written."""
        assert self.log is not None
        for addr, length in self.written(room):
            self.log.mark(addr, length)

    def written(self, room: int) -> list[tuple[int, int]]:
        """The last ``room`` bytes that the space was asked for: what may be written stands behind the rest."""
        pieces: list[tuple[int, int]] = []
        for addr, length in reversed(self.space.seen):
            if room <= 0:
                break
            pieces.insert(0, (addr, length))
            room -= length
        return pieces

    def mark_ring(self) -> None:
        """Mark the used ring, and the descriptors of a packed ring, if this ring is logged."""
        size, addr = self.state.size, self.state.addr
        assert self.log is not None
        assert addr is not None
        if addr.flags & VringAddrFlags.LOG:
            self.log.mark(addr.log, RingLayout.sizes(size, self.features).device)
            if self.features & VirtioFeature.RING_PACKED:
                self.log.mark(self.space.guest_addr(addr.descriptor), PackedDesc.wire_size() * size)

    # --- what it says ---

    def ask(self, iova: int) -> None:
        """Send a miss, once."""
        if iova not in self.asked:
            self.asked.add(iova)
            self.say(BackendIotlbMsg(iova, 0, 0, ANY, IotlbType.MISS))

    def tell(self, end: EventNotifier | None, message: Message) -> None:
        """Signal a descriptor, or send a message where there is none."""
        if end is not None:
            with suppress(PeerClosed):
                end.notify()
        elif self._protocol().protocol_features & ProtocolFeature.INBAND_NOTIFICATIONS:
            self.say(message)
