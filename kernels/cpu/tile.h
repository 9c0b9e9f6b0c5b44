/* tile.h: AMX's eight tile registers and the three things that are done with them. A tile is up to 16 rows of 64
 * bytes. tile_plain.h gives the same in plain C, bit for bit.
 *
 * TILE_DOT(c, a, b): c[i][j] += the products of the pairs of a's row i with b's column j. With a[i][2 p], a[i][2 p
 * + 1] and b[p][2 j], b[p][2 j + 1] in bf16 the even and the odd products are two fp32 chains from zero over
 * ascending p; their sum is added to c. Each step rounds to nearest even; denormal operands are zero, and so are
 * results that would be denormal (found with tiles and random bits; Intel's manual promises less).
 *
 * gcc 12's own intrinsics declare too little of what they read: these are assembly. Needs vec_avx512.h before it. */
#include <stddef.h>
#include <stdint.h>

typedef struct { /* Intel's palette 1 */
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} TileShapes;

#define TILE_SHAPES(shapes) __asm__ volatile("ldtilecfg %0" ::"m"(*(shapes)))
#define TILE_RELEASE() __asm__ volatile("tilerelease")
#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t ::)
#define TILE_LOAD_BY(how, t, p, step)                                                                              \
    __asm__ volatile(how " (%0,%1,1), %%tmm" #t ::"r"(p), "r"((size_t)(step)) : "memory")
#define TILE_LOAD(t, p, step) TILE_LOAD_BY("tileloadd", t, p, step)
#define TILE_LOAD_FAR(t, p, step) TILE_LOAD_BY("tileloaddt1", t, p, step) /* leaves the first cache as it is */
#define TILE_STORE(t, p, step)                                                                                    \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(p), "r"((size_t)(step)) : "memory")
#define TILE_DOT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

/* v_store_bf16 and v_store_bf16_far of numbers none of which is denormal, as no sum of a tile is: the instruction takes
 * those for zero. */
static inline void normal_store_bf16(uint16_t *p, Vec a) {
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(a));
}
static inline void normal_store_bf16_far(uint16_t *p, Vec low, Vec high) {
    _mm512_stream_si512((__m512i *)p, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
