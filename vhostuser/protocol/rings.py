"""Ring states ("Ring states" of the vhost-user document) as values and as a table.

Two bits per ring, independent of each other: started or stopped, enabled or disabled.  A ring begins stopped and
disabled.  It runs when it is started *and* enabled; a back-end must keep track of both bits at all times, because a
front-end may enable a ring long before it starts it.

Texts up to QEMU 10.2 started a ring at the first kick; since 11.1 SET_VRING_KICK itself does, which is what widely
used peers did anyway.  `TRANSITIONS` follows 11.1.

A `RingState` has numbers only.  Who owns the notifiers' descriptors is no business of this floor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from vhostuser.protocol.rules import expect
from vhostuser.wire import packed as packed_ring
from vhostuser.wire import split
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetVringBase,
    ResetDevice,
    ResetOwner,
    SetFeatures,
    SetStatus,
    SetVringAddr,
    SetVringBase,
    SetVringCall,
    SetVringEnable,
    SetVringErr,
    SetVringKick,
    SetVringNum,
    VringFd,
    VringKick,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vhostuser.wire.catalog import Message
    from vhostuser.wire.records import MemoryRegion, XenMemoryRegion

MAX_RINGS = VringFd.INDEX + 1
"""SET_VRING_KICK, _CALL and _ERR have 8 bits for the index: no ring beyond these can be started."""


class Notify(Enum):
    """What is known about one of a ring's three notifiers."""

    UNSET = "unset"
    FD = "descriptor"
    POLL = "polled"
    """Bit 8 was set: there is no descriptor, one has to look."""


@dataclass(frozen=True, slots=True)
class RingState:
    """What both ends know about one ring; replaced whole.

    Attributes:
        index: its number.
        size: entries; 0 while SET_VRING_NUM has not come.
        addr: where its parts lie; None while SET_VRING_ADDR has not come.
        base: what SET_VRING_BASE said last, or the reply to GET_VRING_BASE.
        started: it may be processed.
        enabled: it may be processed with side effects.
        kick: how the driver notifies the device.
        call: how the device notifies the driver.
        err: how the device says that the ring is broken.
    """

    index: int
    size: int = 0
    addr: SetVringAddr | None = None
    base: int = 0
    started: bool = False
    enabled: bool = False
    kick: Notify = Notify.UNSET
    call: Notify = Notify.UNSET
    err: Notify = Notify.UNSET

    @property
    def running(self) -> bool:
        """Started and enabled: full operation."""
        return self.started and self.enabled


# --- when a ring changes state -----------------------------------------------------------------------------------


class RingEvent(Enum):
    """What moves rings."""

    SET_VRING_KICK = auto()
    VRING_KICK = auto()
    GET_VRING_BASE = auto()
    ENABLE = auto()
    DISABLE = auto()
    FEATURES_WITHOUT_BIT_30 = auto()
    FEATURES_WITH_BIT_30 = auto()
    RESET_DEVICE = auto()
    STATUS_RESET = auto()
    RESET_OWNER = auto()


class Effect(NamedTuple):
    """What becomes of the two bits; None is "as it was"."""

    started: bool | None
    enabled: bool | None


TRANSITIONS: Mapping[RingEvent, Effect] = {
    RingEvent.SET_VRING_KICK: Effect(True, None),
    RingEvent.VRING_KICK: Effect(True, None),
    RingEvent.GET_VRING_BASE: Effect(False, None),
    RingEvent.ENABLE: Effect(None, True),
    RingEvent.DISABLE: Effect(None, False),
    RingEvent.FEATURES_WITHOUT_BIT_30: Effect(None, True),
    # Not "disable": SET_FEATURES comes again at run time, to switch logging, and must leave the rings running.
    RingEvent.FEATURES_WITH_BIT_30: Effect(None, None),
    # The text says "initial state"; that is stopped and disabled.
    RingEvent.RESET_DEVICE: Effect(False, False),
    # SET_STATUS 0 resets the device too (virtio 1.3, 2.1.2), and a ring that went on would go on from positions that
    # the driver has forgotten.  The text does not speak of "enabled" here, so that stays.
    RingEvent.STATUS_RESET: Effect(False, None),
    # Deprecated.  A back-end may ignore it or disable all rings; if it is ignored here, a peer that meant nothing by
    # it keeps its rings.
    RingEvent.RESET_OWNER: Effect(None, None),
}
"""The whole of the ring state machine.  The last five concern every ring, the others the one they name."""


def event_of(message: Message) -> RingEvent | None:
    """What ``message`` is to rings; None when it moves none."""
    match message:
        case SetVringKick():
            return RingEvent.SET_VRING_KICK
        case VringKick():
            return RingEvent.VRING_KICK
        case GetVringBase():
            return RingEvent.GET_VRING_BASE
        case SetVringEnable(_, num):
            return RingEvent.ENABLE if num else RingEvent.DISABLE
        case SetFeatures(features):
            with_it = features & VirtioFeature.PROTOCOL_FEATURES
            return RingEvent.FEATURES_WITH_BIT_30 if with_it else RingEvent.FEATURES_WITHOUT_BIT_30
        case ResetDevice():
            return RingEvent.RESET_DEVICE
        case SetStatus(0):
            return RingEvent.STATUS_RESET
        case ResetOwner():
            return RingEvent.RESET_OWNER
        case _:
            return None


