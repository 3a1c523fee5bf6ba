"""What ``atomics.h`` has, for Cython."""

from libc.stdint cimport uint16_t, uint32_t


cdef extern from "atomics.h" nogil:
    uint16_t load16(const uint16_t *word) noexcept
    uint16_t load16_acquire(const uint16_t *word) noexcept
    void store16(uint16_t *word, uint16_t value) noexcept
    void store16_release(uint16_t *word, uint16_t value) noexcept
    uint32_t load32(const uint32_t *word) noexcept
    uint32_t load32_acquire(const uint32_t *word) noexcept
    void store32(uint32_t *word, uint32_t value) noexcept
    void store32_release(uint32_t *word, uint32_t value) noexcept
    void full_fence() noexcept
    void foresee(const void *address) noexcept
    void copy_once(void *copy, const void *shared, size_t length) noexcept
