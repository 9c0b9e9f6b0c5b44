/* matmul.h: all products of the CPU back. Needs any.h before it, and TILE_ROWS, TILE_PANELS, STREAM_PANELS.
 *
 * There is one inner loop, the tile: R rows times P panels of 16 outputs, each output one chain over the pairs of
 * K in ascending order. y = x W^T takes W as packed; dx = dy W takes the transposed copy; dW = dy^T x packs x on
 * the way in and transposes dy. As every output is one chain, its bits do not depend on R, P, blocking or threads.
 */

#if defined BF16_DOT || defined TILES
#define LEFT_IS_BF16(type) ((type) == K_BF16)
#else
#define LEFT_IS_BF16(type) ((void)(type), false)
#endif
#define LEFT_SIZE(type) (LEFT_IS_BF16(type) ? 2 : sizeof(real))
#ifdef TILES
#define LEFT_TILED(type) ((type) == K_BF16) /* where it is turned */
#else
#define LEFT_TILED(type) ((void)(type), false)
#endif

/* A product's left operand: rows of K numbers, K padded with zeros to whole pairs of 16. FMA takes floats, BF16
 * dot bf16. */
typedef struct {
    const void *p;
    size_t stride; /* elements */
    bool tiled;    /* TILES: not rows, but tiles of 16 rows x 32 numbers, stride / 32 of them along K, then down */
} Left;

/* From a row and a k on; of tiles, multiples of 16 and 32. */
static Left left_from(Left a, DType type, int row, int k) {
    size_t at = (size_t)row * a.stride + (size_t)k * (a.tiled ? 16 : 1);
    return (Left){(const char *)a.p + at * LEFT_SIZE(type), a.stride, a.tiled};
}

typedef struct {
    Left a;
    const void *w;  /* packed panels */
    size_t w_panel; /* elements from one panel to the next */
    DType w_type;
    const real *scale; /* [n filled up] of int8: the panels are bytes, w_type is what they become; or NULL */
    char *room;        /* with TILES: where panels of int8 become bf16; set by product for each thread */
    int m, n, pairs;   /* n outputs; pairs of K, a multiple of 16 */
    Ten y;
    Ten start;        /* K_REAL: where the sums begin, may be y; TEN_NONE: at zero */
    bool by_rows;     /* the panels go by for each few rows, since the sums are to be visited in the order of y */
    const void *after; /* NULL, or the tiles of the left operand that this thread comes to next: fetched at the end */
    const real *bias; /* [n] or NULL */
    Ten residual;     /* TEN_NONE; may be y */
    bool far;         /* y goes to memory past the caches; set by product */
    /* NULL, or takes the sums in place of y: rows row .. and outputs first .. of a block, c[rows][width]. Each
     * row's outputs come in ascending order by_rows. With tiles it runs between products. */
    void (*take)(void *taker, int row, int rows, int first, int width, const real *c);
    void *taker;
} Product;

typedef struct {
    Mat *mat;
    Ten w;
    int row0;
} PackJob;

#include "kernels/cpu/matmul_int8.h"

/* ---- tiles: c[R][P * 16] += a[R][2 * pairs] w[P panels] ---- */

#define ALWAYS static inline __attribute__((always_inline))
enum {
    TILE_WIDE = TILE_PANELS > STREAM_PANELS ? TILE_PANELS : STREAM_PANELS,
    TILE_MOST = TILE_ROWS * TILE_PANELS > STREAM_PANELS ? TILE_ROWS *TILE_PANELS : STREAM_PANELS,
};
enum { PREFETCH_PAIRS = 24 }; /* 1.5 KiB of bf16 ahead in each panel */

ALWAYS void tile_fma(const int R, const int P, const real *a, size_t as, const void *w, size_t ws, DType type,
                     int pairs, real *c) {
    Vec acc[TILE_MOST];
    for (int i = 0; i < R * P; i++) acc[i] = v_load(c + 16 * i);
    for (int k = 0; k < pairs; k++) {
        Vec even[TILE_WIDE], odd[TILE_WIDE];
        for (int p = 0; p < P; p++) {
            size_t at = (size_t)p * ws + (size_t)k * 32;
            if (type == K_I8) {
                const int8_t *bytes = (const int8_t *)w + at;
                __builtin_prefetch(bytes + 2 * PREFETCH_PAIRS * 32);
                even[p] = v_load_i8(bytes), odd[p] = v_load_i8(bytes + 16);
            } else if (type == K_BF16) {
                __builtin_prefetch((const uint16_t *)w + at + PREFETCH_PAIRS * 32);
                v_load_pairs_bf16((const uint16_t *)w + at, &even[p], &odd[p]);
            } else {
                v_load_pairs((const real *)w + at, &even[p], &odd[p]);
            }
        }
        for (int r = 0; r < R; r++) {
            Vec x0 = v_set(a[(size_t)r * as + 2 * (size_t)k]), x1 = v_set(a[(size_t)r * as + 2 * (size_t)k + 1]);
            for (int p = 0; p < P; p++) {
                acc[r * P + p] = v_fma(x0, even[p], acc[r * P + p]);
                acc[r * P + p] = v_fma(x1, odd[p], acc[r * P + p]);
            }
        }
    }
    for (int i = 0; i < R * P; i++) v_store(c + 16 * i, acc[i]);
}

