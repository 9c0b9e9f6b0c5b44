/* lt.c: products by cuBLASLt, which is loaded when a device is opened.
 *
 * kernels.h asks that a row's bits depend neither on the other rows nor on how many there are. So a product of
 * given columns and K has one algorithm, without split-K, chosen at its first use and kept: the first of the
 * library's suggestions that gives the same bits for a row in a batch of 32 and in one of 160, or where there is
 * none a kernel of our own. Rows go to the library in multiples of 32: the rest is a product of its own, of 32
 * rows of a workspace.
 *
 * Row-major y[M, N] is column-major [N, M]: y = x W^T is y' = W'^T x' there, and dx = dy W is dx' = W' dy'. */
#include "kernels/cuda/host.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUNCTIONS(F)                                                                                              \
    F(Create)                                                                                                     \
    F(Destroy)                                                                                                    \
    F(GetVersion)                                                                                                 \
    F(MatmulDescCreate)                                                                                           \
    F(MatmulDescDestroy)                                                                                          \
    F(MatmulDescSetAttribute)                                                                                     \
    F(MatrixLayoutCreate)                                                                                         \
    F(MatrixLayoutDestroy)                                                                                        \
    F(MatmulPreferenceCreate)                                                                                     \
    F(MatmulPreferenceDestroy)                                                                                    \
    F(MatmulPreferenceSetAttribute)                                                                               \
    F(MatmulAlgoGetHeuristic)                                                                                     \
    F(MatmulAlgoConfigGetAttribute)                                                                               \
    F(Matmul)

typedef struct { /* the algorithm of one kind of product */
    int m, k;    /* outputs of a row, summed numbers */
    DType in, out;
    bool back, add;
    bool own; /* none will do: the product is gemm.cu's */
    cublasLtMatmulAlgo_t algo;
} Choice;

struct Lt {
    void *library;
    cublasLtHandle_t handle;
    size_t version;
    int n_choices;
    Choice *choices;
#define FIELD(name) __typeof__(cublasLt##name) *name;
    FUNCTIONS(FIELD)
};

static void must(cublasStatus_t status, const char *what) {
    if (status != CUBLAS_STATUS_SUCCESS) die("cublasLt: %s: status %d", what, (int)status);
}

int lt_version(const Lt *lt) { return (int)lt->version; }

/* Where the library lies when the loader does not know: beside a toolkit, in Python's packages (nvidia-cublas). */
static const char *const places[] = {
    "$CUDA_HOME/lib64",      "$CUDA_PATH/lib64",
    "/usr/local/cuda/lib64", "/usr/local/cuda-1[23]*/lib64",
    "/opt/cuda/lib64",       "$VIRTUAL_ENV/lib/python3*/site-packages/nvidia/*/lib",
    "$CONDA_PREFIX/lib",     "$CONDA_PREFIX/lib/python3*/site-packages/nvidia/*/lib"};

static void *library_at(const char *place, const char *name) {
    const char *rest = strchr(place, '/'), *root = "";
    if (*place == '$') {
        char variable[32];
        snprintf(variable, sizeof variable, "%.*s", (int)(rest - place - 1), place + 1);
        if (!(root = getenv(variable)) || !*root) return NULL;
    }
    Buf pattern = {0};
    buf_format(&pattern, "%s%s/%s", root, rest, name);
    glob_t found;
    void *library = NULL;
    if (glob(pattern.p, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc && !library; i++)
            library = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
    globfree(&found);
    buf_free(&pattern);
    return library;
}

static void *library_open(void) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    void *library = NULL;
    for (size_t i = 0; i < 2 && !library; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        for (size_t k = 0; k < sizeof places / sizeof *places && !library; k++)
            library = library_at(places[k], names[i]);
    }
    return library;
}

