"""From a chain to a block request, and every check that virtio 1.3, section 5.2.6 asks for.  No I/O.

Requests are well-formed or `Refused`: a chain that can be read but asks for something wrong is answered with a status
byte, and the ring goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vhostuser.errors import VhostUserError
from vhostuser.wire.schema import codec
from vhostuser.wire.virtio.blk import (
    ID_SIZE,
    SECTOR_SIZE,
    BlkConfig,
    BlkHeader,
    BlkRange,
    BlkRangeFlags,
    BlkStatus,
    BlkType,
)

if TYPE_CHECKING:
    from vhostuser.devices.blk.counts import Counts
    from vhostuser.virtqueue.chain import Chain, Writer

STATUS_SIZE = 1
_HEADER_SIZE, _unpack = codec(BlkHeader).size, codec(BlkHeader).unpack


class Refused(VhostUserError):
    """The request is answered with ``status`` and nothing is done."""

    def __init__(self, status: BlkStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class BlkRequest:
    """One request, taken apart.

    Attributes:
        chain: where it came from; its writer has the data of a read, without the status byte.
        status: the status byte, last of the writable bytes.
        type: what is asked for, a `BlkType` if virtio has a name for it; a plain int, whose hash is a quarter of an
            enum's.
        sector: where, in sectors of 512 bytes.
        counts: where it is counted.
    """

    chain: Chain
    status: Writer
    type: int
    sector: int
    counts: Counts

    @property
    def offset(self) -> int:
        """Where, in bytes."""
        return self.sector * SECTOR_SIZE

    def finish(self, status: BlkStatus) -> None:
        """Write the status byte."""
        self.counts.requests += 1
        self.status.write(status.to_bytes())


def parse(chain: Chain, counts: Counts) -> BlkRequest:
    """Read the header and find the status byte; the request will be added to ``counts``.

    Raises:
        ShortChain: there is no room for a header or for a status byte, so nothing can be answered.
    """
    status = chain.writable.reserve_last(STATUS_SIZE)
    number, _, sector = _unpack(chain.readable.read(_HEADER_SIZE))
    return BlkRequest(chain, status, number, sector, counts)


def check_data(sector: int, length: int, config: BlkConfig) -> None:
    """IN and OUT: whole sectors, all of them on the disk.

    Raises:
        Refused: IOERR.
    """
    if length % SECTOR_SIZE:
        raise Refused(BlkStatus.IOERR, f"{length} bytes are not a multiple of {SECTOR_SIZE}")
    check_bounds(sector, length // SECTOR_SIZE, config)


def check_bounds(sector: int, sectors: int, config: BlkConfig) -> None:
    """Raises `Refused` (IOERR) when the range is not wholly on the disk."""
    if sector + sectors > config.capacity:
        raise Refused(BlkStatus.IOERR, f"sectors {sector}+{sectors} end behind the disk's {config.capacity}")


def ranges(request: BlkRequest, config: BlkConfig) -> list[BlkRange]:
    """The ranges of a DISCARD or WRITE_ZEROES request, checked in the order of section 5.2.6.2.

    Raises:
        Refused: IOERR for sizes and places that cannot be, UNSUPP for flags.
    """
    discard = request.type == BlkType.DISCARD
    most_ranges = config.max_discard_seg if discard else config.max_write_zeroes_seg
    most_sectors = config.max_discard_sectors if discard else config.max_write_zeroes_sectors
    count, rest = divmod(request.chain.readable.remaining, BlkRange.wire_size())
    if rest or not 0 < count <= most_ranges:
        raise Refused(BlkStatus.IOERR, f"{count} ranges and {rest} bytes, 1 to {most_ranges} ranges are possible")
    found = [request.chain.readable.read_record(BlkRange) for _ in range(count)]
    allowed = BlkRangeFlags(0) if discard else BlkRangeFlags.UNMAP
    for each in found:
        # int: the complement of a set of flags leaves out the bits that have no name, the very ones to be refused.
        if int(each.flags) & ~int(allowed):
            raise Refused(BlkStatus.UNSUPP, f"range flags {each.flags:#x}")
        if each.num_sectors > most_sectors:
            raise Refused(BlkStatus.IOERR, f"{each.num_sectors} sectors in a range, limit {most_sectors}")
        check_bounds(each.sector, each.num_sectors, config)
    return found


def identity(serial: str) -> bytes:
    """What GET_ID answers: 20 bytes, NUL behind a shorter name, none behind one of 20."""
    return serial.encode("ascii", "replace")[:ID_SIZE].ljust(ID_SIZE, b"\0")
