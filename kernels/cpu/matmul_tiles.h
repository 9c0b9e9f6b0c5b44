/* matmul_tiles.h: products of bf16 with AMX's tiles. Included by matmul.h where TILES is defined, after tile.h or
 * its plain-C twin.
 *
 * A tile of 16 rows x 32 k of the left operand times a tile of a panel (16 pairs of k x 16 outputs, 1 KiB of the
 * packed format as it lies) adds to a tile of 16 x 16 sums. So each output is one chain over blocks of 32 k,
 * whatever the number of rows: a tile may have fewer rows, and one row's arithmetic is that of many. Two row tiles
 * times two panels need as many loads as products; up to 16 rows go with four panels instead, which are as many
 * streams from memory. While one step's panels are multiplied, the next step's are fetched to the second cache. */

#define TILE_BYTES 1024
enum { PAIRS_OF_TILE = 16, TILES_ROWS = 32, HALF_ROWS = 16, FEW_ROWS_PANELS = 4 };

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
    const size_t stride = g->a.stride * 2;
    const char *p = (const char *)g->a.p + (size_t)row * stride;
    return g->a.tiled ? (TileRows){p, 64, TILE_BYTES, 16 * stride} : (TileRows){p, stride, 64, 16 * stride};
}

/* What a step fetches and keeps. Operands that come again soon stay in the first cache, the others pass it by. */
typedef struct {
    bool left_far, panels_far;
    bool widen, once; /* int8: these panels become bf16 in this step; and are not met again after it */
    const char *next; /* what comes next, as many pieces as panels, next_step bytes apart, and which of their lines
                         are to be fetched meanwhile */
    size_t next_step;
    int line0, line1;
    int rows_end; /* rows from here on have no next step */
} TilePlan;

/* Sums on their way out: what a step leaves here, the next one stores between its products. */
typedef struct {
    int row, rows, panel, width;
    real *sums;      /* [rows][width] */
    char *to;        /* NULL, or where they go as they are, or with floats added */
    const real *add; /* NULL or those */
} TilesOut;

/* Where to store the sums of whole panels to which nothing but a residual is done, or NULL: they go another way. */
static inline char *tiles_to(const Product *g, int row, int panel, int panels) {
    const bool add = ten_is(g->residual);
    if (g->take || g->scale || g->bias || (panel + panels) * 16 > g->n) return NULL;
    if (g->y.type == K_REAL)
        return add && g->residual.type != K_REAL
                   ? NULL
                   : (char *)((real *)g->y.p + (size_t)row * (size_t)g->y.stride + panel * 16);
    if (add || panels % 2) return NULL;
    return (char *)((uint16_t *)g->y.p + (size_t)row * (size_t)g->y.stride + panel * 16);
}

/* Runs between products: as few instructions as can be. */
ALWAYS void tiles_store_as_is(const bool far, const Product *g, TilesOut *out, int rows) {
    const real *c = out->sums;
    if (g->y.type == K_BF16) {
        uint16_t *to = (uint16_t *)out->to;
        for (int r = 0; r < rows; r++, to += g->y.stride, c += out->width)
            for (int j = 0; j < out->width; j += 32) {
                if (far) {
                    normal_store_bf16_far(to + j, v_load(c + j), v_load(c + j + 16));
                    continue;
                }
                normal_store_bf16(to + j, v_load(c + j));
                normal_store_bf16(to + j + 16, v_load(c + j + 16));
            }
        out->to = (char *)to;
        return;
    }
    real *to = (real *)out->to;
    void (*const store)(real *, Vec) = far ? v_store_far : v_store;
    if (!out->add) {
        for (int r = 0; r < rows; r++, to += g->y.stride, c += out->width)
            for (int j = 0; j < out->width; j += 16) store(to + j, v_load(c + j));
    } else {
        const real *add = out->add;
        for (int r = 0; r < rows; r++, to += g->y.stride, add += g->residual.stride, c += out->width)
            for (int j = 0; j < out->width; j += 16) store(to + j, v_add(v_load(c + j), v_load(add + j)));
        out->add = add;
    }
    out->to = (char *)to;
}

static inline void tiles_store(const Product *g, TilesOut *out, int rows) {
    if (rows > out->rows) rows = out->rows;
    if (!rows) return;
    if (out->to && g->far) {
        tiles_store_as_is(true, g, out, rows);
    } else if (out->to) {
        tiles_store_as_is(false, g, out, rows);
    } else {
        if (g->scale) product_scale(g, out->sums, rows, out->panel * 16, out->width);
        product_out(g, out->row, rows, out->panel * 16, out->width, out->sums);
    }
    out->row += rows, out->rows -= rows, out->sums += rows * out->width;
}

