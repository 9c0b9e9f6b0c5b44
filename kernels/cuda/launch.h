/* launch.h: the launchers of the kernels, which the host side of the back (cuda.c, ops.c) calls. Each puts its
 * work on the stream and returns; a launch that fails ends the program with one line. All pointers, those of
 * tensors as well, are device memory unless they are said to be the host's. C and C++. */
#ifndef WHET_CUDA_LAUNCH_H
#define WHET_CUDA_LAUNCH_H

#ifdef __cplusplus
#define _Noreturn __attribute__((noreturn))
extern "C" {
#endif
#include <cuda_runtime_api.h>

#include "kernels/kernels.h"

/* A batch's Rows on the device (ops.c uploads them). */
typedef struct {
    int m, n_spans, n_shares;
    const int *tok, *pos, *page, *table;
    const KvSpan *spans;
    const KvShare *shares;
} DevRows;

/* A layer of keys and values, or of their gradients. Element d of slot s of key-value head g of a page lies at
 * ((page * heads + g) * 2 + value) * KV_PAGE * wide + s * wide + d, value being 0 for keys and 1 for values. */
typedef struct {
    void *p; /* of the layer */
    int heads, dim, wide;
    DType type;
} DevKv;
enum { KV_WIDE = 16 }; /* wide is dim rounded up to it; what lies between is 0 */

/* ---- rows.cu ---- */

typedef enum { PAIR_SET, PAIR_ADD, PAIR_SCALE } PairOp;
void cu_pair(cudaStream_t s, PairOp op, Ten y, Ten x, float factor); /* y = x, y += x, y = factor x */
void cu_bias(cudaStream_t s, Ten y, Ten x, Ten bias, Ten residual); /* y = x + bias + residual, both may be none */
void cu_softcap(cudaStream_t s, Ten x, float cap);
void cu_glu(cudaStream_t s, Ten h, Ten gu, GluKind kind);
void cu_glu_back(cudaStream_t s, Ten dgu, Ten dh, Ten gu, GluKind kind);
void cu_rmsnorm(cudaStream_t s, Ten y, Ten rstd, Ten x, Ten w, Ten residual, float eps);
void cu_rmsnorm_back(cudaStream_t s, Ten dx, Ten low, Ten y, Ten dy, Ten x, Ten rstd, Ten w);
/* dw[1, E] += the sum over rows and runs of dy x rstd, or (x none) of dy: rows go in blocks of SUM_ROWS, whose
 * sums are one chain each, into part[rows / SUM_ROWS, E], and these are one chain on dw. */
enum { SUM_ROWS = 32 };
void cu_sum_rows(cudaStream_t s, Ten dw, float *part, Ten dy, Ten x, Ten rstd);
void cu_embed(cudaStream_t s, Ten x, Ten w, const int *tok, float scale);
void cu_gather(cudaStream_t s, Ten y, Ten x, const int *index);
/* For each of n targets: row to[i] of x += factor times rows from[first[i]] .. from[first[i + 1] - 1] of y, in
 * order. */
void cu_scatter(cudaStream_t s, Ten x, Ten y, int n, const int *to, const int *first, const int *from,
                float factor);
void cu_pack(cudaStream_t s, Ten home, Ten w); /* rows of a weight matrix, padded columns set to 0 */
typedef struct {
    float keep, beta2, take1, take2, rate, root2, eps, scale;
} AdamRates;
void cu_adamw(cudaStream_t s, Ten w, Ten m, Ten v, Ten grad, AdamRates rates);
enum { SUMSQ_CHUNK = 4096 };
void cu_sumsq(cudaStream_t s, double *sums, const float *x, size_t n); /* one sum of squares a chunk */

/* Of each of n blocks of 1,024 bytes from x on (4 bytes aligned) what XXH3's stripes add to its eight lanes: see hash.c. */
enum { HASH_BLOCKS = 1 << 14 }; /* the most at once */
void cu_hash(cudaStream_t s, uint64_t *sums, const void *x, size_t n, const void *secret);

/* ---- attend.cu ---- */

void cu_qkv(cudaStream_t s, Ten q, DevKv kv, Ten qkv, DevRows rows, Ten cos, Ten sin);
void cu_qkv_back(cudaStream_t s, Ten dqkv, Ten dq, DevKv dkv, DevRows rows, Ten cos, Ten sin);
/* layers of kv, `step` elements apart, from kv.p on */
void cu_shares(cudaStream_t s, DevKv kv, size_t step, int layers, const KvShare *shares, int n);

typedef struct {
    Ten q, o, lse;
    DevKv kv;
    DevRows rows;
    const int *item0;  /* [n_spans + 1] the first tile of each span; not used where all have as many */
    int tiles;         /* of each span, where all have as many; or 0 */
    int items, chains; /* tiles in all; chains (a query head of a row) of a tile */
    int padding;       /* 1: there are rows with page -1, whose outputs become 0; or 0 */
    int group;         /* query heads of a key-value head */
    int window;
    float scale, cap;
} Attend;
/* Chains of a tile: bf16 has tiles of the tensor cores' 16 rows, up to ATTEND_WARPS of them. */
int cu_attend_chains(DType type, int dim, int most); /* most: the largest number of chains of a span */
void cu_attend(cudaStream_t s, Attend a);

/* ---- attend_back.cu ---- */

typedef struct {
    int span;  /* -1: the gradients of a copied page's first n slots are added */
    int block; /* the block of keys that the page is to the span; or the copied page */
    int n;
} BackEvent;
typedef struct {
    Attend a;           /* o is not used; lse is the forward's */
    Ten dq, dout;       /* dout in the keys' type */
    const float *delta; /* [M, H] the sum of dout o */
    DevKv dkv;
    const int *pages; /* [n_pages] whose gradients get events first[i] .. first[i + 1] - 1 */
    const int *first;
    const BackEvent *events;
} AttendBack;
void cu_attend_delta(cudaStream_t s, float *delta, Ten low, Ten dout, Ten o, int dim); /* low = dout in its type */
void cu_attend_dq(cudaStream_t s, AttendBack b);
void cu_attend_dkv(cudaStream_t s, AttendBack b, int page0, int n_pages);

/* ---- gemm.cu ---- */

/* dw[N, K] += dy^T x (fresh: = dy^T x), one chain over rows. bf16: rows of both 16 bytes aligned. */
void cu_dw(cudaStream_t s, Ten dw, Ten dy, Ten x, int fresh);
/* y[M, N] = x[M, K] w[N, K]^T, or (back) x[M, K] w[K, N], plus c (or none; may be y), of any types; slow. */
void cu_product(cudaStream_t s, Ten y, Ten x, Ten w, Ten c, int back);

/* ---- head.cu ---- */

typedef struct {
    float max, sum, sum_z; /* of a block of HEAD_BLOCK logits: sums of exp(z - max) and exp(z - max) z */
} HeadPart;
typedef struct {
    Ten logits;        /* [M, columns], from column col0 of the head on, a multiple of HEAD_BLOCK */
    int col0, used;    /* ids >= used are left out */
    Ten kept;          /* bits of the ids that count, or none */
    const float *temp; /* [M] inverse temperatures, or NULL: inv_temp for all */
    float inv_temp, cap;
} HeadZ;
/* parts[row, block] of the blocks that logits cover, `blocks` in a row; picked[row] = z of the target, if among
 * them (target may be NULL). */
void cu_head_parts(cudaStream_t s, HeadPart *parts, int blocks, HeadZ z, float *picked, const int *target);
void cu_head_merge(cudaStream_t s, Ten logp, Ten lse, Ten entropy, const HeadPart *parts, int blocks,
                   const float *picked, const int *target);
/* dz = coef (onehot - p) - ent_coef p (z - lse + entropy), times inv_temp and the cap's slope */
void cu_head_dz(cudaStream_t s, Ten dz, HeadZ z, const int *target, const float *coef, const float *ent_coef,
                const float *lse, const float *entropy);
/* parts: of all columns and (kept_parts; may be the same) of the ids < used. */
void cu_sample(cudaStream_t s, Drawn *drawn, Ten kept, HeadZ z, const Draw *draws, const HeadPart *parts,
               const HeadPart *kept_parts, int blocks);

/* ---- roof, in rows.cu ---- */
void cu_read(cudaStream_t s, float *sum, const float *x, size_t n); /* reads all of x */

#ifdef __cplusplus
}
#endif
#endif
