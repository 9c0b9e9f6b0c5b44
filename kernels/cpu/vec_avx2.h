/* vec_avx2.h: sixteen lanes as two AVX2 registers. Same functions, same bits as vec_plain.h. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/bf16.h"

typedef struct {
    __m256 lo, hi;
} Vec;

#define V2(e_lo, e_hi) ((Vec){e_lo, e_hi})
static inline Vec v_set(real a) { return V2(_mm256_set1_ps(a), _mm256_set1_ps(a)); }
static inline Vec v_load(const real *p) { return V2(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
static inline void v_store(real *p, Vec a) { _mm256_storeu_ps(p, a.lo), _mm256_storeu_ps(p + 8, a.hi); }
static inline Vec v_load_n(const real *p, int n) {
    float all[16] = {0};
    memcpy(all, p, (size_t)n * sizeof *p);
    return v_load(all);
}
static inline void v_store_n(real *p, Vec a, int n) {
    float all[16];
    v_store(all, a);
    memcpy(p, all, (size_t)n * sizeof *p);
}
static inline __m256 widen8(const uint16_t *p) {
    __m256i u = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(u, 16));
}
static inline Vec v_load_bf16(const uint16_t *p) { return V2(widen8(p), widen8(p + 8)); }
static inline __m256i round8(__m256 a) { /* eight words, each in a doubleword */
    __m256i u = _mm256_castps_si256(a);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    return _mm256_blendv_epi8(r, quiet, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
}
static inline void v_store_far(real *p, Vec a) { _mm256_stream_ps(p, a.lo), _mm256_stream_ps(p + 8, a.hi); }
static inline __m256i v_to_bf16(Vec a) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(round8(a.lo), round8(a.hi)), 0xd8);
}
static inline void v_store_bf16(uint16_t *p, Vec a) { _mm256_storeu_si256((__m256i *)p, v_to_bf16(a)); }
static inline void v_store_bf16_far(uint16_t *p, Vec a, Vec b) {
    _mm256_stream_si256((__m256i *)p, v_to_bf16(a)), _mm256_stream_si256((__m256i *)(p + 16), v_to_bf16(b));
}
static inline void v_line_far(void *to, const void *from) {
    _mm256_stream_si256((__m256i *)to, _mm256_loadu_si256((const __m256i *)from));
    _mm256_stream_si256((__m256i *)to + 1, _mm256_loadu_si256((const __m256i *)from + 1));
}
static inline void far_end(void) { _mm_sfence(); }
static inline void v_load_pairs_bf16(const uint16_t *p, Vec *even, Vec *odd) {
    __m256i a = _mm256_loadu_si256((const __m256i *)p), b = _mm256_loadu_si256((const __m256i *)(p + 16));
    __m256i high = _mm256_set1_epi32((int)0xffff0000u);
    *even = V2(_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)));
    *odd = V2(_mm256_castsi256_ps(_mm256_and_si256(a, high)), _mm256_castsi256_ps(_mm256_and_si256(b, high)));
}
static inline __m256 unzip8(__m256 a, __m256 b, bool odd) {
    __m256 mixed = odd ? _mm256_shuffle_ps(a, b, 0xdd) : _mm256_shuffle_ps(a, b, 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}
static inline void v_load_pairs(const real *p, Vec *even, Vec *odd) {
    Vec a = v_load(p), b = v_load(p + 16);
    *even = V2(unzip8(a.lo, a.hi, false), unzip8(b.lo, b.hi, false));
    *odd = V2(unzip8(a.lo, a.hi, true), unzip8(b.lo, b.hi, true));
}
static inline __m256 widen8_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline Vec v_load_i8(const int8_t *p) { return V2(widen8_i8(p), widen8_i8(p + 8)); }
static inline __m256i round8_i8(__m256 a) {
    return _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(a, _mm256_set1_ps(127)), _mm256_set1_ps(-127)));
}
static inline void v_store_i8(int8_t *p, Vec a) {
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(round8_i8(a.lo), round8_i8(a.hi)), 0xd8);
    _mm_storeu_si128((__m128i *)p,
                     _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
static inline void v_pairs_i8(uint32_t to[16], const int8_t *p) {
    __m256i mask = _mm256_set1_epi32((int)0xffff0000u);
    for (int i = 0; i < 16; i += 8) {
        __m256i low = _mm256_castps_si256(widen8_i8(p + i)), high = _mm256_castps_si256(widen8_i8(p + 16 + i));
        _mm256_storeu_si256((__m256i *)(to + i),
                            _mm256_or_si256(_mm256_srli_epi32(low, 16), _mm256_and_si256(high, mask)));
    }
}
static inline void v_zip_bf16(uint32_t to[16], const uint16_t *low, const uint16_t *high) {
    for (int i = 0; i < 16; i += 8) {
        __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(low + i)));
        __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(high + i)));
        _mm256_storeu_si256((__m256i *)(to + i), _mm256_or_si256(a, _mm256_slli_epi32(b, 16)));
    }
}
static inline void v_turn(uint32_t to[16][16], uint32_t from[16][16]) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) to[j][i] = from[i][j];
}
static inline Vec v_add(Vec a, Vec b) { return V2(_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)); }
static inline Vec v_sub(Vec a, Vec b) { return V2(_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)); }
static inline Vec v_mul(Vec a, Vec b) { return V2(_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)); }
static inline Vec v_div(Vec a, Vec b) { return V2(_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)); }
static inline Vec v_fma(Vec a, Vec b, Vec c) {
    return V2(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi));
}
static inline Vec v_max(Vec a, Vec b) { return V2(_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)); }
static inline Vec v_min(Vec a, Vec b) { return V2(_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)); }
static inline Vec v_sqrt(Vec a) { return V2(_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)); }
static inline real v_sum(Vec a) {
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline real v_top(Vec a) {
    __m256 b = _mm256_max_ps(a.lo, a.hi);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
static inline Vec v_round(Vec a) { return v_sub(v_add(a, v_set(0x1.8p23f)), v_set(0x1.8p23f)); }
static inline __m256 power8(__m256 n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline Vec v_scale2(Vec a, Vec n) { return v_mul(a, V2(power8(n.lo), power8(n.hi))); }
static inline Vec v_zero_below(Vec a, Vec x, Vec low) {
    return V2(_mm256_andnot_ps(_mm256_cmp_ps(x.lo, low.lo, _CMP_LT_OQ), a.lo),
              _mm256_andnot_ps(_mm256_cmp_ps(x.hi, low.hi, _CMP_LT_OQ), a.hi));
}
#undef V2
#include "kernels/cpu/vec_math.h"