#ifdef BF16_DOT
static inline Pairs dot_load_i8(const int8_t *p) {
    uint32_t pairs[16];
    v_pairs_i8(pairs, p);
    return dot_load((const uint16_t *)(const void *)pairs);
}

ALWAYS void tile_dot(const int R, const int P, const uint16_t *a, size_t as, const void *w, size_t ws,
                     const bool int8, int pairs, real *c) {
    Vec acc[TILE_MOST];
    for (int i = 0; i < R * P; i++) acc[i] = v_load(c + 16 * i);
    for (int k = 0; k < pairs; k++) {
        Pairs wk[TILE_WIDE];
        for (int p = 0; p < P; p++) {
            size_t at = (size_t)p * ws + (size_t)k * 32;
            const char *next = (const char *)w + (int8 ? at : 2 * at) + PREFETCH_PAIRS * 64;
            __builtin_prefetch(next);
            wk[p] = int8 ? dot_load_i8((const int8_t *)w + at) : dot_load((const uint16_t *)w + at);
        }
        for (int r = 0; r < R; r++) {
            Pairs x = dot_set(a + (size_t)r * as + 2 * (size_t)k);
            for (int p = 0; p < P; p++) acc[r * P + p] = v_dot(acc[r * P + p], x, wk[p]);
        }
    }
    for (int i = 0; i < R * P; i++) v_store(c + 16 * i, acc[i]);
}
#define TILE(R, P)                                                                                                \
    if (g->w_type == K_BF16 && g->scale)                                                                          \
        tile_dot(R, P, a, g->a.stride, w, g->w_panel, true, g->pairs, c);                                         \
    else if (g->w_type == K_BF16)                                                                                 \
        tile_dot(R, P, a, g->a.stride, w, g->w_panel, false, g->pairs, c);                                        \
    else if (g->scale)                                                                                            \
        tile_fma(R, P, a, g->a.stride, w, g->w_panel, K_I8, g->pairs, c);                                         \
    else                                                                                                          \
        tile_fma(R, P, a, g->a.stride, w, g->w_panel, K_REAL, g->pairs, c)
#else
#define TILE(R, P)                                                                                                \
    if (g->scale)                                                                                                 \
        tile_fma(R, P, a, g->a.stride, w, g->w_panel, K_I8, g->pairs, c);                                         \
    else if (g->w_type == K_BF16)                                                                                 \
        tile_fma(R, P, a, g->a.stride, w, g->w_panel, K_BF16, g->pairs, c);                                       \
    else                                                                                                          \
        tile_fma(R, P, a, g->a.stride, w, g->w_panel, K_REAL, g->pairs, c)
#endif

/* The compiler makes one unrolled tile of each shape; the shapes at a matrix's edges are these as well. */
static void tile_rows_1(const Product *g, const void *a, const void *w, int panels, real *c) {
    if (panels == STREAM_PANELS) {
        TILE(1, STREAM_PANELS);
        return;
    }
    for (int p = 0; p < panels; p++, c += 16) {
        TILE(1, 1);
        w = (const char *)w + g->w_panel * weight_size(g);
    }
}
#define TILE_CASE(R)                                                                                              \
    case R:                                                                                                       \
        TILE(R, TILE_PANELS);                                                                                     \
        return
static void tile_full(const Product *g, const void *a, const void *w, int rows, real *c) {
    switch (rows) {
        TILE_CASE(2);
        TILE_CASE(3);
        TILE_CASE(4);
#if TILE_ROWS > 4
        TILE_CASE(5);
        TILE_CASE(6);
#endif
#if TILE_ROWS > 6
        TILE_CASE(7);
        TILE_CASE(8);
#endif
    default:
        CHECK(false, "tile of %d rows", rows);
    }
}
static void tile_edge(const Product *g, const void *a, const void *w, int rows, real *c) {
    switch (rows) { /* one panel */
    case 2:
        TILE(2, 1);
        return;
    case 3:
        TILE(3, 1);
        return;
    case 4:
        TILE(4, 1);
        return;
#if TILE_ROWS > 4
    case 5:
        TILE(5, 1);
        return;
    case 6:
        TILE(6, 1);
        return;
#endif
#if TILE_ROWS > 6
    case 7:
        TILE(7, 1);
        return;
    case 8:
        TILE(8, 1);
        return;
#endif
    default:
        CHECK(false, "tile of %d rows", rows);
    }
}

