/* cpu.c: memory of the CPU back, and the choice of its instruction set. */
#include "kernels/cpu/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>
#ifdef __x86_64__
#include <cpuid.h>
#include <emmintrin.h>
#include <sys/syscall.h>
#endif

/* Big tensors are pages of their own: they come zeroed, are touched only when used, and ask to be huge, so that a
 * pass over weights misses the TLB 512 times less often. */
enum { HUGE_PAGE = 2 << 20 };

static size_t ten_bytes(Ten t) { return (size_t)t.rows * (size_t)t.cols * dtype_size(t.type); }

/* Whole huge pages, aligned to one. */
static void *pages_new(size_t bytes) {
    size_t whole = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    char *p =
        mmap(NULL, whole + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (before) munmap(p, before);
    if (before < HUGE_PAGE) munmap(p + before + whole, HUGE_PAGE - before);
    madvise(p + before, bytes / HUGE_PAGE * HUGE_PAGE,
            MADV_HUGEPAGE); /* the rest takes what it uses: as planned */
    return p + before;
}

Ten cpu_new(Dev *dev, int rows, int cols, DType type) {
    (void)dev;
    Ten t = {NULL, rows, cols, cols, type};
    size_t bytes = ten_bytes(t);
    if (bytes >= HUGE_PAGE) {
        t.p = pages_new(bytes);
        return t;
    }
    t.p = aligned_alloc(64, bytes / 64 * 64 + 64);
    if (t.p) memset(t.p, 0, bytes);
    return t;
}

void cpu_free(Dev *dev, Ten t) {
    (void)dev;
    if (ten_bytes(t) >= HUGE_PAGE)
        munmap(t.p, (ten_bytes(t) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    else
        free(t.p);
}

static char *row_bytes(Ten t, int r) { return (char *)t.p + (size_t)r * (size_t)t.stride * dtype_size(t.type); }

void cpu_put(Dev *dev, Ten dst, const void *host) {
    (void)dev;
    size_t bytes = (size_t)dst.cols * dtype_size(dst.type);
    for (int r = 0; r < dst.rows; r++) memcpy(row_bytes(dst, r), (const char *)host + (size_t)r * bytes, bytes);
}

void cpu_get(Dev *dev, void *host, Ten src) {
    (void)dev;
    size_t bytes = (size_t)src.cols * dtype_size(src.type);
    for (int r = 0; r < src.rows; r++) memcpy((char *)host + (size_t)r * bytes, row_bytes(src, r), bytes);
}

uint64_t cpu_hash(Dev *dev, const Ten *parts, int n) {
    (void)dev;
    XXH3_state_t *state = XXH3_createState();
    if (!state) die("out of memory");
    XXH3_64bits_reset(state);
    for (int i = 0; i < n; i++) XXH3_64bits_update(state, parts[i].p, ten_bytes(parts[i]));
    uint64_t value = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return value;
}

typedef struct {
    char *p;
    size_t bytes;
} ZeroJob;

/* More than a few caches is written past them, without having been read. */
enum { ZERO_CHUNK = 1 << 20, ZERO_FAR = 8 << 20 };

static void zero_bytes(char *p, size_t bytes, bool far) {
    size_t i = 0;
#ifdef __SSE2__
    if (far && (uintptr_t)p % 16 == 0) {
        for (; i + 16 <= bytes; i += 16) _mm_stream_si128((__m128i *)(void *)(p + i), _mm_setzero_si128());
        _mm_sfence();
    }
#else
    (void)far;
#endif
    memset(p + i, 0, bytes - i);
}

static void zero_part(void *self, int item, int thread) {
    (void)thread;
    ZeroJob *job = self;
    size_t at = (size_t)item * ZERO_CHUNK, left = job->bytes - at;
    zero_bytes(job->p + at, left < ZERO_CHUNK ? left : ZERO_CHUNK, job->bytes >= ZERO_FAR);
}

void cpu_zero(Dev *dev, Ten t) {
    if (t.stride == t.cols || t.rows == 1) {
        ZeroJob job = {t.p, (size_t)t.rows * (size_t)t.cols * dtype_size(t.type)};
        pool_run(dev->pool, (int)((job.bytes + ZERO_CHUNK - 1) / ZERO_CHUNK), zero_part, &job);
        return;
    }
    for (int r = 0; r < t.rows; r++) memset(row_bytes(t, r), 0, (size_t)t.cols * dtype_size(t.type));
}

void cpu_sync(Dev *dev) { (void)dev; }

int64_t cpu_left(Dev *dev) {
    (void)dev;
    return -1;
}

size_t cpu_mat_elements(int n, int k) { return (size_t)PANELS(n) * (size_t)PAIRS(k) * 32; }

size_t cpu_kv_page_elements(int heads, int head_dim, bool grad) {
    (void)grad;
    return 2 * (size_t)heads * (size_t)head_dim * KV_PAGE;
}

typedef struct {
    char *p;
    size_t bytes, step; /* of a layer's page; from layer to layer */
} KvZeroJob;

static void kv_zero_part(void *self, int item, int thread) {
    (void)thread;
    const KvZeroJob *job = self;
    zero_bytes(job->p + (size_t)item * job->step, job->bytes, true); /* there are others before it is looked at */
}

void cpu_kv_zero(Dev *dev, Kv *kv, int page) {
    const size_t bytes = cpu_kv_page_elements(kv->heads, kv->head_dim, kv->grad) * dtype_size(kv->type);
    KvZeroJob job = {(char *)kv->data.p + (size_t)page * bytes, bytes, (size_t)kv->pages * bytes};
    pool_run(dev->pool, kv->layers, kv_zero_part, &job);
}

/* ---- the choice of path ---- */

typedef struct {
    const Ops *ops;
    bool (*here)(void);
} Path;

static bool always(void) { return true; }
#ifndef WHET_DOUBLE
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static bool has_dot(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

/* CPUID says whether there are tiles (leaf 7: bit 22 bf16, bit 24 tiles); the kernel lends them to a process that
 * asks, since they make its switches dearer: arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA). */
static bool has_amx(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    unsigned a, b, c, d;
    if (!has_dot() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    return (d >> 22 & 1) && (d >> 24 & 1) && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}
#endif

/* From the last to the first is the order of choice. */
static const Path paths[] = {
    {&cpu_plain_ops, always},
#ifndef WHET_DOUBLE
    {&cpu_plain_fma_ops, has_avx2}, /* plain, too */
    {&cpu_dot_plain_ops, always},   {&cpu_amx_plain_ops, always}, {&cpu_avx2_ops, has_avx2},
    {&cpu_avx512_ops, has_avx512},  {&cpu_dot_ops, has_dot},      {&cpu_amx_ops, has_amx},
#endif
};
enum { N_PATHS = sizeof paths / sizeof paths[0] };

int dev_paths(const char *names[8]) {
    int n = 0;
    for (int i = 0; i < N_PATHS; i++)
        if (paths[i].here() && (n == 0 || strcmp(names[n - 1], paths[i].ops->name) != 0))
            names[n++] = paths[i].ops->name;
    return n;
}

/* What its products of bf16 sum like; -1: no path of the CPU. That AMD's VDPBF16PS has the bits of Intel's is not
 * known, so its twin in plain C promises them to nobody. */
static int arithmetic(const char *path) {
    static const char *const names[] = {"plain", "avx2", "avx512", "avx512_bf16", "amx", "amx_plain", "avx512_bf16_plain"};
    static const int of[] = {0, 0, 0, 1, 2, 2, 3};
    for (int i = 0; i < 7; i++)
        if (strcmp(path, names[i]) == 0) return of[i];
    return -1;
}

bool dev_same_bits(const char *path, const char *other, DType type) {
    int a = arithmetic(path), b = arithmetic(other);
    return strcmp(path, other) == 0 || (a >= 0 && b >= 0 && (a == b || type == K_REAL));
}

/* BF16 dot products are twice as fast as fp32 on AMD's cores from Zen 4 on, and half as fast on Intel's: there the
 * choice falls on fp32 FMA. */
static bool dot_is_fast(void) { return __builtin_cpu_is("amd") != 0; }

static const Ops *choose(const char *name, Err *err) {
    bool automatic = !name || !*name || strcmp(name, "auto") == 0;
    for (int i = N_PATHS - 1; i >= 0; i--) {
        if (automatic ? strcmp(paths[i].ops->name, "avx512_bf16") == 0 && !dot_is_fast()
                      : strcmp(paths[i].ops->name, name) != 0)
            continue;
        if (paths[i].here()) return paths[i].ops;
        if (!automatic) {
            err_set(err, "cpu_path %s: this processor lacks the instructions; leave cpu_path at auto", name);
            return NULL;
        }
    }
    err_set(err, "cpu_path %s is not known; use auto, plain, avx2, avx512, avx512_bf16, avx512_bf16_plain, amx or amx_plain",
            name);
    return NULL;
}

bool cpu_open(Dev *dev, const DevConf *conf, Err *err) {
    dev->ops = choose(conf->path, err);
    if (!dev->ops) return false;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    dev->threads = conf->threads > 0 ? conf->threads : cores > 0 ? (int)cores : 1;
    if (dev->threads > 256) return err_set(err, "threads %d: at most 256", dev->threads);
    snprintf(dev->path, sizeof dev->path, "%s", dev->ops->name);
    snprintf(dev->about, sizeof dev->about, "cpu");
    dev->pool = pool_open(dev->threads);
    return true;
}

void cpu_close(Dev *dev) { pool_close(dev->pool); }
