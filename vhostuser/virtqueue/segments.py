"""What a driver may put into a ring, whatever its format: counted and added up before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.wire.split import MAX_CHAIN_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.virtqueue.ring import Segment


def measure(name: str, queue_size: int, readable: Sequence[Segment], writable: Sequence[Segment]) -> tuple[int, int]:
    """How many segments these are, and how many bytes the device may write.

    Args:
        name: the ring, for messages.
        queue_size: its entries.
        readable: what the device reads.
        writable: what it fills.

    Raises:
        ValueError: a chain of these can never be added (2.7.4.2 and 2.8.5).
    """
    count = len(readable) + len(writable)
    offered = _total(writable)
    if not 0 < count <= queue_size:
        raise ValueError(f"{name}: a chain of {count} segments, the queue has {queue_size} entries")
    if _total(readable) + offered > MAX_CHAIN_BYTES:
        raise ValueError(f"{name}: a chain of more than {MAX_CHAIN_BYTES} bytes")
    return count, offered


def _total(segments: Sequence[Segment]) -> int:
    total = 0
    for addr, length in segments:
        if length <= 0:
            raise ValueError(f"segment at {addr:#x} has {length} bytes: devices refuse or skip empty ones")
        total += length
    return total
