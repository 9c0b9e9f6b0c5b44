/* matmul_tiles.h: products of bf16 with AMX's tiles. Included by matmul.h where TILES is defined, after tile.h or
 * its plain-C twin.
 *
 * A tile of 16 rows x 32 k of the left operand times a tile of a panel (16 pairs of k x 16 outputs, 1 KiB of the
 * packed format as it lies) adds to a tile of 16 x 16 sums. So each output is one chain over blocks of 32 k,
 * whatever the number of rows: a tile may have fewer rows, and one row's arithmetic is that of many. Two row tiles
 * times two panels need as many loads as products; up to 16 rows go with four panels instead, which are as many
 * streams from memory. While one step's panels are multiplied, the next step's are fetched to the second cache. */

#define TILE_BYTES 1024
enum { PAIRS_OF_TILE = 16, TILES_ROWS = 32, FEW_ROWS_PANELS = 4 };

/* All tiles for `rows` rows (at most 32): 0 to 3 sums, 4 and 5 left, 6 and 7 panels. Of more than 16 rows tiles 2,
 * 3 and 5 have those from the 17th on. */
static void tiles_shape(int rows) {
    TileShapes s = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        bool second = rows > 16 && (t == 2 || t == 3 || t == 5);
        s.rows[t] = (uint8_t)(t > 5 ? 16 : second ? rows - 16 : rows < 16 ? rows : 16);
        s.bytes[t] = 64;
    }
    TILE_SHAPES(&s);
}

/* The left operand from a row on that is a multiple of 16: steps in bytes between rows of a tile, from one tile to
 * the next along k, and to the tile 16 rows below. */
typedef struct {
    const char *p;
    size_t row, along, below;
} TileRows;

static TileRows tile_rows(const Product *g, int row) {
    size_t blocks = (size_t)g->pairs / PAIRS_OF_TILE, stride = g->a.stride * 2;
    const char *p = g->a.p;
    if (g->a.tiled)
        return (TileRows){p + (size_t)row / 16 * blocks * TILE_BYTES, 64, TILE_BYTES, blocks * TILE_BYTES};
    return (TileRows){p + (size_t)row * stride, stride, 64, 16 * stride};
}

/* Sums that start from y and go back to it need no copy when they are whole vectors of floats. */
static bool tile_direct(const Product *g, int panel) {
    return g->y.type == K_REAL && !g->bias && !ten_is(g->residual) && (panel + 1) * 16 <= g->n;
}

#define EACH_SUM(DO)                                                                                              \
    DO(0, 0, 0);                                                                                                  \
    if (P > 1) DO(1, 0, 1);                                                                                       \
    if (P > 2) DO(2, 0, 2);                                                                                       \
    if (P > 3) DO(3, 0, 3);                                                                                       \
    if (R > 1) DO(2, 1, 0);                                                                                       \
    if (R > 1 && P > 1) DO(3, 1, 1)

