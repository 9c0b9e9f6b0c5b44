/* matmul_int8.h: matrices of int8 (k_mats_new_int8): packing them, their scales, and their way into tiles.
 * Included by matmul.h. The inner loops are the same: FMA and BF16 dot widen sixteen numbers on the load, tiles a
 * tile. */

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

static inline void turn_reals(real to[16][16], real from[16][16]) {
    if (sizeof(real) == sizeof(uint32_t)) {
        v_turn((uint32_t(*)[16])(void *)to, (uint32_t(*)[16])(void *)from);
        return;
    }
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) to[j][i] = from[i][j];
}

/* Rows 16 item .. of w, 16 x 16 numbers at a time, into the panels that they belong to: one, if they are whole. */
static void pack_int8_part(void *self, int item, int thread) {
    (void)thread;
    const PackJob *job = self;
    const Mat *mat = job->mat;
    const int n0 = job->row0 + item * 16, rows = least(16, job->w.rows - item * 16);
    const size_t panel = (size_t)PAIRS(mat->k) * 32;
    int8_t *to = mat->fwd.p;
    _Alignas(64) real from[16][16] = {{0}}, down[16][16];
    for (int r = 0; r < rows; r++)
        ((real *)mat->scale.p)[n0 + r] = int8_scale(row_at(job->w, item * 16 + r), mat->k);
    for (int k = 0; k < mat->k; k += 16) {
        for (int r = 0; r < rows; r++) {
            const real scale = ((real *)mat->scale.p)[n0 + r];
            Vec w = row_get(row_at(job->w, item * 16 + r), k, mat->k);
            v_store(from[r], scale > 0 ? v_div(w, v_set(scale)) : v_set(0));
        }
        turn_reals(down, from);
        for (int i = 0; i < 16; i++) {
            int8_t q[16];
            v_store_i8(rows == 16 && n0 % 16 == 0 ? to + (size_t)(n0 / 16) * panel + (size_t)(k + i) * 16 : q,
                       v_load(down[i]));
            if (rows == 16 && n0 % 16 == 0) continue;
            for (int r = 0, n = n0; r < rows; r++, n++)
                to[(size_t)(n / 16) * panel + (size_t)(k + i) * 16 + (size_t)(n % 16)] = q[r];
        }
    }
}

/* ---- tiles ---- */

#ifdef TILES
/* Bytes of a thread's room: for two panels, or for few rows' four at two k. */
static size_t int8_room(int pairs) { return (size_t)(pairs > 64 ? pairs : 64) * 128; }

static inline void int8_widen(char *tile, const int8_t *from) {
    for (int i = 0; i < 16; i++) v_pairs_i8((uint32_t *)(void *)(tile + 64 * i), from + 32 * i);
}
#endif
