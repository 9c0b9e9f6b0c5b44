/* test_kernels_int8.c: products with matrices of int8: within the bound of sums in double over the same whole
 * numbers, on every path, in both types, at ragged sizes; the same bits on all paths of one arithmetic, with any
 * number of threads, and for a row alone as in any batch. And what becomes of rows of zeros, of tiny numbers and
 * of NaN. (run.sh: long) */
#include "tests/kernels_help.h"

typedef struct {
    int m, n, k;
    DType type, out;
    real *x, *w, *bias, *residual;
} Case;

static Case case_make(int m, int n, int k, DType type, DType out) {
    Case c = {m, n, k, type, out, NULL, NULL, NULL, NULL};
    c.x = reals_random(1, (size_t)(m * k), 1, type), c.w = reals_random(2, (size_t)(n * k), 0.3, K_REAL);
    c.bias = reals_random(4, (size_t)n, 1, K_REAL), c.residual = reals_random(5, (size_t)(m * n), 1, K_REAL);
    return c;
}

static void case_free(Case *c) { free(c->x), free(c->w), free(c->bias), free(c->residual); }

/* W is packed in two parts, the second at an odd row, between another matrix and the end of their home. */
typedef struct {
    Mat other, mat;
    MatHome home;
} Packed;

static Packed pack(Dev *dev, const Case *c) {
    Packed p = {.other = {.n = 17, .k = 3}, .mat = {.n = c->n, .k = c->k}};
    Err err = {0};
    size_t before = dev_bytes(dev);
    assert_true(k_mats_new_int8(dev, &p.home, (Mat *[]){&p.other, &p.mat}, 2, c->type, &err));
    assert_int_equal(dev_bytes(dev) - before, k_mat_bytes_int8(dev, 17, 3) + k_mat_bytes_int8(dev, c->n, c->k));
    Ten w = ten_make(dev, c->n, c->k, K_REAL, c->w);
    int first = c->n > 1 ? (c->n / 2) | 1 : 1;
    if (first > c->n) first = c->n;
    k_mat_pack(dev, &p.mat, ten_rows(w, 0, first), 0);
    if (first < c->n) k_mat_pack(dev, &p.mat, ten_rows(w, first, c->n - first), first);
    k_free(dev, &w);
    return p;
}

/* y with and without bias and residual, and onto the residual. */
static void run_all(Dev *dev, const void *self, Buf *out) {
    const Case *c = self;
    Packed p = pack(dev, c);
    Ten x = ten_make(dev, c->m, c->k, c->type, c->x), bias = ten_make(dev, 1, c->n, K_REAL, c->bias);
    Ten residual = ten_make(dev, c->m, c->n, K_REAL, c->residual);
    Ten y = ten_make(dev, c->m, c->n, c->out, NULL), full = ten_make(dev, c->m, c->n, c->out, NULL);
    Ten inplace = ten_make(dev, c->m, c->n, c->out, c->residual);
    k_matmul(dev, y, x, &p.mat, TEN_NONE, TEN_NONE);
    k_matmul(dev, full, x, &p.mat, bias, residual);
    k_matmul(dev, inplace, x, &p.mat, TEN_NONE, inplace);
    ten_take(dev, y, out), ten_take(dev, full, out), ten_take(dev, inplace, out);
    k_free(dev, &x), k_free(dev, &bias), k_free(dev, &residual);
    k_mats_free(dev, &p.home);
}

/* ---- what they should give ---- */

static void check_all(const void *self, const real *y) {
    const Case *c = self;
    const real *full = y + c->m * c->n, *inplace = full + c->m * c->n;
    const double rounding = sizeof(real) == 4 ? 0x1p-24 : 0x1p-53;
    for (int j = 0; j < c->n; j++) {
        const real *w = c->w + j * c->k;
        real most = 0;
        for (int i = 0; i < c->k; i++) most = fabs((double)w[i]) > (double)most ? (real)fabs((double)w[i]) : most;
        real scale = most / 127;
        for (int r = 0; r < c->m; r++) {
            double sum = 0, size = 0, bias = (double)c->bias[j], residual = (double)c->residual[r * c->n + j];
            for (int i = 0; i < c->k; i++) {
                double q = rint((double)(w[i] / scale)); /* of the quotient as it is rounded */
                assert_true(fabs((double)w[i] - q * (double)scale) <= 0.5001 * (double)scale);
                double p = q * (double)c->x[r * c->k + i] * (double)scale;
                sum += p, size += fabs(p);
            }
            const double onto = (double)stored((real)residual, c->out),
                         want[] = {sum, sum + bias + residual, sum + onto};
            const real got[] = {y[r * c->n + j], full[r * c->n + j], inplace[r * c->n + j]};
            for (int v = 0; v < 3; v++) {
                double bound =
                    2 * c->k * rounding * size + 3 * rounding * (fabs(sum) + fabs(bias) + fabs(residual));
                if (c->out == K_BF16) bound += 0x1p-8 * (fabs(want[v]) + bound);
                if (!(fabs((double)got[v] - want[v]) <= bound))
                    fail_msg("%d x %d x %d [%d, %d] %d: %.9g, wanted %.9g within %.2g", c->m, c->n, c->k, r, j, v,
                             (double)got[v], want[v], bound);
            }
        }
    }
}

