/* The other processor, for test_litmus.py: works on a ring in shared memory while Python does.
 *
 * other_side watch FILE A B      looks at the 16-bit words A and B; each must only ever grow
 * other_side read FILE FLAGS DESC looks at the only entry of a packed ring: what is available must be there in full
 * other_side used FILE FLAGS DESC the same for what is used
 * other_side sleep FILE FLAG IDX plays going to sleep: clears FLAG, then looks at IDX, while Python publishes
 * other_side wake FILE FLAG IDX  plays publishing: moves IDX, then looks at FLAG, while Python goes to sleep
 * other_side offer FILE FLAG IDX the same, where IDX are the flags of the only entry of a packed ring
 *
 * FLAG, IDX, FLAGS, DESC, A and B count 16-bit words from the start of the file.  The first words of it are for talking:
 */
enum { STOP, ROUND, LOOKED, DONE, WOKEN, SEEN };

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef _Atomic uint16_t word;

static uint16_t load(word *at) { return atomic_load_explicit(at, memory_order_acquire); }
static void store(word *at, unsigned value) { atomic_store_explicit(at, (uint16_t)value, memory_order_release); }

/* Says how often we looked, up to what a word holds. */
static void count(word *m, unsigned long looks) { store(m + SEEN, looks < 0xffff ? (unsigned)looks : 0xffff); }

static void watch(word *m, word *one, word *other)
{
    unsigned long looks = 0, torn = 0;
    uint16_t last_one = load(one), last_other = load(other);

    store(m + ROUND, 1);
    for (; !load(m + STOP); looks++) {
        uint16_t now_one = load(one), now_other = load(other);
        torn += (int16_t)(now_one - last_one) < 0;
        torn += (int16_t)(now_other - last_other) < 0;
        last_one = now_one;
        last_other = now_other;
        count(m, looks + 1);
    }
    printf("%lu %lu\n", looks, torn);
}

/* Python makes chains whose address is twice their length.  Only what did not change while we looked counts: a round
 * that is the same before and after, and flags that say "available" before and after.  A length of 0 is the used
 * descriptor that takes the chain's place, on its way. */
static void read_chains(word *m, word *flags, word *desc)
{
    unsigned long looks = 0, wrong = 0;

    while (!load(m + STOP)) {
        uint16_t round = load(m + ROUND), before = load(flags), addr = load(desc), length = load(desc + 4);
        if (!length || !(before & 0x80) == !(before & 0x8000) || load(flags) != before || load(m + ROUND) != round)
            continue;
        count(m, ++looks);
        wrong += addr != 2 * length;
    }
    printf("%lu %lu\n", looks, wrong);
}

/* Of these chains a device uses a quarter of their address in bytes, and offered was half of it.  In a ring of one entry
 * the wrap counter is that of the round: flags that say "used" by it cannot be those of the round before. */
static void read_used(word *m, word *flags, word *desc)
{
    unsigned long looks = 0, wrong = 0;

    while (!load(m + STOP)) {
        uint16_t round = load(m + ROUND), before = load(flags), addr = load(desc), length = load(desc + 4);
        if ((before & 0x8080) != (round & 1 ? 0x8080 : 0) || load(flags) != before || load(m + ROUND) != round)
            continue;
        count(m, ++looks);
        wrong += addr != 4 * length;
    }
    printf("%lu %lu\n", looks, wrong);
}

/* Waits for Python to say that it is done with this round; 0 when the game is over. */
static int done(word *m, uint16_t round)
{
    for (unsigned spins = 0; load(m + DONE) != round; spins++) {
        if (load(m + STOP))
            return 0;
        if (spins % 4096 == 4095)
            sched_yield();
    }
    return 1;
}

/* Moves our half of the race through the whole of Python's, which takes a few microseconds. */
static void linger(unsigned long round)
{
    for (unsigned long spin = round * 37 % 6000; spin; spin--)
        atomic_signal_fence(memory_order_seq_cst);
}

/* `published` is what makes something available: one more, or, when all of a packed ring is used, the other AVAIL. */
static uint16_t published(uint16_t before, int packed) { return packed ? before ^ 0x0080 : before + 1; }

static void race(word *m, word *flag, word *idx, int sleeping, int packed)
{
    unsigned long round = 1, lost = 0;

    for (;; round++) {
        uint16_t before = load(idx);
        int fine;
        if (sleeping)
            store(flag, 1);
        store(m + ROUND, (unsigned)round);
        linger(round);
        if (sleeping)
            store(flag, 0);
        else
            store(idx, published(before, packed));
        atomic_thread_fence(memory_order_seq_cst);
        fine = sleeping ? load(idx) != before : !load(flag);
        store(m + LOOKED, (unsigned)round);
        if (!done(m, (uint16_t)round))
            break;
        lost += !fine && !load(m + WOKEN);
    }
    printf("%lu %lu\n", round - 1, lost);
}

int main(int argc, char **argv)
{
    int fd = argc == 5 ? open(argv[2], O_RDWR) : -1;
    word *m = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (m == MAP_FAILED)
        return 2;
    if (!strcmp(argv[1], "watch"))
        watch(m, m + atoi(argv[3]), m + atoi(argv[4]));
    else if (!strcmp(argv[1], "read"))
        read_chains(m, m + atoi(argv[3]), m + atoi(argv[4]));
    else if (!strcmp(argv[1], "used"))
        read_used(m, m + atoi(argv[3]), m + atoi(argv[4]));
    else
        race(m, m + atoi(argv[3]), m + atoi(argv[4]), !strcmp(argv[1], "sleep"), !strcmp(argv[1], "offer"));
    return 0;
}
