/* What this machine gives at most, without any vhost-user: one line of JSON.
 *
 *     limits FILE BLOCK SECONDS
 *
 * memcpy     copies of BLOCK bytes from random places of FILE, mapped, into 128 buffers in turn, a second
 * preadv     the same by preadv from the page cache
 * eventfd    round trips a second between two processes that sleep in poll, on one processor and on two
 *
 * Whoever copies a block a request cannot serve more than the first, whoever asks the kernel for it not more than the
 * second, and a front-end and a back-end that both sleep at depth 1 not more than the third.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BUFFERS = 128, BETWEEN_LOOKS = 64 };

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void check(int bad, const char *what) {
    if (bad) {
        perror(what);
        exit(1);
    }
}

static uint64_t random_below(uint64_t limit) {
    static uint64_t state = 0x9E3779B97F4A7C15ull;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint64_t)(((unsigned __int128)(state * 0x2545F4914F6CDD1Dull) * limit) >> 64);
}

struct file {
    int fd;
    const char *mapped;
    char *buffers;
    uint64_t block, blocks;
};

static void copy_block(const struct file *file, uint64_t place, char *to) {
    memcpy(to, file->mapped + place * file->block, file->block);
}

static void read_block(const struct file *file, uint64_t place, char *to) {
    struct iovec part = {to, file->block};
    check(preadv(file->fd, &part, 1, (off_t)(place * file->block)) != (ssize_t)file->block, "preadv");
}

static double blocks_a_second(const struct file *file, double seconds,
                              void (*fetch)(const struct file *, uint64_t, char *)) {
    uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), now = begin, done = 0;
    while (now < end) {
        for (int i = 0; i < BETWEEN_LOOKS; i++, done++) {
            fetch(file, random_below(file->blocks), file->buffers + done % BUFFERS * file->block);
        }
        now = now_ns();
    }
    return (double)done * 1e9 / (double)(now - begin);
}

static void run_on(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    check(sched_setaffinity(0, sizeof set, &set), "sched_setaffinity");
}

static void wait_for(int fd) {
    struct pollfd poll_for = {fd, POLLIN, 0};
    uint64_t value;
    check(poll(&poll_for, 1, -1) != 1 || read(fd, &value, 8) != 8, "wait");
}

static void ring(int fd) {
    uint64_t one = 1;
    check(write(fd, &one, 8) != 8, "write");
}

static double round_trips_a_second(int ours, int theirs, double seconds) {
    int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);
    check(there < 0 || back < 0, "eventfd");
    pid_t other = fork();
    check(other < 0, "fork");
    if (other == 0) {
        run_on(theirs);
        for (;;) {
            wait_for(there);
            ring(back);
        }
    }
    run_on(ours);
    uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), now = begin, done = 0;
    for (; now < end; done++, now = now_ns()) {
        ring(there);
        wait_for(back);
    }
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    close(there);
    close(back);
    return (double)done * 1e9 / (double)(now - begin);
}

/* The first two processors that this process may use; the same twice if there is only one. */
static void two_processors(int *one, int *other) {
    cpu_set_t allowed;
    check(sched_getaffinity(0, sizeof allowed, &allowed), "sched_getaffinity");
    *one = *other = -1;
    for (int i = 0; i < CPU_SETSIZE && *other < 0; i++) {
        if (CPU_ISSET(i, &allowed)) {
            *(*one < 0 ? one : other) = i;
        }
    }
    if (*other < 0) {
        *other = *one;
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: limits FILE BLOCK SECONDS\n");
        return 2;
    }
    struct stat stat;
    struct file file = {.fd = open(argv[1], O_RDONLY | O_CLOEXEC), .block = strtoull(argv[2], NULL, 10)};
    double seconds = atof(argv[3]);
    check(file.fd < 0 || fstat(file.fd, &stat), argv[1]);
    file.blocks = (uint64_t)stat.st_size / file.block;
    file.mapped = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, file.fd, 0);
    file.buffers = mmap(NULL, BUFFERS * file.block, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    check(file.mapped == MAP_FAILED || file.buffers == MAP_FAILED, "mmap");

    double copied = blocks_a_second(&file, seconds, copy_block), read = blocks_a_second(&file, seconds, read_block);
    int one, other;
    two_processors(&one, &other);
    double together = round_trips_a_second(one, one, seconds), apart = round_trips_a_second(one, other, seconds);
    printf("{\"memcpy\": %.0f, \"preadv\": %.0f, \"eventfd_one_cpu\": %.0f, \"eventfd_two_cpus\": %.0f}\n", copied, read,
           together, apart);
    return 0;
}
