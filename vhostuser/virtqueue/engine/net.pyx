"""A network device's loops without the GIL (virtio 1.3, 5.1.6) which send every frame back to where it came from.

Two queues, so two threads, and between them a `Wire`: the loop of the transmit queue puts frames in, that of the receive
queue takes them out, each into a chain of its own.  A wire that is full loses frames, as wires do; so does one whose
receive queue begins anew, so that nobody gets the frames of a front-end that is gone.
"""

import os

from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.uio cimport iovec
from posix.unistd cimport close

from vhostuser.virtqueue.engine.atomics cimport full_fence, load32, load32_acquire, store32, store32_release
from vhostuser.virtqueue.engine.device cimport NativeDevice
from vhostuser.virtqueue.engine.loop cimport (
    NOTIFY_EVERY,
    POLL_INTERVAL_MS,
    POLLIN,
    Bell,
    add64,
    finish_batch,
    load64,
    must_return,
    pollfd,
    signal_through,
    sleep_on,
    watch,
)
from vhostuser.virtqueue.engine.ring cimport device_arm, device_complete, device_disarm, device_pop
from vhostuser.virtqueue.engine.types cimport LIED, ONE, Chain, DeviceRing

from vhostuser.memory.guard import REPAIRS
from vhostuser.virtqueue.ring import UnsupportedRing

cdef enum:
    HEADER = 12  # NetHeader
    NUM_BUFFERS = 10  # where in it, of 16 bits
    LENGTH = 4  # bytes that say how long a frame on the wire is
    MOST = 65550  # bytes of a frame: 64 KiB and an Ethernet header, as 5.1.6.3.1 has it
    WIRE = 1 << 20  # bytes, a power of two

cdef const uint64_t *repairs = <const uint64_t *> <uintptr_t> <object> REPAIRS.buffer_info()[0]

cdef struct Cursor:
    # How far the writable pieces of a chain are filled.
    uint32_t piece
    uint64_t offset


cdef class Wire:
    """Frames on their way: a circle of bytes that one thread fills and another empties."""

    cdef char *bytes
    cdef uint32_t filled  # both count bytes since the beginning, modulo 2^32
    cdef uint32_t emptied
    cdef uint32_t asleep  # whoever empties it
    cdef int bell  # wakes it
    cdef int heard
    cdef uint64_t frames
    cdef uint64_t lost

    def __cinit__(self):
        self.bell = self.heard = -1
        self.bytes = <char *> malloc(WIRE)
        if self.bytes == NULL:
            raise MemoryError
        self.heard, self.bell = os.pipe()

    def __dealloc__(self):
        free(self.bytes)
        if self.bell >= 0:
            close(self.bell)
            close(self.heard)

    @property
    def counts(self):
        """Frames that were put in, and frames that were lost instead."""
        return load64(&self.frames), load64(&self.lost)

    cdef uint32_t write(self, uint32_t at, const void *bytes, uint32_t count) noexcept nogil:
        cdef uint32_t place = at & (WIRE - 1), first = min(count, WIRE - place)
        memcpy(self.bytes + place, bytes, first)
        memcpy(self.bytes, <const char *> bytes + first, count - first)
        return at + count

    cdef void put(self, const Chain *chain) noexcept nogil:
        """The frame behind the header of ``chain``, if there is one, and room for it."""
        cdef uint64_t length = chain.readable_bytes, skip = HEADER
        cdef uint32_t index, size, at = self.filled
        cdef iovec *piece
        if length < HEADER or length - HEADER > MOST:
            add64(&self.lost, 1)
            return
        size = <uint32_t> (length - HEADER)
        if WIRE - (at - load32_acquire(&self.emptied)) < size + LENGTH:
            add64(&self.lost, 1)
            return
        at = self.write(at, &size, LENGTH)
        for index in range(chain.readable):
            piece = chain.pieces + index
            if piece.iov_len > skip:
                at = self.write(at, <char *> piece.iov_base + skip, <uint32_t> (piece.iov_len - skip))
                skip = 0
            else:
                skip -= piece.iov_len
        store32_release(&self.filled, at)
        add64(&self.frames, 1)

    cdef void wake(self) noexcept nogil:
        """Frames were put in: somebody may sleep who looked for them just before."""
        full_fence()
        if load32(&self.asleep):
            signal_through(self.bell)

    cdef bint is_empty(self) noexcept nogil:
        return load32_acquire(&self.filled) == self.emptied

    cdef uint32_t take(self, Chain *chain) noexcept nogil:
        """The next frame into ``chain``, with a header; cut to what fits.  How many bytes that were."""
        cdef Cursor cursor
        cdef char header[HEADER]
        cdef uint32_t size, place, first, written
        memset(header, 0, HEADER)
        header[NUM_BUFFERS] = 1
        place = self.emptied & (WIRE - 1)
        first = min(<uint32_t> LENGTH, WIRE - place)
        memcpy(&size, self.bytes + place, first)
        memcpy(<char *> &size + first, self.bytes, LENGTH - first)
        place = (place + LENGTH) & (WIRE - 1)
        first = min(size, WIRE - place)
        cursor.piece, cursor.offset = chain.readable, 0
        written = pour(chain, &cursor, header, HEADER)
        written += pour(chain, &cursor, self.bytes + place, first)
        written += pour(chain, &cursor, self.bytes, size - first)
        store32_release(&self.emptied, self.emptied + LENGTH + size)
        return written

    cdef void discard(self) noexcept nogil:
        store32_release(&self.emptied, load32_acquire(&self.filled))


