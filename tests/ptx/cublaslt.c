/* cublaslt.c: a stand-in for libcublasLt: plain loops over column-major matrices that check what the documentation
 * asks of descriptors, leading dimensions, types, pointers, alignments and workspaces (cuBLAS 13.0, chapter 3). A
 * shared object of the library's own name; it finds the runtime's stand-in in the program that loads it.
 *
 * What real algorithms differ in, these differ in as well: the order of their sums over k. The heuristic's
 * suggestions (none for an odd number below 24 of outputs: some shapes have to have none) come in an order that changes with the sizes, the rows (n) among them; one of them sums few rows
 * otherwise than many, one splits k, one is refused when it is to run and leaves an error with the runtime. So a program that asks anew for each number of rows gets other bits for the
 * same row. In bf16 the sum is rounded before C is added, and again after, as cuBLASLt 13.1 does on an H200. */
#include <cublasLt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ptx/half.h"
#include "tests/ptx/streams.h"

typedef struct {
    uint64_t magic;
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
} Layout;
typedef struct {
    uint64_t magic;
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasOperation_t a, b;
} Desc;
typedef struct {
    uint64_t magic;
    uint64_t workspace;
    uint32_t schemes, align[4]; /* of A, B, C, D */
} Wish;
typedef struct { /* at most the 64 bytes of cublasLtMatmulAlgo_t */
    uint64_t magic;
    int32_t id, split;
    uint32_t align[4];
    uint32_t workspace;
    uint16_t in, out;
    uint32_t m, k;
} Algo;
_Static_assert(sizeof(Algo) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm fits its opaque type");

enum { LAYOUT = 0x4c41, DESC = 0x4445, WISH = 0x5749, ALGO = 0x414c };
enum { ASCENDING, BLOCKED, EVEN_ODD, BY_ROWS, SPLIT, REFUSED, ALGORITHMS };

static int handle_value;

static void check_handle(cublasLtHandle_t h) {
    if ((void *)h != (void *)&handle_value) standin_stop("cublas: a handle that cublasLtCreate did not give");
}
static Layout *layout_of(cublasLtMatrixLayout_t p, const char *which) {
    Layout *l = (Layout *)p;
    if (!l || l->magic != LAYOUT) standin_stop("cublas: the layout of %s is none", which);
    return l;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    standin_open();
    *h = (cublasLtHandle_t)(void *)&handle_value;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return check_handle(h), CUBLAS_STATUS_SUCCESS; }
size_t cublasLtGetVersion(void) { return 130000; }

static size_t width_of(cudaDataType_t t) { return t == CUDA_R_32F ? 4 : t == CUDA_R_16BF ? 2 : 0; }

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *p, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
    if (!width_of(type)) standin_stop("cublas: type %d is not one that whet uses", (int)type);
    if (rows == 0 || cols == 0)
        standin_stop("cublas: a layout of %llu x %llu", (unsigned long long)rows, (unsigned long long)cols);
    if (ld < (int64_t)rows)
        standin_stop("cublas: leading dimension %lld of a matrix of %llu rows", (long long)ld,
                     (unsigned long long)rows);
    Layout *l = calloc(1, sizeof *l);
    if (!l) return CUBLAS_STATUS_ALLOC_FAILED;
    *l = (Layout){LAYOUT, type, rows, cols, ld};
    *p = (cublasLtMatrixLayout_t)(void *)l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t p) {
    layout_of(p, "a destroyed matrix")->magic = 0;
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *p, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        standin_stop("cublas: only COMPUTE_32F with a scale of 32F keeps whet's promises");
    Desc *d = calloc(1, sizeof *d);
    if (!d) return CUBLAS_STATUS_ALLOC_FAILED;
    *d = (Desc){DESC, compute, scale, CUBLAS_OP_N, CUBLAS_OP_N};
    *p = (cublasLtMatmulDesc_t)(void *)d;
    return CUBLAS_STATUS_SUCCESS;
}
static Desc *desc_of(cublasLtMatmulDesc_t p) {
    Desc *d = (Desc *)(void *)p;
    if (!d || d->magic != DESC) standin_stop("cublas: a descriptor that is none");
    return d;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t p) {
    desc_of(p)->magic = 0;
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t p, cublasLtMatmulDescAttributes_t a,
                                              const void *v, size_t size) {
    Desc *d = desc_of(p);
    if (a != CUBLASLT_MATMUL_DESC_TRANSA && a != CUBLASLT_MATMUL_DESC_TRANSB)
        standin_stop("cublas: attribute %d of a product is not known", (int)a);
    if (size != sizeof(int32_t)) return CUBLAS_STATUS_INVALID_VALUE;
    int32_t op;
    memcpy(&op, v, sizeof op);
    if (op != CUBLAS_OP_N && op != CUBLAS_OP_T) standin_stop("cublas: operation %d of a real matrix", op);
    if (a == CUBLASLT_MATMUL_DESC_TRANSA)
        d->a = (cublasOperation_t)op;
    else
        d->b = (cublasOperation_t)op;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    Wish *w = calloc(1, sizeof *w);
    if (!w) return CUBLAS_STATUS_ALLOC_FAILED;
    *w = (Wish){WISH, 0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}}; /* the documented defaults */
    *p = (cublasLtMatmulPreference_t)(void *)w;
    return CUBLAS_STATUS_SUCCESS;
}
static Wish *wish_of(cublasLtMatmulPreference_t p) {
    Wish *w = (Wish *)(void *)p;
    if (!w || w->magic != WISH) standin_stop("cublas: a preference that is none");
    return w;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    wish_of(p)->magic = 0;
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t a, const void *v,
                                                    size_t size) {
    Wish *w = wish_of(p);
    void *to;
    size_t want = 4;
    switch (a) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        to = &w->workspace, want = 8;
        break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        to = &w->schemes;
        break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        to = &w->align[0];
        break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        to = &w->align[1];
        break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        to = &w->align[2];
        break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        to = &w->align[3];
        break;
    default:
        standin_stop("cublas: preference %d is not known", (int)a);
    }
    if (size != want) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, v, want);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- a product's shapes ---- */

