/* attend_back_pairs.h: attention's backward over pages of bf16 where products of pairs of bf16 are what the path
 * is fast at (TILES, BF16_DOT). dout, probabilities and ds are rounded to bf16 before their products, as q, k and
 * v are; sums are fp32. Included by attend_back.h, whose softmax it shares.
 *
 * All five products have the keys or the features down and the chains across, or the keys down and the features
 * across: scores and dp = k q', v dout'; dq' += k' ds'; dk += ds q, dv += p dout. The sums over chains go in
 * blocks of 32, the chunk's first chain first: a span may be cut after any multiple of 32 rows. */

typedef struct {        /* views into a thread's scratch; C = wide_c, E = head_dim rounded up to 32 */
    uint16_t *qt, *dot; /* [E / 2][C][2]: pairs of features */
    uint16_t *q, *dout; /* [C / 2][E][2]: pairs of chains */
    uint16_t *k, *v;    /* [32][E] */
    uint16_t *kt;       /* [E][32] */
    uint16_t *p, *ds;   /* [32][C] */
    uint16_t *ds_pairs; /* [16][C][2]: pairs of keys */
    uint16_t *rows;     /* [16][E] */
    int fetch, fetch_end; /* rows to fetch while a block is computed */
} BackPairs;

static size_t back_pairs_layout(BackPairs *b, uint16_t *p, int wide_c, int wide_e) {
    size_t c = (size_t)wide_c, e = (size_t)wide_e, at = 0;
    size_t sizes[] = {e * c,       e * c,       e * c,       e * c,       KV_PAGE * e, KV_PAGE * e,
                      KV_PAGE * e, KV_PAGE * c, KV_PAGE * c, KV_PAGE * c, 16 * e};
    uint16_t **views[] = {&b->qt, &b->dot, &b->q,  &b->dout,     &b->k,   &b->v,
                          &b->kt, &b->p,   &b->ds, &b->ds_pairs, &b->rows};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (p) *views[i] = p + at;
        at += sizes[i];
    }
    return (at + 1) / 2; /* reals */
}

/* c[m][n] (+)= a[m][k] b with b in pairs of k; m, n and k are multiples of 32. */
static void pairs_product(real *c, size_t c_row, const uint16_t *a, size_t a_row, const uint16_t *b, size_t b_row,
                          int m, int n, int k, bool fresh) {
    for (int i = 0; i < m; i += 32)
        for (int j = 0; j < n; j += 32) {
            real *to = c + (size_t)i * c_row + j;
            const uint16_t *left = a + (size_t)i * a_row, *right = b + 2 * j;
#ifdef TILES
            const size_t step = c_row * sizeof(real);
            if (fresh) {
                TILE_ZERO(0);
                TILE_ZERO(1);
                TILE_ZERO(2);
                TILE_ZERO(3);
            } else {
                TILE_LOAD(0, to, step);
                TILE_LOAD(1, to + 16, step);
                TILE_LOAD(2, to + 16 * c_row, step);
                TILE_LOAD(3, to + 16 * c_row + 16, step);
            }
            for (int x = 0; x < k; x += 32, left += 32, right += 16 * b_row) {
                TILE_LOAD(4, left, 2 * a_row);
                TILE_LOAD(6, right, 2 * b_row);
                TILE_DOT(0, 4, 6);
                TILE_LOAD(7, right + 32, 2 * b_row);
                TILE_DOT(1, 4, 7);
                TILE_LOAD(5, left + 16 * a_row, 2 * a_row);
                TILE_DOT(2, 5, 6);
                TILE_DOT(3, 5, 7);
            }
            TILE_STORE(0, to, step);
            TILE_STORE(1, to + 16, step);
            TILE_STORE(2, to + 16 * c_row, step);
            TILE_STORE(3, to + 16 * c_row + 16, step);
#else
            for (int r = 0; r < 32; r += CHAIN_TILE, to += CHAIN_TILE * c_row, left += CHAIN_TILE * a_row) {
                for (int x = 0; fresh && x < CHAIN_TILE; x++)
                    v_store(to + (size_t)x * c_row, v_set(0)), v_store(to + (size_t)x * c_row + 16, v_set(0));
                for (int v = 0; v < 2; v += VEC_TILE)
                    dot_tile(CHAIN_TILE, VEC_TILE, to + 16 * v, c_row, left, a_row, right + 32 * v, b_row, k / 2,
                             0, 0);
            }
#endif
        }
}

/* Sixteen rows of pairs, from_row words apart: to[j][i] = from[i][j] in words. */
static inline void words_turn(uint16_t *to, size_t to_row, const uint16_t *from, size_t from_row) {
    uint32_t in[16][16], out[16][16];
    for (int i = 0; i < 16; i++) memcpy(in[i], from + (size_t)i * from_row, sizeof in[i]);
    v_turn(out, in);
    for (int i = 0; i < 16; i++) memcpy(to + (size_t)i * to_row, out[i], sizeof out[i]);
}