Lt *lt_open(Err *err) {
    Lt *lt = MEM_NEW(Lt);
    lt->library = library_open();
    bool all = lt->library != NULL;
#define LOAD(name)                                                                                                \
    if (all) *(void **)(void *)&lt->name = dlsym(lt->library, "cublasLt" #name), all = lt->name != NULL;
    FUNCTIONS(LOAD)
    if (!all)
        err_set(err,
                "device cuda: libcublasLt.so.13 (or .12) was not found or is too old: install the CUDA toolkit's "
                "cuBLAS, or PyPI's nvidia-cublas with its folder in LD_LIBRARY_PATH, or use device cpu");
    else if (lt->Create(&lt->handle) != CUBLAS_STATUS_SUCCESS)
        all = err_set(err, "device cuda: cublasLt cannot be opened on this GPU");
    if (all) {
        lt->version = lt->GetVersion();
        return lt;
    }
    if (lt->library) dlclose(lt->library);
    free(lt);
    return NULL;
}

void lt_close(Lt *lt) {
    lt->Destroy(lt->handle);
    dlclose(lt->library);
    free(lt->choices);
    free(lt);
}

/* ---- one call of the library ---- */

typedef struct {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, c, y;
} Call;

static cudaDataType_t data_type(DType type) { return type == K_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

/* A product's operands, all as the library wants them: 16 bytes aligned, rows a multiple of 32. */
typedef struct {
    Ten y, x, w, c; /* c: what is added, in y's type, or TEN_NONE; may be y */
    bool back;      /* x times w instead of times w^T */
} Operands;

static int outputs_of(const Operands *o) { return o->y.cols; }
static int summed_of(const Operands *o) { return o->x.cols; }

static Call call_open(Lt *lt, const Operands *o) {
    Call call = {0};
    cublasOperation_t turn = o->back ? CUBLAS_OP_N : CUBLAS_OP_T;
    uint64_t m = (uint64_t)outputs_of(o), n = (uint64_t)o->x.rows, k = (uint64_t)summed_of(o);
    Ten c = ten_is(o->c) ? o->c : o->y;
    must(lt->MatmulDescCreate(&call.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product");
    must(lt->MatmulDescSetAttribute(call.desc, CUBLASLT_MATMUL_DESC_TRANSA, &turn, sizeof turn), "product");
    must(lt->MatrixLayoutCreate(&call.w, data_type(o->w.type), o->back ? m : k, o->back ? k : m, o->w.stride),
         "layout");
    must(lt->MatrixLayoutCreate(&call.x, data_type(o->x.type), k, n, o->x.stride), "layout");
    must(lt->MatrixLayoutCreate(&call.c, data_type(c.type), m, n, c.stride), "layout");
    must(lt->MatrixLayoutCreate(&call.y, data_type(o->y.type), m, n, o->y.stride), "layout");
    return call;
}

static void call_close(Lt *lt, Call *call) {
    lt->MatrixLayoutDestroy(call->w), lt->MatrixLayoutDestroy(call->x);
    lt->MatrixLayoutDestroy(call->c), lt->MatrixLayoutDestroy(call->y);
    lt->MatmulDescDestroy(call->desc);
}

static cublasStatus_t run(Dev *dev, const Operands *o, const cublasLtMatmulAlgo_t *algo) {
    Lt *lt = dev->cuda->lt;
    Call call = call_open(lt, o);
    const float one = 1, beta = ten_is(o->c) ? 1 : 0;
    void *workspace = dev_scratch(dev, WS_LT, LT_WORKSPACE);
    cublasStatus_t status = lt->Matmul(lt->handle, call.desc, &one, o->w.p, call.w, o->x.p, call.x, &beta,
                                       ten_is(o->c) ? o->c.p : o->y.p, call.c, o->y.p, call.y, algo, workspace,
                                       LT_WORKSPACE, dev->cuda->stream);
    call_close(lt, &call);
    if (status != CUBLAS_STATUS_SUCCESS)
        cudaGetLastError(); /* it may leave one, which no launch of ours has made */
    return status;
}

/* ---- the choice of an algorithm ---- */

enum { CANDIDATES = 16, CHECK_FEW = 32 };

static int suggestions(Lt *lt, const Operands *o, cublasLtMatmulHeuristicResult_t found[CANDIDATES]) {
    Call call = call_open(lt, o);
    cublasLtMatmulPreference_t wish;
    size_t bytes = LT_WORKSPACE;
    uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE, align = 16;
    int n = 0;
    must(lt->MatmulPreferenceCreate(&wish), "preference");
    must(lt->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes),
         "wish");
    must(
        lt->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme, sizeof scheme),
        "wish");
    for (int i = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; i <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; i++)
        must(lt->MatmulPreferenceSetAttribute(wish, (cublasLtMatmulPreferenceAttributes_t)i, &align, sizeof align),
             "wish");
    if (lt->MatmulAlgoGetHeuristic(lt->handle, call.desc, call.w, call.x, call.c, call.y, wish, CANDIDATES, found,
                                   &n) != CUBLAS_STATUS_SUCCESS)
        n = 0;
    lt->MatmulPreferenceDestroy(wish);
    call_close(lt, &call);
    return n;
}

static bool splits(Lt *lt, const cublasLtMatmulAlgo_t *algo) {
    int32_t n = 1;
    size_t size;
    return lt->MatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &n, sizeof n, &size) ==
               CUBLAS_STATUS_SUCCESS &&
           n > 1;
}

static Ten rows_of(Ten t, int first, int n) { return ten_is(t) ? ten_rows(t, first, n) : t; }

/* Whether the first and the last 32 of 160 rows have the bits that they have alone. */
static bool same_bits(Dev *dev, const Operands *o, const cublasLtMatmulAlgo_t *algo) {
    size_t row = (size_t)o->y.cols * dtype_size(o->y.type);
    char *all = mem_alloc(CHECK_ROWS, row), *few = mem_alloc(CHECK_FEW, row);
    bool good = run(dev, o, algo) == CUBLAS_STATUS_SUCCESS;
    if (good) dev->ops->get(dev, all, o->y);
    for (int first = 0; good && first < CHECK_ROWS; first += CHECK_ROWS - CHECK_FEW) {
        Operands part = *o;
        part.x = ten_rows(o->x, first, CHECK_FEW), part.y = ten_rows(o->y, first, CHECK_FEW);
        part.c = rows_of(o->c, first, CHECK_FEW);
        good = run(dev, &part, algo) == CUBLAS_STATUS_SUCCESS;
        if (!good) break;
        dev->ops->get(dev, few, part.y);
        good = memcmp(all + (size_t)first * row, few, CHECK_FEW * row) == 0;
    }
    free(all), free(few);
    return good;
}

/* One operand of the check, of `rows` x `cols` with the summed numbers along a row or a column. Of the terms of
 * each sum, of very different sizes, the last is what the first is, with the other sign, and so on inwards: what
 * comes out is nothing but the roundings on the way, so that no rounding of the result hides another order. */
static Ten check_ten(Dev *dev, int rows, int cols, DType type, int summed, bool along_column, bool turns) {
    Ten t = dev->ops->mem_new(dev, rows, cols, type);
    if (!t.p) die("out of memory: %d x %d numbers to check a product's algorithm", rows, cols);
    char *host = mem_alloc((size_t)rows * (size_t)cols, dtype_size(type));
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            int k = along_column ? i : j, mirror = summed - 1 - k;
            Rng rng = {1 + (uint64_t)(along_column ? j : i), (uint64_t)(k < mirror ? k : mirror) * 2};
            float x = 0;
            if (mirror >= 0 && k != mirror) x = (float)ldexp(2 * rng_uniform(&rng) - 1, (int)rng_below(&rng, 9));
            if (turns && k > mirror) x = -x;
            uint32_t u;
            memcpy(&u, &x, sizeof u);
            uint16_t high = (uint16_t)(u >> 16); /* a bf16 near x */
            memcpy(host + ((size_t)i * (size_t)cols + (size_t)j) * dtype_size(type),
                   type == K_BF16 ? (void *)&high : (void *)&x, dtype_size(type));
        }
    dev->ops->put(dev, t, host);
    free(host);
    return t;
}