/* The start values of rows row .. and columns first .. first+width-1: c[rows][width]. */
static void product_in(const Product *g, int row, int rows, int first, int width, real *c) {
    int n = g->n - first < width ? g->n - first : width;
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < width; j += 16) {
            Vec start = v_set(0);
            if (ten_is(g->start) && j < n) start = row_get(row_skip(row_at(g->start, row + r), first), j, n);
            v_store(c + r * width + j, start);
        }
}

/* The sums c to y, a whole vector of floats or two of bf16 at a time. */
static void product_out_far(const Product *g, int row, int rows, int first, int width, const real *c) {
    const real *add = ten_is(g->residual) ? row_at(g->residual, row).f + first : NULL;
    Row y = row_skip(row_at(g->y, row), first);
    for (int r = 0; r < rows; r++, c += width) {
        for (int j = 0; y.f && j < width; j += 16)
            v_store_far(y.f + j, add ? v_add(v_load(c + j), v_load(add + j)) : v_load(c + j));
        for (int j = 0; y.h && j < width; j += 32) v_store_bf16_far(y.h + j, v_load(c + j), v_load(c + j + 16));
        y = row_skip(y, g->y.stride);
        if (add) add += g->residual.stride;
    }
}

/* The sums c to y, with what is to be added. */
static void product_out(const Product *g, int row, int rows, int first, int width, const real *c) {
    int n = g->n - first < width ? g->n - first : width;
    if (g->take) {
        g->take(g->taker, row, rows, first, width, c);
        return;
    }
    if (g->far && n == width && (g->y.type == K_REAL || width % 32 == 0)) {
        product_out_far(g, row, rows, first, width, c);
        return;
    }
    if (n == width && g->y.type == K_BF16 && !g->bias && !ten_is(g->residual)) {
        uint16_t *to = row_at(g->y, row).h + first;
        for (int r = 0; r < rows; r++, to += g->y.stride, c += width)
            for (int j = 0; j < n; j += 16) v_store_bf16(to + j, v_load(c + j));
        return;
    }
    if (n == width && g->y.type == K_REAL && !g->bias && ten_is(g->residual) && g->residual.type == K_REAL) {
        real *to = row_at(g->y, row).f + first;
        const real *add = row_at(g->residual, row).f + first;
        for (int r = 0; r < rows; r++, to += g->y.stride, add += g->residual.stride, c += width)
            for (int j = 0; j < n; j += 16) v_store(to + j, v_add(v_load(c + j), v_load(add + j)));
        return;
    }
    for (int r = 0; r < rows; r++) {
        Row y = row_skip(row_at(g->y, row + r), first);
        for (int j = 0; j < n; j += 16) {
            Vec v = v_load(c + r * width + j);
            if (g->bias) v = v_add(v, row_get((Row){(real *)g->bias + first, NULL}, j, n));
            if (ten_is(g->residual)) v = v_add(v, row_get(row_skip(row_at(g->residual, row + r), first), j, n));
            row_set(y, j, n, v);
        }
    }
}

/* Rows row .. row+rows-1 times panels panel .. panel+panels-1, from the start values to the stored result. */
static void product_tile(const Product *g, int row, int rows, int panel, int panels) {
    _Alignas(64) real c[TILE_MOST * 16];
    product_in(g, row, rows, panel * 16, panels * 16, c);
    const char *a = (const char *)g->a.p + (size_t)row * g->a.stride * LEFT_SIZE(g->w_type);
    const char *w = (const char *)g->w + (size_t)panel * g->w_panel * weight_size(g);
    if (rows == 1)
        tile_rows_1(g, a, w, panels, c);
    else if (panels == TILE_PANELS)
        tile_full(g, a, w, rows, c);
    else if (panels == 1)
        tile_edge(g, a, w, rows, c);
    else
        CHECK(false, "%d rows, %d panels", rows, panels);
    if (g->scale) product_scale(g, c, rows, panel * 16, panels * 16);
    product_out(g, row, rows, panel * 16, panels * 16, c);
}

enum { BLOCK_ROWS = 256, ITEM_PANELS = 24 };

typedef struct {
    const Product *g;
    int rows, blocks;  /* of a block, but perhaps the last; how many blocks */
    int step, panels;  /* panels of an item; all panels */
    bool down;         /* an item's neighbour has the same rows, not the same panels; blocks are equal to within `rows` */
    size_t room;       /* bytes of a thread's */
} ProductJob;

#ifdef TILES
#include "kernels/cpu/matmul_tiles.h"
#endif

