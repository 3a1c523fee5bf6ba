"""The area in which a back-end records requests in flight ("Inflight I/O tracking" of the vhost-user document).

GET_INFLIGHT_FD makes it, the front-end keeps it, SET_INFLIGHT_FD hands it back: to the same back-end after a new
start, hence machine byte order.  One region a queue, each a header and one entry per descriptor.  The document does
not say how far apart the regions are; libvhost-user and DPDK round each up to 64 bytes, and so do we, because only
back-ends that agree can take over from each other.
"""

from __future__ import annotations

from vhostuser.wire.schema import Structure, pad, structure, u8, u16, u32, u64, wire

VERSION = 1
"""Of both regions; 0, as in memory that nobody wrote to, says that the region is not initialised."""
REGION_ALIGN = 64


@structure
class QueueRegionSplit(Structure):
    """Header of a split queue's region."""

    features: int = wire(u64, default=0)
    version: int = wire(u16, default=0)
    desc_num: int = wire(u16, default=0)
    last_batch_head: int = wire(u16, default=0)
    used_idx: int = wire(u16, default=0)


@structure
class DescStateSplit(Structure):
    """One descriptor of a split queue; only heads of chains are used."""

    inflight: int = wire(u8, default=0)
    _: None = pad(5)
    next: int = wire(u16, default=0)
    counter: int = wire(u64, default=0)


@structure
class QueueRegionPacked(Structure):
    """Header of a packed queue's region: 29 bytes of fields, 32 on the wire."""

    features: int = wire(u64, default=0)
    version: int = wire(u16, default=0)
    desc_num: int = wire(u16, default=0)
    free_head: int = wire(u16, default=0)
    old_free_head: int = wire(u16, default=0)
    used_idx: int = wire(u16, default=0)
    old_used_idx: int = wire(u16, default=0)
    used_wrap_counter: int = wire(u8, default=0)
    old_used_wrap_counter: int = wire(u8, default=0)
    _: None = pad(10)


@structure
class DescStatePacked(Structure):
    """One descriptor of a packed queue; ``inflight``, ``last``, ``num`` and ``counter`` count in heads only."""

    inflight: int = wire(u8, default=0)
    _: None = pad(1)
    next: int = wire(u16, default=0)
    last: int = wire(u16, default=0)
    num: int = wire(u16, default=0)
    counter: int = wire(u64, default=0)
    id: int = wire(u16, default=0)
    flags: int = wire(u16, default=0)
    len: int = wire(u32, default=0)
    addr: int = wire(u64, default=0)


def split_region_size(queue_size: int) -> int:
    """Bytes from the beginning of one split queue's region to that of the next."""
    return _aligned(QueueRegionSplit.wire_size() + queue_size * DescStateSplit.wire_size())


def packed_region_size(queue_size: int) -> int:
    """Bytes from the beginning of one packed queue's region to that of the next."""
    return _aligned(QueueRegionPacked.wire_size() + queue_size * DescStatePacked.wire_size())


def _aligned(size: int) -> int:
    return -(-size // REGION_ALIGN) * REGION_ALIGN
