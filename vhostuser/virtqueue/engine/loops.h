/* What loops without the GIL need besides rings: counters that others read, and a breath while they watch memory. */
#ifndef VHOSTUSER_LOOPS_H
#define VHOSTUSER_LOOPS_H

#include <stdint.h>

static inline uint64_t load64(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline void store64(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
static inline void add64(uint64_t *word, uint64_t more) { __atomic_fetch_add(word, more, __ATOMIC_RELAXED); }

/* Tell the processor that this is a loop which waits: the other thread of the core gets more of it. */
static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Reads that would have to wait for a disk say so, where the system can tell; elsewhere they wait. */
#include <sys/types.h>
#include <sys/uio.h>
#include <errno.h>
static inline ssize_t read_at_once(int fd, const struct iovec *pieces, int count, off_t offset) {
#ifdef RWF_NOWAIT
    return preadv2(fd, pieces, count, offset, RWF_NOWAIT);
#else
    (void) fd, (void) pieces, (void) count, (void) offset;
    errno = EAGAIN;
    return -1;
#endif
}

#endif
