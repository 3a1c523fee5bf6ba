"""From a frame to a line that people can read, by way of the `CATALOG`.

A `Decoder` follows one connection.  It never refuses anything: a frame that breaks the rules is the most interesting
one to see, so what cannot be read is shown as bytes, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from typing import TYPE_CHECKING

from vhostuser.memory.sizes import format_size
from vhostuser.trace.descriptors import Descriptor, describe
from vhostuser.wire.catalog import Answer
from vhostuser.wire.features import ProtocolFeature, VirtioFeature, names
from vhostuser.wire.frontend_messages import (
    AddMemReg,
    GetConfig,
    GetFeatures,
    GetProtocolFeatures,
    GetStatus,
    GetVringBase,
    RemMemReg,
    SetConfig,
    SetFeatures,
    SetMemTable,
    SetProtocolFeatures,
    SetStatus,
    SetVringAddr,
    SetVringBase,
    SetVringEnable,
    SetVringNum,
    VringFd,
)
from vhostuser.wire.messages import CATALOG
from vhostuser.wire.records import U64, Config, MemoryRegion, MemoryTable, VringState
from vhostuser.wire.requests import Role
from vhostuser.wire.schema import FormatError, Structure
from vhostuser.wire.virtio.ids import DeviceStatus

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.wire.catalog import MessageSpec

SHOWN_BYTES = 16
"""Bytes of a payload that are written out."""
_SMALL = 1 << 16
"""Numbers from here on are shown in hexadecimal."""
_SWITCH = {0: "off", 1: "on"}


class Kind(Enum):
    """What a frame is to the one before it."""

    REQUEST = "request"
    REPLY = "reply"
    ACK = "ack"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame in words.

    Attributes:
        sender: who sent it.
        kind: a request, a reply with a payload of its own, or an acknowledgement.
        name: the request's name in the document, of an answer too.
        detail: the payload in words; empty when there is nothing to say.
        descriptors: the files that came with it, under the numbers they have in this process.
        need_reply: an acknowledgement was asked for.
        value: of an acknowledgement; 0 means success.
    """

    sender: Role
    kind: Kind
    name: str
    detail: str
    descriptors: tuple[Descriptor, ...] = ()
    need_reply: bool = False
    value: int | None = None

    def __str__(self) -> str:
        verb = "" if self.kind is Kind.REQUEST else f"{self.kind.value} to "
        fds = f"fd {', '.join(map(str, self.descriptors))}" if self.descriptors else ""
        return "  ".join(filter(None, [verb + self.name, self.detail, fds]))


class Decoder:
    """Follows one channel and puts its frames into words.

    Args:
        requester: who makes requests on it: the front-end, or the back-end on the channel of SET_BACKEND_REQ_FD.
        device_features: names of the device's own feature bits, when its type is known.
    """

    def __init__(self, *, requester: Role = Role.FRONTEND, device_features: type[IntFlag] | None = None) -> None:
        self._requester = requester
        self._negotiated = ProtocolFeature(0)
        self._tables = (VirtioFeature,) if device_features is None else (VirtioFeature, device_features)

    def decode(self, sender: Role, frame: Frame) -> Decoded:
        """One frame, while it still holds its descriptors."""
        descriptors = tuple(describe(fd.fileno()) for fd in frame.fds if not fd.closed)
        spec = CATALOG.get((self._requester, frame.header.request))
        answer = sender is not self._requester
        if spec is None:
            kind = Kind.REPLY if answer else Kind.REQUEST
            return Decoded(sender, kind, f"request {frame.header.request}", _bytes(frame.payload), descriptors)
        if answer:
            return self._answer(sender, spec, frame.payload, descriptors)
        detail = self._request(spec, frame.payload)
        return Decoded(sender, Kind.REQUEST, spec.name, detail, descriptors, frame.header.needs_reply)

    def _request(self, spec: MessageSpec, payload: bytes) -> str:
        try:
            record = spec.payload(self._negotiated).parse(payload)
        except FormatError as error:
            return _unreadable(payload, error)
        if isinstance(record, SetProtocolFeatures):
            self._negotiated = record.features
        return self._features(record.features) if isinstance(record, SetFeatures) else in_words(record)

    def _answer(self, sender: Role, spec: MessageSpec, payload: bytes, descriptors: tuple[Descriptor, ...]) -> Decoded:
        reply = spec.reply if spec.replies(self._negotiated) else None
        if spec.answer is Answer.IN_POSTCOPY and len(payload) != U64.wire_size():
            reply = spec.reply
        try:
            if reply is None:
                value = U64.parse(payload).value
                return Decoded(sender, Kind.ACK, spec.name, "ok" if not value else f"refused: {value:#x}", value=value)
            detail = (
                "refused" if spec.refusal is not None and not payload else self._reply_text(spec, reply.parse(payload))
            )
        except FormatError as error:
            detail = _unreadable(payload, error)
        return Decoded(sender, Kind.REPLY, spec.name, detail, descriptors)

    def _reply_text(self, spec: MessageSpec, record: Structure) -> str:
        match record:
            case U64(value) if spec.message is GetFeatures:
                return self._features(value)
            case U64(value) if spec.message is GetProtocolFeatures:
                return _flag_names(value, ProtocolFeature)
            case U64(value) if spec.message is GetStatus:
                return _flag_names(value, DeviceStatus)
            case VringState(index, num) if spec.message is GetVringBase:
                return f"ring {index} base {num}"
        return in_words(record)

    def _features(self, value: int) -> str:
        return _flag_names(value, *self._tables)


