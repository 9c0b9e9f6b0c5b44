/* vec_avx512.h: sixteen lanes as one AVX-512 register. Same functions, same bits as vec_plain.h. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/bf16.h"

typedef __m512 Vec;

static inline Vec v_set(real a) { return _mm512_set1_ps(a); }
static inline Vec v_load(const real *p) { return _mm512_loadu_ps(p); }
static inline void v_store(real *p, Vec a) { _mm512_storeu_ps(p, a); }
static inline Vec v_load_n(const real *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
static inline void v_store_n(real *p, Vec a, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
static inline Vec v_load_bf16(const uint16_t *p) {
    __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
}
/* Rounded to bf16, which are the upper halves of the words; the lower ones are undefined. */
static inline __m512i v_bf16_words(Vec a) {
    __m512i u = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
}
static inline __m256i v_to_bf16(Vec a) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(v_bf16_words(a), 16)); }
static inline void v_store_bf16(uint16_t *p, Vec a) { _mm256_storeu_si256((__m256i *)p, v_to_bf16(a)); }
static inline void v_store_far(real *p, Vec a) { _mm512_stream_ps(p, a); }
static inline void v_store_bf16_far(uint16_t *p, Vec a, Vec b) {
    _mm512_stream_si512((__m512i *)p, _mm512_inserti64x4(_mm512_castsi256_si512(v_to_bf16(a)), v_to_bf16(b), 1));
}
static inline void v_line_far(void *to, const void *from) {
    _mm512_stream_si512((__m512i *)to, _mm512_loadu_si512(from));
}
static inline void far_end(void) { _mm_sfence(); }
static inline void v_load_pairs_bf16(const uint16_t *p, Vec *even, Vec *odd) {
    __m512i u = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32((int)0xffff0000u)));
}
static inline void v_load_pairs(const real *p, Vec *even, Vec *odd) {
    __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16);
    const __m512i e = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    *even = _mm512_permutex2var_ps(a, e, b);
    *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b);
}
static inline Vec v_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline void v_store_i8(int8_t *p, Vec a) {
    a = _mm512_max_ps(_mm512_min_ps(a, _mm512_set1_ps(127)), _mm512_set1_ps(-127));
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}
static inline void v_pairs_i8(uint32_t to[16], const int8_t *p) {
    __m512i low = _mm512_castps_si512(v_load_i8(p)), high = _mm512_castps_si512(v_load_i8(p + 16));
    _mm512_storeu_si512(to, _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(low, 16), high));
}
static inline void v_zip_bf16(uint32_t to[16], const uint16_t *low, const uint16_t *high) {
    __m512i a = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)low));
    __m512i b = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)high));
    _mm512_storeu_si512(to, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
}
/* By words, double words and quarters of a register: sixteen 4 x 4 blocks of words, then the blocks. */
static inline void v_turn(uint32_t to[16][16], uint32_t from[16][16]) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from[i]);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        __m512i even = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88),
                odd = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        __m512i even8 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        __m512i odd8 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
        _mm512_storeu_si512(to[i], _mm512_shuffle_i32x4(even, even8, 0x88));
        _mm512_storeu_si512(to[i + 4], _mm512_shuffle_i32x4(odd, odd8, 0x88));
        _mm512_storeu_si512(to[i + 8], _mm512_shuffle_i32x4(even, even8, 0xdd));
        _mm512_storeu_si512(to[i + 12], _mm512_shuffle_i32x4(odd, odd8, 0xdd));
    }
}
static inline Vec v_add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
static inline Vec v_sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
static inline Vec v_mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
static inline Vec v_div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
static inline Vec v_fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline Vec v_max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
static inline Vec v_min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
static inline Vec v_sqrt(Vec a) { return _mm512_sqrt_ps(a); }
static inline __m256 v_high(Vec a) { return _mm512_extractf32x8_ps(a, 1); }
static inline real v_sum(Vec a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), v_high(a));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline real v_top(Vec a) {
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), v_high(a));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
/* v_sum and v_top of sixteen vectors, one a lane: halves, quarters and ever smaller parts of two vectors side by side
 * are combined in one step, each in the tree of v_sum. */
#define V_FOLD(name, OP)                                                                                          \
    static inline Vec name(const Vec a[16]) {                                                                     \
        __m512 b[16];                                                                                             \
        for (int i = 0; i < 16; i++) b[i] = a[i];                                                                 \
        for (int i = 0; i < 12; i += i == 3 ? 5 : 1)                                                              \
            b[i] = OP(_mm512_shuffle_f32x4(b[i], b[i + 4], 0x44), _mm512_shuffle_f32x4(b[i], b[i + 4], 0xee));    \
        for (int i = 0; i < 4; i++)                                                                               \
            b[i] = OP(_mm512_shuffle_f32x4(b[i], b[i + 8], 0x88), _mm512_shuffle_f32x4(b[i], b[i + 8], 0xdd));    \
        for (int i = 0; i < 4; i += 2)                                                                            \
            b[i] = OP(v_unpack_low(b[i], b[i + 1]), v_unpack_high(b[i], b[i + 1]));                               \
        return OP(_mm512_shuffle_ps(b[0], b[2], 0x88), _mm512_shuffle_ps(b[0], b[2], 0xdd));                      \
    }
static inline Vec v_unpack_low(Vec a, Vec b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
static inline Vec v_unpack_high(Vec a, Vec b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
V_FOLD(v_sums, _mm512_add_ps)
V_FOLD(v_tops, _mm512_max_ps)
#undef V_FOLD
static inline void v_pair_bf16(uint32_t to[16], Vec even, Vec odd) {
    __m512i high = _mm512_and_si512(v_bf16_words(odd), _mm512_set1_epi32((int)0xffff0000u));
    _mm512_storeu_si512(to, _mm512_or_si512(_mm512_srli_epi32(v_bf16_words(even), 16), high));
}
#define V_OWN
static inline Vec v_round(Vec a) { return _mm512_sub_ps(_mm512_add_ps(a, v_set(0x1.8p23f)), v_set(0x1.8p23f)); }
static inline Vec v_scale2(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }
static inline Vec v_zero_below(Vec a, Vec x, Vec low) {
    return _mm512_maskz_mov_ps((__mmask16)~_mm512_cmp_ps_mask(x, low, _CMP_LT_OQ), a);
}
#include "kernels/cpu/vec_math.h"
