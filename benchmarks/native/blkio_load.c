/* Random reads or writes at a vhost-user-blk back-end, by libblkio, for some time; one line of JSON.
 *
 *     blkio_load SOCKET poll|sleep read|write DEPTH QUEUES BLOCK SECONDS
 *
 * The load is closed: DEPTH requests are in flight on each queue, and whatever ends is submitted again at another place
 * at once.  One thread drives one queue.  A polling thread watches the used ring and never sleeps; a sleeping one waits
 * for the call descriptor when nothing has ended.
 *
 * Taking the time costs as much as a fast back-end's request, so at depths above SAMPLE_ALL_BELOW only one request in
 * SAMPLE has its latency measured.  A tenth of SECONDS goes by first, uncounted in the rate; "served" counts all.
 */
#define _GNU_SOURCE
#include <blkio.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_DEPTH = 1024, MAX_QUEUES = 64, SAMPLE = 16, SAMPLE_ALL_BELOW = 5, MAX_SAMPLES = 1 << 20, LOOK = 64 };

struct load {
    struct blkio *disk;
    bool poll, write;
    int depth, queues;
    uint64_t block, blocks;
    double seconds;
};

struct worker {
    const struct load *load;
    struct blkioq *queue;
    char *buffers;
    uint64_t random;
    uint64_t served, counted;
    double took;
    uint64_t began[MAX_DEPTH];
    uint32_t *samples;
    size_t sampled;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "blkio_load: %s: %s\n", what, blkio_get_error_msg());
    exit(1);
}

static void check(int result, const char *what) {
    if (result < 0) {
        die(what);
    }
}

static uint64_t next_random(uint64_t *state) { /* xorshift64* */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1Dull;
}

static void submit(struct worker *w, uintptr_t slot, bool timed) {
    const struct load *load = w->load;
    uint64_t place = (uint64_t)(((unsigned __int128)next_random(&w->random) * load->blocks) >> 64);
    char *buffer = w->buffers + slot * load->block;
    w->began[slot] = timed ? now_ns() : 0;
    if (load->write) {
        blkioq_write(w->queue, place * load->block, buffer, load->block, (void *)slot, 0);
    } else {
        blkioq_read(w->queue, place * load->block, buffer, load->block, (void *)slot, 0);
    }
}

static bool is_timed(const struct worker *w) {
    return w->load->depth < SAMPLE_ALL_BELOW || w->served % SAMPLE == 0;
}

static void ended(struct worker *w, const struct blkio_completion *done, bool counting) {
    uintptr_t slot = (uintptr_t)done->user_data;
    if (done->ret != 0) {
        fprintf(stderr, "blkio_load: a request ended with %d: %s\n", done->ret, done->error_msg ? done->error_msg : "");
        exit(1);
    }
    if (counting && w->began[slot] != 0 && w->sampled < MAX_SAMPLES) {
        w->samples[w->sampled++] = (uint32_t)(now_ns() - w->began[slot]);
    }
    w->served++;
}

/* Serve until the time is up; how many requests ended. */
static uint64_t drive(struct worker *w, double seconds, bool counting) {
    static _Thread_local struct blkio_completion done[MAX_DEPTH];
    uint64_t before = w->served, begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), now = begin;
    for (unsigned turn = 0; now < end; turn++) {
        int found = blkioq_do_io(w->queue, done, 1, w->load->depth, NULL);
        check(found, "do_io");
        for (int i = 0; i < found; i++) {
            ended(w, &done[i], counting);
            submit(w, (uintptr_t)done[i].user_data, is_timed(w));
        }
        if (turn % LOOK == 0 || w->load->depth < SAMPLE_ALL_BELOW) {
            now = now_ns();
        }
    }
    w->took = (double)(now - begin) / 1e9;
    return w->served - before;
}

static void drain(struct worker *w) {
    struct blkio_completion done;
    for (int left = w->load->depth; left > 0; left--) {
        check(blkioq_do_io(w->queue, &done, 1, 1, NULL), "do_io");
        ended(w, &done, false);
    }
}

static void *work(void *argument) {
    struct worker *w = argument;
    for (int slot = 0; slot < w->load->depth; slot++) {
        submit(w, (uintptr_t)slot, false);
    }
    drive(w, w->load->seconds / 10, false);
    w->counted = drive(w, w->load->seconds, true);
    drain(w);
    return NULL;
}

