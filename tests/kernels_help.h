/* kernels_help.h: what the tests of the kernels room share: every path with one and two threads, tensors from and
 * to host numbers, and the comparison of an op's output on all of them, bit for bit. */
#ifndef WHET_TESTS_KERNELS_HELP_H
#define WHET_TESTS_KERNELS_HELP_H

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

enum { DEVS_MAX = 16 };
typedef struct {
    Dev *dev[DEVS_MAX]; /* the first is plain C with one thread */
    int n;
} Devs;

#define UNUSED_HERE __attribute__((unused))
#define TOLERANCE(in_float, in_double) (sizeof(real) == 4 ? (in_float) : (in_double))

UNUSED_HERE static int devs_open(void **state) {
    Devs *devs = MEM_NEW(Devs);
    const char *names[8];
    int n = dev_paths(names);
    Err err = {0};
    for (int i = 0; i < n; i++)
        for (int threads = 1; threads <= 2; threads++) {
#ifdef __SANITIZE_ADDRESS__ /* twins in plain C are thirty times as slow there: one thread, and none beside its like */
            const char *twin = strstr(names[i], "_plain");
            bool there = false;
            for (int k = 0; twin && k < n; k++)
                there |= strlen(names[k]) == (size_t)(twin - names[i]) && strstr(names[i], names[k]) == names[i];
            if (twin && (threads == 2 || there)) continue;
#endif
            Dev *dev = dev_open(&(DevConf){"cpu", names[i], threads, false}, &err);
            if (!dev) fail_msg("%s", err.msg);
            devs->dev[devs->n++] = dev;
        }
    assert_string_equal(dev_path(devs->dev[0]), "plain");
    *state = devs;
    return 0;
}

UNUSED_HERE static int devs_close(void **state) {
    Devs *devs = *state;
    for (int i = 0; i < devs->n; i++) dev_close(devs->dev[i]);
    free(devs);
    return 0;
}

/* ---- numbers ---- */

