/* kernels.h: the room of device memory and ops; one interface, two backs (kernels/cpu, kernels/cuda).
 *
 * Knows: memory of a device, two-dimensional views of it, about thirty ops. Must never know: models, tokens'
 * meaning, text, losses. Structs: Ten (a view, owns nothing), Mat (a weight matrix in the back's own format), Kv
 * (pages of keys and values), Rows (which sequence each row of a batch belongs to), Dev (an open device). Tested
 * by tests/test_kernels_*.c.
 *
 * Nothing above this room may touch the memory behind a Ten but through k_put and k_get.
 *
 * Letters: M rows (tokens), D model width, N outputs, K inputs of a product, H query heads, G key-value heads, E
 * head width, F feed-forward width, V vocabulary, T trained tokens. Order of arguments: device, outputs, inputs,
 * sizes, scalars. Forward ops overwrite; what a _back op does with each output (overwrite or add) stands with it.
 * Optional tensors are passed as TEN_NONE.
 *
 * Exactness. Per path, a row's result is a function of that row alone: the number of rows, of threads, and the
 * place of the row in the batch do not change a bit. Sums over K, over keys and over the vocabulary go in one
 * fixed ascending order; sums over rows (gradients) go in ascending order of rows, as one chain that continues
 * from what the output held. So a batch may be cut at any row that is a multiple of 32, and a span of it after a
 * multiple of 32 of its own rows, without changing a gradient's bit.
 */
#ifndef WHET_KERNELS_H
#define WHET_KERNELS_H

#include "kernels/base.h"

/* In the double variant of the build (VARIANT=double; gradient checks) every fp32 number is a double. */
#ifdef WHET_DOUBLE
typedef double real;
#else
typedef float real;
#endif

typedef enum { K_REAL, K_BF16, K_I32, K_I8, K_BF16_PAIRS /* see ten_pairs */ } DType;
size_t dtype_size(DType type);

typedef struct {
    void *p;        /* device memory; NULL in TEN_NONE */
    int rows, cols; /* a vector has one row */
    int stride;     /* elements from one row to the next */
    DType type;
} Ten;

#define TEN_NONE ((Ten){0})
static inline bool ten_is(Ten t) { return t.p != NULL; }
Ten ten_rows(Ten t, int first, int n); /* views of a view */
Ten ten_cols(Ten t, int first, int n);
Ten ten_shape(Ten t, int rows, int cols); /* of a dense tensor */

typedef struct Dev Dev;

/* ---- the device ---- */

typedef struct {
    const char *device; /* "cpu" (as NULL), "cuda" or "cuda:N"; "auto": the first CUDA device, or else the CPU */
    const char *path;   /* cpu: forces the instruction set: "auto", "plain", "avx2", "avx512", "avx512_bf16", "amx",
                           "amx_plain" and "avx512_bf16_plain" (theirs in plain C) */
    int threads;        /* cpu: 0 means all cores */
    bool trap_nan;      /* after each op look for NaN in its outputs and stop with the op's name */
} DevConf;

Dev *dev_open(const DevConf *conf, Err *err);
void dev_close(Dev *dev);
const char *dev_path(const Dev *dev); /* the path taken, e.g. "avx512_bf16" */
const char *dev_name(const Dev *dev); /* "cpu", or the GPU's name */
int dev_threads(const Dev *dev);      /* of the CPU; 1 elsewhere */
int dev_paths(const char *names[8]);  /* the CPU paths that this machine can take */
/* Whether two paths give the same bits in this type: a path and itself; plain, avx2 and avx512; amx and amx_plain; in
 * K_REAL all of the CPU's. */
bool dev_same_bits(const char *path, const char *other, DType type);
/* Batches of a multiple of this many rows, filled up with padding rows, are cheaper than those between. */
int dev_row_unit(const Dev *dev);

/* Bytes now allocated, and the most that ever were. A limit other than 0 makes a larger allocation fail. */
size_t dev_bytes(const Dev *dev);
size_t dev_peak(const Dev *dev);
void dev_limit(Dev *dev, size_t bytes);
int64_t dev_left(Dev *dev); /* bytes that the device has free now; -1 where its memory is the host's */

