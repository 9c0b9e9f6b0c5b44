/* ops_head.c: log-probabilities, their gradient and sampling. The logits of HEAD_ROWS rows and PRODUCT_COLS
 * columns exist at once; their products are those that k_matmul makes of the whole head. */
#include "kernels/cuda/host.h"

#include <stdlib.h>
#include <string.h>

static int blocks_of_head(int vocab) { return (vocab + HEAD_BLOCK - 1) / HEAD_BLOCK; }
static int least(int a, int b) { return a < b ? a : b; }

typedef struct {
    Ten x;
    const Mat *w;
    real inv_temp, cap;
    const int *target; /* device */
    Ten kept;          /* or none */
} Head;

/* Logits of n rows from row on, of the columns from col on. */
static HeadZ head_logits(Dev *dev, const Head *h, int row, int n, int col) {
    int wide = least(PRODUCT_COLS, h->w->n - col);
    Ten full = scratch_ten(dev, WS_LOGITS, n, MAT_ALIGN(wide), K_REAL);
    HeadZ z = {.col0 = col, .used = h->w->n, .inv_temp = h->inv_temp, .cap = h->cap};
    z.logits = ten_cols(full, 0, wide);
    if (ten_is(h->kept)) z.kept = ten_rows(h->kept, row, n);
    product(dev, z.logits, ten_rows(h->x, row, n), h->w, col, wide, TEN_NONE, TEN_NONE);
    return z;
}

void op_logprob(Dev *dev, Ten logp, Ten lse, Ten entropy, Ten x, const Mat *w, const int *target, Ten kept,
                real inv_temp, real cap) {
    cudaStream_t s = dev->cuda->stream;
    int t = x.rows, blocks = blocks_of_head(w->n);
    Head h = {x, w, inv_temp, cap, upload(dev, target, (size_t)t * sizeof *target), kept};
    HeadPart *parts = dev_scratch(dev, WS_PARTS, (size_t)t * ((size_t)blocks * sizeof *parts + sizeof(float)));
    float *picked = (float *)(void *)(parts + (size_t)t * (size_t)blocks);
    for (int row = 0; row < t; row += HEAD_ROWS) {
        int n = least(HEAD_ROWS, t - row);
        for (int col = 0; col < w->n; col += PRODUCT_COLS)
            cu_head_parts(s, parts + (size_t)row * (size_t)blocks, blocks, head_logits(dev, &h, row, n, col),
                          picked + row, h.target + row);
    }
    cu_head_merge(s, logp, lse, entropy, parts, blocks, picked, h.target);
}

void op_logprob_back(Dev *dev, Ten dx, Ten dw, Ten x, const Mat *w, const int *target, Ten kept, const real *coef,
                     const real *ent_coef, Ten lse, Ten entropy, real inv_temp, real cap, bool fresh) {
    cudaStream_t s = dev->cuda->stream;
    int t = x.rows;
    if (fresh && ten_is(dw) && t == 0) dev->ops->zero(dev, dw);
    size_t numbers = (size_t)t * sizeof *coef;
    Head h = {x, w, inv_temp, cap, upload(dev, target, (size_t)t * sizeof *target), kept};
    const float *c = upload(dev, coef, numbers), *e = ent_coef ? upload(dev, ent_coef, numbers) : NULL;
    for (int col = 0; col < w->n; col += PRODUCT_COLS) {
        int wide = least(PRODUCT_COLS, w->n - col);
        for (int row = 0; row < t; row += HEAD_ROWS) {
            int n = least(HEAD_ROWS, t - row);
            HeadZ z = head_logits(dev, &h, row, n, col);
            Ten full = scratch_ten(dev, WS_DZ, n, MAT_ALIGN(wide), w->type), dz = ten_cols(full, 0, wide);
            if (MAT_ALIGN(wide) != wide) dev->ops->zero(dev, full);
            cu_head_dz(s, dz, z, h.target + row, c + row, e ? e + row : NULL, (const float *)lse.p + row,
                       e ? (const float *)entropy.p + row : NULL);
            Ten rows = ten_rows(dx, row, n);
            product_back(dev, rows, full, w, col, wide, col ? rows : TEN_NONE);
            if (ten_is(dw)) product_dw(dev, ten_rows(dw, col, wide), dz, ten_rows(x, row, n), fresh && row == 0);
        }
    }
}

void op_sample(Dev *dev, Drawn *drawn, Ten kept, Ten logits, const Draw *draws, int vocab_used) {
    cudaStream_t s = dev->cuda->stream;
    int m = logits.rows, blocks = blocks_of_head(logits.cols);
    size_t size = (size_t)m * (size_t)blocks;
    float *temp = MEM_ARRAY(float, m + 1);
    for (int r = 0; r < m; r++) temp[r] = draws[r].inv_temp == 0 ? 1 : draws[r].inv_temp;
    HeadZ z = {.logits = logits, .used = logits.cols, .temp = upload(dev, temp, (size_t)m * sizeof *temp)};
    const Draw *there = upload(dev, draws, (size_t)m * sizeof *draws);
    HeadPart *parts = dev_scratch(dev, WS_PARTS, 2 * size * sizeof *parts + (size_t)m * sizeof(Drawn)),
             *used = parts;
    Drawn *out = (Drawn *)(void *)(parts + 2 * size);
    cu_head_parts(s, parts, blocks, z, NULL, NULL);
    z.used = vocab_used;
    if (vocab_used < logits.cols) cu_head_parts(s, used = parts + size, blocks, z, NULL, NULL);
    cu_sample(s, out, kept, z, there, parts, used, blocks);
    int words = m * (int)(sizeof *drawn / sizeof(int));
    dev->ops->get(dev, drawn, (Ten){out, 1, words, words, K_I32});
    free(temp);
}