/* Sums of whole vectors of floats are loaded from y and stored there as they lie. */
static inline bool tiles_direct(const Product *g, int panel, int panels) {
    return g->y.type == K_REAL && !g->take && !g->far && !g->bias && !g->scale && !ten_is(g->residual) &&
           (panel + panels) * 16 <= g->n;
}

/* The start values of the next step's rows: the k-th of `blocks` parts of their lines. */
static inline void tiles_fetch_start(const Product *g, int row, int end, int panel, int panels, int k,
                                     int blocks) {
    int r1 = least(row + (k + 1) * TILES_ROWS / blocks, end);
    for (int r = row + k * TILES_ROWS / blocks; r < r1; r++)
        for (int i = 0; i < panels; i++) __builtin_prefetch(row_at(g->start, r).f + (panel + i) * 16, 0, 2);
}

/* What is to be added to this step's rows when the next one stores them: likewise. */
static inline void tiles_fetch_residual(const Product *g, int row, int rows, int panel, int panels, int k,
                                        int blocks) {
    const size_t size = dtype_size(g->residual.type), width = (size_t)panels * 16 * size;
    const char *p = (const char *)g->residual.p + (size_t)panel * 16 * size;
    int each = (rows + blocks - 1) / blocks, r1 = least(row + (k + 1) * each, row + rows);
    for (int r = row + k * each; r < r1; r++)
        for (size_t at = 0; at < width; at += 64)
            __builtin_prefetch(p + (size_t)r * (size_t)g->residual.stride * size + at, 0, 2);
}

#define EACH_SUM(DO)                                                                                              \
    DO(0, 0, 0);                                                                                                  \
    if (P > 1) DO(1, 0, 1);                                                                                       \
    if (P > 2) DO(2, 0, 2);                                                                                       \
    if (P > 3) DO(3, 0, 3);                                                                                       \
    if (R > 1) DO(2, 1, 0);                                                                                       \
    if (R > 1 && P > 1) DO(3, 1, 1)
#define LOAD_IF(far, t, p, step)                                                                                  \
    if (far)                                                                                                      \
        TILE_LOAD_FAR(t, p, step);                                                                                \
    else                                                                                                          \
        TILE_LOAD(t, p, step)

/* The panels from one on: steps in bytes from one k to the next and between panels. Those of int8 lie in the room,
 * side by side at each k; where they are not met again, there is room for two k alone. */
typedef struct {
    char *p;
    size_t along, across;
    int mask; /* of k */
} TilePanels;

static TilePanels tile_panels(const Product *g, int panel, int panels, const TilePlan *plan) {
    const size_t across = g->w_panel * 2;
    if (!g->scale)
        return (TilePanels){(char *)(uintptr_t)g->w + (size_t)panel * across, TILE_BYTES, across, INT_MAX};
    return (TilePanels){g->room, (size_t)panels * TILE_BYTES, TILE_BYTES, plan->once ? 1 : INT_MAX};
}

/* The tiles of panels of int8 at k: one k ahead of the products, which then need not wait for them. */
ALWAYS void tiles_widen(const int P, const TilePanels *b, int k, const char *from, size_t step) {
    char *to = b->p + (size_t)(k & b->mask) * b->along;
    for (int p = 0; p < P; p++) int8_widen(to + (size_t)p * b->across, (const int8_t *)from + (size_t)p * step);
}