/* The most that the ops will allocate for themselves, beside the tensors that they are given, as long as no tensor
 * has more rows than these and the model has these widths (q, kv: all query and all key heads). Part of the memory
 * plan. */
size_t k_workspace_bytes(const Dev *dev, int rows, int dim, int hidden, int vocab, int q, int kv);

/* Calls and seconds of each op since the last reset, for benches: name of op i, or NULL past the end. */
const char *dev_stat(const Dev *dev, int i, long *calls, double *seconds);
void dev_stat_reset(Dev *dev);
/* A GPU's ops return before they are done, and steps that come again are no calls of ops. On: each op is waited
 * for, and k_again is always true. What is timed then is one op after the other. */
void dev_stat_apart(Dev *dev, bool on);
/* What the device can do at best, measured now: floating-point operations a second of the path's product
 * instruction, and bytes read a second. */
double dev_roof_flops(Dev *dev);
double dev_roof_bytes(Dev *dev);

/* Memory is aligned to 64 bytes and zeroed. The shape's p is NULL on failure, with err. */
Ten k_new(Dev *dev, int rows, int cols, DType type, Err *err);
void k_free(Dev *dev, Ten *t);                   /* sets p to NULL; NULL is fine */
void k_put(Dev *dev, Ten dst, const void *host); /* host memory: dense rows of dst's element type */
void k_get(Dev *dev, void *host, Ten src);
void k_zero(Dev *dev, Ten t);
void k_copy(Dev *dev, Ten dst,
            Ten src); /* same shape; converts between K_REAL and K_BF16 (nearest, ties to even) */
void k_scale(Dev *dev, Ten y, Ten x, real s); /* y = s x; otherwise as k_copy; y may be x */
void k_sync(Dev *dev);

/* ---- weight matrices ----
 * W[N, K], kept in the compute type and in the format that the back's products want: the forward's copy and, for
 * training, the one that k_matmul_dx wants. A model's matrices lie side by side in the order of their use: what
 * reads ahead reads on, and huge pages hold small ones too. */

typedef struct {
    int n, k;
    DType type;    /* of what it is multiplied with: K_REAL or K_BF16 */
    Ten fwd, back; /* the back's own formats; back is TEN_NONE without training */
    Ten scale;     /* of a matrix of int8, see k_mats_new_int8; else TEN_NONE */
} Mat;

size_t k_mat_bytes(const Dev *dev, int n, int k, DType type, bool with_back); /* for the memory plan */

typedef struct {
    Ten fwd, back; /* all matrices' copies; back is TEN_NONE where the back needs none */
    Ten scale;     /* of matrices of int8 */
} MatHome;

/* Memory for n matrices, whose n and k are given; zeroed. On failure false with err, and home is empty. */
bool k_mats_new(Dev *dev, MatHome *home, Mat *const *mats, const bool *with_back, int n, DType type, Err *err);
/* Matrices of int8, a byte a weight, for k_matmul alone: where sampling waits for memory. Row n is whole numbers q in
 * -127 .. 127 times scale[n] = max |W[n]| / 127, q = W / scale to the nearest, ties to even. The products are of q, which
 * bf16 holds exactly, in the path's own arithmetic; scale multiplies the sums, before bias and residual. */
bool k_mats_new_int8(Dev *dev, MatHome *home, Mat *const *mats, int n, DType type, Err *err);
size_t k_mat_bytes_int8(const Dev *dev, int n, int k);
bool k_has_int8(const Dev *dev); /* whether the device can multiply with them: the CPU */
void k_mats_free(Dev *dev, MatHome *home);
/* One matrix that owns its memory; fwd.p is NULL on failure. */
Mat k_mat_new(Dev *dev, int n, int k, DType type, bool with_back, Err *err);
void k_mat_free(Dev *dev, Mat *mat);
void k_mat_pack(Dev *dev, Mat *mat, Ten w, int row0); /* w[R, K] K_REAL becomes rows row0 .. row0+R-1 */

/* ---- rows of a batch, keys and values ----
 * A batch is M rows. A span is a run
 * of rows that follow each other in one sequence. Keys and values live in pages of KV_PAGE positions; a sequence's
 * table names its pages by position / KV_PAGE, so sequences can share pages. */

