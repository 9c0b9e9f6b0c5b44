/* dot.h: sixteen pairs of bf16, and VDPBF16PS, which adds their products to sixteen sums: first the odd ones, then
 * the even ones, each fused and rounded to nearest even; denormal operands are zero, and so are results that would
 * be denormal (found with random bits on Intel's Granite Rapids). dot_plain.h gives the same in plain C, bit for
 * bit. Needs vec_avx512.h before it. */

typedef __m512bh Pairs;

static inline Pairs dot_load(const uint16_t *p) { return (Pairs)_mm512_loadu_si512(p); }
static inline Pairs dot_load_n(const uint16_t *p, int n) { /* the first n pairs, 0 <= n < 16; the others are zero */
    return (Pairs)_mm512_maskz_loadu_epi32((__mmask16)((1u << n) - 1), p);
}
static inline Pairs dot_set(const uint16_t *pair) { /* one pair in all lanes */
    int both;
    memcpy(&both, pair, sizeof both);
    return (Pairs)_mm512_set1_epi32(both);
}
static inline Vec v_dot(Vec c, Pairs a, Pairs b) { return _mm512_dpbf16_ps(c, a, b); }