static struct blkio *connect_to(const char *socket, struct load *load) {
    struct blkio *disk;
    check(blkio_create("virtio-blk-vhost-user", &disk), "create");
    check(blkio_set_str(disk, "path", socket), "path");
    check(blkio_connect(disk), "connect");
    check(blkio_set_int(disk, "num-queues", load->poll ? 0 : load->queues), "num-queues");
    check(blkio_set_int(disk, "num-poll-queues", load->poll ? load->queues : 0), "num-poll-queues");
    int most = 0, wanted = 256;
    check(blkio_get_int(disk, "max-queue-size", &most), "max-queue-size");
    while (wanted < 4 * load->depth && wanted < 1024) {
        wanted *= 2;
    }
    check(blkio_set_int(disk, "queue-size", wanted < most ? wanted : most), "queue-size");
    check(blkio_start(disk), "start");
    return disk;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void report(struct worker *workers, int queues, double first_us) {
    double rate = 0;
    uint64_t served = 0;
    size_t sampled = 0;
    for (int i = 0; i < queues; i++) {
        rate += (double)workers[i].counted / workers[i].took;
        served += workers[i].served;
        sampled += workers[i].sampled;
    }
    uint32_t *all = malloc((sampled + 1) * sizeof *all);
    size_t filled = 0;
    for (int i = 0; i < queues; i++) {
        memcpy(all + filled, workers[i].samples, workers[i].sampled * sizeof *all);
        filled += workers[i].sampled;
    }
    qsort(all, sampled, sizeof *all, by_size);
    double p50 = sampled ? all[sampled / 2] / 1e3 : 0, p99 = sampled ? all[sampled * 99 / 100] / 1e3 : 0;
    printf("{\"iops\": %.0f, \"served\": %llu, \"p50_us\": %.3f, \"p99_us\": %.3f, \"first_us\": %.1f}\n", rate,
           (unsigned long long)served, p50, p99, first_us);
    free(all);
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: blkio_load SOCKET poll|sleep read|write DEPTH QUEUES BLOCK SECONDS\n");
        return 2;
    }
    struct load load = {
        .poll = strcmp(argv[2], "poll") == 0,
        .write = strcmp(argv[3], "write") == 0,
        .depth = atoi(argv[4]),
        .queues = atoi(argv[5]),
        .block = strtoull(argv[6], NULL, 10),
        .seconds = atof(argv[7]),
    };
    if (load.depth < 1 || load.depth > MAX_DEPTH || load.queues < 1 || load.queues > MAX_QUEUES || load.block < 512) {
        fprintf(stderr, "blkio_load: depth 1 to %d, queues 1 to %d, block from 512\n", MAX_DEPTH, MAX_QUEUES);
        return 2;
    }
    /* Memory is made before the clock starts: it is the same whatever the back-end. */
    static struct worker workers[MAX_QUEUES];
    uint64_t began = now_ns(), capacity;
    load.disk = connect_to(argv[1], &load);
    check(blkio_get_uint64(load.disk, "capacity", &capacity), "capacity");
    load.blocks = capacity / load.block;

    struct blkio_mem_region region;
    check(blkio_alloc_mem_region(load.disk, &region, (size_t)load.queues * load.depth * load.block), "memory");
    check(blkio_map_mem_region(load.disk, &region), "map");
    for (int i = 0; i < load.queues; i++) {
        struct worker *w = &workers[i];
        w->load = &load;
        w->queue = load.poll ? blkio_get_poll_queue(load.disk, i) : blkio_get_queue(load.disk, i);
        w->buffers = (char *)region.addr + (size_t)i * load.depth * load.block;
        w->random = 0x9E3779B97F4A7C15ull * (uint64_t)(i + 1);
        w->samples = malloc(MAX_SAMPLES * sizeof *w->samples);
    }
    struct blkio_completion done;
    submit(&workers[0], 0, false);
    check(blkioq_do_io(workers[0].queue, &done, 1, 1, NULL), "first request");
    ended(&workers[0], &done, false);
    double first_us = (double)(now_ns() - began) / 1e3;

    pthread_t threads[MAX_QUEUES];
    for (int i = 1; i < load.queues; i++) {
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    work(&workers[0]);
    for (int i = 1; i < load.queues; i++) {
        pthread_join(threads[i], NULL);
    }
    report(workers, load.queues, first_us);
    blkio_destroy(&load.disk);
    return 0;
}
