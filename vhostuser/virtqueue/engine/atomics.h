/* Words that the other side of a ring reads and writes while we do.

   Each access is one instruction on an aligned word, so it is never torn, and none of them is repeated or left out by
   the compiler.  What the orders are for stands where they are used. */
#ifndef VHOSTUSER_ATOMICS_H
#define VHOSTUSER_ATOMICS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t load16(const uint16_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline uint16_t load16_acquire(const uint16_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void store16(uint16_t *word, uint16_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
static inline void store16_release(uint16_t *word, uint16_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline uint32_t load32(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline uint32_t load32_acquire(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void store32(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
static inline void store32_release(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

/* Everything before it happens before everything after it: what no processor does by itself for a store and a later
   load. */
static inline void full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Ask for a line that will be read soon.  Nothing happens if the address is nobody's. */
static inline void foresee(const void *address) { __builtin_prefetch(address); }

/* Copy bytes that somebody may be changing, and never look at them again.

   A plain memcpy does not promise that: the compiler may drop the copy and read the original each time a field of the
   copy is used, and a number could change after it was checked.  The empty statement behind it claims to have changed
   the copy, so only the copy can be read from there on. */
static inline void copy_once(void *copy, const void *shared, size_t length) {
    memcpy(copy, shared, length);
    __asm__ __volatile__("" : : "r"(copy) : "memory");
}

#endif
