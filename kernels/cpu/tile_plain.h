/* tile_plain.h: tile.h in plain C: the same registers, and the same bits. Needs vec_plain.h before it. */
#include "kernels/cpu/normal_plain.h"

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} TileShapes;

static _Thread_local struct {
    TileShapes shapes;
    char at[8][16][64];
} tile_file;

static inline void tile_shapes(const TileShapes *shapes) {
    tile_file.shapes = *shapes;
    memset(tile_file.at, 0, sizeof tile_file.at);
}
static inline void tile_zero(int t) { memset(tile_file.at[t], 0, sizeof tile_file.at[t]); }
static inline void tile_load(int t, const void *p, size_t step) {
    tile_zero(t);
    for (int r = 0; r < tile_file.shapes.rows[t]; r++)
        memcpy(tile_file.at[t][r], (const char *)p + (size_t)r * step, tile_file.shapes.bytes[t]);
}
static inline void tile_store(int t, void *p, size_t step) {
    for (int r = 0; r < tile_file.shapes.rows[t]; r++)
        memcpy((char *)p + (size_t)r * step, tile_file.at[t][r], tile_file.shapes.bytes[t]);
}

static void tile_dot(int c, int a, int b) {
    const TileShapes *s = &tile_file.shapes;
    for (int i = 0; i < s->rows[c]; i++)
        for (int j = 0; j < s->bytes[c] / 4; j++) {
            float even = 0, odd = 0, sum;
            for (int p = 0; p < s->bytes[a] / 4; p++) {
                uint16_t x[2], y[2];
                memcpy(x, tile_file.at[a][i] + 4 * p, sizeof x);
                memcpy(y, tile_file.at[b][p] + 4 * j, sizeof y);
                even = normal_fma(normal_or_zero(bf16_widen(x[0])), normal_or_zero(bf16_widen(y[0])), even);
                odd = normal_fma(normal_or_zero(bf16_widen(x[1])), normal_or_zero(bf16_widen(y[1])), odd);
            }
            memcpy(&sum, tile_file.at[c][i] + 4 * j, sizeof sum);
            sum = normal_or_zero(normal_or_zero(even + odd) + normal_or_zero(sum));
            memcpy(tile_file.at[c][i] + 4 * j, &sum, sizeof sum);
        }
}

#define TILE_SHAPES(shapes) tile_shapes(shapes)
#define TILE_RELEASE() (void)0
#define TILE_ZERO(t) tile_zero(t)
#define TILE_LOAD(t, p, step) tile_load(t, p, step)
#define TILE_LOAD_FAR(t, p, step) tile_load(t, p, step)
#define TILE_STORE(t, p, step) tile_store(t, p, step)
#define TILE_DOT(c, a, b) tile_dot(c, a, b)

static inline void normal_store_bf16(uint16_t *p, Vec a) { v_store_bf16(p, a); }
static inline void normal_store_bf16_far(uint16_t *p, Vec low, Vec high) { v_store_bf16_far(p, low, high); }
