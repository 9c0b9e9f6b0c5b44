/* test_standin_cublaslt.c: the stand-in for cuBLASLt: found by dlopen under the library's name, right on every
 * form of product, with algorithms that differ as real ones do, and each of its checks provoked in a child
 * process. */
#include "tests/standin_help.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <math.h>

#define FUNCTIONS(F)                                                                                              \
    F(Create)                                                                                                     \
    F(Destroy)                                                                                                    \
    F(GetVersion) F(MatmulDescCreate) F(MatmulDescDestroy) F(MatmulDescSetAttribute) F(MatrixLayoutCreate)        \
        F(MatrixLayoutDestroy) F(MatmulPreferenceCreate) F(MatmulPreferenceDestroy)                               \
            F(MatmulPreferenceSetAttribute) F(MatmulAlgoGetHeuristic) F(MatmulAlgoConfigGetAttribute)             \
                F(MatmulAlgoCheck) F(Matmul)
static struct {
#define FIELD(name) __typeof__(cublasLt##name) *name;
    FUNCTIONS(FIELD)
} lt;
static cublasLtHandle_t handle;

static int setup(void **state) {
    (void)state;
    standin_open();
    void *library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!library) return -1;
#define LOAD(name) *(void **)(void *)&lt.name = dlsym(library, "cublasLt" #name);
    FUNCTIONS(LOAD)
    return !lt.Matmul || lt.GetVersion() < 130000 || lt.Create(&handle) != CUBLAS_STATUS_SUCCESS;
}

/* A product in the terms of the library, column-major; what a test does wrong it changes here. */
typedef struct {
    int m, n, k;
    cublasOperation_t a, b;
    cudaDataType_t in, out;
    int lda, ldb, ldc, ldd;
    float alpha, beta;
    int pick;               /* of the heuristic's suggestions */
    size_t workspace, wish; /* given, allowed to the heuristic */
    int shift;              /* bytes that A lies further on */
    uint32_t align;
    bool host;      /* B in host memory */
    bool unwritten; /* B */
    int a_rows;     /* more rows that A's layout claims */
    bool in_place;  /* D is A */
} Problem;

static Problem problem(int m, int n, int k) {
    return (Problem){m, n, k, CUBLAS_OP_T, CUBLAS_OP_N, CUDA_R_16BF, CUDA_R_32F, k,     k,     m, m,
                     1, 0, 0, 1 << 20,     1 << 20,     0,           16,         false, false, 0, false};
}

static float value(uint64_t seed, int i, int j) { /* a bf16 */
    uint32_t b = (uint32_t)(rng_mix(seed, (uint64_t)i << 32 | (uint32_t)j) >> 32);
    float x = (float)(int32_t)b * 0x1p-31f;
    memcpy(&b, &x, 4);
    b &= 0xffff0000u;
    memcpy(&x, &b, 4);
    return x;
}

/* Column-major rows x cols with its leading dimension; between the columns nobody wrote. */
static char *matrix(int rows, int cols, int ld, cudaDataType_t type, uint64_t seed, bool written) {
    size_t width = type == CUDA_R_32F ? 4 : 2,
           bytes = ((size_t)(cols - 1) * (size_t)ld + (size_t)rows) * width + 64;
    void *p;
    assert_int_equal(cudaMalloc(&p, bytes), cudaSuccess);
    float column[512];
    uint16_t narrow[512];
    for (int j = 0; written && j < cols; j++) {
        for (int i = 0; i < rows; i++) {
            uint32_t b;
            column[i] = value(seed, i, j);
            memcpy(&b, &column[i], 4);
            narrow[i] = (uint16_t)(b >> 16);
        }
        cudaMemcpy((char *)p + (size_t)j * (size_t)ld * width, width == 4 ? (void *)column : (void *)narrow,
                   (size_t)rows * width, cudaMemcpyHostToDevice);
    }
    return p;
}