static void choose(Dev *dev, const Operands *wanted, Choice *choice) {
    Lt *lt = dev->cuda->lt;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    Operands typical = *wanted;
    typical.x.rows = typical.y.rows = 256; /* between decoding and training: only shapes are read */
    int n = suggestions(lt, &typical, found), picked = -1, wide = MAT_ALIGN(wanted->y.cols);
    int summed = summed_of(wanted);
    Ten x = check_ten(dev, CHECK_ROWS, summed, wanted->x.type, summed, false, true);
    /* Not the weights themselves: where they are 0, as a new adapter's, every algorithm gives the same bits. */
    Ten w = check_ten(dev, wanted->w.rows, wanted->w.stride, wanted->w.type, summed, wanted->back, false);
    Ten y = dev->ops->mem_new(dev, CHECK_ROWS, wide, wanted->y.type);
    Ten c = dev->ops->mem_new(dev, CHECK_ROWS, ten_is(wanted->c) ? wide : 8, wanted->y.type); /* zeros */
    if (!y.p || !c.p) die("out of memory: %d x %d numbers to check a product's algorithm", CHECK_ROWS, wide);
    Operands o = {.x = x, .w = ten_cols(w, 0, wanted->w.cols), .y = ten_cols(y, 0, wanted->y.cols)};
    o.back = wanted->back;
    if (ten_is(wanted->c)) o.c = ten_cols(c, 0, wanted->y.cols);
    for (int i = 0; i < n && picked < 0; i++)
        if (!splits(lt, &found[i].algo) && same_bits(dev, &o, &found[i].algo)) picked = i;
    dev->ops->mem_free(dev, x), dev->ops->mem_free(dev, y), dev->ops->mem_free(dev, c), dev->ops->mem_free(dev, w);
    if (picked < 0)
        fprintf(stderr,
                "whet: of cublasLt's %d algorithms for %d outputs of %d numbers none gives a row the same bits in "
                "every "
                "batch: a slower kernel of whet's takes its place\n",
                n, wanted->y.cols, summed);
    choice->own = picked < 0;
    if (picked >= 0) choice->algo = found[picked].algo;
}