/* ---- blocking and threads ----
 * An item is a block of rows times a few panels: the panels stay in the cache while the rows go by. */

/* Rows row0 .. row1-1 times panels panel0 .. panel1-1, on the calling thread. */
static void product_block(const Product *g, int row0, int row1, int panel0, int panel1) {
#ifdef TILES
    if (g->w_type == K_BF16) {
        tiles_block(g, row0, row1, panel0, panel1);
        return;
    }
#endif
    if (g->m == 1) {
        for (int p = panel0; p < panel1; p += STREAM_PANELS)
            product_tile(g, 0, 1, p, panel1 - p < STREAM_PANELS ? panel1 - p : STREAM_PANELS);
        return;
    }
    for (int p = panel0; p < panel1;) {
        int wide = panel1 - p >= TILE_PANELS ? TILE_PANELS : 1;
        for (int r = row0; r < row1;) {
            int rows = row1 - r < TILE_ROWS ? row1 - r : TILE_ROWS;
            if (rows == 1)
                for (int q = 0; q < wide; q++) product_tile(g, r, 1, p + q, 1);
            else
                product_tile(g, r, rows, p, wide);
            r += rows;
        }
        p += wide;
    }
}

static int block_begin(const ProductJob *job, int block) {
    int row = job->down ? ceil_div(job->g->m, job->rows) * block / job->blocks * job->rows : block * job->rows;
    return least(row, job->g->m);
}

static void product_part(void *self, int item, int thread) {
    const ProductJob *job = self;
    Product mine = *job->g, *g = &mine;
    g->room += (size_t)thread * job->room;
    const int groups = ceil_div(job->panels, job->step);
    const int block = job->down ? item / groups : item % job->blocks;
    int panel0 = (job->down ? item % groups : item / job->blocks) * job->step;
    int panel1 = panel0 + job->step < job->panels ? panel0 + job->step : job->panels;
    product_block(g, block_begin(job, block), block_begin(job, block + 1), panel0, panel1);
    if (g->far) far_end();
}

/* A large y is not worth the wait for its lines: they are written as a whole, past the caches, where they may be
 * and nothing but a sum of floats or bf16 alone goes there. */
enum { FAR_BYTES = 1 << 20 };
static bool product_far(const Product *g) {
    size_t size = dtype_size(g->y.type);
    bool aligned = (uintptr_t)g->y.p % 64 == 0 && (size_t)g->y.stride * size % 64 == 0;
    bool plain = g->y.type == K_REAL ? !ten_is(g->residual) || g->residual.type == K_REAL : !ten_is(g->residual);
    return aligned && plain && !g->bias && !ten_is(g->start) && (size_t)g->m * (size_t)g->n * size >= FAR_BYTES;
}

static void product_cut(const Product *g, int threads, ProductJob *job) {
    int blocks = ceil_div(g->m, BLOCK_ROWS), step = g->m == 1 ? STREAM_PANELS * 4 : ITEM_PANELS;
    while (step > TILE_PANELS && blocks * ceil_div(job->panels, step) < 4 * threads) step = (step + 1) / 2;
    if (step >= TILE_PANELS) step = step / TILE_PANELS * TILE_PANELS;
    job->rows = BLOCK_ROWS, job->step = threads == 1 && g->m == 1 ? job->panels : step;
}

static void product(Dev *dev, const Product *asked) {
    Product mine = *asked, *g = &mine;
    g->far = product_far(g);
    ProductJob job = {.g = g, .panels = PANELS(g->n)};
    product_cut(g, dev->threads, &job);
#ifdef TILES
    if (g->w_type == K_BF16) tiles_cut(g, dev->threads, &job);
#endif
    if (!job.down) job.blocks = ceil_div(g->m, job.rows);
#ifdef TILES
    if (g->scale) job.room = int8_room(g->pairs), g->room = dev_scratch(dev, 4, (size_t)dev->threads * job.room);
#endif
    pool_run(dev->pool, job.blocks * ceil_div(job.panels, job.step), product_part, &job);
}

/* ---- operands ---- */

/* Block operands wide enough to be worth a thread's while. */
enum { COPY_ROWS = 64 };

typedef struct {
    Ten x;
    void *to;
    size_t stride;
    DType type; /* of the product */
    int pairs;
} LeftJob;

