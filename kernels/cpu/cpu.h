/* cpu.h: private to kernels/: the table of ops that a back exports, the CPU's threads, packed formats.
 *
 * Each instruction set is one file (plain.c, avx2.c, avx512.c, dot.c): it includes one vec_*.h, which gives
 * sixteen lanes of arithmetic, and body.h, which holds the ops written once over these lanes. So every path over
 * fp32 FMA gives the same bits; only the product's inner loop of dot.c (BF16 dot) is another arithmetic.
 */
#ifndef WHET_CPU_H
#define WHET_CPU_H

#include "kernels/kernels.h"

/* ---- threads ---- */

typedef struct Pool Pool;
Pool *pool_open(int threads);
int pool_threads(const Pool *pool);
/* Calls run(self, item, thread) for each item in [0, n), each on some thread; returns when all are done. Items
 * must write disjoint memory; no result may depend on which thread ran what. */
void pool_run(Pool *pool, int n, void (*run)(void *self, int item, int thread), void *self);
void pool_close(Pool *pool);

/* ---- the table of ops ---- */

/* What a back gives. The front (dev.c) has checked shapes and types; a back holds mathematics. */
typedef struct {
    const char *name;
    Ten (*mem_new)(Dev *dev, int rows, int cols, DType type);
    void (*mem_free)(Dev *dev, Ten t);
    void (*put)(Dev *dev, Ten dst, const void *host);
    void (*get)(Dev *dev, void *host, Ten src);
    void (*zero)(Dev *dev, Ten t);
    void (*copy)(Dev *dev, Ten dst, Ten src);
    void (*scale)(Dev *dev, Ten y, Ten x, real s);
    void (*sync)(Dev *dev);
    size_t (*mat_elements)(int n, int k); /* of each packed copy */
    void (*mat_pack)(Dev *dev, Mat *mat, Ten w, int row0);
    size_t (*kv_page_elements)(int heads, int head_dim, bool grad); /* of one layer of one page */
    void (*kv_zero)(Dev *dev, Kv *kv, int page);
    void (*kv_copy)(Dev *dev, Kv *kv, const KvShare *shares, int n);
    void (*qkv)(Dev *dev, Ten q, Kv *kv, int layer, Ten qkv, const Rows *rows, Ten cos, Ten sin);
    void (*qkv_back)(Dev *dev, Ten dqkv, Ten dq, Kv *dkv, int layer, const Rows *rows, Ten cos, Ten sin);
    void (*attend)(Dev *dev, Ten o, Ten lse, Ten q, const Kv *kv, int layer, const Rows *rows, real scale,
                   int window);
    void (*attend_back)(Dev *dev, Ten dq, Kv *dkv, Ten dout, Ten o, Ten lse, Ten q, const Kv *kv, int layer,
                        const Rows *rows, real scale, int window);
    void (*embed)(Dev *dev, Ten x, const Mat *w, const Rows *rows);
    void (*embed_back)(Dev *dev, Ten dw, Ten dx, const Rows *rows);
    void (*rmsnorm)(Dev *dev, Ten y, Ten rstd, Ten x, Ten w, real eps);
    void (*rmsnorm_back)(Dev *dev, Ten dx, Ten dw, Ten dy, Ten x, Ten rstd, Ten w);
    void (*matmul)(Dev *dev, Ten y, Ten x, const Mat *w, Ten bias, Ten residual);
    void (*matmul_dx)(Dev *dev, Ten dx, Ten dy, const Mat *w, Ten residual);
    void (*matmul_dw)(Dev *dev, Ten dw, Ten dy, Ten x);
    void (*bias_back)(Dev *dev, Ten db, Ten dy);
    void (*swiglu)(Dev *dev, Ten h, Ten gu);
    void (*swiglu_back)(Dev *dev, Ten dgu, Ten dh, Ten gu);
    void (*gather)(Dev *dev, Ten y, Ten x, const int *index);
    void (*scatter)(Dev *dev, Ten x, Ten y, const int *index);
    void (*logprob)(Dev *dev, Ten logp, Ten lse, Ten entropy, Ten x, const Mat *w, const int *target,
                    real inv_temp);
    void (*logprob_back)(Dev *dev, Ten dx, Ten dw, Ten x, const Mat *w, const int *target, const real *coef,
                         const real *ent_coef, Ten lse, Ten entropy, real inv_temp);
    void (*sample)(Dev *dev, Drawn *drawn, Ten logits, const Draw *draws, int vocab_used);
    void (*adamw)(Dev *dev, Ten w, Ten m, Ten v, Ten grad, const AdamStep *step);
    double (*sumsq)(Dev *dev, Ten t);
    void (*add)(Dev *dev, Ten y, Ten x);
    double (*roof_flops)(Dev *dev);
    double (*roof_bytes)(Dev *dev);
    size_t (*workspace)(int threads, int m, int dim, int hidden, int vocab, int q, int kv);
} Ops;

extern const Ops cpu_plain_ops, cpu_avx2_ops, cpu_avx512_ops, cpu_dot_ops;
const Ops *cpu_choose(const char *name, Err *err); /* the table by name; auto: the fastest here */

struct Dev {
    const Ops *ops;
    Pool *pool; /* cpu */
    int threads;
    bool trap_nan;
    size_t bytes, peak, limit;
    void *scratch[4]; /* a back's workspaces, grown on demand and freed at close: see dev_scratch */
    size_t scratch_room[4];
    struct OpStat *stats;
};

/* Workspace `which`, at least `bytes` long, aligned to 64, undefined content; valid until the next call for the
 * same `which`. For operands that are packed on the way into a product. */
void *dev_scratch(Dev *dev, int which, size_t bytes);

/* ---- packed weights ----
 * One format
 * for all paths. A matrix of N outputs and K inputs is cut into panels of 16 outputs; a panel is K/2 pairs; a pair
 * holds 16 outputs x 2 consecutive inputs: element (n, k) lies at
 *     ((n / 16) * pairs + k / 2) * 32 + (n % 16) * 2 + k % 2        pairs = PAIRS(K), rounded up to 16: whole
 * so that 16 pairs make the 1 KiB tile of bf16 that AMX loads, and one vector load is what BF16 dot multiplies.
 * N and K are padded with zeros. In K_REAL the same order holds floats. The `back` copy is the same format of the
 * transposed matrix. */
#define PANELS(n) (((n) + 15) / 16)
#define PAIRS(k) (((k) + 31) / 32 * 16)

#endif