typedef struct {
    Desc d;
    Layout a, b, c, y;
    uint64_t m, n, k;
} Shapes;

static Shapes shapes_of(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                        cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t y) {
    Shapes s = {
        *desc_of(desc), *layout_of(a, "A"), *layout_of(b, "B"), *layout_of(c, "C"), *layout_of(y, "D"), 0, 0, 0};
    bool ta = s.d.a == CUBLAS_OP_T, tb = s.d.b == CUBLAS_OP_T;
    s.m = ta ? s.a.cols : s.a.rows, s.k = ta ? s.a.rows : s.a.cols, s.n = tb ? s.b.rows : s.b.cols;
    uint64_t kb = tb ? s.b.cols : s.b.rows;
    if (kb != s.k)
        standin_stop("cublas: op(A) has %llu columns, op(B) %llu rows", (unsigned long long)s.k,
                     (unsigned long long)kb);
    if (s.c.rows != s.m || s.c.cols != s.n || s.y.rows != s.m || s.y.cols != s.n)
        standin_stop("cublas: the product is %llu x %llu, C %llu x %llu, D %llu x %llu", (unsigned long long)s.m,
                     (unsigned long long)s.n, (unsigned long long)s.c.rows, (unsigned long long)s.c.cols,
                     (unsigned long long)s.y.rows, (unsigned long long)s.y.cols);
    bool types =
        s.a.type == s.b.type && s.c.type == s.y.type && (s.a.type == CUDA_R_16BF || s.y.type == CUDA_R_32F);
    if (!types)
        standin_stop("cublas: types A %d, B %d, C %d, D %d with COMPUTE_32F are not in the table", (int)s.a.type,
                     (int)s.b.type, (int)s.c.type, (int)s.y.type);
    return s;
}

