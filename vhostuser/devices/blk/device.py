"""The block device: a batch of chains in, storage operations, a batch of status bytes out.

A hop to a thread costs some 50 µs, a block from the page cache two.  So each request of a batch is tried at once,
where it cannot wait; those that would have to wait go to one thread together, one hop for all of them.  A queue that
has a thread of its own needs none of this: there each request may wait (`BlkDevice.run_queue_on_thread`), and
``compiled.py`` does most of them without the GIL.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from vhostuser.device import Device
from vhostuser.devices.blk.compiled import CompiledDisk
from vhostuser.devices.blk.counts import Counts
from vhostuser.devices.blk.request import (
    BlkRequest,
    Refused,
    check_data,
    identity,
    parse,
    ranges,
)
from vhostuser.devices.blk.storage import WouldBlock
from vhostuser.devices.blk.usual import serve_usual
from vhostuser.virtqueue.chain import ShortChain
from vhostuser.wire.virtio.blk import (
    SECTOR_SIZE,
    BlkConfig,
    BlkFeature,
    BlkRangeFlags,
    BlkStatus,
    BlkType,
)
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.device import BlockingChainSource, ChainSource, CompiledLoop
    from vhostuser.devices.blk.storage import Storage
    from vhostuser.devices.blk.usual import Left
    from vhostuser.virtqueue.chain import Chain

log = logging.getLogger("vhostuser.devices.blk")
# Errors are logged as text, not as objects: their tracebacks hold chains, chains hold guest memory, and whoever keeps
# log records would keep it mapped.

SEG_MAX = 126
"""Data segments a request may have: a ring of 128 without room for header and status."""
MAX_RANGE_SECTORS = 32768
"""16 MiB: how much one DISCARD or WRITE_ZEROES may cover, so that zeroing cannot hold a thread for long."""
MAX_RANGES = 16


class BlkDevice(Device):
    """A disk.

    Args:
        storage: where its bytes are; the device uses it and does not close it.
        serial: what GET_ID answers, at most 20 ASCII characters.
        num_queues: how many request queues there are.
        read_only: refuse every write.
    """

    type = DeviceType.BLOCK

    def __init__(
        self, storage: Storage, *, serial: str = "python-vhost-user", num_queues: int = 1, read_only: bool = False
    ) -> None:
        features = BlkFeature.SEG_MAX | BlkFeature.BLK_SIZE | BlkFeature.FLUSH | BlkFeature.MQ
        features |= BlkFeature.RO if read_only else BlkFeature.DISCARD | BlkFeature.WRITE_ZEROES
        super().__init__(features=features, num_queues=num_queues)
        self.storage = storage
        self.serial = serial
        self.read_only = read_only
        self._write_through = False
        self._config = self._read_size()
        self._built: bytes | None = None  # what a driver reads of it, which it does word by word
        self._counts = [Counts() for _ in range(num_queues)]  # one each, since each may have a thread
        self._compiled: CompiledDisk | None = None

    @property
    def config(self) -> bytes:
        if self._built is None:
            self._built = self._config.build()
        return self._built

    @property
    def capacity(self) -> int:
        """Size of the disk in sectors of 512 bytes."""
        return self._config.capacity

    def refresh(self) -> bool:
        """Look at the storage's size again; tell the driver and return True if it changed."""
        self.storage.refresh()
        found = self._read_size()
        changed = found != self._config
        self._config, self._built = found, None
        self._tell_loops()
        if changed:
            self.config_changed.set()
        return changed

    def negotiated(self, features: int) -> None:
        # 5.2.5.2: a driver that did not take FLUSH has no way to ask for durability, so every write gets it.
        self._write_through = not features & BlkFeature.FLUSH
        self._tell_loops()

    @property
    def counts(self) -> Counts:
        """What this disk has done so far."""
        return sum(self._counts, Counts()) + (self._compiled.counts if self._compiled else Counts())

    async def process(self, queue: int, chain: Chain) -> None:
        """Serve a single request; `run_queue` does the same for whole batches."""
        waiting = self._begin([chain], self._counts[queue])
        if waiting:
            await trio.to_thread.run_sync(self._finish, waiting)

    async def run_queue(self, queue: int, chains: ChainSource) -> None:
        """Serve batch after batch; what must wait for the disk waits together, on one thread."""
        async for batch in chains:
            await self._serve_batch(batch, chains, self._counts[queue])
            batch.clear()  # as in `Device.run_queue`: an idle ring holds no memory

    def run_queue_on_thread(self, queue: int, chains: BlockingChainSource) -> None:
        """Serve one request after the other, and wait where that has to be."""
        counts = self._counts[queue]
        for batch in chains:
            for chain in self._usual(batch, counts, nowait=False).other:
                self._serve_blocking(chain, counts)
            chains.done(*batch)
            batch.clear()

    def compiled_loop(self, queue: int) -> CompiledLoop:
        """See `Device.compiled_loop`."""
        if self._compiled is None:
            self._compiled = CompiledDisk(self.storage, self.capacity)
            self._tell_loops()
        counts = self._counts[queue]
        return self._compiled.loop(lambda chain: self._serve_blocking(chain, counts))

    def _tell_loops(self) -> None:
        if self._compiled is not None:
            self._compiled.allow(sectors=self.capacity, writing=self._writes_are_usual)

    @property
    def _writes_are_usual(self) -> bool:
        return not (self.read_only or self._write_through)

    def _usual(self, batch: list[Chain], counts: Counts, *, nowait: bool) -> Left:
        return serve_usual(batch, self.storage, self.capacity, counts, writing=self._writes_are_usual, nowait=nowait)

    def _serve_blocking(self, chain: Chain, counts: Counts) -> None:
        request = self._parse(chain, counts)
        if request is not None:
            self._attempt(request, nowait=False)

    async def _serve_batch(self, batch: list[Chain], chains: ChainSource, counts: Counts) -> None:
        waiting = self._begin(batch, counts)
        if not waiting:
            chains.done(*batch)
        else:
            late = {id(request.chain) for request in waiting}
            chains.done(*(chain for chain in batch if id(chain) not in late))
            await trio.to_thread.run_sync(self._finish, waiting)
            chains.done(*(request.chain for request in waiting))

    def _begin(self, batch: list[Chain], counts: Counts) -> list[BlkRequest]:
        """Do what can be done without waiting; the requests that remain."""
        other, late = self._usual(batch, counts, nowait=True)
        waiting = [parse(chain, counts) for chain in late]
        for chain in other:
            request = self._parse(chain, counts)
            if request is not None and not self._attempt(request, nowait=True):
                waiting.append(request)
        return waiting

    def _finish(self, requests: list[BlkRequest]) -> None:
        for request in requests:
            self._attempt(request, nowait=False)

    def _parse(self, chain: Chain, counts: Counts) -> BlkRequest | None:
        try:
            return parse(chain, counts)
        except ShortChain as error:
            # There is nowhere to put a status, or no header to act on: the driver gets the chain back untouched.
            log.warning("request at head %d: %s", chain.head, str(error))
            return None

    def _attempt(self, request: BlkRequest, *, nowait: bool) -> bool:
        """Serve ``request`` and write its status; False if that would have to wait."""
        try:
            _ACTIONS.get(request.type, BlkDevice._unknown)(self, request, nowait)
            status = BlkStatus.OK
        except WouldBlock:
            return False
        except Refused as error:
            log.warning("%s at sector %d refused: %s", _name(request), request.sector, str(error))
            status = error.status
        except OSError as error:
            log.warning("%s at sector %d failed: %s", _name(request), request.sector, str(error))
            status = BlkStatus.IOERR
        request.finish(status)
        return True

    # --- one method for each type of request; `_ACTIONS` says which ---

    def _read(self, request: BlkRequest, nowait: bool) -> None:
        writable = request.chain.writable
        length = writable.remaining
        check_data(request.sector, length, self._config)
        self.storage.read(request.offset, writable.views(), nowait=nowait)
        writable.wrote(length)
        request.counts.bytes_read += length

    def _write(self, request: BlkRequest, nowait: bool) -> None:
        self._check_writable()
        readable = request.chain.readable
        length = readable.remaining
        check_data(request.sector, length, self._config)
        _may_wait(nowait and self._write_through)
        self.storage.write(request.offset, readable.views(), nowait=nowait)
        if self._write_through:
            self.storage.flush()
        request.counts.bytes_written += length

    def _flush(self, _request: BlkRequest, nowait: bool) -> None:
        _may_wait(nowait)
        self.storage.flush()

    def _get_id(self, request: BlkRequest, _nowait: bool) -> None:
        writable = request.chain.writable
        writable.write(identity(self.serial)[: writable.remaining])

    def _clear(self, request: BlkRequest, nowait: bool) -> None:
        self._check_writable()
        _may_wait(nowait)
        for each in ranges(request, self._config):
            offset, length = each.sector * SECTOR_SIZE, each.num_sectors * SECTOR_SIZE
            if request.type == BlkType.DISCARD:
                self.storage.discard(offset, length)
            else:
                self.storage.write_zeroes(offset, length, unmap=bool(each.flags & BlkRangeFlags.UNMAP))
        if self._write_through:
            self.storage.flush()

    def _unknown(self, _request: BlkRequest, _nowait: bool) -> None:
        raise Refused(BlkStatus.UNSUPP, "not a request this disk knows")

    def _check_writable(self) -> None:
        if self.read_only:
            raise Refused(BlkStatus.IOERR, "the disk is read-only")

    def _read_size(self) -> BlkConfig:
        return BlkConfig(
            capacity=self.storage.size // SECTOR_SIZE,
            seg_max=SEG_MAX,
            blk_size=SECTOR_SIZE,
            num_queues=self.num_queues,
            max_discard_sectors=0 if self.read_only else MAX_RANGE_SECTORS,
            max_discard_seg=0 if self.read_only else MAX_RANGES,
            discard_sector_alignment=0 if self.read_only else 1,
            max_write_zeroes_sectors=0 if self.read_only else MAX_RANGE_SECTORS,
            max_write_zeroes_seg=0 if self.read_only else MAX_RANGES,
            write_zeroes_may_unmap=0 if self.read_only else 1,
        )


_ACTIONS: dict[int, Callable[[BlkDevice, BlkRequest, bool], None]] = {
    BlkType.IN.value: BlkDevice._read,
    BlkType.OUT.value: BlkDevice._write,
    BlkType.FLUSH.value: BlkDevice._flush,
    BlkType.GET_ID.value: BlkDevice._get_id,
    BlkType.DISCARD.value: BlkDevice._clear,
    BlkType.WRITE_ZEROES.value: BlkDevice._clear,
}


def _may_wait(nowait: bool) -> None:
    if nowait:
        raise WouldBlock("this operation waits for the disk")


def _name(request: BlkRequest) -> str:
    return BlkType(request.type).name if request.type in _ACTIONS else f"request {request.type}"