UNUSED_HERE static uint16_t to_bf16(real x) {
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
UNUSED_HERE static real from_bf16(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
/* What a tensor of the type would hold for x. */
UNUSED_HERE static real stored(real x, DType type) { return type == K_BF16 ? from_bf16(to_bf16(x)) : x; }

UNUSED_HERE static real *reals_random(uint64_t seed, size_t n, double scale, DType type) {
    real *x = MEM_ARRAY(real, n + 1);
    Rng rng = {seed, 0};
    for (size_t i = 0; i < n; i++) x[i] = stored((real)(rng_normal(&rng) * scale), type);
    return x;
}

/* ---- tensors ---- */

UNUSED_HERE static void ten_put(Dev *dev, Ten t, const real *host) {
    size_t n = (size_t)t.rows * (size_t)t.cols;
    uint16_t *h = MEM_ARRAY(uint16_t, n + 1);
    for (size_t i = 0; i < n; i++) h[i] = to_bf16(host[i]);
    if (t.type == K_BF16)
        k_put(dev, t, h);
    else
        k_put(dev, t, host);
    free(h);
}

/* host may be NULL: zeros. */
UNUSED_HERE static Ten ten_make(Dev *dev, int rows, int cols, DType type, const real *host) {
    Err err = {0};
    Ten t = k_new(dev, rows, cols, type, &err);
    if (!t.p) fail_msg("%s", err.msg);
    if (host) ten_put(dev, t, host);
    return t;
}

UNUSED_HERE static void ten_read(Dev *dev, Ten t, real *host) {
    size_t n = (size_t)t.rows * (size_t)t.cols;
    uint16_t *h = MEM_ARRAY(uint16_t, n + 1);
    k_get(dev, t.type == K_BF16 ? (void *)h : (void *)host, t);
    if (t.type == K_BF16)
        for (size_t i = 0; i < n; i++) host[i] = from_bf16(h[i]);
    free(h);
}

/* Appends the tensor's numbers to out and frees it. */
UNUSED_HERE static void ten_add(Dev *dev, Ten t, Buf *out) {
    size_t n = (size_t)t.rows * (size_t)t.cols;
    real *host = MEM_ARRAY(real, n + 1);
    ten_read(dev, t, host);
    buf_add(out, host, n * sizeof *host);
    free(host);
}
UNUSED_HERE static void ten_take(Dev *dev, Ten t, Buf *out) {
    ten_add(dev, t, out);
    k_free(dev, &t);
}

/* Numbers a of a device must be those of b, bit for bit if near is 0, else within near of them. */
UNUSED_HERE static void reals_agree(const Dev *dev, const Buf *mine, const Buf *want, double near) {
    const real *a = (const real *)(const void *)mine->p, *b = (const real *)(const void *)want->p;
    if (mine->n != want->n) fail_msg("%s: %zu bytes, not %zu", dev_path(dev), mine->n, want->n);
    for (size_t i = 0; i < want->n / sizeof *a; i++)
        if (near > 0 ? !(fabs((double)a[i] - (double)b[i]) <= near * (1 + fabs((double)b[i])))
                     : memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s with %d threads: number %zu of %zu is %.9g, not %.9g", dev_path(dev), dev_threads(dev), i,
                     want->n / sizeof *a, (double)a[i], (double)b[i]);
}

/* Paths whose products of bf16 have the same bits: 0 those of fp32 FMA, 1 BF16 dot, 2 tiles; 3 plain C's BF16 dot
 * beside an instruction of another vendor than Intel, whose it has. */
enum { ARITHMETICS = 4 };
UNUSED_HERE static int arithmetic_of(const Dev *dev) {
    const char *path = dev_path(dev);
    if (strcmp(path, "avx512_bf16_plain") == 0) return __builtin_cpu_is("intel") ? 1 : 3;
    return strncmp(path, "amx", 3) == 0 ? 2 : strcmp(path, "avx512_bf16") == 0;
}

/* Runs on all paths, with one thread and with two; what they append must be the same bits, which are left in out.
 * Where products of bf16 take part (near > 0), each arithmetic must agree with itself bit for bit, and with plain C
 * within near. */
UNUSED_HERE static void on_all(const Devs *devs, Buf *out, void (*run)(Dev *dev, const void *self, Buf *out),
                               const void *self, double near) {
    Buf others[ARITHMETICS] = {{0}};
    buf_clear(out);
    for (int i = 0; i < devs->n; i++) {
        int kind = near > 0 ? arithmetic_of(devs->dev[i]) : 0;
        Buf mine = {0}, *first = kind ? &others[kind] : out;
        run(devs->dev[i], self, first->n ? &mine : first);
        if (kind && !mine.n)
            reals_agree(devs->dev[i], first, out, near);
        else if (mine.n)
            reals_agree(devs->dev[i], &mine, first, 0);
        buf_free(&mine);
    }
    for (int i = 0; i < ARITHMETICS; i++) buf_free(&others[i]);
}

UNUSED_HERE static const real *reals_of(const Buf *buf) { return (const real *)(const void *)buf->p; }

/* Runs on all paths, with one thread and with two: what the first of each arithmetic appends is checked, what the others
 * append must be its bits. Without products of bf16 there is one arithmetic. */
UNUSED_HERE static void on_each(const Devs *devs, bool bf16, void (*run)(Dev *dev, const void *self, Buf *out),
                                void (*check)(const void *self, const real *out), const void *self) {
    Buf first[ARITHMETICS] = {{0}}, one = {0};
    for (int i = 0; i < devs->n; i++) {
        buf_clear(&one);
        run(devs->dev[i], self, &one);
        Buf *want = &first[bf16 ? arithmetic_of(devs->dev[i]) : 0];
        if (!want->n) {
            check(self, reals_of(&one));
            buf_add(want, one.p, one.n);
        }
        reals_agree(devs->dev[i], &one, want, 0);
    }
    for (int i = 0; i < ARITHMETICS; i++) buf_free(&first[i]);
    buf_free(&one);
}

#define NEAR(got, want, tolerance)                                                                                \
    do {                                                                                                          \
        double got_ = (double)(got), want_ = (double)(want);                                                      \
        if (!(fabs(got_ - want_) <= (tolerance) * (1 + fabs(want_))))                                             \
            fail_msg("%s: %.17g, wanted %.17g", #got, got_, want_);                                               \
    } while (0)

#endif