static uint64_t spread(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    return x ^ x >> 27;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t y,
                                              cublasLtMatmulPreference_t wish, int most,
                                              cublasLtMatmulHeuristicResult_t *out, int *n) {
    check_handle(h);
    Shapes s = shapes_of(desc, a, b, c, y);
    const Wish *w = wish_of(wish);
    int order[ALGORITHMS], count = 0;
    uint64_t r = spread(s.m * 1000003 + s.n * 10007 + s.k + standin_seed());
    for (int i = 0; i < ALGORITHMS; i++) { /* any of them as often first as the others */
        int j = (int)(r % (uint64_t)(i + 1));
        r = spread(r + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < ALGORITHMS && count < most; i++) {
        Algo g = {.magic = ALGO,
                  .id = order[i],
                  .split = order[i] == SPLIT ? 4 : 1,
                  .m = (uint32_t)s.m,
                  .k = (uint32_t)s.k};
        g.workspace = order[i] == BLOCKED ? 4096 : order[i] == SPLIT ? 65536 : 0;
        g.in = (uint16_t)s.a.type, g.out = (uint16_t)s.y.type;
        memcpy(g.align, w->align, sizeof g.align);
        if (g.workspace > w->workspace || (g.split > 1 && w->schemes == CUBLASLT_REDUCTION_SCHEME_NONE)) continue;
        memset(&out[count], 0, sizeof out[count]);
        memcpy(&out[count].algo, &g, sizeof g);
        out[count].workspaceSize = g.workspace;
        out[count].state = CUBLAS_STATUS_SUCCESS;
        out[count++].wavesCount = 1;
    }
    if (s.m < 24 && s.m % 2) count = 0;
    *n = count;
    return count ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static Algo algo_of(const cublasLtMatmulAlgo_t *p) {
    Algo g;
    memcpy(&g, p, sizeof g);
    if (g.magic != ALGO) standin_stop("cublas: an algorithm that the heuristic did not give");
    return g;
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *p,
                                                    cublasLtMatmulAlgoConfigAttributes_t a, void *v, size_t size,
                                                    size_t *written) {
    Algo g = algo_of(p);
    int32_t value = 0;
    switch (a) {
    case CUBLASLT_ALGO_CONFIG_ID:
        value = g.id;
        break;
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM:
        value = g.split;
        break;
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME:
        value = g.split > 1 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : 0;
        break;
    case CUBLASLT_ALGO_CONFIG_TILE_ID:
        value = CUBLASLT_MATMUL_TILE_64x64;
        break;
    default:
        standin_stop("cublas: attribute %d of an algorithm is not known", (int)a);
    }
    if (size != sizeof value) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(v, &value, size);
    if (written) *written = size;
    return CUBLAS_STATUS_SUCCESS;
}
static bool fits(const Algo *g, const Shapes *s) {
    return g->m == s->m && g->k == s->k && g->in == (uint16_t)s->a.type && g->out == (uint16_t)s->y.type;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t h, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                       cublasLtMatrixLayout_t y, const cublasLtMatmulAlgo_t *p,
                                       cublasLtMatmulHeuristicResult_t *result) {
    check_handle(h);
    Shapes s = shapes_of(desc, a, b, c, y);
    Algo g = algo_of(p);
    if (!fits(&g, &s)) return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(result, 0, sizeof *result);
    result->algo = *p, result->workspaceSize = g.workspace;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ---- */

typedef struct {
    Shapes s;
    Algo g;
    float alpha, beta;
    const void *A, *B, *C;
    void *D, *workspace;
} Product;

static float number(const void *p, cudaDataType_t type, size_t i) {
    if (type == CUDA_R_32F) return ((const float *)p)[i];
    return f32_of((uint32_t)((const uint16_t *)p)[i] << 16);
}

/* All that is read is written, column by column; NULL where nothing is. */
static const void *matrix(const void *p, const Layout *l, const char *what) {
    size_t width = width_of(l->type);
    for (uint64_t c = 0; c < l->cols; c++)
        standin_device((const char *)p + c * (uint64_t)l->ld * width, l->rows * width, what, 1);
    return standin_device(p, (l->cols - 1) * (uint64_t)l->ld * width + l->rows * width, what, 0);
}

/* One column of D before alpha and beta: sum over k of A[k][i] b[k], in the order that the algorithm has. */
static void column(float *out, const float *A, const float *b, uint64_t m, uint64_t k, int order, float *part) {
    memset(out, 0, m * sizeof *out);
    if (order == BLOCKED || order == SPLIT) {
        uint64_t step = order == SPLIT ? (k + 3) / 4 : 32;
        for (uint64_t k0 = 0; k0 < k; k0 += step) {
            memset(part, 0, m * sizeof *part);
            for (uint64_t j = k0; j < k && j < k0 + step; j++)
                for (uint64_t i = 0; i < m; i++) part[i] += A[j * m + i] * b[j];
            for (uint64_t i = 0; i < m; i++) out[i] += part[i];
        }
        return;
    }
    uint64_t step = order == EVEN_ODD ? 2 : 1;
    for (uint64_t first = 0; first < step; first++)
        for (uint64_t j = first; j < k; j += step)
            for (uint64_t i = 0; i < m; i++) out[i] += A[j * m + i] * b[j];
}

static void product_run(void *payload) {
    Product *p = payload;
    const Shapes *s = &p->s;
    const void *A = matrix(p->A, &s->a, "a product's A"), *B = matrix(p->B, &s->b, "a product's B");
    const void *C = p->beta != 0 ? matrix(p->C, &s->c, "a product's C") : NULL;
    size_t width = width_of(s->y.type);
    if (p->g.workspace) standin_device(p->workspace, p->g.workspace, "a product's workspace", 0);
    float *a = malloc(s->k * s->m * sizeof *a), *b = malloc(s->k * sizeof *b),
          *out = malloc(2 * s->m * sizeof *out);
    if (!a || !b || !out) abort();
    for (uint64_t j = 0; j < s->k; j++)
        for (uint64_t i = 0; i < s->m; i++)
            a[j * s->m + i] = number(
                A, s->a.type, s->d.a == CUBLAS_OP_T ? i * (uint64_t)s->a.ld + j : j * (uint64_t)s->a.ld + i);
    int order = p->g.id == BY_ROWS ? s->n <= 64 ? ASCENDING : BLOCKED : p->g.id;
    for (uint64_t c = 0; c < s->n; c++) {
        for (uint64_t j = 0; j < s->k; j++)
            b[j] = number(B, s->b.type,
                          s->d.b == CUBLAS_OP_T ? j * (uint64_t)s->b.ld + c : c * (uint64_t)s->b.ld + j);
        column(out, a, b, s->m, s->k, order, out + s->m);
        void *d = standin_device((char *)p->D + c * (uint64_t)s->y.ld * width, s->m * width, "a product's D", 0);
        for (uint64_t i = 0; i < s->m; i++) {
            float v = p->alpha * out[i];
            if (C && s->y.type == CUDA_R_16BF) v = f32_of((uint32_t)bf16_round(v) << 16); /* as seen on an H200 */
            if (C) v += p->beta * number(C, s->c.type, c * (uint64_t)s->c.ld + i);
            if (s->y.type == CUDA_R_32F)
                ((float *)d)[i] = v;
            else
                ((uint16_t *)d)[i] = bf16_round(v);
        }
        standin_mark((char *)p->D + c * (uint64_t)s->y.ld * width, s->m * width);
    }
    free(a), free(b), free(out);
}

static void check_pointer(const void *p, const Layout *l, uint32_t align, const char *name) {
    if (!standin_is_device(p)) standin_stop("cublas: %s is not device memory", name);
    if ((uintptr_t)p % align)
        standin_stop("cublas: %s lies at %p, but was promised to be aligned to %u bytes", name, p, align);
    if (l->cols > 1 && (uint64_t)l->ld * width_of(l->type) % align)
        standin_stop("cublas: %s has a leading dimension of %lld, which breaks the promised alignment to %u bytes",
                     name, (long long)l->ld, align);
}

static bool overlap(const void *p, const Layout *l, const void *q, const Layout *k) {
    const char *a = p, *b = q;
    return a < b + k->cols * (uint64_t)k->ld * width_of(k->type) &&
           b < a + l->cols * (uint64_t)l->ld * width_of(l->type);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t desc, const void *alpha, const void *A,
                              cublasLtMatrixLayout_t a, const void *B, cublasLtMatrixLayout_t b, const void *beta,
                              const void *C, cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t y,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t bytes,
                              cudaStream_t stream) {
    check_handle(h);
    if (!algo)
        standin_stop("cublas: a product without an algorithm takes a heuristic one, which may change with the "
                     "number of rows");
    Product p = {.s = shapes_of(desc, a, b, c, y),
                 .g = algo_of(algo),
                 .A = A,
                 .B = B,
                 .C = C,
                 .D = D,
                 .workspace = workspace};
    if (standin_is_device(alpha) || standin_is_device(beta))
        standin_stop("cublas: alpha and beta are host memory in this pointer mode");
    memcpy(&p.alpha, alpha, sizeof p.alpha);
    memcpy(&p.beta, beta, sizeof p.beta);
    if (!fits(&p.g, &p.s)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.g.id == REFUSED) return standin_fail(cudaErrorInvalidConfiguration), CUBLAS_STATUS_NOT_SUPPORTED;
    check_pointer(A, &p.s.a, p.g.align[0], "A");
    check_pointer(B, &p.s.b, p.g.align[1], "B");
    if (p.beta != 0) check_pointer(C, &p.s.c, p.g.align[2], "C");
    check_pointer(D, &p.s.y, p.g.align[3], "D");
    if (p.g.workspace > bytes)
        standin_stop("cublas: the algorithm wants %u bytes of workspace and gets %zu", p.g.workspace, bytes);
    if (p.g.workspace && (!standin_is_device(workspace) || (uintptr_t)workspace % 16))
        standin_stop("cublas: the workspace is not aligned device memory");
    if (C == D && p.beta != 0 && p.s.c.ld != p.s.y.ld)
        standin_stop("cublas: C and D are one matrix with two leading dimensions");
    if (overlap(A, &p.s.a, D, &p.s.y) || overlap(B, &p.s.b, D, &p.s.y))
        standin_stop("cublas: D overlaps an operand");
    standin_queue(stream, product_run, &p, sizeof p);
    return CUBLAS_STATUS_SUCCESS;
}