enum { KV_PAGE = 32 };

typedef struct {
    int row0, n; /* rows of the batch; may be 0 */
    int pos0;    /* position of the first of them in its sequence */
    int table;   /* where its sequence's table begins in Rows.table */
    int group;   /* spans with the same group, which must be neighbours, are walked in order by k_attend_back */
    int share;   /* 1 + the place in Rows.shares of the copy that the span's first page began as; 0: none */
} KvSpan;

typedef struct {
    int src, dst; /* pages */
    int n;        /* slots 0 .. n-1 of src are copied to dst */
} KvShare;

typedef struct { /* host arrays; the back copies what it needs */
    int m;
    const int *tok;  /* [m] token ids; padding rows: 0 */
    const int *pos;  /* [m] positions */
    const int *page; /* [m] the page that takes the row's key and value (slot pos % KV_PAGE); -1: padding row */
    int n_spans;
    const KvSpan *spans;
    const int *table;
    int n_shares; /* done after the rows' own keys and values have been put */
    const KvShare *shares;
} Rows;

typedef struct {
    int layers, heads, head_dim, pages; /* key-value heads */
    DType type;
    Ten data; /* the back's own format, all layers; for gradients (k_kv_new with K_REAL and grad) the same indices
               */
    bool grad;
} Kv;

size_t k_kv_page_bytes(const Dev *dev, int layers, int heads, int head_dim, DType type, bool grad);
Kv k_kv_new(Dev *dev, int pages, int layers, int heads, int head_dim, DType type, bool grad,
            Err *err); /* zeroed */
void k_kv_free(Dev *dev, Kv *kv);
void k_kv_zero(Dev *dev, Kv *kv, int page);                     /* all layers of a page */
void k_kv_copy(Dev *dev, Kv *kv, const KvShare *shares, int n); /* all layers */

/* qkv[M, (H+2G)E] K_REAL -> q[M, H E] rotated; keys (rotated) and values go to their pages, rounded to kv's type;
 * then the shares are copied. cos, sin [positions, R/2] K_REAL; TEN_NONE: no rotation. The first R <= E
 * features of each head turn, halves (x[i], x[i+R/2]) together; the others pass as they are. */
void k_qkv(Dev *dev, Ten q, Kv *kv, int layer, Ten qkv, const Rows *rows, Ten cos, Ten sin);
/* dqkv[M, (H+2G)E] (overwritten; its type is the products') from dq[M, H E] and the pages' gradients. */
void k_qkv_back(Dev *dev, Ten dqkv, Ten dq, Kv *dkv, int layer, const Rows *rows, Ten cos, Ten sin);

/* o[M, H E] = softmax(s) v over the keys at positions <= own, and > own - window when window > 0; s = scale q k,
 * or cap tanh(scale q k / cap) when cap > 0. Blocks of KV_PAGE keys at fixed positions, ascending, one running
 * maximum and sum; probabilities are rounded to the kv type before the product with v. lse[M, H] (K_REAL, or
 * TEN_NONE): log-sum-exp of each head. Padding rows: o = 0.
 */
void k_attend(Dev *dev, Ten o, Ten lse, Ten q, const Kv *kv, int layer, const Rows *rows, real scale, real cap,
              int window);
/* dq[M, H E] K_REAL is overwritten; dkv's pages are added to, span after span inside a group, rows ascending.
 * After a span that has a share, the gradients of the copied slots are added to those they were copied from. */
void k_attend_back(Dev *dev, Ten dq, Kv *dkv, Ten dout, Ten o, Ten lse, Ten q, const Kv *kv, int layer,
                   const Rows *rows, real scale, real cap, int window);

/* ---- the same ops again ----
 * Decoding calls the same ops on the same tensors, token after token; only the numbers in Rows change. A back may keep
 * what it launched for them (CUDA graphs) and launch it as one.
 *
 * k_again says whether the ops are to be called: then they are, and k_again_end follows. False: they have been done, with
 * these rows. `key`, n bytes: all that decides which ops are called, on which tensors, with which numbers, beside the
 * rows (addresses, switches; padding bytes set). Between the two no other ops are called, none that returns numbers or
 * takes host arrays other than rows. Tensors that are freed take with them what was kept. */
