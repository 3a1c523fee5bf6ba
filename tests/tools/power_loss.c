/*
 * A medium that forgets: what would be left in a mapped file if the power failed now?
 *
 * Preloaded into a program (LD_PRELOAD) this library watches the two ways by which a store to a shared mapping becomes
 * durable, msync and libpmem's pmem_persist, and writes to the file named by POWER_LOSS_LOG what each of them carried
 * to the medium: one line "HOW OFFSET LENGTH", the offset in the file, and then that many bytes.  Whoever applies the
 * first n records to the file as it was before has the medium as a loss of power after the n-th would leave it.
 *
 * POWER_LOSS_DAX=1 has mmap accept MAP_SYNC, as on a DAX file system; else the kernel decides.  POWER_LOSS_ERRNO=n has
 * every msync fail.  The same file serves as libpmem.so.1, for it has pmem_persist.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 0x03
#endif
#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif

#define MOST 64

static struct mapping {
    uintptr_t begin, end;
    off_t offset;
} mappings[MOST];
static unsigned count; /* the newest wins, so what is unmapped need not be forgotten */

static void write_all(int log, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t done = write(log, data, length);

        if (done < 0)
            abort();
        data += done;
        length -= (size_t)done;
    }
}

static void record(const char *how, const void *address, size_t length)
{
    uintptr_t begin = (uintptr_t)address;
    const char *path = getenv("POWER_LOSS_LOG");

    for (unsigned i = count; path && i-- > 0;) {
        const struct mapping *each = &mappings[i % MOST];

        if (each->begin <= begin && begin < each->end) {
            char line[80];
            int size = snprintf(line, sizeof line, "%s %lld %zu\n", how,
                                (long long)(each->offset + (off_t)(begin - each->begin)), length);
            int log = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

            if (log < 0)
                abort();
            write_all(log, line, (size_t)size);
            write_all(log, address, length);
            close(log);
            return;
        }
    }
}

void *mmap64(void *address, size_t length, int prot, int flags, int fd, off64_t offset)
{
    static void *(*next)(void *, size_t, int, int, int, off64_t);
    void *found;

    if (!next)
        next = (void *(*)(void *, size_t, int, int, int, off64_t))dlsym(RTLD_NEXT, "mmap");
    if ((flags & MAP_SYNC) && getenv("POWER_LOSS_DAX"))
        flags = (flags & ~(MAP_SYNC | MAP_SHARED_VALIDATE)) | MAP_SHARED;
    found = next(address, length, prot, flags, fd, offset);
    if (found != MAP_FAILED && fd >= 0 && (flags & MAP_SHARED))
        mappings[count++ % MOST] = (struct mapping){(uintptr_t)found, (uintptr_t)found + length, offset};
    return found;
}

void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
    return mmap64(address, length, prot, flags, fd, offset);
}

int msync(void *address, size_t length, int flags)
{
    static int (*next)(void *, size_t, int);
    const char *fails = getenv("POWER_LOSS_ERRNO");

    if (fails) {
        errno = atoi(fails);
        return -1;
    }
    if (!next)
        next = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    record((flags & MS_SYNC) ? "msync" : "msync-later", address, length);
    return next(address, length, flags);
}

void pmem_persist(const void *address, size_t length)
{
    record("pmem_persist", address, length);
}