/* R row tiles times P panels; lines of the panels to come are fetched for blocks fetch0 .. fetch1-1 of k. */
ALWAYS void tiles_product(const int R, const int P, const Product *g, int row, int rows, int panel, int fetch0,
                          int fetch1) {
    _Alignas(64) real c[4][16 * 16];
    const size_t wp = g->w_panel * 2, y_row = (size_t)g->y.stride * sizeof(real);
    const TileRows a = tile_rows(g, row);
    const char *w = (const char *)g->w + (size_t)panel * wp;
#define ROWS_OF(r) ((r) ? rows - 16 : R > 1 ? 16 : rows)
#define SUM_BEGIN(t, r, p)                                                                                        \
    do {                                                                                                          \
        if (!g->go_on)                                                                                            \
            TILE_ZERO(t);                                                                                         \
        else if (tile_direct(g, panel + p))                                                                       \
            TILE_LOAD(t, row_skip(row_at(g->y, row + 16 * r), (panel + p) * 16).f, y_row);                        \
        else {                                                                                                    \
            product_in(g, row + 16 * r, ROWS_OF(r), (panel + p) * 16, 16, c[t]);                                  \
            TILE_LOAD(t, c[t], 64);                                                                               \
        }                                                                                                         \
    } while (0)
    EACH_SUM(SUM_BEGIN);
    for (int k = 0; k < g->pairs / PAIRS_OF_TILE; k++, w += TILE_BYTES) {
        const char *left = a.p + (size_t)k * a.along;
        TILE_LOAD(4, left, a.row);
        if (R > 1) TILE_LOAD(5, left + a.below, a.row);
        TILE_LOAD(6, w, 64);
        TILE_DOT(0, 4, 6);
        if (R > 1) TILE_DOT(2, 5, 6);
        if (P > 1) {
            TILE_LOAD(7, w + wp, 64);
            TILE_DOT(1, 4, 7);
            if (R > 1) TILE_DOT(3, 5, 7);
        }
        if (P > 2) {
            TILE_LOAD(6, w + 2 * wp, 64);
            TILE_DOT(2, 4, 6);
            TILE_LOAD(7, w + 3 * wp, 64);
            TILE_DOT(3, 4, 7);
        }
        if (k < fetch0 || k >= fetch1) continue;
        for (int p = P; p < 2 * P; p++)
            for (int i = 0; i < TILE_BYTES; i += 64) __builtin_prefetch(w + (size_t)p * wp + i, 0, 2);
    }
#define SUM_END(t, r, p)                                                                                          \
    do {                                                                                                          \
        if (tile_direct(g, panel + p))                                                                            \
            TILE_STORE(t, row_skip(row_at(g->y, row + 16 * r), (panel + p) * 16).f, y_row);                       \
        else {                                                                                                    \
            TILE_STORE(t, c[t], 64);                                                                              \
            product_out(g, row + 16 * r, ROWS_OF(r), (panel + p) * 16, 16, c[t]);                                 \
        }                                                                                                         \
    } while (0)
    EACH_SUM(SUM_END);
#undef SUM_BEGIN
#undef SUM_END
#undef ROWS_OF
}

static void tiles_2x2(const Product *g, int row, int rows, int panel, int f0, int f1) {
    tiles_product(2, 2, g, row, rows, panel, f0, f1);
}
static void tiles_2x1(const Product *g, int row, int rows, int panel, int f0, int f1) {
    tiles_product(2, 1, g, row, rows, panel, f0, f1);
}
static void tiles_1x4(const Product *g, int row, int rows, int panel, int f0, int f1) {
    tiles_product(1, 4, g, row, rows, panel, f0, f1);
}
static void tiles_1x1(const Product *g, int row, int rows, int panel, int f0, int f1) {
    tiles_product(1, 1, g, row, rows, panel, f0, f1);
}

/* Rows row0 .. row1-1, of which every 32 but perhaps the last are whole, times panels panel0 .. panel1-1. */
static void tiles_sweep(const Product *g, int row0, int row1, int panel0, int panel1) {
    bool few = row1 - row0 <= 16;
    int blocks = g->pairs / PAIRS_OF_TILE, passes = (row1 - row0 + TILES_ROWS - 1) / TILES_ROWS;
    tiles_shape(row1 - row0 < TILES_ROWS ? row1 - row0 : TILES_ROWS);
    for (int p = panel0, wide; p < panel1; p += wide) {
        wide = few ? FEW_ROWS_PANELS : 2;
        if (panel1 - p < wide) wide = 1;
        for (int i = 0; i < passes; i++) {
            int r = row0 + i * TILES_ROWS, rows = row1 - r < TILES_ROWS ? row1 - r : TILES_ROWS;
            int f0 = i * blocks / passes, f1 = (i + 1) * blocks / passes;
            if (p + wide >= panel1) f1 = f0;
            (few ? wide > 1 ? tiles_1x4 : tiles_1x1 : wide > 1 ? tiles_2x2 : tiles_2x1)(g, r, rows, p, f0, f1);
        }
    }
}

static void tiles_block(const Product *g, int row0, int row1, int panel0, int panel1) {
    int whole = (row1 - row0) / TILES_ROWS * TILES_ROWS;
    if (whole) tiles_sweep(g, row0, row0 + whole, panel0, panel1);
    if (row0 + whole < row1) tiles_sweep(g, row0 + whole, row1, panel0, panel1);
    TILE_RELEASE();
}
