"""The usual request, in one step: a read or a write, cut as drivers cut it, of whole sectors that are on the disk.

Such a request is done here, or left exactly as it was.  So everything that can be wrong with a request is decided in
one place, on the streams of its chain (``request.py``, ``device.py``), and the answers are the same with and without
this file, as they are with the compiled loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vhostuser.devices.blk.request import STATUS_SIZE
from vhostuser.devices.blk.storage import WouldBlock
from vhostuser.wire.schema import codec
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkHeader, BlkStatus, BlkType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.devices.blk.counts import Counts
    from vhostuser.devices.blk.storage import Storage
    from vhostuser.virtqueue.chain import Chain

_HEADER, _OK = codec(BlkHeader), BlkStatus.OK.to_bytes()
_IN, _OUT = BlkType.IN.value, BlkType.OUT.value


class Left(NamedTuple):
    """What is still to be served.

    Attributes:
        other: chains that are unusual or went wrong.
        late: good ones that have to wait for the disk.
    """

    other: list[Chain]
    late: list[Chain]


def serve_usual(
    batch: Sequence[Chain], storage: Storage, sectors: int, counts: Counts, *, writing: bool, nowait: bool
) -> Left:
    """Serve reads and writes of a batch that are as they should be.

    Args:
        batch: nobody has asked these chains for a stream yet.
        storage: where the bytes are.
        sectors: how many the disk has.
        counts: where they are counted.
        writing: whether writes are for here too.
        nowait: leave what would have to wait for the disk.
    """
    read, write, end = storage.read_frame, storage.write, sectors * SECTOR_SIZE
    left = other, late = Left([], [])
    bytes_read = bytes_written = 0
    for chain in batch:
        frame = chain.frame(_HEADER, STATUS_SIZE)
        if frame is None:
            other.append(chain)
            continue
        (kind, _, sector), out, into = frame
        begin = sector * SECTOR_SIZE
        try:
            if kind == _IN and not out and not into % SECTOR_SIZE and begin + into <= end:
                read(begin, chain, into, nowait)
                bytes_read += into
            elif kind == _OUT and writing and not into and not out % SECTOR_SIZE and begin + out <= end:
                write(begin, chain.dataout(), nowait=nowait)
                bytes_written += out
            else:
                other.append(chain)
                continue
            chain.answer(_OK)
        except WouldBlock:
            late.append(chain)
        except OSError:
            other.append(chain)
    counts.requests += len(batch) - len(other) - len(late)
    counts.bytes_read += bytes_read
    counts.bytes_written += bytes_written
    return left
