/* half.h: f16 and bf16, rounded once. A sum of two doubles that is rounded to odd keeps what a later rounding to
 * 24 bits or fewer needs to know (Boldo and Melquiond 2008). */
#ifndef TESTS_PTX_HALF_H
#define TESTS_PTX_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float f32_of(uint32_t b) {
    float f;
    memcpy(&f, &b, 4);
    return f;
}
static inline uint32_t f32_bits(float f) {
    uint32_t b;
    memcpy(&b, &f, 4);
    return b;
}
static inline double bf16_value(uint16_t b) { return f32_of((uint32_t)b << 16); }
static inline double f16_value(uint16_t b) {
    _Float16 h;
    memcpy(&h, &b, 2);
    return (double)(float)h;
}

static inline double sum_odd(double x, double y) {
    double s = x + y, t = s - x, e = (x - (s - t)) + (y - t); /* e: what s lost, exactly (Knuth) */
    if (e == 0 || isinf(s) || e != e) return s;
    int64_t b;
    memcpy(&b, &s, 8);
    if (b & 1) return s;
    b += (e > 0) == (s > 0) ? 1 : -1; /* s was rounded to the even neighbour: take the odd one on e's side */
    memcpy(&s, &b, 8);
    return s;
}

/* Nearest, ties to even; NaN becomes 0x7fff, as the hardware does. */
static inline uint16_t bf16_round(double x) {
    if (x != x) return 0x7fff;
    float f = (float)x;
    uint32_t b = f32_bits(f);
    if (!isinf(f) && (double)f != x) {
        if (fabs((double)f) > fabs(x)) b--; /* towards zero, then to odd */
        b |= 1;
    } else if (isinf(f) && !isinf(x)) {
        b = (b & 0x80000000u) | 0x7f7fffffu;
    }
    if ((b & 0x7f800000u) == 0x7f800000u) return (uint16_t)(b >> 16);
    return (uint16_t)((b + 0x7fffu + (b >> 16 & 1)) >> 16);
}
static inline uint16_t bf16_truncate(double x) { /* of a float */
    return x != x ? 0x7fff : (uint16_t)(f32_bits((float)x) >> 16);
}
static inline uint16_t f16_round(double x) {
    if (x != x) return 0x7fff;
    _Float16 h = (_Float16)x;
    uint16_t b;
    memcpy(&b, &h, 2);
    return b;
}
static inline uint16_t f16_truncate(double x) {
    uint16_t b = f16_round(x);
    if (x != x) return b;
    return (uint16_t)(fabs(f16_value(b)) > fabs(x) ? b - 1 : b);
}

#endif