static const Choice *choice_for(Dev *dev, const Operands *o) {
    Lt *lt = dev->cuda->lt;
    Choice want = {.m = outputs_of(o), .k = summed_of(o), .in = o->x.type, .out = o->y.type, .back = o->back};
    want.add = ten_is(o->c);
    for (int i = 0; i < lt->n_choices; i++) {
        const Choice *c = &lt->choices[i];
        if (c->m == want.m && c->k == want.k && c->in == want.in && c->out == want.out && c->back == want.back &&
            c->add == want.add)
            return c;
    }
    choose(dev, o, &want);
    lt->choices = mem_grow(lt->choices, (size_t)lt->n_choices + 1, sizeof *lt->choices);
    lt->choices[lt->n_choices] = want;
    return &lt->choices[lt->n_choices++];
}

/* ---- products of tensors as they lie ---- */

static bool aligned(Ten t) { return (uintptr_t)t.p % 16 == 0 && (size_t)t.stride * dtype_size(t.type) % 16 == 0; }

static void product_now(Dev *dev, const Operands *o) {
    const Choice *choice = choice_for(dev, o);
    if (choice->own)
        cu_product(dev->cuda->stream, o->y, o->x, o->w, o->c, o->back);
    else
        must(run(dev, o, &choice->algo), "product");
}

/* Some rows by way of workspaces: their number rounded up to 32, columns to 8, all aligned, x padded to k numbers.
 */
static void product_copied(Dev *dev, const Operands *o, int k) {
    cudaStream_t s = dev->cuda->stream;
    int rows = (o->y.rows + 31) / 32 * 32;
    Operands p = *o;
    p.x = scratch_ten(dev, WS_LEFT, rows, k, o->x.type);
    Ten out = scratch_ten(dev, WS_OUT, rows, MAT_ALIGN(o->y.cols), o->y.type);
    p.y = ten_cols(out, 0, o->y.cols);
    cu_pack(s, p.x, o->x);
    if (ten_is(o->c)) {
        cu_pack(s, out, o->c);
        p.c = p.y;
    }
    product_now(dev, &p);
    cu_pair(s, PAIR_SET, o->y, ten_rows(p.y, 0, o->y.rows), 1);
}

/* Rows that lie well go as they are, those that are left (or all) by copies. */
static void product_rows(Dev *dev, const Operands *o, int k) {
    int m = o->y.rows, whole = m / 32 * 32;
    if (o->x.cols != k || !aligned(o->x) || !aligned(o->y) || (ten_is(o->c) && !aligned(o->c))) whole = 0;
    for (int row = 0, n; row < m; row += n) {
        n = row < whole ? whole : m - row < PRODUCT_ROWS ? m - row : PRODUCT_ROWS;
        Operands part = *o;
        part.x = ten_rows(o->x, row, n), part.y = ten_rows(o->y, row, n), part.c = rows_of(o->c, row, n);
        if (row < whole)
            product_now(dev, &part);
        else
            product_copied(dev, &part, k);
    }
}

/* The sum in fp32, then bias and residual, rounded once: where the library would round in between (also before it
 * adds C), or cannot. */
static void product_finished(Dev *dev, const Operands *o, int k, Ten bias) {
    for (int row = 0; row < o->y.rows; row += HEAD_ROWS) {
        int n = o->y.rows - row < HEAD_ROWS ? o->y.rows - row : HEAD_ROWS;
        Ten full = scratch_ten(dev, WS_DZ, n, MAT_ALIGN(o->y.cols), K_REAL), sum = ten_cols(full, 0, o->y.cols);
        Operands part = {.y = sum, .x = ten_rows(o->x, row, n), .w = o->w, .back = o->back};
        product_rows(dev, &part, k);
        cu_bias(dev->cuda->stream, ten_rows(o->y, row, n), sum, bias, rows_of(o->c, row, n));
    }
}