bool k_again(Dev *dev, const Rows *rows, const void *key, size_t n);
void k_again_end(Dev *dev);
void dev_again(Dev *dev, bool on); /* off: k_again is always true, as it is in a device with trap_nan. For tests */

/* ---- the other ops of the network ---- */

/* x[M, D] K_REAL = rows of the embedding. dw[V, D] is added to, in order of rows. */
void k_embed(Dev *dev, Ten x, const Mat *w, const Rows *rows);
void k_embed_back(Dev *dev, Ten dw, Ten dx, const Rows *rows);

/* y = w x rstd + residual[M, D] (or TEN_NONE), rstd = 1 / sqrt(mean(x^2) + eps); x K_REAL. With w[1, E] each run
 * of E columns is normed on its own (the heads of q and k; usually E = D). rstd[M, D/E] or TEN_NONE. y may be x;
 * residual may be y. */
void k_rmsnorm(Dev *dev, Ten y, Ten rstd, Ten x, Ten w, Ten residual, real eps);
/* dx (added to), dw[1, E] (added to in order of rows, then of runs; or TEN_NONE) from dy[M, D]. low, or TEN_NONE,
 * becomes dx in its own type; with dx TEN_NONE, what would have been added. y, or TEN_NONE, becomes what k_rmsnorm gave
 * without a residual. dx may be dy. */
void k_rmsnorm_back(Dev *dev, Ten dx, Ten low, Ten dw, Ten y, Ten dy, Ten x, Ten rstd, Ten w);

/* y[M, N] = x[M, K] W^T + bias[1, N] + residual[M, N] (both may be TEN_NONE; residual may be y). x has W's type.
 */
void k_matmul(Dev *dev, Ten y, Ten x, const Mat *w, Ten bias, Ten residual);
/* dx[M, K] (overwritten) = dy[M, N] W + residual[M, K] (may be TEN_NONE; may be dx). dy has W's type. */
void k_matmul_dx(Dev *dev, Ten dx, Ten dy, const Mat *w, Ten residual);
/* dw[N, K] K_REAL += dy^T x; with `fresh` dw is overwritten instead, as if it had been zeroed. dy[M, N] and x[M, K]
 * have one type. */
void k_matmul_dw(Dev *dev, Ten dw, Ten dy, Ten x, bool fresh);
/* The same memory as room for an x that only k_matmul_dw reads, in the order in which the device's sums over rows want
 * it: k_rmsnorm_back's y, k_glu_back's h. Where the device or the shape has no such order, t itself. */
Ten ten_pairs(const Dev *dev, Ten t);
/* db[1, N] += sum of rows of dy. */
void k_bias_back(Dev *dev, Ten db, Ten dy);

/* gu[M, 2F] = gate | up; h[M, F] = gate sigmoid(a(gate)) up. */
typedef enum {
    GLU_SILU, /* a(g) = g */
    GLU_GELU  /* a(g) = 2 sqrt(2 / pi) (g + 0.044715 g^3): GELU in its tanh form (Hendrycks and Gimpel 2016) */
} GluKind;
void k_glu(Dev *dev, Ten h, Ten gu, GluKind kind);
/* dgu is overwritten; h, or TEN_NONE, becomes what k_glu gave. */
void k_glu_back(Dev *dev, Ten dgu, Ten h, Ten dh, Ten gu, GluKind kind);

void k_gather(Dev *dev, Ten y, Ten x, const int *index);  /* y[i] = x[index[i]]; an index of -1 gives zeros */
void k_scatter(Dev *dev, Ten x, Ten y, const int *index); /* x[index[i]] += y[i], in order of i; -1: skipped */

/* ---- the head ----
 * z = inv_temp * (x W^T), or inv_temp * cap tanh(x W^T / cap) when cap > 0; log-sum-exp goes over blocks of
 * HEAD_BLOCK columns, merged in order. Logits never exist for more than one block. */

enum { HEAD_BLOCK = 512 };

/* Sets of ids, one a row, that a distribution is cut down to (top_k, top_p, min_p): bit i % 32 of word i / 32 of
 * row t says whether id i is kept in row t. TEN_NONE: no row is cut. An id that is not kept counts as a logit of
 * -1e30: its probability is exactly 0. */
