/* vec_math.h: exp and log in float32 over the lanes of a vec_*.h: one routine for every path, no libm in kernels.
 */

/* e^x with a relative error below 2e-7 for x in [-87, 88]; 0 below -87; saturated at e^88 above. x = n ln 2 + r
 * with |r| <= ln 2 / 2, ln 2 split in two (Cody and Waite 1980), then the Taylor series of e^r to the 7th power,
 * whose remainder is below 1e-8. NaN comes out as e^88: kernels never produce NaN from finite input; the front's
 * trap and the loader's check see to the rest. */
static inline Vec v_exp(Vec x) {
    Vec low = v_set(-87.0f);
    Vec clipped = v_max(v_min(x, v_set(88.0f)), low);
    Vec n = v_round(v_mul(clipped, v_set(1.44269504f)));
    Vec r = v_fma(n, v_set(-0.693359375f), clipped);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    Vec p = v_set(1.0f / 5040);
    p = v_fma(p, r, v_set(1.0f / 720));
    p = v_fma(p, r, v_set(1.0f / 120));
    p = v_fma(p, r, v_set(1.0f / 24));
    p = v_fma(p, r, v_set(1.0f / 6));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_zero_below(v_scale2(p, n), x, low); /* a masked score of -1e30 gives exactly 0 */
}

/* tanh x within 4e-7, relatively: below 0.625 the odd polynomial of Cephes' tanhf (Moshier 1989), above 1 - 2 /
 * (e^2x + 1), with x's sign. */
static inline Vec v_tanh(Vec x) {
    x = v_max(v_min(x, v_set(10.0f)), v_set(-10.0f)); /* 1 to the last bit beyond */
    Vec size = v_max(x, v_sub(v_set(0), x)), z = v_mul(x, x), knee = v_set(0.625f), one = v_set(1);
    Vec p = v_fma(v_set(-5.70498872745e-3f), z, v_set(2.06390887954e-2f));
    p = v_fma(p, z, v_set(-5.37397155531e-2f));
    p = v_fma(p, z, v_set(1.33314422036e-1f));
    p = v_fma(p, z, v_set(-3.33332819422e-1f));
    p = v_fma(v_mul(p, z), x, x);
    Vec far = v_sub(one, v_div(v_set(2), v_add(v_exp(v_add(size, size)), one)));
    Vec sign = v_max(v_min(v_mul(x, v_set(1e30f)), one), v_set(-1));
    return v_add(v_sub(p, v_zero_below(p, size, knee)), v_zero_below(v_mul(far, sign), size, knee));
}

static inline real s_exp(real x) {
    float one[16];
    v_store(one, v_exp(v_set(x)));
    return one[0];
}

/* ln x for normal x > 0, within 2 ulp or 1e-7: x = 2^n m with m in [sqrt(1/2), sqrt(2)), then the series of
 * atanh((m - 1) / (m + 1)) in double, rounded once. Only + - * / in double, so every path agrees. */
static inline real s_log(real x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    int n = (int)(u >> 23) - 127;
    u = (u & 0x7fffff) | 0x3f800000;
    float m;
    memcpy(&m, &u, sizeof m);
    double d = m;
    if (d > 1.41421356) d *= 0.5, n++;
    double s = (d - 1) / (d + 1), q = s * s;
    double p = 1.0 / 13;
    p = p * q + 1.0 / 11, p = p * q + 1.0 / 9, p = p * q + 1.0 / 7, p = p * q + 1.0 / 5, p = p * q + 1.0 / 3;
    p = p * q + 1.0;
    return (float)(2 * s * p + n * 0.693147180559945309);
}