cdef uint32_t pour(Chain *chain, Cursor *cursor, const char *bytes, uint32_t count) noexcept nogil:
    """Fill the chain's writable pieces from ``cursor`` on; how many bytes found room."""
    cdef iovec *piece
    cdef uint32_t part, done = 0
    while done < count and cursor.piece < chain.readable + chain.writable:
        piece = chain.pieces + cursor.piece
        part = <uint32_t> min(piece.iov_len - cursor.offset, <uint64_t> (count - done))
        memcpy(<char *> piece.iov_base + cursor.offset, bytes + done, part)
        done += part
        cursor.offset += part
        if cursor.offset == piece.iov_len:
            cursor.piece, cursor.offset = cursor.piece + 1, 0
    return done


cdef class EchoLoop:
    """A `vhostuser.device.CompiledLoop` for one end of a wire.

    Args:
        wire: what joins the two queues.
        receiving: this is the queue that frames come out of; no other loop is there now.
    """

    cdef Wire wire
    cdef bint receiving
    cdef NativeDevice queue
    cdef Chain chain
    cdef Bell bell
    cdef uint32_t stopping
    cdef bint unheard  # frames were put in, and nobody was woken for them yet

    def __cinit__(self, Wire wire, *, bint receiving):
        self.wire = wire
        self.receiving = receiving
        if receiving:
            # Not when it runs: the other loop may have put frames in by then.
            wire.discard()

    def __dealloc__(self):
        free(self.chain.pieces)

    def stop(self):
        """See `vhostuser.device.CompiledLoop.stop`."""
        store32_release(&self.stopping, 1)

    def run(self, queue, int kick, int call, int stop, double poll_seconds):
        """See `vhostuser.device.CompiledLoop.run`."""
        cdef int found
        if not isinstance(queue, NativeDevice):
            raise UnsupportedRing(f"{type(queue).__name__} does not belong to the compiled engine")
        self.queue = queue
        self.bell.kick, self.bell.call, self.bell.stop = kick, call, stop
        self.bell.watch_ns = <uint64_t> (poll_seconds * 1e9)
        self.bell.stopping = &self.stopping
        self.bell.repairs = repairs
        self.bell.repairs_before = load64(repairs)
        try:
            with nogil:
                found = self.work()
            if found == LIED:
                raise self.queue.error()
        finally:
            self.queue = None

    cdef int work(self) noexcept nogil:
        """Serve until there is a reason not to; `LIED` if that is the driver's fault."""
        cdef DeviceRing *ring = &self.queue.ring
        cdef int found
        device_disarm(ring)
        while not must_return(&self.bell):
            if self.receiving and self.wire.is_empty():
                self.finish()
                self.wait_for_frames()
                continue
            found = device_pop(ring, &self.chain)
            if found == ONE:
                self.serve_one()
                if ring.completed >= NOTIFY_EVERY:
                    self.finish()
                continue
            self.finish()
            if found == LIED:
                # Where a page was repaired, that is the driver's lie, and the caller has to say so.
                return 0 if must_return(&self.bell) else LIED
            if not watch(ring, &self.bell):
                self.wait_for_chains()
        self.finish()
        return 0

    cdef void serve_one(self) noexcept nogil:
        cdef uint32_t written = 0
        if self.receiving:
            written = self.wire.take(&self.chain)
        else:
            self.wire.put(&self.chain)
            self.unheard = True
        device_complete(&self.queue.ring, self.chain.head, written)

    cdef void finish(self) noexcept nogil:
        """The end of a batch: the driver hears of it, and so does the other end of the wire."""
        finish_batch(&self.queue.ring, &self.bell)
        if self.unheard:
            self.unheard = False
            self.wire.wake()

    cdef void wait_for_chains(self) noexcept nogil:
        if not device_arm(&self.queue.ring) and not must_return(&self.bell):
            self.sleep(self.bell.kick, POLL_INTERVAL_MS if self.bell.kick < 0 else -1)
        device_disarm(&self.queue.ring)

    cdef void wait_for_frames(self) noexcept nogil:
        store32(&self.wire.asleep, 1)
        full_fence()
        if self.wire.is_empty() and not must_return(&self.bell):
            self.sleep(self.wire.heard, -1)
        store32(&self.wire.asleep, 0)

    cdef void sleep(self, int fd, int timeout) noexcept nogil:
        cdef pollfd ends[2]
        ends[0].fd, ends[0].events = fd, POLLIN
        ends[1].fd, ends[1].events = self.bell.stop, POLLIN
        sleep_on(ends, 2, timeout)
