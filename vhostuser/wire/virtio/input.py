"""Input device (virtio 1.3, section 5.8): queue 0 events to the driver, 1 status (LEDs) from it."""

from __future__ import annotations

from enum import IntEnum

from construct import Bytes

from vhostuser.wire.schema import Structure, code, le16, le32, pad, structure, u8, wire

EVENT_QUEUE = 0
STATUS_QUEUE = 1
CONFIG_DATA_SIZE = 128


class InputSelect(IntEnum):
    """5.8.4: what the driver asks the configuration space for."""

    UNSET = 0x00
    ID_NAME = 0x01
    ID_SERIAL = 0x02
    ID_DEVIDS = 0x03
    PROP_BITS = 0x10
    EV_BITS = 0x11
    ABS_INFO = 0x12


@structure
class InputConfig(Structure):
    """5.8.4 Device configuration layout.

    The driver writes ``select`` and ``subsel``; ``size`` bytes of ``data`` then answer, 0 when there is no answer.
    """

    select: InputSelect | int = wire(code(u8, InputSelect), default=InputSelect.UNSET)
    subsel: int = wire(u8, default=0)
    size: int = wire(u8, default=0)
    _: None = pad(5)
    data: bytes = wire(Bytes(CONFIG_DATA_SIZE), default=bytes(CONFIG_DATA_SIZE))


@structure
class InputAbsInfo(Structure):
    """``virtio_input_absinfo``: the range of an axis."""

    min: int = wire(le32)
    max: int = wire(le32)
    fuzz: int = wire(le32, default=0)
    flat: int = wire(le32, default=0)
    res: int = wire(le32, default=0)


@structure
class InputDevIds(Structure):
    """``virtio_input_devids``."""

    bustype: int = wire(le16)
    vendor: int = wire(le16)
    product: int = wire(le16)
    version: int = wire(le16)


@structure
class InputEvent(Structure):
    """``virtio_input_event``: type and code are those of Linux's evdev; a group ends with an EV_SYN."""

    type: int = wire(le16)
    code: int = wire(le16)
    value: int = wire(le32)
