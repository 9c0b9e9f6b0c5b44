/* test_kernels_pool.c: the CPU's threads: every item once, whatever the number of jobs, items and threads; workers
 * that have nothing to do sleep; the pool closes at once. Not here: that no result depends on threads (the ops'
 * tests).  (run.sh: alone) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"

enum { ITEMS_MAX = 3000, THREADS_MAX = 9 };

typedef struct {
    atomic_int count[ITEMS_MAX];
    atomic_int by[THREADS_MAX + 1];
    int naps; /* microseconds of each item */
} Job;

static void item_run(void *self, int item, int thread) {
    Job *job = self;
    if (job->naps) usleep((useconds_t)job->naps);
    atomic_fetch_add(&job->count[item], 1);
    atomic_fetch_add(&job->by[thread], 1);
}

static void once_each(const Job *job, int n, int threads) {
    int sum = 0;
    for (int i = 0; i < ITEMS_MAX; i++) assert_int_equal(job->count[i], i < n);
    for (int i = 0; i <= THREADS_MAX; i++) {
        assert_true(i < threads || job->by[i] == 0);
        sum += job->by[i];
    }
    assert_int_equal(sum, n);
}

static void all_items(void **state) {
    (void)state;
    static const int items[] = {0, 1, 2, 3, 7, 8, 9, 100, ITEMS_MAX};
    for (int threads = 1; threads <= THREADS_MAX; threads++) { /* more than there are cores */
        Pool *pool = pool_open(threads);
        assert_int_equal(pool_threads(pool), threads);
        for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
            Job job = {0};
            pool_run(pool, items[i], item_run, &job);
            once_each(&job, items[i], threads);
        }
        pool_close(pool);
    }
}

/* Slow items are shared out (a crowded machine may leave some threads without any). */
static void shared_out(void **state) {
    (void)state;
    Pool *pool = pool_open(4);
    Job job = {.naps = 3000};
    int took_part = 0;
    pool_run(pool, 40, item_run, &job);
    once_each(&job, 40, 4);
    for (int t = 0; t < 4; t++) took_part += job.by[t] > 0;
    assert_true(took_part > 1);
    pool_close(pool);
}

static void sum_item(void *self, int item, int thread) {
    (void)thread;
    ((long *)self)[item] += item + 1;
}

/* Many tiny jobs, one after the other: what one job wrote, the next one sees. */
static void many_jobs(void **state) {
    (void)state;
    Pool *pool = pool_open(3);
    long sums[8] = {0};
    for (int i = 0; i < 20000; i++) pool_run(pool, 1 + i % 8, sum_item, sums);
    for (int i = 0; i < 8; i++) assert_int_equal(sums[i], (i + 1) * (20000 / 8 * (8 - i)));
    pool_close(pool);
}

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Idle workers take no time of the CPU, and wake up again. */
static void idle_sleeps(void **state) {
    (void)state;
    Pool *pool = pool_open(4);
    for (int round = 0; round < 3; round++) {
        Job job = {0};
        pool_run(pool, 50, item_run, &job);
        once_each(&job, 50, 4);
        usleep(20000); /* they spin for some microseconds first */
        double before = cpu_seconds();
        usleep(100000);
        assert_true(cpu_seconds() - before < 0.02);
    }
    pool_close(pool);
}

/* Opened and closed without work; two pools at once. */
static void open_and_close(void **state) {
    (void)state;
    pool_close(NULL);
    for (int i = 0; i < 50; i++) {
        Pool *a = pool_open(1 + i % 5), *b = pool_open(2);
        Job job = {0};
        if (i % 2) pool_run(a, 10, item_run, &job);
        pool_close(b);
        pool_close(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_items),   cmocka_unit_test(shared_out),     cmocka_unit_test(many_jobs),
        cmocka_unit_test(idle_sleeps), cmocka_unit_test(open_and_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