/* Sixteen chains' rows go, turned, to `across`, and in pairs to `pairs`. */
static void chains_keep(const BackJob *job, uint16_t *across, uint16_t *pairs, const uint16_t *rows, int c) {
    const size_t C = (size_t)job->wide_c, E = (size_t)job->wide_e;
    for (size_t e = 0; e < E; e += 32) words_turn(across + e * C + 2 * c, 2 * C, rows + e, E);
    for (int i = 0; i < 16; i += 2)
        for (size_t e = 0; e < E; e += 16) {
            uint32_t both[16];
            v_zip_bf16(both, rows + (size_t)i * E + e, rows + (size_t)(i + 1) * E + e);
            memcpy(pairs + (size_t)(c + i) * E + 2 * e, both, sizeof both);
        }
}

static void pairs_begin(const BackJob *job, Back *b, BackPairs *low, int row0, int n, int g) {
    int dim = job->kv->head_dim, count = n * job->group;
    const size_t E = (size_t)job->wide_e;
    for (int c = 0; c < job->wide_c; c += 16)
        for (int grad = 0; grad < 2; grad++) {
            memset(low->rows, 0, 16 * E * sizeof *low->rows);
            for (int i = 0; i < 16; i++) {
                int r = row0 + (c + i) / job->group, h = g * job->group + (c + i) % job->group;
                if (!grad) b->lse[c + i] = b->d[c + i] = 0;
                if (c + i >= count) continue;
                Row to = {NULL, low->rows + (size_t)i * E};
                Row from = row_skip(row_at(grad ? job->dout : job->q, r), h * dim);
                if (from.h)
                    memcpy(to.h, from.h, (size_t)dim * sizeof *to.h);
                else
                    row_fill(to, dim, from.f);
                if (!grad) {
                    b->lse[c + i] = row_at(job->lse, r).f[h];
                    continue;
                }
                Vec sum = v_set(0);
                Row o = row_skip(row_at(job->o, r), h * dim);
                for (int e = 0; e < dim; e += 16) sum = v_fma(row_get(to, e, dim), row_get(o, e, dim), sum);
                b->d[c + i] = v_sum(sum);
            }
            chains_keep(job, grad ? low->dot : low->qt, grad ? low->dout : low->q, low->rows, c);
        }
    row_clear((Row){b->dqt, NULL}, job->wide_e * job->wide_c);
}

static void pairs_end(const BackJob *job, const Back *b, int row0, int n, int g) {
    const int dim = job->kv->head_dim, count = n * job->group;
    const size_t C = (size_t)job->wide_c;
    for (int c0 = 0; c0 < count; c0 += 16)
        for (int e = 0; e < dim; e += 16) {
            _Alignas(64) real rows[16][16];
            words_turn((uint16_t *)rows, 32, (const uint16_t *)(b->dqt + (size_t)e * C + c0), 2 * C);
            for (int c = c0; c < least(c0 + 16, count); c++) {
                Row dq = row_at(job->dq, row0 + c / job->group);
                row_set(row_skip(dq, (g * job->group + c % job->group) * dim), e, dim, v_load(rows[c - c0]));
            }
        }
}

/* Fetches what row r's chunk will read, and part of a page's gradients, while other things are computed: few lines
 * at a time, since the processor waits where more than some are on their way. */
static void row_of_chunk_fetch(const BackJob *job, int r, int g) {
    const int wide = job->group * job->kv->head_dim;
    const Ten from[] = {job->q, job->dout, job->o};
    for (int i = 0; i < 3; i++) {
        size_t size = dtype_size(from[i].type);
        const char *p = (const char *)from[i].p + ((size_t)r * (size_t)from[i].stride + (size_t)(g * wide)) * size;
        for (size_t at = 0; at < (size_t)wide * size; at += 64) __builtin_prefetch(p + at, 0, 2);
    }
}
static void grads_fetch(const real *p, int n) {
    for (int i = 0; i < n; i += 16) __builtin_prefetch(p + i, 1, 2);
}