static cublasStatus_t multiply(const Problem *p, float *out, int *algorithm) {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t la, lb, lc, ld;
    int ta = p->a == CUBLAS_OP_T, tb = p->b == CUBLAS_OP_T;
    assert_int_equal(lt.MatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
    lt.MatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &p->a, sizeof p->a);
    lt.MatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &p->b, sizeof p->b);
    lt.MatrixLayoutCreate(&la, p->in, (uint64_t)((ta ? p->k : p->m) + p->a_rows), (uint64_t)(ta ? p->m : p->k),
                          p->lda);
    lt.MatrixLayoutCreate(&lb, p->in, (uint64_t)(tb ? p->n : p->k), (uint64_t)(tb ? p->k : p->n), p->ldb);
    lt.MatrixLayoutCreate(&lc, p->out, (uint64_t)p->m, (uint64_t)p->n, p->ldc);
    lt.MatrixLayoutCreate(&ld, p->out, (uint64_t)p->m, (uint64_t)p->n, p->ldd);
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulHeuristicResult_t found[16];
    int n = 0;
    lt.MatmulPreferenceCreate(&wish);
    lt.MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &p->wish, sizeof p->wish);
    for (int i = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; i <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; i++)
        lt.MatmulPreferenceSetAttribute(wish, (cublasLtMatmulPreferenceAttributes_t)i, &p->align, sizeof p->align);
    assert_int_equal(lt.MatmulAlgoGetHeuristic(handle, desc, la, lb, lc, ld, wish, 16, found, &n),
                     CUBLAS_STATUS_SUCCESS);
    if (p->pick >= n) {
        lt.MatrixLayoutDestroy(la), lt.MatrixLayoutDestroy(lb), lt.MatrixLayoutDestroy(lc),
            lt.MatrixLayoutDestroy(ld);
        lt.MatmulPreferenceDestroy(wish), lt.MatmulDescDestroy(desc);
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    size_t size;
    lt.MatmulAlgoConfigGetAttribute(&found[p->pick].algo, CUBLASLT_ALGO_CONFIG_ID, algorithm, sizeof *algorithm,
                                    &size);
    char *A = matrix(ta ? p->k : p->m, ta ? p->m : p->k, p->lda, p->in, 1, true),
         *B = matrix(tb ? p->n : p->k, tb ? p->k : p->n, p->ldb, p->in, 2, !p->unwritten);
    char *C = matrix(p->m, p->n, p->ldc, p->out, 3, true), *D = matrix(p->m, p->n, p->ldd, p->out, 4, false);
    void *workspace = NULL;
    if (p->workspace) cudaMalloc(&workspace, p->workspace);
    static float host[512 * 64];
    cublasStatus_t status =
        lt.Matmul(handle, desc, &p->alpha, A + p->shift, la, p->host ? (char *)host : B, lb, &p->beta, C, lc,
                  p->in_place ? A : D, ld, &found[p->pick].algo, workspace, p->workspace, NULL);
    for (int j = 0; status == CUBLAS_STATUS_SUCCESS && j < p->n; j++) {
        size_t width = p->out == CUDA_R_32F ? 4 : 2;
        uint16_t narrow[512];
        cudaMemcpy(width == 4 ? (void *)(out + j * p->m) : (void *)narrow, D + (size_t)j * (size_t)p->ldd * width,
                   (size_t)p->m * width, cudaMemcpyDeviceToHost);
        for (int i = 0; width == 2 && i < p->m; i++) {
            uint32_t b = (uint32_t)narrow[i] << 16;
            memcpy(&out[j * p->m + i], &b, 4);
        }
    }
    cudaFree(A), cudaFree(B), cudaFree(C), cudaFree(D), cudaFree(workspace);
    lt.MatrixLayoutDestroy(la), lt.MatrixLayoutDestroy(lb), lt.MatrixLayoutDestroy(lc), lt.MatrixLayoutDestroy(ld);
    lt.MatmulPreferenceDestroy(wish), lt.MatmulDescDestroy(desc);
    return status;
}

static float out[512 * 64], again[512 * 64];

/* The first suggestion that is not refused. */
static cublasStatus_t multiply_any(Problem *p, int *algorithm) {
    cublasStatus_t status = multiply(p, out, algorithm);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) return status;
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    p->pick++;
    return multiply(p, out, algorithm);
}

/* In bf16 the sum is rounded before C is added and again after, as by the real library: some results are farther off
 * than one rounding. */
static void test_products(void **state) {
    (void)state;
    int far = 0;
    for (int form = 0; form < 32; form++) {
        Problem p = problem(24, 9, 40);
        int algorithm;
        p.a = form & 1 ? CUBLAS_OP_T : CUBLAS_OP_N, p.b = form & 2 ? CUBLAS_OP_T : CUBLAS_OP_N;
        p.out = form & 4 ? CUDA_R_32F : CUDA_R_16BF;
        p.beta = form & 8 ? 1 : 0, p.alpha = form & 8 ? 2 : 1;
        if (form & 16) p.in = p.out = CUDA_R_32F;
        p.lda = (p.a == CUBLAS_OP_T ? p.k : p.m) + 8, p.ldb = (p.b == CUBLAS_OP_T ? 16 : p.k) + 16,
        p.ldc = p.m + 8, p.ldd = p.m;
        assert_int_equal(multiply_any(&p, &algorithm), CUBLAS_STATUS_SUCCESS);
        for (int i = 0; i < p.m; i++)
            for (int j = 0; j < p.n; j++) {
                double sum = 0, c = p.beta * value(3, i, j);
                for (int k = 0; k < p.k; k++)
                    sum += p.alpha * (double)(p.a == CUBLAS_OP_T ? value(1, k, i) : value(1, i, k)) *
                            (p.b == CUBLAS_OP_T ? value(2, j, k) : value(2, k, j));
                double once = p.out == CUDA_R_32F ? 1e-5 : 0.004 * fabs(sum + c) + 1e-5;
                double twice = p.out != CUDA_R_32F && c != 0 ? once + 0.004 * fabs(sum) : once;
                double wrong = fabs(out[j * p.m + i] - (sum + c));
                if (wrong > twice) fail_msg("form %d: %g, not %g", form, out[j * p.m + i], sum + c);
                far += wrong > once;
            }
    }
    assert_true(far > 0);
}

