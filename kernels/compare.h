/* compare.h: private to kernels/: what compare.c and compare_attend.c share. */
#ifndef WHET_COMPARE_H
#define WHET_COMPARE_H

#include "kernels/kernels.h"

typedef struct {
    Dev *dev[2]; /* the one that is looked at, and the CPU's */
    void (*say)(void *self, const CompareResult *result);
    void *self;
    uint64_t seed;
    int checks, failed;
} Compare;

/* A tensor on each device with the same numbers, inside a wider one whose other columns hold NaN. */
typedef struct {
    Ten whole[2], at[2];
} Two;

typedef enum { FILL_RANDOM, FILL_NAN, FILL_ZERO } Fill; /* NaN: for what an op overwrites */
Two two_new(Compare *c, int rows, int cols, int pad, DType type, Fill fill, double scale);
void two_free(Compare *c, Two *two);
Ten two_none(void);

/* Reports the worst difference of two's tensors in units of the reference's largest number (0: the same bits); no
 * number outside of them may have changed. Frees them. */
void two_check(Compare *c, const char *op, const char *shape, Two *two, double bound);
/* The same of numbers on the host. */
void compare_numbers(Compare *c, const char *op, const char *shape, const real *got, const real *want, size_t n,
                     double bound);
void compare_true(Compare *c, const char *op, const char *shape, bool holds);
real *host_random(Compare *c, size_t n, double scale, DType type); /* as a tensor of the type would hold them */
real *host_of(Dev *dev, Ten t);                                    /* its numbers, dense */
void host_put(Dev *dev, Ten t, const real *host);
const char *shape_text(char text[64], const char *format, ...) FORMAT_LIKE(2, 3);

void compare_attention(Compare *c, bool all);
void compare_head(Compare *c, bool all);
void compare_again(Compare *c);

/* Bounds, in units of the largest number of the reference. */
#define BOUND_SUM(n) ((n)*0x1p-24 + 0x1p-22)               /* two fp32 sums of n numbers in different orders */
#define BOUND_STORED(type) ((type) == K_BF16 ? 0x1p-8 : 0) /* one of the two rounds up, the other down */

#endif
