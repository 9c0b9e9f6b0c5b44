/* host.h: private to kernels/cuda: what its host side shares. cuda.c: device, memory, uploads; graph.c: steps that
 * come again; lt.c: products by cuBLASLt; hash.c: k_hash; ops.c, ops_attend.c, ops_head.c: the ops, which call the launchers of launch.h. */
#ifndef WHET_CUDA_HOST_H
#define WHET_CUDA_HOST_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.h"

static inline size_t most_of(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t least_of(size_t a, size_t b) { return a < b ? a : b; }

typedef struct Lt Lt;
enum { UPLOADS = 8 };

struct Cuda {
    int number;
    cudaStream_t stream; /* all work of the device */
    Lt *lt;
    struct Upload { /* small host data on its way to the device: pinned memory and its copy */
        void *host, *device;
        size_t room;
        cudaEvent_t done; /* the copy */
        bool used;
    } uploads[UPLOADS];
    int next;
    struct Kept { /* host data whose last bytes lie at one place of the device, and are sent when they change */
        void *host, *device;
        size_t bytes, room;
    } rows, tiles; /* a batch's Rows as one block of ints; the first tile of each span */
    struct Graphs *graphs;
    void *sums; /* hash.c's, pinned; NULL before */
};

/* Ends the program with one line where a call fails: what runs later cannot be right. */
void cuda_must(cudaError_t error, const char *what);

/* A copy of host data in device memory, good for what is launched before UPLOADS - 1 further uploads. */
const void *upload(Dev *dev, const void *host, size_t bytes);
/* The same of what is sent rarely anew: the copy stays where it is as long as there is room, and until the next call. */
const void *upload_kept(Dev *dev, struct Kept *kept, const void *host, size_t bytes);
DevRows rows_on(Dev *dev, const Rows *rows);
/* dev_scratch as a dense tensor. */
Ten scratch_ten(Dev *dev, int which, int rows, int cols, DType type);

/* ---- graph.c: see k_again in kernels.h ---- */

struct Graphs *graphs_open(void);
void graphs_close(struct Graphs *graphs);
/* Forgets all that was recorded: memory that it may use is given back. */
void graphs_drop(struct Graphs *graphs);
bool graphs_recording(const struct Graphs *graphs);
/* Whether every span is one row at most and nothing is copied: then only what lies in device memory differs between two
 * batches of as many rows and spans. */
bool rows_decode(const Rows *rows);
bool cuda_again(Dev *dev, const Rows *rows, const void *key, size_t n);
void cuda_again_end(Dev *dev);

/* Workspaces, by what they hold. */
enum { LT_WORKSPACE = 32 << 20, SUMSQ_PIECE = 8192 };
enum { WS_LEFT, WS_OUT, WS_LOGITS, WS_PARTS, WS_LT, WS_ATTEND, WS_SUMS, WS_DZ };

/* A weight matrix as it lies: rows of K numbers, MAT_ALIGN(K) apart; MAT_ALIGN(N) rows; what is past N and K is 0.
 */
#define MAT_ALIGN(x) (((x) + 7) / 8 * 8)
static inline Ten mat_view(const Mat *w) {
    return (Ten){w->fwd.p, MAT_ALIGN(w->n), MAT_ALIGN(w->k), MAT_ALIGN(w->k), w->type};
}

/* ---- lt.c ---- */

Lt *lt_open(Err *err); /* loads the library */
void lt_close(Lt *lt);
int lt_version(const Lt *lt);

/* Columns of an output that are one product: the head's products in the sampler (all columns) and in the learner
 * (by chunks) are then the same ones. */
enum { PRODUCT_COLS = 8192 };
/* Rows that are copied at once where an operand does not lie as the library wants it. */
enum { PRODUCT_ROWS = 256, ROW_UNIT = 32, CHECK_ROWS = 160 }; /* ROW_UNIT: what the library is given is a multiple of it */

/* y[M, n] = x[M, K] w^T (+ residual) for the n columns from col0 on (a multiple of PRODUCT_COLS), y and residual
 * being those columns; w as mat_view gives it. */
void product(Dev *dev, Ten y, Ten x, const Mat *w, int col0, int n, Ten bias, Ten residual);
/* dx[M, K] = dy[M, n] w[row0 .. row0+n-1] (+ residual, may be dx). dy may have MAT_ALIGN(n) columns, those past n
 * being 0. */
void product_back(Dev *dev, Ten dx, Ten dy, const Mat *w, int row0, int n, Ten residual);
/* dw += dy^T x */
void product_dw(Dev *dev, Ten dw, Ten dy, Ten x, bool fresh);
double lt_flops(Dev *dev); /* measured */

/* ---- the ops ---- */

void op_copy(Dev *dev, Ten dst, Ten src);
void op_scale(Dev *dev, Ten y, Ten x, real s);
void op_add(Dev *dev, Ten y, Ten x);
void op_mat_pack(Dev *dev, Mat *mat, Ten w, int row0);
void op_matmul(Dev *dev, Ten y, Ten x, const Mat *w, Ten bias, Ten residual);
void op_matmul_dx(Dev *dev, Ten dx, Ten dy, const Mat *w, Ten residual);
void op_bias_back(Dev *dev, Ten db, Ten dy);
void op_embed(Dev *dev, Ten x, const Mat *w, const Rows *rows);
void op_embed_back(Dev *dev, Ten dw, Ten dx, const Rows *rows);
void op_rmsnorm(Dev *dev, Ten y, Ten rstd, Ten x, Ten w, Ten residual, real eps);
void op_rmsnorm_back(Dev *dev, Ten dx, Ten low, Ten dw, Ten y, Ten dy, Ten x, Ten rstd, Ten w);
void op_glu(Dev *dev, Ten h, Ten gu, GluKind kind);
void op_glu_back(Dev *dev, Ten dgu, Ten h, Ten dh, Ten gu, GluKind kind);
void op_softcap(Dev *dev, Ten x, real cap);
void op_gather(Dev *dev, Ten y, Ten x, const int *index);
void op_scatter(Dev *dev, Ten x, Ten y, const int *index);
void op_adamw(Dev *dev, Ten w, Ten m, Ten v, Ten grad, const AdamStep *step);
double op_sumsq(Dev *dev, Ten t);
uint64_t op_hash(Dev *dev, const Ten *parts, int n); /* hash.c */
/* ops_attend.c */
void op_kv_copy(Dev *dev, Kv *kv, const KvShare *shares, int n);
void op_qkv(Dev *dev, Ten q, Kv *kv, int layer, Ten qkv, const Rows *rows, Ten cos, Ten sin);
void op_qkv_back(Dev *dev, Ten dqkv, Ten dq, Kv *dkv, int layer, const Rows *rows, Ten cos, Ten sin);
void op_attend(Dev *dev, Ten o, Ten lse, Ten q, const Kv *kv, int layer, const Rows *rows, real scale, real cap,
               int window);
void op_attend_back(Dev *dev, Ten dq, Kv *dkv, Ten dout, Ten o, Ten lse, Ten q, const Kv *kv, int layer,
                    const Rows *rows, real scale, real cap, int window);
/* ops_head.c */
void op_logprob(Dev *dev, Ten logp, Ten lse, Ten entropy, Ten x, const Mat *w, const int *target, Ten kept,
                real inv_temp, real cap);
void op_logprob_back(Dev *dev, Ten dx, Ten dw, Ten x, const Mat *w, const int *target, Ten kept, const real *coef,
                     const real *ent_coef, Ten lse, Ten entropy, real inv_temp, real cap, bool fresh);
void op_sample(Dev *dev, Drawn *drawn, Ten kept, Ten logits, const Draw *draws, int vocab_used);
enum { HEAD_ROWS = 2048 }; /* whose logits of PRODUCT_COLS columns are held at once */

#endif
