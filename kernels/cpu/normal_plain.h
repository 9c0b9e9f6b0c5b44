/* normal_plain.h: how Intel's products of bf16 treat denormals, in plain C: there are none. */

#define LEAST_NORMAL 0x1p-126f
static inline float normal_or_zero(float x) { return fabsf(x) < LEAST_NORMAL ? copysignf(0, x) : x; }

/* a b + c rounded once; zero if that is denormal, judged after rounding as if exponents had no end: what rounds up
 * to the least normal number only for want of bits is zero too. */
static inline float normal_fma(float a, float b, float c) {
    float r = fmaf(a, b, c);
    if (fabsf(r) > LEAST_NORMAL) return r;
    float wide = fmaf(a * 0x1p32f, b * 0x1p32f, c * 0x1p64f);
    return fabsf(wide) < 0x1p-62f ? copysignf(0, r) : r;
}
