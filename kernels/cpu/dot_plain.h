/* dot_plain.h: dot.h in plain C, bit for bit. Needs vec_plain.h before it. */
#include "kernels/cpu/normal_plain.h"

typedef struct {
    uint16_t at[32];
} Pairs;

static inline Pairs dot_load(const uint16_t *p) {
    Pairs r;
    memcpy(r.at, p, sizeof r.at);
    return r;
}
static inline Pairs dot_load_n(const uint16_t *p, int n) {
    Pairs r = {{0}};
    memcpy(r.at, p, 2 * (size_t)n * sizeof *p);
    return r;
}
static inline Pairs dot_set(const uint16_t *pair) {
    Pairs r;
    for (int i = 0; i < 16; i++) memcpy(r.at + 2 * i, pair, 2 * sizeof *pair);
    return r;
}
static inline Vec v_dot(Vec c, Pairs a, Pairs b) {
    for (int i = 0; i < 16; i++) {
        float sum = normal_or_zero(c.at[i]);
        for (int odd = 1; odd >= 0; odd--)
            sum = normal_fma(normal_or_zero(bf16_widen(a.at[2 * i + odd])),
                             normal_or_zero(bf16_widen(b.at[2 * i + odd])), sum);
        c.at[i] = sum;
    }
    return c;
}
