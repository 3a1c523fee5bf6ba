"""What both ends of a connection know, and what may be sent next.

Theory of operation
-------------------

A vhost-user connection has hardly any phases.  What may be sent follows from a few facts, and each fact is changed by
a few messages:

* the virtio features offered and acknowledged, the protocol features offered and acknowledged: they gate messages;
* the memory table;
* per ring its configuration, and whether it is started and enabled (rings.py);
* who owns the session, and the device status: kept, but no rule depends on them.

`ProtocolState` does not know which end it serves.  A front-end lets it observe what it sends, a back-end what it
receives, a proxy what passes by; the same rules hold for all three.  A rule that is broken raises
`LocalProtocolError`, and nothing has changed then.  Where a peer's bytes come in, that error is raised again as a
`RemoteProtocolError` (responder.py).

*Only what both ends know counts.*  What a device could do, what is mapped, how many chains are in flight: none of it
is in here, so the two ends' states stay equal without talking about them.

*Strict when sending, lenient when receiving.*  The text sometimes asks that a feature be negotiated where others are
content that it was offered, and some of its rules bind only the sender.  ``received=True`` says that the message is
here already.  Where the text prescribes no order, none is prescribed: SET_OWNER may come late or twice, SET_FEATURES
often, a ring may be configured in any order before it is started, and enabled before it is configured.

Everything inside is immutable and replaced whole, so a `Snapshot` is a row of references, and `restore` brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from vhostuser.errors import LocalProtocolError
from vhostuser.protocol import memory_table, rings
from vhostuser.protocol.payloads import check_payload
from vhostuser.protocol.replies import counts
from vhostuser.protocol.rings import MAX_RINGS, RingState
from vhostuser.protocol.rules import expect
from vhostuser.wire.catalog import NO_PROTOCOL_FEATURE, Gate
from vhostuser.wire.features import PREREQUISITES, ProtocolFeature, VirtioFeature, names
from vhostuser.wire.frontend_messages import (
    AddMemReg,
    CheckDeviceState,
    GetConfig,
    GetFeatures,
    GetMaxMemSlots,
    GetProtocolFeatures,
    GetQueueNum,
    GetStatus,
    GetVringBase,
    RemMemReg,
    ResetDevice,
    SetDeviceStateFd,
    SetFeatures,
    SetMemTable,
    SetOwner,
    SetProtocolFeatures,
    SetStatus,
    SetVringAddr,
    SetVringBase,
    SetVringEndian,
    SetVringKick,
    SetVringNum,
    VringKick,
    XenAddMemReg,
    XenRemMemReg,
    XenSetMemTable,
)
from vhostuser.wire.records import U64, Config, VringState
from vhostuser.wire.requests import Role
from vhostuser.wire.split import MAX_QUEUE_SIZE

if TYPE_CHECKING:
    from vhostuser.protocol.memory_table import Table
    from vhostuser.wire.catalog import Message, MessageSpec
    from vhostuser.wire.schema import Structure

Snapshot: TypeAlias = tuple[Any, ...]
"""All that a `ProtocolState` knew at one moment."""

_REPLY_ACK = ProtocolFeature.REPLY_ACK.value


def new_rings(count: int) -> tuple[RingState, ...]:
    """``count`` rings as they are when a connection begins."""
    return tuple(RingState(index) for index in range(count))


@dataclass(slots=True, kw_only=True)
class ProtocolState:
    """One connection, as both ends know it.

    Attributes:
        offered_features: virtio features in the reply to GET_FEATURES; None as long as nobody said.
        features: virtio features in force, by SET_FEATURES.
        offered_protocol_features: the reply to GET_PROTOCOL_FEATURES; None as long as nobody said.
        protocol_features: protocol features in force, by SET_PROTOCOL_FEATURES.
        owner: SET_OWNER has come.
        rings: all rings that messages may name.  A front-end cannot know how many there are: some back-ends answer
            GET_QUEUE_NUM with queue pairs, and fixed-queue devices need not be asked.  It gets the most there can be.
        regions: the memory table.
        status: VIRTIO device status.
        queue_num: the reply to GET_QUEUE_NUM.
        max_mem_slots: the reply to GET_MAX_MEM_SLOTS.
        max_queue_size: most entries a ring may have.
    """

    offered_features: int | None = None
    features: int = 0
    offered_protocol_features: ProtocolFeature | None = None
    protocol_features: ProtocolFeature = NO_PROTOCOL_FEATURE
    owner: bool = False
    rings: tuple[RingState, ...] = new_rings(MAX_RINGS)
    regions: Table = ()
    status: int = 0
    queue_num: int | None = None
    max_mem_slots: int | None = None
    max_queue_size: int = MAX_QUEUE_SIZE

    @property
    def suspended(self) -> bool:
        """All rings are stopped: the back-end neither writes memory, nor notifies, nor sends requests of its own."""
        return not any(ring.started for ring in self.rings)

    @property
    def reply_ack(self) -> bool:
        """REPLY_ACK is negotiated: need_reply counts."""
        return bool(int(self.protocol_features) & _REPLY_ACK)

    def snapshot(self) -> Snapshot:
        """What is known now; one is taken for each message, so it has to be cheap."""
        kept: Snapshot = _values(self)
        return kept

    def restore(self, snapshot: Snapshot) -> None:
        """Know again what was known when ``snapshot`` was taken."""
        for name, value in zip(_NAMES, snapshot, strict=True):
            setattr(self, name, value)

    # --- gates ---

    def missing(self, spec: MessageSpec, *, received: bool = False) -> list[str]:
        """Names of the features that would have to be offered or negotiated before this message may be sent."""
        # Plain numbers: an operator of IntFlag is a Python function.
        needs_virtio, needs = int(spec.needs_virtio), int(spec.needs)
        if not needs_virtio | needs:
            return []
        offered = int(self.offered_features or 0)
        virtio, protocol = int(self.features), int(self.protocol_features)
        if spec.gate is Gate.OFFERED:
            virtio, protocol = offered, int(self.offered_protocol_features or 0)
        if received:
            virtio |= offered & VirtioFeature.PROTOCOL_FEATURES.value
        return names(needs_virtio & ~virtio, VirtioFeature) + names(needs & ~protocol, ProtocolFeature)

    def allows(self, spec: MessageSpec) -> bool:
        """Whether the features permit this message to be sent."""
        return not self.missing(spec)

    # --- messages ---

    def observe(self, sender: Role, message: Message, fd_count: int, *, received: bool = False) -> None:
        """Take note of a request.

        Args:
            sender: who sends it.
            message: its payload.
            fd_count: how many descriptors come with it.
            received: it has come from the peer already, so rules that bind only senders do not count.

        Raises:
            LocalProtocolError: it may not be sent now.  Nothing has changed.
        """
        spec = message.spec
        try:
            self._check(sender, message, fd_count, received=received)
            self._apply(message)
        except LocalProtocolError as error:
            raise LocalProtocolError(f"{spec.name}: {error.reason}", section=spec.section) from None

    def observe_reply(self, to: Message, reply: Structure) -> None:
        """Take note of the reply to a request.

        Raises:
            LocalProtocolError: it does not answer this request.
        """
        try:
            self._apply_reply(to, reply)
        except LocalProtocolError as error:
            raise LocalProtocolError(f"reply to {to.spec.name}: {error.reason}", section=to.spec.section) from None

    def _check(self, sender: Role, message: Message, fd_count: int, *, received: bool) -> None:
        spec = message.spec
        expect(sender is spec.sender, f"a {sender.value} sending", f"only a {spec.sender.value} to send this")
        missing = self.missing(spec, received=received)
        expect(not missing, f"{', '.join(missing)} not {spec.gate.value}", f"to be {spec.gate.value} first")
        expected = spec.payload(self.protocol_features)
        expect(type(message) is expected, f"the payload of {type(message).__name__}", expected.__name__)
        self._check_fds(message, fd_count)
        self._check_suspended(message, received=received)
        check_payload(message)
        index = _index(message)
        if index is not None:
            inside = index < len(self.rings)
            expect(inside, f"ring index {index}", f"less than {len(self.rings)}, the number of rings")
            self._check_ring(self.rings[index], message)

    def _check_fds(self, message: Message, fd_count: int) -> None:
        spec = message.spec
        limits = spec.fd_limits(
            self.protocol_features,
            regions=len(getattr(message, "regions", ())),
            no_fd=getattr(message, "no_fd", False),
        )
        expect(fd_count in limits, f"{fd_count} file descriptors", counts(limits))
        missing = names(int(spec.fds_need) & ~int(self.protocol_features), ProtocolFeature) if fd_count else []
        expect(not missing, f"{fd_count} file descriptors", f"{', '.join(missing)} to be negotiated first")

    def _check_suspended(self, message: Message, *, received: bool) -> None:
        if message.spec.sender is Role.BACKEND:
            silent = self.suspended and not received
            expect(not silent, "all rings stopped", "a started ring before the back-end speaks up")
        elif isinstance(message, SetDeviceStateFd | CheckDeviceState):
            expect(self.suspended, "a started ring", "all rings to be stopped while state is moved")

    def _check_ring(self, ring: RingState, message: Message) -> None:
        packed = bool(self.features & VirtioFeature.RING_PACKED)
        match message:
            case SetVringNum(index, num):
                rings.check_size(index, num, self.max_queue_size, packed=packed)
                rings.check_idle(ring)
            case SetVringBase(index, base):
                rings.check_base(index, base, packed=packed)
                rings.check_idle(ring)
            case SetVringAddr():
                rings.check_alignment(message, packed=packed)
            case SetVringEndian():
                expect(not ring.started, f"ring {ring.index} started", "the byte order before the ring is started")
            case SetVringKick() | VringKick() if not ring.started:
                translated = bool(self.features & VirtioFeature.ACCESS_PLATFORM)
                rings.check_startable(ring, self.regions, self.max_queue_size, packed=packed, translated=translated)

    # --- effects ---

    def _apply(self, message: Message) -> None:
        gpa = ProtocolFeature.GPA_ADDRESSES in self.protocol_features
        match message:
            case SetFeatures(features):
                _check_offered(features, self.offered_features, "GET_FEATURES", VirtioFeature)
                self.features = features
            case SetProtocolFeatures(features):
                _check_offered(features, self.offered_protocol_features, "GET_PROTOCOL_FEATURES", ProtocolFeature)
                _check_prerequisites(features)
                self.protocol_features = features
            case SetOwner():
                self.owner = True
            case SetMemTable(regions) | XenSetMemTable(regions):
                self.regions = memory_table.replaced(regions, gpa=gpa)
            case AddMemReg(region) | XenAddMemReg(region):
                self.regions = memory_table.added(self.regions, region, self.max_mem_slots, gpa=gpa)
            case RemMemReg(region) | XenRemMemReg(region):
                self.regions = memory_table.removed(self.regions, region)
            case SetStatus(status):
                self.status = status
            case ResetDevice():
                self.status = 0
        self._move_rings(message)

    def _move_rings(self, message: Message) -> None:
        event, index = rings.event_of(message), _index(message)
        if index is not None:
            ring = rings.configured(self.rings[index], message)
            self._replace(ring if event is None else rings.moved(ring, event))
        elif event is not None:
            self.rings = tuple(rings.moved(ring, event) for ring in self.rings)

    def _replace(self, ring: RingState) -> None:
        self.rings = (*self.rings[: ring.index], ring, *self.rings[ring.index + 1 :])

    def _apply_reply(self, to: Message, reply: Structure) -> None:
        match to, reply:
            case GetFeatures(), U64(value):
                self.offered_features = value
            case GetProtocolFeatures(), U64(value):
                self.offered_protocol_features = ProtocolFeature(value)
            case GetQueueNum(), U64(value):
                self.queue_num = value
            case GetMaxMemSlots(), U64(value):
                self.max_mem_slots = value
            case GetStatus(), U64(value):
                self.status = value
            case GetVringBase(index), VringState(replied, base):
                expect(replied == index, f"ring index {replied}", f"{index}, as asked for")
                self._replace(replace(self.rings[index], base=base))
            case GetConfig(_, size), Config(_, replied, _, data):
                expect(replied == size, f"a size of {replied} bytes", f"{size}, as asked for")
                expect(len(data) == size, f"{len(data)} bytes of data", f"as many as its size says, {size}")


_NAMES = tuple(each.name for each in fields(ProtocolState))
_values = attrgetter(*_NAMES)


def _index(message: Message) -> int | None:
    """Which ring a message is about; None when it is about none or all."""
    index: int | None = getattr(message, "index", None)
    return index


def _check_offered(
    features: int, offered: int | None, asked: str, table: type[VirtioFeature] | type[ProtocolFeature]
) -> None:
    expect(offered is not None, f"features {features:#x} before any were offered", f"a reply to {asked} first")
    # int: the complement of a set of flags would leave out the bits that have no name.
    surplus = names(int(features) & ~int(offered or 0), table)
    expect(not surplus, f"{', '.join(surplus)}, never offered", f"a subset of {offered or 0:#x}")


def _check_prerequisites(features: ProtocolFeature) -> None:
    for feature, needed in PREREQUISITES.items():
        missing = names(needed & ~features, ProtocolFeature)
        broken = feature in features and missing
        expect(not broken, f"{feature.name} without {' and '.join(missing)}", "it only together with them")