/* R row tiles times P panels; sums takes what does not go to y directly. */
ALWAYS void tiles_product(const int R, const int P, const Product *g, int row, int rows, int panel,
                          const TilePlan *plan, real *sums, TilesOut *out) {
    const TileRows a = tile_rows(g, row);
    const TilePanels b = tile_panels(g, panel, P, plan);
    const size_t wp = b.across, next = g->w_panel * weight_size(g), tile = TILE_BYTES / 2 * weight_size(g);
    const char *from = (const char *)g->w + (size_t)panel * next;
    const int blocks = g->pairs / PAIRS_OF_TILE, each = (out->rows + blocks - 1) / blocks;
    const bool direct = tiles_direct(g, panel, P), add = ten_is(g->residual);
    int line = plan->line0;
    const int per = (plan->line1 - line + blocks - 1) / blocks;
    const size_t step = direct ? (size_t)g->y.stride : (size_t)P * 16;
    real *c = direct ? row_at(g->y, row).f + panel * 16 : sums;
    if (ten_is(g->start)) {
        const bool whole = (panel + P) * 16 <= g->n;
        const size_t start_step = whole ? (size_t)g->start.stride : (size_t)P * 16;
        const real *start = whole ? row_at(g->start, row).f + panel * 16 : sums;
        if (!whole) product_in(g, row, rows, panel * 16, P * 16, sums);
#define SUM_START(t, r, p) TILE_LOAD(t, start + (r)*16 * start_step + (p)*16, start_step * sizeof(real))
        EACH_SUM(SUM_START);
    } else {
#define SUM_ZERO(t, r, p) TILE_ZERO(t)
        EACH_SUM(SUM_ZERO);
    }
    if (plan->widen) tiles_widen(P, &b, 0, from, next);
    for (int k = 0; k < blocks; k++, from += tile) {
        const char *w = b.p + (size_t)(k & b.mask) * b.along;
        if (plan->widen && k + 1 < blocks) tiles_widen(P, &b, k + 1, from + tile, next);
        const char *left = a.p + (size_t)k * a.along;
        LOAD_IF(plan->left_far, 4, left, a.row);
        LOAD_IF(plan->panels_far, 6, w, 64);
        TILE_DOT(0, 4, 6);
        if (P > 1) {
            LOAD_IF(plan->panels_far, 7, w + wp, 64);
            TILE_DOT(1, 4, 7);
        }
        if (R > 1) {
            LOAD_IF(plan->left_far, 5, left + a.below, a.row);
            TILE_DOT(2, 5, 6);
            if (P > 1) TILE_DOT(3, 5, 7);
        }
        if (P > 2) {
            LOAD_IF(plan->panels_far, 6, w + 2 * wp, 64);
            TILE_DOT(2, 4, 6);
            LOAD_IF(plan->panels_far, 7, w + 3 * wp, 64);
            TILE_DOT(3, 4, 7);
        }
        tiles_store(g, out, each);
        if (ten_is(g->start)) tiles_fetch_start(g, row + rows, plan->rows_end, panel, P, k, blocks);
        if (add) tiles_fetch_residual(g, row, rows, panel, P, k, blocks);
        for (int i = 0; i < per && line < plan->line1; i++, line++)
            for (int p = 0; p < P; p++)
                __builtin_prefetch(plan->next + (size_t)p * plan->next_step + (size_t)line * 64, 0, 2);
    }
#define SUM_END(t, r, p) TILE_STORE(t, c + (r)*16 * step + (p)*16, step * sizeof(real))
    EACH_SUM(SUM_END);
    *out = (TilesOut){row, direct ? 0 : rows, panel, P * 16, sums, NULL, NULL};
    out->to = tiles_to(g, row, panel, P);
    if (add && out->to) out->add = row_at(g->residual, row).f + panel * 16;
}

#define TILES_FOR(name, R, P)                                                                                     \
    static void name(const Product *g, int row, int rows, int panel, const TilePlan *plan, real *c,               \
                     TilesOut *out) {                                                                             \
        tiles_product(R, P, g, row, rows, panel, plan, c, out);                                                   \
    }
TILES_FOR(tiles_2x2, 2, 2)
TILES_FOR(tiles_2x1, 2, 1)
TILES_FOR(tiles_1x4, 1, 4)
TILES_FOR(tiles_1x2, 1, 2)
TILES_FOR(tiles_1x1, 1, 1)

enum { FEW_ROWS = 64, MANY_PANELS = 48 }; /* of an item by rows; panels of one with rows of its own, too */
/* Rows of a block, and bytes of its left operand, which is to stay in the second cache. */
enum { LEAST_ROWS = 64, LEFT_BYTES = 800 << 10 };
enum { NEAR_BYTES = 40 << 10 }; /* of the first cache, for what should stay there */

/* Rows row0 .. row1-1, of which every 32 but perhaps the last, or the last 16, are whole, times panels panel0 ..
 * panel1-1: panels outside, so that they come from memory once. By rows instead, sums are visited in the order in
 * which y lies. */