def moved(ring: RingState, event: RingEvent) -> RingState:
    """``ring`` after ``event``."""
    started, enabled = TRANSITIONS[event]
    return replace(
        ring,
        started=ring.started if started is None else started,
        enabled=ring.enabled if enabled is None else enabled,
    )


def configured(ring: RingState, message: Message) -> RingState:
    """``ring`` with what ``message`` says about it; whether it may say so was checked before."""
    match message:
        case SetVringNum(_, num):
            return replace(ring, size=num)
        case SetVringAddr():
            return replace(ring, addr=message)
        case SetVringBase(_, base):
            return replace(ring, base=base)
        case SetVringKick():
            return replace(ring, kick=_notify(message))
        case SetVringCall():
            return replace(ring, call=_notify(message))
        case SetVringErr():
            return replace(ring, err=_notify(message))
        case GetVringBase():
            # Back-ends drop kick and call here.  The err descriptor stays: QEMU sends it once per connection only.
            return replace(ring, kick=Notify.UNSET, call=Notify.UNSET)
        case _:
            return ring


def _notify(message: VringFd) -> Notify:
    return Notify.POLL if message.no_fd else Notify.FD


# --- what a ring may be made of ----------------------------------------------------------------------------------


_EVENT_SUPPRESSION = (packed_ring.EVENT_SUPPRESSION_SIZE, packed_ring.EVENT_SUPPRESSION_ALIGN)


class Area(NamedTuple):
    """One of the three parts of a ring: bytes from ``addr`` on."""

    name: str
    addr: int
    size: int
    alignment: int


def areas(addr: SetVringAddr, size: int, *, packed: bool) -> tuple[Area, Area, Area]:
    """The parts of a ring of ``size`` entries (virtio 1.3, 2.7 and 2.8)."""
    if packed:
        return (
            Area("descriptor ring", addr.descriptor, packed_ring.desc_ring_size(size), packed_ring.DESC_RING_ALIGN),
            Area("driver event suppression", addr.available, *_EVENT_SUPPRESSION),
            Area("device event suppression", addr.used, *_EVENT_SUPPRESSION),
        )
    return (
        Area("descriptor table", addr.descriptor, split.desc_table_size(size), split.DESC_TABLE_ALIGN),
        Area("available ring", addr.available, split.avail_ring_size(size), split.AVAIL_RING_ALIGN),
        Area("used ring", addr.used, split.used_ring_size(size), split.USED_RING_ALIGN),
    )


def check_size(index: int, size: int, limit: int, *, packed: bool) -> None:
    """A split ring has a power of two of entries, a packed one any number above 0 (virtio 1.3, 2.7 and 2.8)."""
    fits = 0 < size <= limit and (packed or size & (size - 1) == 0)
    number = "a size" if packed else "a power of two"
    expect(fits, f"ring {index} with {size} entries", f"{number} from 1 to {limit}")


def check_alignment(addr: SetVringAddr, *, packed: bool) -> None:
    """Each part begins at a multiple of its alignment."""
    for area in areas(addr, 0, packed=packed):
        aligned = area.addr % area.alignment == 0
        expect(aligned, f"ring {addr.index}: {area.name} at {area.addr:#x}", f"a multiple of {area.alignment}")


def check_base(index: int, base: int, *, packed: bool) -> None:
    """A split ring's base is one 16-bit index; a packed ring's fills all 32 bits."""
    expect(packed or base <= 0xFFFF, f"ring {index}: base {base:#x}", "16 bits, the ring being split")


def check_idle(ring: RingState) -> None:
    """Size and base stay as they are while the ring runs: its owner would lose its place.

    The text is silent.  The kernel's vhost answers EBUSY.  A ring that is started but disabled is let through, for
    front-ends that end a session with RESET_OWNER alone.
    """
    expect(not ring.running, f"ring {ring.index} running", "it to be stopped by GET_VRING_BASE first")


def check_startable(
    ring: RingState,
    regions: Sequence[MemoryRegion | XenMemoryRegion],
    limit: int,
    *,
    packed: bool,
    translated: bool,
) -> None:
    """A ring needs a size, addresses, and memory behind them before it can start.

    Args:
        ring: the one to start.
        regions: the memory table.
        limit: most entries a ring may have.
        packed: RING_PACKED is negotiated.
        translated: the addresses are IOVAs, of which the memory table says nothing.
    """
    expect(ring.size > 0, f"ring {ring.index} without a size", "SET_VRING_NUM before the ring is started")
    check_size(ring.index, ring.size, limit, packed=packed)
    addr = ring.addr
    expect(addr is not None, f"ring {ring.index} without addresses", "SET_VRING_ADDR before the ring is started")
    expect(bool(regions), f"ring {ring.index} without memory", "a memory table before the ring is started")
    if addr is not None and not translated:
        for area in areas(addr, ring.size, packed=packed):
            inside = any(_holds(region, area) for region in regions)
            place = f"ring {ring.index}: {area.name} at user address {area.addr:#x}, {area.size} bytes"
            expect(inside, f"{place}, outside memory", "it to lie in one memory region")


def _holds(region: MemoryRegion | XenMemoryRegion, area: Area) -> bool:
    return region.user_addr <= area.addr and area.addr + area.size <= region.user_addr + region.size