/* Rows of x as the tile wants them, padded with zeros to `stride` elements. */
static void left_rows(void *self, int item, int thread) {
    (void)thread;
    LeftJob *job = self;
    int r1 = (item + 1) * COPY_ROWS < job->x.rows ? (item + 1) * COPY_ROWS : job->x.rows, n = job->x.cols;
    for (int r = item * COPY_ROWS; r < r1; r++) {
        Row from = row_at(job->x, r);
        size_t at = (size_t)r * job->stride;
        Row to =
            LEFT_IS_BF16(job->type) ? (Row){NULL, (uint16_t *)job->to + at} : (Row){(real *)job->to + at, NULL};
        for (int i = 0; i < (int)job->stride; i += 16)
            row_set(to, i, (int)job->stride, i < n ? row_get(from, i, n) : v_set(0));
    }
}

/* The left operand out of x[M, K]: x itself where its type, width and stride fit. */
static Left left_of(Dev *dev, Ten x, DType type, int pairs) {
    bool same = LEFT_IS_BF16(type) ? x.type == K_BF16 : x.type == K_REAL;
    if (same && x.cols == 2 * pairs) return (Left){x.p, (size_t)x.stride, false};
    size_t stride = 2 * (size_t)pairs, size = LEFT_SIZE(type);
    LeftJob job = {x, dev_scratch(dev, 0, (size_t)x.rows * stride * size), stride, type, pairs};
    pool_run(dev->pool, (x.rows + COPY_ROWS - 1) / COPY_ROWS, left_rows, &job);
    return (Left){job.to, stride, false};
}

/* Fetches some columns of row r, if there is one, which lies in another page than the rows before. */
static inline void fetch_across(Ten x, int r, int c0, int c1) {
    if (r >= x.rows) return;
    const size_t size = dtype_size(x.type);
    const char *p = (const char *)x.p + ((size_t)r * (size_t)x.stride + (size_t)c0) * size;
    for (size_t at = 0; at < (size_t)(c1 - c0) * size; at += 64) __builtin_prefetch(p + at);
}

/* Pairs of rows r, r + 1 of x's columns c0 .. c0+15, as bf16: sixteen words of the even row's number and the odd
 * row's above it. What lies outside of x is zero. */
static inline void pairs_at(uint32_t to[16], Ten x, int r, int c0) {
    Vec row[2];
    int wide = x.cols - c0;
    if (wide >= 16 && x.type == K_BF16 && r + 1 < x.rows) {
        v_zip_bf16(to, row_at(x, r).h + c0, row_at(x, r + 1).h + c0);
        return;
    }
    for (int odd = 0; odd < 2; odd++)
        row[odd] = wide > 0 && r + odd < x.rows ? row_get(row_skip(row_at(x, r + odd), c0), 0, least(wide, 16))
                                                : v_set(0);
    v_pair_bf16(to, row[0], row[1]);
}

/* Rows r0 .. r0+31 of x's columns c0 .. c0+15 as rows of `to`, `stride` numbers apart; with TILES as a tile. */
static void left_turn(const LeftJob *job, void *to, int r0, int c0) {
    int wide = least(job->x.cols - c0, 16), m = job->x.rows;
    if (!LEFT_IS_BF16(job->type)) {
        for (int r = 0; r < 32; r++) {
            real row[16];
            v_store(row, r0 + r < m ? row_get(row_skip(row_at(job->x, r0 + r), c0), 0, wide) : v_set(0));
            for (int c = 0; c < wide; c++) ((real *)to)[(size_t)c * job->stride + (size_t)(r0 + r)] = row[c];
        }
        return;
    }
    _Alignas(64) uint32_t across[16][16], down[16][16];
    for (int i = 0; i < 16; i++) pairs_at(across[i], job->x, r0 + 2 * i, c0);
    v_turn(down, across);
#ifdef TILES
    memcpy((uint16_t *)to + (size_t)r0 * 16, down, sizeof down);
#else
    for (int c = 0; c < wide; c++)
        memcpy((uint16_t *)to + (size_t)c * job->stride + (size_t)r0, down[c], sizeof down[c]);
#endif
}

/* Rows r0 .. r1-1 (a multiple of 32) of x's columns c0 .. c1-1, turned to rows of `stride` numbers of which they
 * are r0 .. r1-1, with zeros for what x lacks; sixteen of them, with TILES, tile after tile. */
static void left_across(const LeftJob *job, void *to, int r0, int r1, int c0, int c1) {
    const size_t panel = 16 * job->stride * LEFT_SIZE(job->type);
    for (; r0 < r1; r0 += 32) {
        for (int r = r0 + 32; r < r0 + 64; r++) fetch_across(job->x, r, c0, c1);
        for (int c = c0; c < c1; c += 16) left_turn(job, (char *)to + (size_t)(c - c0) / 16 * panel, r0, c);
    }
}

/* x[M, K] packed as the right operand of a product that sums over M: panels RIGHT_PANELS item .. of columns of x.
 */