static void tiles_sweep(const Product *g, int row0, int row1, int panel0, int panel1) {
    const bool few = row1 - row0 <= 16, by_rows = g->by_rows;
    const int blocks = g->pairs / PAIRS_OF_TILE, passes = (row1 - row0 + TILES_ROWS - 1) / TILES_ROWS;
    const int wide = few ? FEW_ROWS_PANELS : 2, whole = (panel1 - panel0) / wide * wide;
    const int steps = (panel1 - panel0) / wide + (panel1 - panel0) % wide;
    const int lines = blocks * (TILE_BYTES / 2 / 64) * (int)weight_size(g); /* of a panel */
    const bool panels_near = passes > 1 && !by_rows && 2 * blocks * TILE_BYTES <= NEAR_BYTES;
    _Alignas(64) real sums[2][TILES_ROWS * 32];
    TilesOut out = {0};
    TilePlan plan = {
        .left_far = passes > 1 && !by_rows, .panels_far = !panels_near, .rows_end = by_rows ? 0 : row1};
    tiles_shape(row1 - row0 < TILES_ROWS ? row1 - row0 : TILES_ROWS);
    for (int n = 0; n < steps * passes; n++) {
        int i = by_rows ? n / steps : n % passes, at = by_rows ? n % steps : n / passes;
        int p = panel0 + (at * wide < whole ? at * wide : whole + at - whole / wide);
        int r = row0 + i * TILES_ROWS, rows = row1 - r < TILES_ROWS ? row1 - r : TILES_ROWS;
        bool one = p - panel0 >= whole;
        bool fetch = !by_rows && p + wide < panel1;
        plan.widen = g->scale && i == 0, plan.once = passes == 1;
        plan.line0 = i * lines / passes, plan.line1 = fetch ? (i + 1) * lines / passes : plan.line0;
        plan.next_step = g->w_panel * weight_size(g);
        plan.next = (const char *)g->w + (size_t)(p + wide) * plan.next_step;
        if (by_rows && g->a.tiled && (i + 1 < passes || g->after)) {
            plan.line0 = at * lines / steps, plan.line1 = (at + 1) * lines / steps;
            const TileRows below = tile_rows(g, r + TILES_ROWS);
            plan.next = i + 1 < passes ? below.p : g->after, plan.next_step = below.below;
        }
        void (*step)(const Product *, int, int, int, const TilePlan *, real *, TilesOut *) =
            few                               ? one ? tiles_1x1 : tiles_1x4
            : passes > 1 && rows == HALF_ROWS ? one ? tiles_1x1 : tiles_1x2
            : one                             ? tiles_2x1
                                              : tiles_2x2;
        step(g, r, rows, p, &plan, sums[n % 2], &out);
    }
    tiles_store(g, &out, out.rows);
}

static void tiles_block(const Product *g, int row0, int row1, int panel0, int panel1) {
    int whole = (row1 - row0) / TILES_ROWS * TILES_ROWS;
    if (whole && row1 - row0 - whole == HALF_ROWS) whole += HALF_ROWS;
    if (whole) tiles_sweep(g, row0, row0 + whole, panel0, panel1);
    if (row0 + whole < row1) tiles_sweep(g, row0 + whole, row1, panel0, panel1);
    TILE_RELEASE();
}

/* Rows and panels of an item. Few rows: one run of panels for each thread, since a run begins without its first
 * panels having been fetched. By rows: few of them and all their panels. Many rows: `down`, the items of a thread
 * have its own rows, which the ops before and after leave in and find in its caches, and panels go by. */
static void tiles_cut(const Product *g, int threads, ProductJob *job) {
    const int blocks = ceil_div(g->m, BLOCK_ROWS);
    const size_t row = (size_t)g->pairs * 4;
    job->down = !g->by_rows && g->m / threads >= BLOCK_ROWS;
    if (g->by_rows) {
        job->rows = FEW_ROWS, job->step = MANY_PANELS;
    } else if (job->down) {
        job->rows = HALF_ROWS, job->blocks = threads, job->step = MANY_PANELS;
        while ((size_t)job->blocks * LEFT_BYTES < (size_t)g->m * row) job->blocks += threads;
    } else {
        job->rows = BLOCK_ROWS, job->step = blocks == 1 ? ceil_div(job->panels, threads) : ITEM_PANELS;
        while (job->rows > LEAST_ROWS && (size_t)job->rows * row > LEFT_BYTES) job->rows /= 2;
        while (blocks > 1 && job->step > FEW_ROWS_PANELS &&
               blocks * ceil_div(job->panels, job->step) < 4 * threads)
            job->step /= 2;
    }
    job->step = ceil_div(job->step, FEW_ROWS_PANELS) * FEW_ROWS_PANELS;
}
