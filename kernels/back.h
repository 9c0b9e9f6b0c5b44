/* back.h: private to kernels/: what a back (kernels/cpu, kernels/cuda) is to the front (dev.c): a const table of
 * function pointers, and the open device that both share. The front has checked shapes and types and keeps the
 * accounts; a back holds mathematics. Tested through kernels.h. */
#ifndef WHET_BACK_H
#define WHET_BACK_H

#include "kernels/kernels.h"

/* What a back gives. The front (dev.c) has checked shapes and types; a back holds mathematics. */
typedef struct {
    const char *name;
    void (*close)(Dev *dev); /* frees what the back's open made, after all tensors and scratch */
    Ten (*mem_new)(Dev *dev, int rows, int cols, DType type);
    void (*mem_free)(Dev *dev, Ten t);
    void (*put)(Dev *dev, Ten dst, const void *host);
    void (*get)(Dev *dev, void *host, Ten src);
    void (*zero)(Dev *dev, Ten t);
    void (*copy)(Dev *dev, Ten dst, Ten src);
    void (*scale)(Dev *dev, Ten y, Ten x, real s);
    void (*sync)(Dev *dev);
    bool (*again)(Dev *dev, const Rows *rows, const void *key, size_t n); /* NULL: every call is made */
    void (*again_end)(Dev *dev);
    int row_unit;                  /* see dev_row_unit; 0 is 1 */
    int64_t (*mem_left)(Dev *dev); /* bytes that the device has free; -1: the host's memory is the device's */
    size_t (*mat_elements)(int n, int k); /* of each packed copy */
    bool one_copy;                        /* k_matmul_dx reads the forward's copy: there is no other */
    bool int8;                            /* matmul and mat_pack take matrices of int8 */
    bool pairs;                           /* see ten_pairs; kernels/cpu/cpu.h has the format */
    void (*mat_pack)(Dev *dev, Mat *mat, Ten w, int row0);
    size_t (*kv_page_elements)(int heads, int head_dim, bool grad); /* of one layer of one page */
    void (*kv_zero)(Dev *dev, Kv *kv, int page);
    void (*kv_copy)(Dev *dev, Kv *kv, const KvShare *shares, int n);
    void (*qkv)(Dev *dev, Ten q, Kv *kv, int layer, Ten qkv, const Rows *rows, Ten cos, Ten sin);
    void (*qkv_back)(Dev *dev, Ten dqkv, Ten dq, Kv *dkv, int layer, const Rows *rows, Ten cos, Ten sin);
    void (*attend)(Dev *dev, Ten o, Ten lse, Ten q, const Kv *kv, int layer, const Rows *rows, real scale,
                   real cap, int window);
    void (*attend_back)(Dev *dev, Ten dq, Kv *dkv, Ten dout, Ten o, Ten lse, Ten q, const Kv *kv, int layer,
                        const Rows *rows, real scale, real cap, int window);
    void (*embed)(Dev *dev, Ten x, const Mat *w, const Rows *rows);
    void (*embed_back)(Dev *dev, Ten dw, Ten dx, const Rows *rows);
    void (*rmsnorm)(Dev *dev, Ten y, Ten rstd, Ten x, Ten w, Ten residual, real eps);
    void (*rmsnorm_back)(Dev *dev, Ten dx, Ten low, Ten dw, Ten y, Ten dy, Ten x, Ten rstd, Ten w);
    void (*matmul)(Dev *dev, Ten y, Ten x, const Mat *w, Ten bias, Ten residual);
    void (*matmul_dx)(Dev *dev, Ten dx, Ten dy, const Mat *w, Ten residual);
    void (*matmul_dw)(Dev *dev, Ten dw, Ten dy, Ten x, bool fresh);
    void (*bias_back)(Dev *dev, Ten db, Ten dy);
    void (*glu)(Dev *dev, Ten h, Ten gu, GluKind kind);
    void (*glu_back)(Dev *dev, Ten dgu, Ten h, Ten dh, Ten gu, GluKind kind);
    void (*gather)(Dev *dev, Ten y, Ten x, const int *index);
    void (*scatter)(Dev *dev, Ten x, Ten y, const int *index);
    void (*logprob)(Dev *dev, Ten logp, Ten lse, Ten entropy, Ten x, const Mat *w, const int *target, Ten kept,
                    real inv_temp, real cap);
    void (*logprob_back)(Dev *dev, Ten dx, Ten dw, Ten x, const Mat *w, const int *target, Ten kept,
                         const real *coef, const real *ent_coef, Ten lse, Ten entropy, real inv_temp, real cap,
                         bool fresh);
    void (*softcap)(Dev *dev, Ten x, real cap);
    void (*sample)(Dev *dev, Drawn *drawn, Ten kept, Ten logits, const Draw *draws, int vocab_used);
    void (*adamw)(Dev *dev, Ten w, Ten m, Ten v, Ten grad, const AdamStep *step);
    double (*sumsq)(Dev *dev, Ten t);
    uint64_t (*hash)(Dev *dev, const Ten *parts, int n);
    void (*add)(Dev *dev, Ten y, Ten x);
    double (*roof_flops)(Dev *dev);
    double (*roof_bytes)(Dev *dev);
    size_t (*workspace)(int threads, int m, int dim, int hidden, int vocab, int q, int kv);
} Ops;

struct Dev {
    const Ops *ops;
    char path[64];     /* what dev_path says */
    struct Pool *pool; /* cpu */
    struct Cuda *cuda; /* cuda */
    char about[64];    /* what dev_name says */
    int threads;       /* cpu; 1 on others */
    bool trap_nan;
    bool no_again; /* see dev_again */
    bool apart;    /* see dev_stat_apart */
    size_t bytes, peak, limit;
    Ten scratch[8]; /* a back's workspaces, grown on demand and freed at close: see dev_scratch */
    struct OpStat *stats;
};

/* Workspace `which`, at least `bytes` long, aligned to 64, undefined content; valid until the next call for the
 * same `which`. For operands that are packed on the way into a product. */
void *dev_scratch(Dev *dev, int which, size_t bytes);

#endif
