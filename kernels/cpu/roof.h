/* roof.h: what this processor can do at best, for benches: products in registers, and reading memory. Included by
 * body.h after matmul.h. */
#include <unistd.h>

#ifdef __AVX512F__
enum { ROOF_CHAINS = 12 };
#else
enum { ROOF_CHAINS = 6 }; /* of two registers each */
#endif
enum { ROOF_STEPS = 100000, ROOF_TRIES = 8 };
#define UNROLL_ALL _Pragma("GCC unroll 16")

typedef struct {
    const char *p;
    size_t bytes;
    int streams;
    real *sink; /* [threads * 16]: keeps the compiler from leaving the work out */
} RoofJob;

/* The product's own instruction, with as many independent chains as hide its latency, in registers. */
static void roof_part(void *self, int item, int thread) {
    (void)thread;
    RoofJob *job = self;
#ifdef TILES
    (void)job, (void)item;
    tiles_shape(TILES_ROWS);
    for (int k = 0; k < ROOF_STEPS; k++) {
        TILE_DOT(0, 4, 6);
        TILE_DOT(1, 4, 7);
        TILE_DOT(2, 5, 6);
        TILE_DOT(3, 5, 7);
    }
    TILE_RELEASE();
#else
    Vec acc[ROOF_CHAINS];
#ifdef BF16_DOT
    static const uint16_t half[2] = {0x3f00, 0x3f00};
    Pairs x = dot_load((const uint16_t *)(const void *)(job->sink + 16 * item)), w = dot_set(half);
#else
    Vec x = v_load(job->sink + 16 * item), w = v_set((real)0.5);
#endif
    UNROLL_ALL for (int i = 0; i < ROOF_CHAINS; i++) acc[i] = v_set((real)i);
    for (int k = 0; k < ROOF_STEPS; k++) UNROLL_ALL for (int i = 0; i < ROOF_CHAINS; i++) {
#ifdef BF16_DOT
            acc[i] = v_dot(acc[i], x, w);
#else
            acc[i] = v_fma(x, w, acc[i]);
#endif
        }
    UNROLL_ALL for (int i = 1; i < ROOF_CHAINS; i++) acc[0] = v_add(acc[0], acc[i]);
    v_store(job->sink + 16 * item, acc[0]);
#endif
}

/* Floating-point operations a second, all threads, best of some tries. */
static double op_roof_flops(Dev *dev) {
#if defined TILES
    const double per_step = 4 * 2.0 * 16 * 16 * 32;
#elif defined BF16_DOT
    const double per_step = 64 * ROOF_CHAINS;
#else
    const double per_step = 32 * ROOF_CHAINS;
#endif
    RoofJob job = {.sink = MEM_ARRAY(real, 16 * (size_t)dev->threads)};
    double best = 0;
    for (int try = 0; try < ROOF_TRIES; try++) {
        double began = clock_seconds();
        pool_run(dev->pool, dev->threads, roof_part, &job);
        double rate = per_step * ROOF_STEPS * dev->threads / (clock_seconds() - began);
        if (rate > best) best = rate;
    }
    free(job.sink);
    return best;
}

/* One thread's share, read as several streams at once, each fetched ahead. */
static void stream_part(void *self, int item, int thread) {
    (void)thread;
    RoofJob *job = self;
    size_t each = job->bytes / (size_t)job->streams / 64 * 64;
    const char *p = job->p + (size_t)item * job->bytes;
    Vec sum = v_set(0);
    for (size_t at = 0; at < each; at += 64)
        for (int s = 0; s < job->streams; s++) {
            const char *from = p + (size_t)s * each + at;
            __builtin_prefetch(from + 2048);
            sum = v_add(sum, v_load_bf16((const uint16_t *)(const void *)from));
            sum = v_add(sum, v_load_bf16((const uint16_t *)(const void *)(from + 32)));
        }
    v_store(job->sink + 16 * item, sum);
}

/* Bytes a second of reading more than four times the last cache, all threads, best of some tries. */
static double op_roof_bytes(Dev *dev) {
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t bytes = cache > 0 ? 4 * (size_t)cache : 0;
    if (bytes < (size_t)256 << 20) bytes = (size_t)256 << 20;
    bytes = bytes / (size_t)dev->threads / 4096 * 4096;
    Ten home = cpu_new(dev, dev->threads, (int)(bytes / 2), K_BF16);
    if (!home.p) return 0;
    memset(home.p, 0, bytes * (size_t)dev->threads); /* pages that were never written are all the same one */
    RoofJob job = {.p = home.p, .bytes = bytes, .sink = MEM_ARRAY(real, 16 * (size_t)dev->threads)};
    double best = 0;
    for (int try = 0; try < ROOF_TRIES; try++) {
        job.streams = try % 2 ? 4 : 8;
        double began = clock_seconds();
        pool_run(dev->pool, dev->threads, stream_part, &job);
        double rate = (double)bytes * dev->threads / (clock_seconds() - began);
        if (rate > best) best = rate;
    }
    free(job.sink);
    cpu_free(dev, home);
    return best;
}