/* The route depends on types alone: never on the number of rows. */
static void product_any(Dev *dev, const Operands *o, int k, Ten bias) {
    bool finish = o->y.type == K_BF16 && (ten_is(bias) || ten_is(o->c) || o->w.type == K_REAL);
    if (ten_is(o->c) && o->c.type != o->y.type) finish = true;
    if (finish) {
        product_finished(dev, o, k, bias);
        return;
    }
    product_rows(dev, o, k);
    if (ten_is(bias)) cu_bias(dev->cuda->stream, o->y, o->y, bias, TEN_NONE);
}

static Ten cols_of(Ten t, int first, int n) { return ten_is(t) ? ten_cols(t, first, n) : t; }

void product(Dev *dev, Ten y, Ten x, const Mat *w, int col0, int n, Ten bias, Ten residual) {
    for (int col = 0; col < n; col += PRODUCT_COLS) {
        int wide = n - col < PRODUCT_COLS ? n - col : PRODUCT_COLS;
        Operands o = {.y = ten_cols(y, col, wide), .x = x, .w = ten_rows(mat_view(w), col0 + col, wide)};
        o.c = cols_of(residual, col, wide);
        product_any(dev, &o, MAT_ALIGN(w->k), cols_of(bias, col, wide));
    }
}

void product_back(Dev *dev, Ten dx, Ten dy, const Mat *w, int row0, int n, Ten residual) {
    for (int col = 0; col < w->k; col += PRODUCT_COLS) {
        int wide = w->k - col < PRODUCT_COLS ? w->k - col : PRODUCT_COLS;
        Ten rows = ten_rows(mat_view(w), row0, MAT_ALIGN(n));
        Operands o = {.y = ten_cols(dx, col, wide), .x = dy, .w = ten_cols(rows, col, wide), .back = true};
        o.c = cols_of(residual, col, wide);
        product_any(dev, &o, MAT_ALIGN(n), TEN_NONE);
    }
}

/* The kernel reads 16 bytes at once. */
void product_dw(Dev *dev, Ten dw, Ten dy, Ten x, bool fresh) {
    cudaStream_t s = dev->cuda->stream;
    if (dy.type != K_BF16 || (aligned(dy) && aligned(x))) {
        cu_dw(s, dw, dy, x, fresh);
        return;
    }
    if (fresh && dy.rows == 0) dev->ops->zero(dev, dw);
    for (int row = 0; row < dy.rows; row += PRODUCT_ROWS) { /* the chain goes on */
        int n = dy.rows - row < PRODUCT_ROWS ? dy.rows - row : PRODUCT_ROWS;
        Ten a = scratch_ten(dev, WS_LEFT, n, MAT_ALIGN(dy.cols), dy.type);
        Ten b = scratch_ten(dev, WS_OUT, n, MAT_ALIGN(x.cols), x.type);
        cu_pack(s, a, ten_rows(dy, row, n));
        cu_pack(s, b, ten_rows(x, row, n));
        cu_dw(s, dw, ten_cols(a, 0, dy.cols), ten_cols(b, 0, x.cols), fresh && row == 0);
    }
}

/* Of square products that grow until they take long enough to be timed. */
double lt_flops(Dev *dev) {
    for (int n = 256;; n *= 2) {
        Ten a = dev->ops->mem_new(dev, n, n, K_BF16), b = dev->ops->mem_new(dev, n, n, K_BF16);
        Ten c = dev->ops->mem_new(dev, n, n, K_BF16);
        double seconds = 0;
        if (a.p && b.p && c.p) {
            Operands o = {.y = c, .x = a, .w = b};
            product_now(dev, &o);
            dev->ops->sync(dev);
            double began = clock_seconds();
            for (int i = 0; i < 4; i++) product_now(dev, &o);
            dev->ops->sync(dev);
            seconds = clock_seconds() - began;
        }
        Ten all[] = {a, b, c};
        for (int i = 0; i < 3; i++)
            if (all[i].p) dev->ops->mem_free(dev, all[i]);
        if (seconds == 0) return 0;
        if (seconds > 0.004 || n >= 8192) return 4 * 2.0 * n * n * n / seconds;
    }
}