static void case_run(const Devs *devs, const Case *c) {
    on_each(devs, c->type == K_BF16, run_all, check_all, c);
}

static void products(void **state) {
    static const int sizes[] = {1, 15, 16, 17, 31, 32, 33, 100};
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++)
            for (int kind = 0; kind < 3; kind++) {
                int k = sizes[(3 * i + 5 * j + 1) % 8];
                Case c = case_make(sizes[i], sizes[j], k, kind ? K_BF16 : K_REAL, kind == 2 ? K_BF16 : K_REAL);
                case_run(*state, &c);
                case_free(&c);
            }
}

/* More rows than a block of them, more panels than an item, a long K; an output that is stored past the caches. */
static void products_large(void **state) {
    static const int sizes[][3] = {{270, 410, 70}, {3, 33, 1500}, {70, 90, 1100}, {260, 1024, 33}};
    for (int i = 0; i < 4; i++) {
        Case c = case_make(sizes[i][0], sizes[i][1], sizes[i][2], K_BF16, i % 2 ? K_BF16 : K_REAL);
        case_run(*state, &c);
        case_free(&c);
    }
}

/* ---- rows, batches, threads ---- */

static void rows_of(Dev *dev, const Case *c, int step, Buf *out) {
    Packed p = pack(dev, c);
    Ten x = ten_make(dev, c->m, c->k, c->type, c->x), y = ten_make(dev, c->m, c->n, c->out, NULL);
    for (int r = 0; r < c->m; r += step) {
        int n = r + step < c->m ? step : c->m - r;
        k_matmul(dev, ten_rows(y, r, n), ten_rows(x, r, n), &p.mat, TEN_NONE, TEN_NONE);
    }
    ten_take(dev, y, out);
    k_free(dev, &x), k_mats_free(dev, &p.home);
}

static void a_row_is_a_row(void **state) {
    (void)state;
    static const int steps[] = {1, 2, 7, 16, 17, 33, 64};
    const char *names[8];
    for (int n = dev_paths(names), p = 0; p < n; p++)
        for (int kind = 0; kind < 2; kind++) {
            Case c = case_make(100, 150, 45, kind ? K_BF16 : K_REAL, K_REAL);
            Buf first = {0}, one = {0};
            for (int threads = 1; threads <= 3; threads++) {
                Err err = {0};
                Dev *dev = dev_open(&(DevConf){.path = names[p], .threads = threads}, &err);
                assert_true(dev && k_has_int8(dev));
                if (!first.n) rows_of(dev, &c, c.m, &first);
                for (int i = 0; i < 7; i++) {
                    buf_clear(&one);
                    rows_of(dev, &c, steps[i], &one);
                    reals_agree(dev, &one, &first, 0);
                }
                dev_close(dev);
            }
            buf_free(&first), buf_free(&one);
            case_free(&c);
        }
}

/* ---- rows that are not ordinary ---- */

static void odd_rows(void **state) {
    const Devs *devs = *state;
    enum { N = 8, K = 40 };
    Case c = case_make(2, N, K, K_REAL, K_REAL);
    for (int i = 0; i < K; i++) {
        c.x[i] = c.x[K + i] = 1;
        c.w[i] = 0;                                  /* row 0: zeros */
        c.w[K + i] = (real)(i % 2 ? -0x1p-149 : 0);  /* row 1: its scale is zero in float */
        c.w[2 * K + i] = (real)(i == 3 ? 127 : 0.5); /* row 2: halves, to even: zeros */
        c.w[3 * K + i] = (real)(i == 3 ? 127 : 1.5); /* and two */
        c.w[4 * K + i] = (real)-12.7;                /* row 4: whole numbers of -127 */
        c.w[5 * K + i] = (real)(i == 39 ? NAN : 1);
        c.w[6 * K + i] = (real)(i == 0 ? INFINITY : 1);
        c.w[7 * K + i] = (real)(i == 20 ? -254 : i == 21 ? 2 : 0);
    }
    for (int d = 0; d < devs->n; d++) {
        Buf out = {0};
        run_all(devs->dev[d], &c, &out);
        const real *y = reals_of(&out);
        assert_true(y[0] == 0 && (sizeof(real) > 4 || y[1] == 0));
        assert_true(y[2] == 127 && y[3] == 127 + 39 * 2);
        assert_true(fabs((double)y[4] + 12.7 * K) < 1e-3);
        assert_true(isnan((double)y[5]) && isnan((double)y[6]) && y[7] == -252);
        buf_free(&out);
    }
    case_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(products, devs_open, devs_close),
        cmocka_unit_test_setup_teardown(products_large, devs_open, devs_close),
        cmocka_unit_test(a_row_is_a_row),
        cmocka_unit_test_setup_teardown(odd_rows, devs_open, devs_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
