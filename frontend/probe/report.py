"""What a probe has found out."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vhostuser.wire.features import ProtocolFeature, names
from vhostuser.wire.virtio.features import describe
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1
"""Of the JSON; raised when an older report can no longer be compared."""
BY_CHANCE = frozenset({"split-reply"})
"""Quirks that are seen in one run and not in the next, with the same back-end."""


@dataclass(frozen=True, slots=True, order=True)
class Quirk:
    """Something that a front-end's author would not have expected.

    Attributes:
        id: its kind; stays the same between releases.
        detail: what it was, without anything that changes from run to run.
    """

    id: str
    detail: str


@dataclass(frozen=True, slots=True)
class TypeGuess:
    """What kind of device this is.

    Attributes:
        type: None when nothing speaks for any.
        why: what speaks for it; empty when somebody told us.
    """

    type: int | None
    why: str = ""

    @property
    def name(self) -> str:
        """``blk`` is what people call it; all others as in the standard."""
        return type_name(self.type)


@dataclass(kw_only=True)
class Report:
    """What a back-end said; None stands for what it was not asked, or did not answer.

    Attributes:
        features: all bits of GET_FEATURES.
        protocol_features: all bits of GET_PROTOCOL_FEATURES.
        device: its type, told or guessed.
        queues: reply to GET_QUEUE_NUM.
        memory_slots: reply to GET_MAX_MEM_SLOTS.
        status: reply to GET_STATUS.
        need_reply: ``answered``, ``refused``, ``ignored``, ``answered twice``, or ``not offered``.
        config: the bytes of configuration space that it gave.
        config_fields: the fields among them that mean something, by name.
        round_trips: seconds from a question to its answer, one for each time it was asked.
        quirks: see `note`.
        ended: why it could not be asked any more; empty when it was asked everything.
    """

    features: int | None = None
    protocol_features: int | None = None
    device: TypeGuess = TypeGuess(None)
    queues: int | None = None
    memory_slots: int | None = None
    status: int | None = None
    need_reply: str = "not offered"
    config: bytes | None = None
    config_fields: dict[str, Any] = field(default_factory=dict)
    round_trips: Sequence[float] = ()
    quirks: list[Quirk] = field(default_factory=list)
    ended: str = ""

    def note(self, id_: str, detail: str) -> None:
        """Remember something odd, once."""
        quirk = Quirk(id_, detail)
        if quirk not in self.quirks:
            self.quirks.append(quirk)

    def has(self, feature: ProtocolFeature) -> bool:
        """Whether this protocol feature is on offer."""
        return bool((self.protocol_features or 0) & feature)

    def to_json(self) -> dict[str, Any]:
        """For machines, and for `differences`."""
        protocol, features = self.protocol_features, self.features
        return {
            "format": FORMAT,
            "type": self.device.name,
            "type_guessed_from": self.device.why or None,
            "features": None if features is None else _bits(features, describe(features, self.device.type)),
            "protocol_features": None if protocol is None else _bits(protocol, names(protocol, ProtocolFeature)),
            "queues": self.queues,
            "memory_slots": self.memory_slots,
            "status": self.status,
            "need_reply": self.need_reply,
            "config": None if self.config is None else {"hex": self.config.hex(), "fields": self.config_fields},
            "quirks": [{"id": quirk.id, "detail": quirk.detail} for quirk in self.quirks],
            "ended": self.ended or None,
            "round_trip_us": self.round_trip_us(),
        }

    def round_trip_us(self) -> dict[str, float] | None:
        """Least, median and most, in microseconds."""
        if not self.round_trips:
            return None
        times = sorted(round(1e6 * seconds, 1) for seconds in self.round_trips)
        return {"least": times[0], "median": round(statistics.median(times), 1), "most": times[-1]}


def type_name(number: int | None) -> str:
    """What commands call a device type: ``blk``, ``net``, ``vsock``; a number when it has no name."""
    if number is None:
        return "unknown"
    try:
        name = DeviceType(number).name.lower()
    except ValueError:
        return str(number)
    return "blk" if name == "block" else name


def _bits(value: int, named: list[str]) -> dict[str, Any]:
    return {"value": f"{value:#x}", "names": named}
