/* matmul_int8.h: matrices of int8 (k_mats_new_int8): packing them, their scales, and their way into tiles. Included by
 * matmul.h. The inner loops are the same: FMA and BF16 dot widen sixteen numbers on the load, tiles a tile. */

static inline size_t weight_size(const Product *g) { return g->scale ? 1 : dtype_size(g->w_type); }

/* The sums of whole numbers become those of weights. */
static void product_scale(const Product *g, real *c, int rows, int first, int width) {
    for (int r = 0; r < rows; r++, c += width)
        for (int j = 0; j < width; j += 16) v_store(c + j, v_mul(v_load(c + j), v_load(g->scale + first + j)));
}

/* ---- packing ---- */

/* max |w| / 127 of a row; NaN where it holds NaN or infinity. */
static real int8_scale(Row row, int k) {
    Vec most = v_set(0), odd = v_set(0);
    for (int i = 0; i < k; i += 16) {
        Vec w = row_get(row, i, k);
        most = v_max(v_max(w, v_sub(v_set(0), w)), most);
        odd = v_add(odd, v_sub(w, w));
    }
    return (v_top(most) + v_sum(odd)) / 127;
}

/* Rows 16 item .. of w, each sixteen numbers at a time, into the panels that they belong to. */
static void pack_int8_part(void *self, int item, int thread) {
    (void)thread;
    const PackJob *job = self;
    const Mat *mat = job->mat;
    const size_t panel = (size_t)PAIRS(mat->k) * 32;
    for (int r = item * 16; r < least(item * 16 + 16, job->w.rows); r++) {
        const int n = job->row0 + r;
        const Row row = row_at(job->w, r);
        const real scale = int8_scale(row, mat->k);
        int8_t *to = (int8_t *)mat->fwd.p + (size_t)(n / 16) * panel + n % 16;
        ((real *)mat->scale.p)[n] = scale;
        for (int k = 0; k < mat->k; k += 16) {
            int8_t q[16];
            v_store_i8(q, scale > 0 ? v_div(row_get(row, k, mat->k), v_set(scale)) : v_set(0));
            for (int i = 0; i < 16; i++) to[(k + i) * 16] = q[i];
        }
    }
}

/* ---- tiles ---- */

#ifdef TILES
/* Bytes of a tile's numbers, and of a thread's room for those of two panels, or of few rows' four at one k. */
enum { INT8_TILE = 512 };
static size_t int8_room(int pairs) { return (size_t)(pairs > 32 ? pairs : 32) * 128; }

static inline void int8_widen(char *tile, const int8_t *from) {
    for (int i = 0; i < 16; i++) v_pairs_i8((uint32_t *)(void *)(tile + 64 * i), from + 32 * i);
}
#endif