/* Suggestions differ in bits, their order changes with the rows; one gives a row other bits among many rows. */
static void test_algorithms(void **state) {
    (void)state;
    int firsts = 0, seen = 0, unstable = 0;
    for (int n = 1; n < 60; n++) {
        Problem p = problem(8, n, 304);
        int algorithm = -1;
        assert_int_equal(multiply_any(&p, &algorithm), CUBLAS_STATUS_SUCCESS);
        firsts |= 1 << algorithm;
    }
    assert_true(firsts & (firsts - 1));
    for (int few = 0; few < 16; few++)
        for (int many = 0; many < 16; many++) {
            int a = -1, b = -1;
            Problem p = problem(8, 32, 304), q = problem(8, 160, 304);
            p.pick = few, q.pick = many;
            if (multiply(&p, out, &a) || multiply(&q, again, &b)) continue;
            bool same = memcmp(out, again, 8 * 32 * 4) == 0;
            if (a == b)
                seen++, unstable += !same;
            else if (a < 3 && b < 3)
                assert_false(same);
        }
    assert_int_equal(seen, 5);
    assert_int_equal(unstable, 1);
}

static int unused;
static void small_ld(void) {
    Problem p = problem(24, 9, 40);
    p.lda = 32;
    multiply(&p, out, &unused);
}
static void odd_ld(void) {
    Problem p = problem(24, 9, 40);
    p.ldb = 41;
    multiply(&p, out, &unused);
}
static void ld_of_other(void) {
    Problem p = problem(24, 9, 40);
    p.lda = 64, p.ldd = 48;
    multiply(&p, out, &unused);
    p.ldd = 16, multiply(&p, out, &unused);
}
static void transposed(void) {
    Problem p = problem(24, 9, 40);
    p.a_rows = 8, p.lda = 48;
    multiply(&p, out, &unused);
}
static void mixed_types(void) {
    Problem p = problem(24, 9, 40);
    p.in = CUDA_R_32F, p.out = CUDA_R_16BF;
    multiply(&p, out, &unused);
}
static void unaligned(void) {
    Problem p = problem(24, 9, 40);
    p.shift = 8;
    multiply(&p, out, &unused);
}
static void past_the_end(void) {
    Problem p = problem(24, 9, 40);
    p.shift = 128;
    multiply(&p, out, &unused);
}
static void host_operand(void) {
    Problem p = problem(24, 9, 40);
    p.host = true;
    multiply(&p, out, &unused);
}
static void unwritten(void) {
    Problem p = problem(24, 9, 40);
    p.unwritten = true;
    multiply(&p, out, &unused);
}
static void no_workspace(void) {
    for (int i = 0; i < 6; i++) {
        Problem p = problem(24, 9, 40);
        p.pick = i, p.workspace = 0;
        multiply(&p, out, &unused);
    }
}
static void overlapping(void) {
    Problem p = problem(40, 40, 40);
    p.in = CUDA_R_32F;
    p.in_place = true;
    multiply(&p, out, &unused);
}
static void fast_compute(void) {
    cublasLtMatmulDesc_t d;
    lt.MatmulDescCreate(&d, CUBLAS_COMPUTE_32F_FAST_16BF, CUDA_R_32F);
}
static void no_algorithm(void) {
    cublasLtMatmulAlgo_t none = {{0}};
    size_t size;
    lt.MatmulAlgoConfigGetAttribute(&none, CUBLASLT_ALGO_CONFIG_ID, &unused, sizeof unused, &size);
}

static const Fault faults[] = {
    {small_ld, "leading dimension 32 of a matrix of 40 rows"},
    {odd_ld, "B has a leading dimension of 41, which breaks the promised alignment"},
    {ld_of_other, "leading dimension 16 of a matrix of 24 rows"},
    {transposed, "op(A) has 48 columns, op(B) 40 rows"},
    {mixed_types, "are not in the table"},
    {unaligned, "A lies at"},
    {past_the_end, "uninit-global: a product's A reads"},
    {host_operand, "B is not device memory"},
    {unwritten, "uninit-global: a product's B reads"},
    {no_workspace, "of workspace and gets 0"},
    {overlapping, "D overlaps an operand"},
    {fast_compute, "only COMPUTE_32F"},
    {no_algorithm, "an algorithm that the heuristic did not give"},
};

static void test_faults(void **state) {
    (void)state;
    faults_are_found(faults, sizeof faults / sizeof *faults);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_products), cmocka_unit_test(test_algorithms),
                                       cmocka_unit_test(test_faults)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
