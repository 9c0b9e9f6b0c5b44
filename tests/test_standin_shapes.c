/* test_standin_shapes.c: the kernels of the CUDA back at the shapes of a layer of a 135M model, once each, on the
 * stand-in. Its results are compared elsewhere (test_cuda_ops.c); here the interpreter counts instructions,
 * sectors and bank conflicts, for the model of speed (tests/ptx/table.py), and every opcode of the PTX is known.
 */
#include "tests/ptx_help.h"

#include <dirent.h>

#include "kernels/kernels.h"
#include "tests/ptx/standin.h"

enum { M = 128, D = 576, H = 9, G = 3, E = 64, F = 1536, V = 4096, T = 16 };

static Dev *dev;
static Err err;

static Ten filled(int rows, int cols, DType type) {
    Ten t = k_new(dev, rows, cols, type, &err), real_t = k_new(dev, rows, cols, K_REAL, &err);
    assert_non_null(t.p);
    float *host = malloc((size_t)rows * (size_t)cols * sizeof *host);
    Rng rng = {(uint64_t)rows * 7919 + (uint64_t)cols, 0};
    for (int i = 0; i < rows * cols; i++) host[i] = (float)rng_normal(&rng);
    k_put(dev, real_t, host);
    k_copy(dev, t, real_t);
    free(host);
    k_free(dev, &real_t);
    return t;
}

static void attention(void) {
    int pos[M], page[M], table[M / KV_PAGE], tok[M] = {0};
    for (int i = 0; i < M; i++) pos[i] = i, page[i] = i / KV_PAGE;
    for (int i = 0; i < M / KV_PAGE; i++) table[i] = i;
    KvSpan span = {.n = M};
    Rows rows = {.m = M, .tok = tok, .pos = pos, .page = page, .n_spans = 1, .spans = &span, .table = table};
    Kv kv = k_kv_new(dev, M / KV_PAGE, 1, G, E, K_BF16, false, &err),
       dkv = k_kv_new(dev, M / KV_PAGE, 1, G, E, K_REAL, true, &err);
    Ten qkv = filled(M, (H + 2 * G) * E, K_REAL), q = k_new(dev, M, H * E, K_BF16, &err),
        cosine = filled(M, E / 2, K_REAL);
    Ten o = k_new(dev, M, H * E, K_BF16, &err), lse = k_new(dev, M, H, K_REAL, &err),
        dout = filled(M, H * E, K_REAL);
    Ten dq = k_new(dev, M, H * E, K_REAL, &err), dqkv = k_new(dev, M, (H + 2 * G) * E, K_BF16, &err);
    k_qkv(dev, q, &kv, 0, qkv, &rows, cosine, cosine);
    k_attend(dev, o, lse, q, &kv, 0, &rows, 0.125f, 0, 0);
    k_attend_back(dev, dq, &dkv, dout, o, lse, q, &kv, 0, &rows, 0.125f, 0, 0);
    k_qkv_back(dev, dqkv, dq, &dkv, 0, &rows, cosine, cosine);
    k_sync(dev);
    Ten *all[] = {&qkv, &q, &cosine, &o, &lse, &dout, &dq, &dqkv};
    for (int i = 0; i < 8; i++) k_free(dev, all[i]);
    k_kv_free(dev, &kv), k_kv_free(dev, &dkv);
}

