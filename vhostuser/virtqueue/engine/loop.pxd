"""What every loop without the GIL does besides its work: sleep on the kick, watch for "stop", ring the call.

A loop looks at `must_return` before each chain, so one request is all that a stop has to wait for.  It sleeps in
``poll`` on the kick and on a descriptor that becomes readable when it is to stop.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport read, write
from posix.types cimport off_t
from posix.uio cimport iovec

from vhostuser.virtqueue.engine.atomics cimport load16, load32_acquire
from vhostuser.virtqueue.engine.packed_device cimport packed_is_available
from vhostuser.virtqueue.engine.ring cimport device_publish, device_should_notify
from vhostuser.virtqueue.engine.split_device cimport IDX
from vhostuser.virtqueue.engine.types cimport DeviceRing

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
        POLLOUT
    int poll(pollfd *fds, unsigned long count, int timeout)

cdef extern from "loops.h" nogil:
    uint64_t load64(const uint64_t *word) noexcept
    void store64(uint64_t *word, uint64_t value) noexcept
    void add64(uint64_t *word, uint64_t more) noexcept
    void relax() noexcept
    ssize_t read_at_once(int fd, const iovec *pieces, int count, off_t offset) noexcept

cdef enum:
    POLL_INTERVAL_MS = 1  # between two looks at a ring whose front-end gave no kick descriptor
    NOTIFY_EVERY = 16  # completions: a driver that sleeps then works beside us instead of after us
    LOOKS = 64  # at an empty ring between two looks at the clock

cdef struct Bell:
    # How one loop is woken, stopped, and wakes others.
    int kick  # -1: there is none
    int call
    int stop
    uint64_t watch_ns  # how long an empty ring is watched before sleeping
    uint32_t *stopping
    const uint64_t *repairs  # by the SIGBUS guard, and how many there were at the beginning
    uint64_t repairs_before


cdef inline bint must_return(const Bell *bell) noexcept nogil:
    return load32_acquire(bell.stopping) != 0 or load64(bell.repairs) != bell.repairs_before


cdef inline uint64_t now_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <uint64_t> time.tv_sec * 1000000000 + <uint64_t> time.tv_nsec


cdef inline void signal_through(int fd) noexcept nogil:
    """Wake whoever waits at the other end; never blocks, for a notifier that is full has done its work already.

    The peer can make its end of the same file block, so what counts is what ``poll`` says.
    """
    cdef pollfd full
    cdef uint64_t one = 1
    if fd < 0:
        return
    full.fd = fd
    full.events = POLLOUT
    full.revents = 0
    if poll(&full, 1, 0) == 1 and full.revents == POLLOUT:
        write(fd, &one, sizeof(one))


cdef inline void finish_batch(DeviceRing *ring, const Bell *bell) noexcept nogil:
    """Let the driver see what was completed, and wake it if it wants to know."""
    if device_publish(ring) and device_should_notify(ring):
        signal_through(bell.call)


cdef inline bint is_over(int fd) noexcept nogil:
    """Empty an end that can be read; true when nobody can signal through it any more."""
    cdef char signals[4096]
    cdef ssize_t size = read(fd, signals, sizeof(signals))
    return size == 0 or (size < 0 and errno != EAGAIN and errno != EINTR)


cdef inline void sleep_on(pollfd *ends, uint32_t count, int timeout) noexcept nogil:
    """Sleep until one of ``ends`` can be read or ``timeout`` (ms) is over; a signal handler may end it too.

    All ends but the last, which says "stop", are emptied; one that is over is not waited for again.
    """
    cdef uint32_t index
    if poll(ends, count, timeout) > 0:
        for index in range(count - 1):
            if ends[index].revents and is_over(ends[index].fd):
                ends[index].fd = -1


cdef inline bint device_has_more(DeviceRing *ring) noexcept nogil:
    """Look for a chain, without asking for kicks."""
    return packed_is_available(ring) if ring.packed else load16(ring.driver + IDX) != ring.next_avail


cdef inline bint watch(DeviceRing *ring, const Bell *bell) noexcept nogil:
    """Look at an empty ring for a while; true when there is something to pop, or a reason to return."""
    cdef uint64_t until
    cdef int look
    if bell.watch_ns == 0:
        return False
    until = now_ns() + bell.watch_ns
    while now_ns() < until:
        for look in range(LOOKS):
            if device_has_more(ring) or must_return(bell):
                return True
            relax()
    return False