enum { RIGHT_PANELS = 4, RIGHT_AHEAD = 32 };
static void right_panels(void *self, int item, int thread) {
    (void)thread;
    LeftJob *job = self;
    int panel0 = item * RIGHT_PANELS, panel1 = least(panel0 + RIGHT_PANELS, PANELS(job->x.cols));
    int m = job->x.rows, end = least(panel1 * 16, job->x.cols);
    for (int k = 0; k < job->pairs; k++) {
        fetch_across(job->x, 2 * k + RIGHT_AHEAD, panel0 * 16, end);
        fetch_across(job->x, 2 * k + RIGHT_AHEAD + 1, panel0 * 16, end);
        for (int panel = panel0; panel < panel1; panel++) {
            size_t at = ((size_t)panel * (size_t)job->pairs + (size_t)k) * 32;
            int c0 = panel * 16, wide = least(job->x.cols - c0, 16);
            if (job->type == K_BF16) {
                pairs_at((uint32_t *)job->to + at / 2, job->x, 2 * k, c0);
                continue;
            }
            for (int odd = 0; odd < 2; odd++) {
                real one[16];
                int r = 2 * k + odd;
                v_store(one, r < m ? row_get(row_skip(row_at(job->x, r), c0), 0, wide) : v_set(0));
                for (int i = 0; i < 16; i++) ((real *)job->to)[at + 2 * (size_t)i + (size_t)odd] = one[i];
            }
        }
    }
}

/* ---- the ops ---- */

static void op_matmul(Dev *dev, Ten y, Ten x, const Mat *w, Ten bias, Ten residual) {
    Product g = {.w = w->fwd.p,
                 .w_panel = (size_t)PAIRS(w->k) * 32,
                 .w_type = w->type,
                 .scale = w->scale.p,
                 .m = x.rows,
                 .n = w->n,
                 .pairs = PAIRS(w->k),
                 .y = y,
                 .bias = bias.p,
                 .residual = residual};
    g.a = left_of(dev, x, w->type, g.pairs);
    product(dev, &g);
}

static void op_matmul_dx(Dev *dev, Ten dx, Ten dy, const Mat *w, Ten residual) {
    Product g = {.w = w->back.p,
                 .w_panel = (size_t)PAIRS(w->n) * 32,
                 .w_type = w->type,
                 .m = dy.rows,
                 .n = w->k,
                 .pairs = PAIRS(w->n),
                 .y = dx,
                 .residual = residual};
    g.a = left_of(dev, dy, w->type, g.pairs);
    product(dev, &g);
}

/* Rows are summed in equal stretches of about this many, whose part of x stays in the second cache. Tiles take
 * them in shorter ones, so that 32 rows of the left operand stay in the first. Between stretches the chains lie in
 * dw, between the shorter ones in a buffer. */
enum { SUM_ROWS = 1024, SUM_MOST = SUM_ROWS + SUM_ROWS / 2 };
#ifdef TILES
enum { SUM_PART = 512 };
#else
enum { SUM_PART = SUM_MOST };
#endif

/* The rows of one of n nearly equal parts, in whole blocks of 32. */
static int equal_part(int rows, int n) { return ceil_div(ceil_div(rows, n), 32) * 32; }

/* The right operand of a product that sums over rows: panels of columns, and the elements from one to the next. */
typedef struct {
    const void *p;
    size_t panel;
} Right;

/* Rows r0 .. r0+n-1 of x, packed if they are not. */
static Right right_of(Dev *dev, Ten x, int r0, int n, DType type) {
    if (x.type == K_BF16_PAIRS) return (Right){(uint16_t *)x.p + (size_t)r0 * 16, (size_t)x.rows * 16};
    x = ten_rows(x, r0, n);
    int pairs = PAIRS(x.rows);
    size_t bytes = (size_t)PANELS(x.cols) * (size_t)pairs * 32 * dtype_size(type);
    LeftJob job = {x, dev_scratch(dev, 1, bytes), 0, type, pairs};
    pool_run(dev->pool, ceil_div(PANELS(x.cols), RIGHT_PANELS), right_panels, &job);
    return (Right){job.to, (size_t)pairs * 32};
}

/* Rows of dw that are made at once; and panels, whose part of x stays in the second cache. */
enum { DW_ROWS = 128, DW_PANELS = 12 };

typedef struct {
    LeftJob dy; /* to: its columns as rows */
    int parts, part;
} TurnJob;

static void turn_part(void *self, int item, int thread) {
    (void)thread;
    const TurnJob *job = self;
    const int c0 = item / job->parts * DW_ROWS, r0 = item % job->parts * job->part;
    left_across(&job->dy, (char *)job->dy.to + (size_t)c0 * job->dy.stride * LEFT_SIZE(job->dy.type), r0,
                least(r0 + job->part, (int)job->dy.stride), c0, least(c0 + DW_ROWS, job->dy.x.cols));
}