/* page_softmax, and its results as the products take them. */
static void pairs_softmax(const BackJob *job, const Back *b, BackPairs *low, int pos, int key0, int c0, int c1,
                          int page, int g) {
    const size_t C = (size_t)job->wide_c;
    const int heads = job->kv->heads, part = 2 * job->kv->head_dim;
    const int first = low->fetch, rows = low->fetch_end - first;
    for (int i = 0; i < KV_PAGE; i += 2) {
        const Seen seen[] = {key_seen(job, pos, key0 + i), key_seen(job, pos, key0 + i + 1)};
        for (int r = rows * i / KV_PAGE; r < rows * (i + 2) / KV_PAGE; r++) row_of_chunk_fetch(job, first + r, g);
        grads_fetch(kv_block(job->dkv, job->layer, page, g).f + i / 2 * part, part);
        grads_fetch(kv_block(job->dkv, job->layer, page, heads + g).f + i / 2 * part, part);
        for (int c = c0; c < c1; c += 16) {
            uint32_t both[16];
            Vec ds[2];
            for (int j = 0; j < 2; j++) {
                const size_t at = (size_t)(i + j) * C + (size_t)c;
                Vec p = v_load(b->p + at);
                ds[j] = v_load(b->ds + at);
                chains_softmax(job, b, seen[j], c, &p, &ds[j]);
                p_store(low->p + at, p);
                v_store_bf16(low->ds + at, ds[j]);
            }
            v_pair_bf16(both, ds[0], ds[1]);
            memcpy(low->ds_pairs + (size_t)i * C + 2 * c, both, sizeof both);
        }
    }
}

/* A page's keys and values as rows, and the keys as rows of features. */
static void pairs_page(const BackJob *job, BackPairs *low, int page, int g) {
    int dim = job->kv->head_dim;
    const size_t E = (size_t)job->wide_e;
    const uint16_t *k = kv_block(job->kv, job->layer, page, g).h;
    Row v = kv_block(job->kv, job->layer, page, job->kv->heads + g);
    Vec even, odd;
    for (int e = 0; e < job->wide_e; e += 32)
        for (int key = 0; key < KV_PAGE; key += 16) {
            uint16_t room[16 * 32] = {0};
            const uint16_t *from = k + (size_t)e * KV_PAGE + 2 * key;
            size_t row = 2 * KV_PAGE;
            if (dim - e < 32) {
                for (int i = 0; i < (dim - e) / 2; i++) memcpy(room + 32 * i, from + (size_t)i * row, 64);
                from = room, row = 32;
            }
            words_turn(low->k + (size_t)key * E + e, E, from, row);
            for (int i = 0; i < 16; i++) {
                v_load_pairs_bf16(from + (size_t)i * row, &even, &odd);
                v_store_bf16(low->kt + (size_t)(e + 2 * i) * KV_PAGE + key, even);
                v_store_bf16(low->kt + (size_t)(e + 2 * i + 1) * KV_PAGE + key, odd);
            }
        }
    for (int i = 0; i < KV_PAGE / 2; i++)
        for (int e = 0; e < job->wide_e; e += 16) {
            size_t at = (size_t)(i * dim + e) * 2;
            even = odd = v_set(0);
            if (dim - e >= 16)
                pairs_load(v, at, &even, &odd);
            else if (dim > e)
                pairs_load_n(v, at, dim - e, &even, &odd);
            v_store_bf16(low->v + (size_t)(2 * i) * E + e, even);
            v_store_bf16(low->v + (size_t)(2 * i + 1) * E + e, odd);
        }
}

/* One chunk of rows, the first of which is at pos, against one block of keys. */
static void pairs_block(const BackJob *job, Back *b, BackPairs *low, int pos, int n, int block, int page, int g) {
    int key0 = block * KV_PAGE, count = n * job->group;
    int c0 = most(0, key0 - pos) * job->group / 32 * 32, c1 = ceil_div(count, 32) * 32;
    const size_t C = (size_t)job->wide_c, E = (size_t)job->wide_e;
    pairs_page(job, low, page, g);
    pairs_product(b->p + c0, C, low->k, E, low->qt + 2 * c0, 2 * C, KV_PAGE, c1 - c0, job->wide_e, true);
    pairs_product(b->ds + c0, C, low->v, E, low->dot + 2 * c0, 2 * C, KV_PAGE, c1 - c0, job->wide_e, true);
    pairs_softmax(job, b, low, pos, key0, c0, c1, page, g);
    pairs_product(b->dqt + c0, C, low->kt, KV_PAGE, low->ds_pairs + 2 * c0, 2 * C, job->wide_e, c1 - c0, KV_PAGE,
                  false);
    Back grads = *b;
    const bool whole = job->kv->head_dim == job->wide_e; /* tiles: they are added to in the page itself */
    if (whole) {
        grads.dk = kv_block(job->dkv, job->layer, page, g).f;
        grads.dv = kv_block(job->dkv, job->layer, page, job->kv->heads + g).f;
    } else {
        page_grads(job, b, page, g, false);
    }
    const uint16_t *q = low->q + (size_t)c0 * E, *dout = low->dout + (size_t)c0 * E;
    pairs_product(grads.dk, E, low->ds + c0, C, q, 2 * E, KV_PAGE, job->wide_e, c1 - c0, false);
    pairs_product(grads.dv, E, low->p + c0, C, dout, 2 * E, KV_PAGE, job->wide_e, c1 - c0, false);
    if (!whole) page_grads(job, b, page, g, true);
}
