/* pool.c: the CPU's threads. A worker that has nothing to do spins for some microseconds, since the next op is
 * usually that near, lets others run for about a millisecond, in which an uneven op ends, and then sleeps on a
 * futex, so that an idle or oversubscribed machine is not kept busy: to be woken takes 0.2 ms. Tested by
 * tests/test_kernels_pool.c. */
#include "kernels/cpu/cpu.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 4000, YIELDS = 2000 };

/* A thread's own items of the job, those not yet taken. */
typedef struct {
    _Alignas(64) atomic_int next;
    int end;
} Range;

struct Pool {
    int threads;
    pthread_t *handles;
    _Alignas(64) atomic_int round; /* counts jobs; workers wait for it to change */
    atomic_int sleepers;
    _Alignas(64) atomic_int done; /* workers that have finished the job */
    atomic_bool stop;
    Range *ranges; /* [threads] */
    void (*run)(void *self, int item, int thread);
    void *self;
};

typedef struct {
    Pool *pool;
    int thread;
} Worker;

static void futex_wait(atomic_int *at, int value) {
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static void futex_wake(atomic_int *at) { syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0); }
static void spin_hint(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Its own range first, so that from op to op a thread finds the same rows in its core's cache; then what others have
 * left. */
static void work(Pool *pool, int thread) {
    for (int i = 0, item; i < pool->threads; i++) {
        Range *range = &pool->ranges[(thread + i) % pool->threads];
        while ((item = atomic_fetch_add(&range->next, 1)) < range->end) pool->run(pool->self, item, thread);
    }
}

/* Returns once *at differs from value. */
static void wait_change(Pool *pool, atomic_int *at, int value) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(at, memory_order_acquire) != value) return;
        spin_hint();
    }
    for (int i = 0; i < YIELDS; i++) {
        if (atomic_load_explicit(at, memory_order_acquire) != value) return;
        sched_yield();
    }
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(at) == value) futex_wait(at, value);
    atomic_fetch_sub(&pool->sleepers, 1);
}

static void announce(Pool *pool, atomic_int *at) {
    atomic_fetch_add(at, 1);
    if (atomic_load(&pool->sleepers)) futex_wake(at);
}

static void *worker_main(void *arg) {
    Worker worker = *(Worker *)arg;
    free(arg);
    Pool *pool = worker.pool;
    for (unsigned seen = 0;; seen++) { /* wraps around, as the counter does */
        wait_change(pool, &pool->round, (int)seen);
        if (atomic_load(&pool->stop)) return NULL;
        work(pool, worker.thread);
        announce(pool, &pool->done);
    }
}

Pool *pool_open(int threads) {
    Pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (!pool) die("out of memory");
    *pool = (Pool){.threads = threads};
    pool->handles = MEM_ARRAY(pthread_t, threads);
    pool->ranges = aligned_alloc(64, (size_t)threads * sizeof(Range));
    if (!pool->ranges) die("out of memory");
    for (int i = 1; i < threads; i++) {
        Worker *worker = MEM_NEW(Worker);
        *worker = (Worker){pool, i};
        if (pthread_create(&pool->handles[i], NULL, worker_main, worker) != 0)
            die("cannot start thread %d of %d", i, threads);
    }
    return pool;
}

int pool_threads(const Pool *pool) { return pool->threads; }

void pool_run(Pool *pool, int n, void (*run)(void *self, int item, int thread), void *self) {
    if (n <= 0) return;
    if (pool->threads == 1 || n == 1) {
        for (int i = 0; i < n; i++) run(self, i, 0);
        return;
    }
    pool->run = run, pool->self = self;
    for (int64_t t = 0; t < pool->threads; t++) {
        atomic_store_explicit(&pool->ranges[t].next, (int)(n * t / pool->threads), memory_order_relaxed);
        pool->ranges[t].end = (int)(n * (t + 1) / pool->threads);
    }
    atomic_store(&pool->done, 0);
    announce(pool, &pool->round);
    work(pool, 0);
    for (int done; (done = atomic_load(&pool->done)) < pool->threads - 1;) wait_change(pool, &pool->done, done);
}

void pool_close(Pool *pool) {
    if (!pool) return;
    atomic_store(&pool->stop, true);
    announce(pool, &pool->round);
    for (int i = 1; i < pool->threads; i++) pthread_join(pool->handles[i], NULL);
    free(pool->handles);
    free(pool->ranges);
    free(pool);
}