/* dy's columns as the rows of a product that sums over its rows. */
static Left turn_of(Dev *dev, Ten dy) {
    const size_t stride = 2 * (size_t)PAIRS(dy.rows), size = LEFT_SIZE(dy.type);
    TurnJob job = {.dy = {dy, dev_scratch(dev, 0, (size_t)ceil_div(dy.cols, DW_ROWS) * DW_ROWS * stride * size),
                          stride, dy.type, 0}};
    job.part = equal_part(dy.rows, ceil_div(dy.rows, SUM_PART)), job.parts = ceil_div(dy.rows, job.part);
    pool_run(dev->pool, ceil_div(dy.cols, DW_ROWS) * job.parts, turn_part, &job);
    return (Left){job.dy.to, stride, LEFT_TILED(dy.type)};
}

typedef struct {
    Product g;      /* of all rows */
    int rows, part; /* that are summed, and of a part of them, a multiple of 32 */
    int strips;     /* item: DW_ROWS of dw, then panels */
    real *sums;     /* [threads][DW_ROWS][DW_PANELS * 16] */
} DwJob;

static void dw_part(void *self, int item, int thread) {
    const DwJob *job = self;
    const int row0 = item % job->strips * DW_ROWS, rows = least(DW_ROWS, job->g.m - row0);
    const int panel0 = item / job->strips * DW_PANELS, panel1 = least(panel0 + DW_PANELS, PANELS(job->g.n));
    const int n = least(panel1 * 16, job->g.n) - panel0 * 16;
    const Ten y = ten_cols(ten_rows(job->g.y, row0, rows), panel0 * 16, n),
              sums = {job->sums + (size_t)thread * DW_ROWS * DW_PANELS * 16, rows, n, DW_PANELS * 16, K_REAL};
    Product mine = job->g;
    mine.m = rows, mine.n = n, mine.start = ten_is(mine.start) ? y : TEN_NONE;
    mine.w = (const char *)mine.w + (size_t)panel0 * mine.w_panel * dtype_size(mine.w_type);
    for (int at = 0; at < job->rows; at += job->part) {
        bool last = at + job->part >= job->rows;
        mine.pairs = PAIRS(least(job->part, job->rows - at));
        mine.a = left_from(job->g.a, job->g.w_type, row0, at);
        const int next = last ? row0 + DW_ROWS : row0; /* the item's next part, or the next item's first one */
        mine.after = next < job->g.m ? left_from(job->g.a, job->g.w_type, next, last ? 0 : at + job->part).p : NULL;
        mine.y = last ? y : sums, mine.far = last && job->g.far;
        product_block(&mine, 0, rows, 0, PANELS(n));
        mine.start = sums;
        mine.w = (const char *)mine.w + (size_t)mine.pairs * 32 * dtype_size(mine.w_type);
    }
    if (job->g.far) far_end();
}

/* dw[N, K] += dy^T x, or = where it is fresh, of `rows` rows, with dy turned by turn_of and x from right_of. */
static void product_dw(Dev *dev, Ten dw, Left turned, int rows, DType type, Right x, bool fresh) {
    DwJob job = {
        .rows = rows, .part = equal_part(rows, ceil_div(rows, SUM_PART)), .strips = ceil_div(dw.rows, DW_ROWS)};
    if (job.part < rows)
        job.sums = dev_scratch(dev, 2, (size_t)dev->threads * DW_ROWS * DW_PANELS * 16 * sizeof(real));
    job.g = (Product){.a = turned,
                      .w = x.p,
                      .w_panel = x.panel,
                      .w_type = type,
                      .m = dw.rows,
                      .n = dw.cols,
                      .y = dw,
                      .start = fresh ? TEN_NONE : dw,
                      .by_rows = true};
    job.g.far = fresh && product_far(&job.g);
    pool_run(dev->pool, job.strips * ceil_div(PANELS(dw.cols), DW_PANELS), dw_part, &job);
}

static void op_matmul_dw(Dev *dev, Ten dw, Ten dy, Ten x, bool fresh) {
    if (fresh && dy.rows == 0) cpu_zero(dev, dw);
    const int each = equal_part(dy.rows, most(1, (dy.rows + SUM_ROWS / 2 - 1) / SUM_ROWS));
    for (int r = 0, n; r < dy.rows; r += n) {
        n = least(dy.rows - r, each);
        Right right = right_of(dev, x, r, n, dy.type);
        product_dw(dev, dw, turn_of(dev, ten_rows(dy, r, n)), n, dy.type, right, fresh && r == 0);
    }
}

typedef struct {
    Ten db, dy;
} BiasJob;