# --- payloads --------------------------------------------------------------------------------------------------------


def in_words(record: Structure) -> str:
    """A payload in words; one that needs no words of its own is shown as its fields."""
    match record:
        case SetMemTable(regions) | MemoryTable(regions):
            return f"{_count(len(regions), 'region')}: {'; '.join(map(_region, regions))}"
        case AddMemReg(region) | RemMemReg(region):
            return _region(region)
        case SetVringAddr():
            return _addresses(record)
        case SetVringNum(index, num):
            return f"ring {index} size {num}"
        case SetVringBase(index, base):
            return f"ring {index} base {base}"
        case GetVringBase(index):
            return f"ring {index}"
        case SetVringEnable(index, num):
            return f"ring {index} {_SWITCH.get(num, num)}"
        case VringFd():
            return f"ring {record.index}" + (", no descriptor: poll" if record.no_fd else "")
        case GetConfig(offset, size, _, data) | SetConfig(offset, size, _, data) | Config(offset, size, _, data):
            return f"bytes {offset} to {offset + size}" + (f": {_bytes(data)}" if any(data) else "")
        case SetStatus(status):
            return _flag_names(status, DeviceStatus)
        case SetProtocolFeatures(features):
            return _flag_names(features, ProtocolFeature)
        case U64(value):
            return _value(value)
    return _fields(record)


def _region(region: MemoryRegion) -> str:
    return (
        f"guest {region.guest_addr:#x} +{format_size(region.size) if region.size else 0} "
        f"user {region.user_addr:#x} offset {region.mmap_offset:#x}"
    )


def _addresses(addr: SetVringAddr) -> str:
    log = f" log {addr.log:#x}" if addr.flags else ""
    return f"ring {addr.index} desc {addr.descriptor:#x} avail {addr.available:#x} used {addr.used:#x}{log}"


def _fields(record: Structure) -> str:
    """Any record at all: its fields by name.  Trailing space that peers send is not worth a word."""
    shown = ((name, getattr(record, name)) for name in record.__match_args__)
    return " ".join(f"{name} {_value(value)}" for name, value in shown if value != b"" and name != "trailing")


def _value(value: object) -> str:
    match value:
        case IntFlag():
            return _flag_names(int(value), type(value))
        case IntEnum():
            return value.name
        case int():
            return str(value) if abs(value) < _SMALL else f"{value:#x}"
        case bytes():
            return _bytes(value)
        case Structure():
            return f"({_fields(value)})"
        case tuple():
            return f"{len(value)}: {'; '.join(map(_value, value))}"
    return repr(value)


def _flag_names(value: int, *tables: type[IntFlag]) -> str:
    return f"{value:#x} {' '.join(names(value, *tables))}".rstrip()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _bytes(data: bytes) -> str:
    more = f" ... {len(data)} bytes" if len(data) > SHOWN_BYTES else ""
    return data[:SHOWN_BYTES].hex(" ") + more


def _unreadable(payload: bytes, error: FormatError) -> str:
    return f"unreadable: {error}  {_bytes(payload)}".rstrip()