static void rows_of_a_layer(void) {
    Ten x = filled(M, D, K_REAL), w = filled(1, D, K_REAL), y = k_new(dev, M, D, K_BF16, &err),
        rstd = k_new(dev, M, 1, K_REAL, &err);
    Ten dx = filled(M, D, K_REAL), dw = k_new(dev, 1, D, K_REAL, &err), gu = filled(M, 2 * F, K_REAL),
        h = k_new(dev, M, F, K_BF16, &err);
    Ten dh = filled(M, F, K_REAL), dgu = k_new(dev, M, 2 * F, K_BF16, &err), big = k_new(dev, F, D, K_REAL, &err);
    k_rmsnorm(dev, y, rstd, x, w, TEN_NONE, 1e-5f);
    k_rmsnorm_back(dev, dx, TEN_NONE, dw, y, dx, x, rstd, w);
    k_glu(dev, h, gu, GLU_SILU);
    k_glu_back(dev, dgu, h, dh, gu, GLU_SILU);
    k_matmul_dw(dev, big, h, y, true);
    Ten m = k_new(dev, F, D, K_REAL, &err), v = k_new(dev, F, D, K_REAL, &err);
    AdamStep step = {1e-3f, 0.9f, 0.99f, 1e-8f, 0, 0.1f, 0.01f, 1};
    Ten weights = filled(F, D, K_REAL);
    k_adamw(dev, weights, m, v, big, &step);
    assert_true(k_sumsq(dev, weights) > 0);
    k_sync(dev);
    Ten *all[] = {&x, &w, &y, &rstd, &dx, &dw, &gu, &h, &dh, &dgu, &big, &m, &v, &weights};
    for (int i = 0; i < 14; i++) k_free(dev, all[i]);
}

static void head(void) {
    Ten logits = filled(T, V, K_REAL);
    Draw draws[T];
    Drawn drawn[T];
    for (int i = 0; i < T; i++) draws[i] = (Draw){1, 0, 1, 0, (i + 0.5) / T};
    draws[3].top_k = 50, draws[5].top_p = 0.9f;
    k_sample(dev, drawn, TEN_NONE, logits, draws, V);
    for (int i = 0; i < T; i++) assert_true(drawn[i].tok >= 0 && drawn[i].tok < V && drawn[i].logp < 0);
    k_free(dev, &logits);
    Mat w = k_mat_new(dev, V, D, K_BF16, true, &err);
    Ten wide = filled(V, D, K_REAL), x = filled(T, D, K_BF16), dx = k_new(dev, T, D, K_REAL, &err),
        logp = k_new(dev, 1, T, K_REAL, &err);
    Ten lse = k_new(dev, 1, T, K_REAL, &err), entropy = k_new(dev, 1, T, K_REAL, &err);
    int target[T];
    float coef[T];
    for (int i = 0; i < T; i++) target[i] = 11 * i, coef[i] = 0.5f;
    k_mat_pack(dev, &w, wide, 0);
    k_logprob(dev, logp, lse, entropy, x, &w, target, TEN_NONE, 1, 0);
    k_logprob_back(dev, dx, TEN_NONE, x, &w, target, TEN_NONE, coef, coef, lse, entropy, 1, 0, false);
    k_sync(dev);
    Ten *all[] = {&wide, &x, &dx, &logp, &lse, &entropy};
    for (int i = 0; i < 6; i++) k_free(dev, all[i]);
    k_mat_free(dev, &w);
}

static void test_shapes(void **state) {
    (void)state;
    dev = dev_open(&(DevConf){.device = "cuda"}, &err);
    if (!dev) fail_msg("%s", err.msg);
    attention();
    rows_of_a_layer();
    head();
    assert_true(ptx_launches() > 20);
    assert_int_equal(standin_pending(), 0);
    dev_close(dev);
    assert_int_equal(ptx_allocated(), 0); /* nothing is left behind on the device */
}

/* Loading stops at an opcode that no table knows: so a new nvcc shows at once. */
static void test_opcodes(void **state) {
    (void)state;
    DIR *d = opendir("build/ptx");
    assert_non_null(d);
    int files = 0, kernels = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strstr(e->d_name, ".ptx")) continue;
        char path[512];
        PtxModule *m;
        snprintf(path, sizeof path, "build/ptx/%s", e->d_name);
        const char *why = ptx_load(&m, path);
        if (why) fail_msg("%s", why);
        files++, kernels += ptx_kernel_count(m);
        ptx_unload(m);
    }
    closedir(d);
    assert_true(files >= 5 && kernels >= 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_opcodes), cmocka_unit_test(test_shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