static void bias_part(void *self, int item, int thread) {
    (void)thread;
    BiasJob *job = self;
    int c0 = item * 16, wide = job->dy.cols - c0 < 16 ? job->dy.cols - c0 : 16;
    Row db = row_skip(row_at(job->db, 0), c0);
    Vec sum = row_get(db, 0, wide);
    for (int r = 0; r < job->dy.rows; r++) sum = v_add(sum, row_get(row_skip(row_at(job->dy, r), c0), 0, wide));
    row_set(db, 0, wide, sum);
}

static void op_bias_back(Dev *dev, Ten db, Ten dy) {
    BiasJob job = {db, dy};
    pool_run(dev->pool, PANELS(dy.cols), bias_part, &job);
}

/* ---- packing weights ---- */

static void pack_one(Ten home, size_t at, real value) {
    if (home.type == K_BF16)
        ((uint16_t *)home.p)[at] = bf16_round(value);
    else
        ((real *)home.p)[at] = value;
}

/* A whole panel of bf16: rows 16 item .. of w. Tiles of 16 rows x 32 k are turned for the forward's copy; rows go
 * in pairs to the transposed one. */
static void pack_panel(const PackJob *job, int item) {
    const Mat *mat = job->mat;
    const size_t pairs_k = (size_t)PAIRS(mat->k), pairs_n = (size_t)PAIRS(mat->n);
    const int n0 = job->row0 + item * 16;
    uint16_t *fwd = (uint16_t *)mat->fwd.p + (size_t)(n0 / 16) * pairs_k * 32;
    uint16_t *back = mat->back.p ? (uint16_t *)mat->back.p + (size_t)n0 * 16 : NULL;
    for (int k = 0; k < mat->k; k += 32) {
        _Alignas(64) uint16_t rows[16][32];
        _Alignas(64) uint32_t from[16][16], turned[16][16], both[16];
        for (int r = 0; r < 16; r++)
            for (int i = 0; i < 32; i += 16)
                v_store_bf16(rows[r] + i,
                             k + i < mat->k ? row_get(row_at(job->w, item * 16 + r), k + i, mat->k) : v_set(0));
        memcpy(from, rows, sizeof from);
        v_turn(turned, from);
        for (int p = 0; p < 16; p++) v_line_far(fwd + (size_t)k * 16 + p * 32, turned[p]);
        for (int i = 0; back && i < 32 && k + i < mat->k; i += 16)
            for (int r = 0; r < 16; r += 2) {
                v_zip_bf16(both, rows[r] + i, rows[r + 1] + i);
                v_line_far(back + (size_t)((k + i) / 16) * pairs_n * 32 + r * 16, both);
            }
    }
    far_end();
}

/* Row r of w into the forward's copy and, for pairs of rows, sixteen columns at a time, into the transposed one.
 */
static void pack_part(void *self, int item, int thread) {
    (void)thread;
    PackJob *job = self;
    Mat *mat = job->mat;
    if (mat->type == K_BF16 && job->row0 % 16 == 0 && job->w.rows - item * 16 >= 16) {
        pack_panel(job, item);
        return;
    }
    size_t pairs_k = (size_t)PAIRS(mat->k), pairs_n = (size_t)PAIRS(mat->n);
    int r1 = (item + 1) * 16 < job->w.rows ? (item + 1) * 16 : job->w.rows;
    for (int r = item * 16; r < r1; r++) {
        const real *from = row_at(job->w, r).f;
        size_t n = (size_t)(job->row0 + r), fwd = n / 16 * pairs_k * 32 + n % 16 * 2;
        for (int k = 0; k < mat->k; k += 16) {
            int wide = mat->k - k < 16 ? mat->k - k : 16;
            uint16_t h[16];
            if (mat->type == K_BF16) v_store_bf16(h, row_get((Row){(real *)from, NULL}, k, mat->k));
            size_t back = (size_t)k / 16 * pairs_n * 32 + n / 2 * 32 + n % 2;
            for (int i = 0; i < wide; i++) {
                size_t to = fwd + (size_t)(k + i) / 2 * 32 + (size_t)(k + i) % 2;
                if (mat->type == K_BF16) {
                    ((uint16_t *)mat->fwd.p)[to] = h[i];
                    if (mat->back.p) ((uint16_t *)mat->back.p)[back + 2 * (size_t)i] = h[i];
                } else {
                    pack_one(mat->fwd, to, from[k + i]);
                    if (mat->back.p) pack_one(mat->back, back + 2 * (size_t)i, from[k + i]);
                }
            }
        }
    }
}

static void op_mat_pack(Dev *dev, Mat *mat, Ten w, int row0) {
    PackJob job = {mat, w, row0};
    pool_run(dev->pool, (w.rows + 15) / 16, mat->fwd.type == K_I8 ? pack_int8_part : pack_part, &job);
}