#define KEPT_WORDS(vocab) (((vocab) + 31) / 32)

/* logp[1, T] = z[target] - lse; lse[1, T]; entropy[1, T] = lse - sum p z (or TEN_NONE). A target of -1 is padding:
 * its outputs are 0. kept[T, KEPT_WORDS(V)] K_I32 or TEN_NONE; targets must be kept. */
void k_logprob(Dev *dev, Ten logp, Ten lse, Ten entropy, Ten x, const Mat *w, const int *target, Ten kept,
               real inv_temp, real cap);
/* dL/dx and dL/dW of L = sum_t coef[t] logp[t] + ent_coef[t] entropy[t]: dz = coef (onehot - p) - ent_coef p (z -
 * lse + entropy), times 1 - tanh^2 under a cap. dx[T, D] overwritten; dw[V, D] added to, with `fresh` overwritten (or
 * TEN_NONE). ent_coef may be NULL. lse and entropy as k_logprob gave them for the same kept. */
void k_logprob_back(Dev *dev, Ten dx, Ten dw, Ten x, const Mat *w, const int *target, Ten kept, const real *coef,
                    const real *ent_coef, Ten lse, Ten entropy, real inv_temp, real cap, bool fresh);

typedef struct {
    real inv_temp; /* 0: greedy (the largest logit, the lowest id among equals), with logp at temperature 1 */
    int top_k;     /* 0: off */
    real top_p;    /* 1: off */
    real min_p;    /* 0: off */
    double u;      /* the row's random number in [0, 1) */
} Draw;
typedef struct {
    int tok;
    real logp;      /* log-softmax of z over the whole vocabulary: bit-equal to k_logprob's */
    real draw_logp; /* log-probability inside the kept set: where the row is cut down, bit-equal to k_logprob's */
} Drawn;
/* x[M, N] K_REAL = cap tanh(x / cap), in k_logprob's bits: for logits on their way to k_sample. */
void k_softcap(Dev *dev, Ten x, real cap);
/* logits[M, V] K_REAL as k_matmul (and k_softcap) give them. Ids >= vocab_used are never drawn nor kept (rows of
 * the head that no token uses); they still count in logp, as in k_logprob. drawn and draws are host arrays.
 * kept[M, KEPT_WORDS(V)] K_I32 (or TEN_NONE) takes what top_k, top_p and min_p kept of each row, and no id where
 * they are all off. */
void k_sample(Dev *dev, Drawn *drawn, Ten kept, Ten logits, const Draw *draws, int vocab_used);

/* ---- the optimizer ---- */

typedef struct {
    real lr, beta1, beta2, eps, weight_decay;
    real correct1, correct2; /* 1 - beta1^t, 1 - beta2^t */
    real grad_scale;         /* clipping: multiplies the gradient */
} AdamStep;
/* Decoupled weight decay (Loshchilov and Hutter 2019), PyTorch's order: w -= lr wd w; then w -= lr m' / (sqrt(v')
 * + eps). */
void k_adamw(Dev *dev, Ten w, Ten m, Ten v, Ten grad, const AdamStep *step);
double k_sumsq(Dev *dev, Ten t);    /* sum of squares in fixed chunks of 4096 elements, merged in order */
void k_add(Dev *dev, Ten y, Ten x); /* y += x, K_REAL */
/* XXH3 (64 bits) of the bytes of n dense tensors, one after the other. */
uint64_t k_hash(Dev *dev, const Ten *parts, int n);

/* ---- a device against the CPU ----
 * For tests, and for users whose GPU nobody has seen: every op with random numbers at sizes that fit no tile, with
 * outputs that hold NaN before, and what kernels.h promises of a row's bits. `part` is one of elements, rows, products,
 * attention, head and again, or NULL for all of them; `all`: more sizes. `say` hears of each check. Returns how many failed.
 */

typedef struct {
    const char *op, *shape;
    double error; /* the worst difference, in units of the reference's largest number */
    double bound; /* 0: the same bits */
    bool good;
} CompareResult;
int k_compare(Dev *dev, Dev *cpu, const char *part, bool all, void (*say)(void *self, const CompareResult *result), void *self);

#endif
