"""Console device (virtio 1.3, section 5.3).

Queues 0 and 1 are port 0's receiveq and transmitq.  With MULTIPORT, 2 and 3 are the control queues and port n >= 1
has 2n + 2 and 2n + 3.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from vhostuser.wire.schema import Structure, code, le16, le32, structure, wire

CONTROL_RECEIVE_QUEUE = 2
CONTROL_TRANSMIT_QUEUE = 3


class ConsoleFeature(IntFlag):
    """5.3.3 Feature bits."""

    SIZE = 1 << 0
    MULTIPORT = 1 << 1
    EMERG_WRITE = 1 << 2


@structure
class ConsoleConfig(Structure):
    """5.3.4 Device configuration layout.  ``emerg_wr`` may be written at any time, a character at once."""

    cols: int = wire(le16, default=0)
    rows: int = wire(le16, default=0)
    max_nr_ports: int = wire(le32, default=0)
    emerg_wr: int = wire(le32, default=0)


class ConsoleEvent(IntEnum):
    """5.3.6.2 Multiport device operation: what a control message says."""

    DEVICE_READY = 0
    PORT_ADD = 1
    PORT_REMOVE = 2
    PORT_READY = 3
    CONSOLE_PORT = 4
    RESIZE = 5
    PORT_OPEN = 6
    PORT_NAME = 7


@structure
class ConsoleControl(Structure):
    """``virtio_console_control``.  RESIZE is followed by a `ConsoleResize`, PORT_NAME by a name without NUL."""

    id: int = wire(le32)
    event: ConsoleEvent | int = wire(code(le16, ConsoleEvent))
    value: int = wire(le16)


@structure
class ConsoleResize(Structure):
    """``virtio_console_resize``, as the standard orders it; some implementations send rows first."""

    cols: int = wire(le16)
    rows: int = wire(le16)
