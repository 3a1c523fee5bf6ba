"""A block device's loop without the GIL (virtio 1.3, 5.2.6).

Here is only what nearly every request is: IN or OUT, whole sectors, all of them on the disk, a header in one piece.
Whatever else comes (FLUSH, DISCARD, nonsense, a read that fails) goes to the device in Python as a chain, untouched,
so there is one place that decides about it, and one answer.

Bytes of an image move by ``preadv`` and ``pwritev`` straight between file and guest memory, where memory that is gone
is EFAULT and not a signal.  A mapped image is copied instead; what the SIGBUS guard had to repair meanwhile goes to
Python too, which knows what was damaged.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EOPNOTSUPP, errno
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy
from posix.types cimport off_t
from posix.uio cimport iovec, preadv, pwritev
from posix.unistd cimport pread

from vhostuser.virtqueue.engine.atomics cimport copy_once, store32_release
from vhostuser.virtqueue.engine.chain cimport NativeChain
from vhostuser.virtqueue.engine.device cimport NativeDevice
from vhostuser.virtqueue.engine.loop cimport (
    NOTIFY_EVERY,
    POLL_INTERVAL_MS,
    POLLIN,
    add64,
    finish_batch,
    load64,
    must_return,
    pollfd,
    read_at_once,
    sleep_on,
    store64,
    watch,
)
from vhostuser.virtqueue.engine.ring cimport device_arm, device_complete, device_disarm, device_pop
from vhostuser.virtqueue.engine.types cimport LIED, ONE, DeviceRing

from vhostuser.memory.guard import REPAIRS
from vhostuser.virtqueue.ring import UnsupportedRing

cdef enum:
    SECTOR_SHIFT = 9
    SECTOR_MASK = 511
    IOV_MAX = 1024
    WARY = 256  # reads that ask whether they would have to wait, after one that had to
    IN = 0  # BlkType
    OUT = 1
    OK = 0  # BlkStatus

cdef struct Header:
    # BlkHeader, little-endian as this machine.
    uint32_t type
    uint32_t reserved
    uint64_t sector

cdef const uint64_t *repairs = <const uint64_t *> <uintptr_t> <object> REPAIRS.buffer_info()[0]


cdef class Image:
    """What the loops of one disk work on, all of them.

    Args:
        fd: read and written with ``preadv`` and ``pwritev``; -1 for none.  The caller keeps it open.
        buffer: bytes to copy from and to instead; what lies behind their end goes to Python.
        null: neither: reads and writes do nothing at all.
        sectors: size of the disk.
        writable: OUT may be served here, without write-through.
    """

    def __cinit__(self, *, int fd=-1, buffer=None, bint null=False, uint64_t sectors=0, bint writable=False):
        cdef Py_buffer found
        self.fd = fd
        self.null = null
        self.sectors = sectors
        self.writable = writable
        self.repairs = load64(repairs)
        if buffer is not None:
            self.keep = memoryview(buffer)
            PyObject_GetBuffer(self.keep, &found, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
            self.bytes = <char *> found.buf
            self.size = <uint64_t> found.len
            PyBuffer_Release(&found)

    def set_size(self, uint64_t sectors):
        """The disk has another size now; loops that run see it at their next request."""
        store64(&self.sectors, sectors)

    def set_writable(self, bint writable):
        """OUT may be served without Python, or not any more."""
        store64(&self.writable, writable)

    @property
    def counts(self):
        """Requests served by the loops, bytes read and bytes written."""
        return load64(&self.requests), load64(&self.bytes_read), load64(&self.bytes_written)


@cython.final
cdef class BlkLoop:
    """A `vhostuser.device.CompiledLoop`.

    Args:
        image: the disk.
        serve: called with each chain that is not for here; it writes the status, the loop gives the chain back.
    """

    def __cinit__(self, Image image, serve):
        self.image = image
        self.serve = serve

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

    cdef int work(self) except? -1 nogil:
        """Serve until there is a reason not to; `LIED` if that is the driver's fault."""
        cdef DeviceRing *ring = &self.queue.ring
        cdef pollfd ends[2]
        cdef int found = ONE, timeout = POLL_INTERVAL_MS if self.bell.kick < 0 else -1
        ends[0].fd, ends[0].events = self.bell.kick, POLLIN
        ends[1].fd, ends[1].events = self.bell.stop, POLLIN
        try:
            device_disarm(ring)
            while not must_return(&self.bell):
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
                if watch(ring, &self.bell):
                    continue
                # Once more before sleeping: the looks at the ring just now may have met a page that was gone.
                if not device_arm(ring) and not must_return(&self.bell):
                    sleep_on(ends, 2, timeout)
                device_disarm(ring)
        finally:
            self.finish()
        return 0

    cdef void finish(self) noexcept nogil:
        """The end of a batch: the driver hears of it, and the figures are added up."""
        finish_batch(&self.queue.ring, &self.bell)
        add64(&self.image.requests, self.requests)
        add64(&self.image.bytes_read, self.bytes_read)
        add64(&self.image.bytes_written, self.bytes_written)
        self.requests = self.bytes_read = self.bytes_written = 0

    # --- one request -------------------------------------------------------------------------------------------------

    cdef int serve_one(self) except -1 nogil:
        if not self.try_here():
            self.finish()  # it may take long, and what is done is done
            with gil:
                self.ask_python()
        return 0

    cdef bint try_here(self) noexcept nogil:
        """Serve the usual; false, and everything as it was, for the rest."""
        cdef Chain *chain = &self.chain
        cdef Header header
        if chain.readable == 0 or chain.writable == 0 or chain.pieces[0].iov_len < sizeof(Header):
            return False
        copy_once(&header, chain.pieces[0].iov_base, sizeof(Header))
        if header.type == IN:
            return self.read_blocks(header.sector)
        if header.type == OUT:
            return self.write_blocks(header.sector)
        return False

    cdef bint read_blocks(self, uint64_t sector) noexcept nogil:
        cdef Chain *chain = &self.chain
        cdef iovec *last = chain.pieces + chain.readable + chain.writable - 1
        cdef uint64_t length = chain.writable_bytes - 1
        cdef uint32_t count
        cdef bint done
        if not self.on_disk(sector, length):
            return False
        last.iov_len -= 1  # its last byte is the status
        count = chain.writable - (last.iov_len == 0)  # a row of one is what the kernel is quickest with
        done = self.move(sector << SECTOR_SHIFT, chain.readable, count, length, True)
        last.iov_len += 1
        if not done:
            return False
        (<char *> last.iov_base)[last.iov_len - 1] = OK
        device_complete(&self.queue.ring, chain.head, <uint32_t> min(length + 1, <uint64_t> 0xFFFFFFFF))
        self.requests += 1
        self.bytes_read += length
        return True

    cdef bint write_blocks(self, uint64_t sector) noexcept nogil:
        cdef Chain *chain = &self.chain
        cdef iovec *last = chain.pieces + chain.readable + chain.writable - 1
        cdef uint64_t length = chain.readable_bytes - sizeof(Header)
        cdef bint done
        # More to write than a status: Python's used length counts what was not filled.
        if not self.on_disk(sector, length) or not load64(&self.image.writable) or chain.writable_bytes != 1:
            return False
        chain.pieces.iov_base = <char *> chain.pieces.iov_base + sizeof(Header)
        chain.pieces.iov_len -= sizeof(Header)
        done = self.move(sector << SECTOR_SHIFT, 0, chain.readable, length, False)
        chain.pieces.iov_base = <char *> chain.pieces.iov_base - sizeof(Header)
        chain.pieces.iov_len += sizeof(Header)
        if not done:
            return False
        (<char *> last.iov_base)[0] = OK
        device_complete(&self.queue.ring, chain.head, 1)
        self.requests += 1
        self.bytes_written += length
        return True

    cdef bint on_disk(self, uint64_t sector, uint64_t length) noexcept nogil:
        cdef uint64_t sectors = load64(&self.image.sectors)
        return not length & SECTOR_MASK and sector <= sectors and length >> SECTOR_SHIFT <= sectors - sector

    # --- its bytes ---------------------------------------------------------------------------------------------------

    cdef bint move(
        self, uint64_t offset, uint32_t first, uint32_t count, uint64_t length, bint to_guest
    ) noexcept nogil:
        """Move ``length`` bytes between the image and pieces of the chain; false unless all of them were moved."""
        cdef ssize_t moved
        if length == 0 or self.image.null:
            return True
        if self.image.bytes != NULL:
            return self.copy(offset, first, count, length, to_guest)
        if count > IOV_MAX:
            return False
        if to_guest:
            moved = self.read_file(offset, first, count)
        else:
            moved = pwritev(self.image.fd, self.chain.pieces + first, <int> count, <off_t> offset)
        return moved >= 0 and <uint64_t> moved == length

    cdef ssize_t read_file(self, uint64_t offset, uint32_t first, uint32_t count) noexcept nogil:
        """What is done need not wait for the disk: it is given back before a read that has to.

        Asking for that costs a tenth of a read.  So where reads did not have to wait lately, only the first of a batch
        asks, which delays nobody.
        """
        cdef iovec *pieces = self.chain.pieces + first
        cdef ssize_t moved
        if count == 1 and self.wary == 0 and self.queue.ring.completed:
            return pread(self.image.fd, pieces.iov_base, pieces.iov_len, <off_t> offset)
        moved = read_at_once(self.image.fd, pieces, <int> count, <off_t> offset)
        if moved < 0 and (errno == EAGAIN or errno == EOPNOTSUPP):
            self.wary = WARY
            self.finish()
            moved = preadv(self.image.fd, pieces, <int> count, <off_t> offset)
        elif self.wary:
            self.wary -= 1
        return moved

    cdef bint copy(
        self, uint64_t offset, uint32_t first, uint32_t count, uint64_t length, bint to_guest
    ) noexcept nogil:
        cdef iovec *piece
        cdef char *place
        cdef uint32_t index
        if offset > self.image.size or length > self.image.size - offset or load64(repairs) != self.image.repairs:
            return False
        place = self.image.bytes + offset
        for index in range(first, first + count):
            piece = self.chain.pieces + index
            if to_guest:
                memcpy(piece.iov_base, place, piece.iov_len)
            else:
                memcpy(place, piece.iov_base, piece.iov_len)
            place += piece.iov_len
        return load64(repairs) == self.image.repairs

    # --- and all others ----------------------------------------------------------------------------------------------

    cdef int ask_python(self) except -1:
        """Have the device in Python serve the chain, and give it back."""
        cdef NativeChain chain = NativeChain.__new__(NativeChain)
        cdef uint64_t written
        try:
            chain.begin(self.queue.memory, None, &self.chain)
            self.serve(chain)
        finally:
            written = min(chain.count_written(), <uint64_t> 0xFFFFFFFF)
            device_complete(&self.queue.ring, self.chain.head, <uint32_t> written)
        return 0
