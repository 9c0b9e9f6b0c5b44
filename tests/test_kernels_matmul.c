/* test_kernels_matmul.c: the products, their packing and their gradients against naive sums in double, at ragged
 * sizes and in both types. Every path of fp32 FMA gives plain C's bits, tiles those of their plain C; BF16 dot and
 * tiles stay within the same bound. A row's bits do not depend on its batch, on threads, nor a gradient's on where
 * the rows are cut (at multiples of 32). (run.sh: long) */
#include "tests/kernels_help.h"

#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    int m, n, k;
    DType type, out; /* of the operands; of y and dx */
    real *x, *w, *dy, *bias, *residual, *start;
} Case;

/* The bound on a chain of k products: half of it would do for a chain in order; BF16 dot rounds in between. */
#define ROUNDING (sizeof(real) == 4 ? 0x1p-24 : 0x1p-53)

static Case case_make(int m, int n, int k, DType type, DType out) {
    Case c = {m, n, k, type, out, NULL, NULL, NULL, NULL, NULL, NULL};
    c.x = reals_random(1, (size_t)(m * k), 1, type), c.w = reals_random(2, (size_t)(n * k), 0.3, K_REAL);
    c.dy = reals_random(3, (size_t)(m * n), 1, type), c.bias = reals_random(4, (size_t)n, 1, K_REAL);
    c.residual = reals_random(5, (size_t)(m * n), 1, K_REAL);
    c.start = reals_random(6, (size_t)(n * k), 1, K_REAL);
    return c;
}

static void case_free(Case *c) {
    free(c->x), free(c->w), free(c->dy), free(c->bias), free(c->residual), free(c->start);
}

/* ---- what the ops give ---- */

/* W is packed in two parts, the second at an odd row. */
static Mat mat_of(Dev *dev, const Case *c) {
    Err err = {0};
    Mat mat = k_mat_new(dev, c->n, c->k, c->type, true, &err);
    Ten w = ten_make(dev, c->n, c->k, K_REAL, c->w);
    int first = c->n > 1 ? (c->n / 2) | 1 : 1;
    if (first > c->n) first = c->n;
    k_mat_pack(dev, &mat, ten_rows(w, 0, first), 0);
    if (first < c->n) k_mat_pack(dev, &mat, ten_rows(w, first, c->n - first), first);
    k_free(dev, &w);
    return mat;
}

/* All of them, one after the other: y with and without bias and residual, dx alone and onto x, dw, db. */
static void run_all(Dev *dev, const void *self, Buf *out) {
    const Case *c = self;
    Mat mat = mat_of(dev, c);
    Ten x = ten_make(dev, c->m, c->k, c->type, c->x), dy = ten_make(dev, c->m, c->n, c->type, c->dy);
    Ten bias = ten_make(dev, 1, c->n, K_REAL, c->bias), residual = ten_make(dev, c->m, c->n, K_REAL, c->residual);
    Ten y = ten_make(dev, c->m, c->n, c->out, NULL), full = ten_make(dev, c->m, c->n, c->out, NULL);
    Ten dx = ten_make(dev, c->m, c->k, c->out, NULL), dw = ten_make(dev, c->n, c->k, K_REAL, c->start);
    Ten db = ten_make(dev, 1, c->n, K_REAL, c->bias), inplace = ten_make(dev, c->m, c->n, c->out, c->residual);
    Ten more = ten_make(dev, c->m, c->k, c->out, c->x);
    k_matmul(dev, y, x, &mat, TEN_NONE, TEN_NONE);
    k_matmul(dev, full, x, &mat, bias, residual);
    k_matmul(dev, inplace, x, &mat, bias, inplace);
    k_matmul_dx(dev, dx, dy, &mat, TEN_NONE);
    k_matmul_dx(dev, more, dy, &mat, more);
    k_matmul_dw(dev, dw, dy, x, false);
    k_bias_back(dev, db, dy);
    Ten all[] = {y, full, inplace, dx, more, dw, db};
    for (int i = 0; i < 7; i++) ten_take(dev, all[i], out);
    k_free(dev, &x), k_free(dev, &dy), k_free(dev, &bias), k_free(dev, &residual), k_mat_free(dev, &mat);
}

/* ---- what they should give ---- */

/* got = sum a b + bias + residual: within 2 k 2^-24 sum |a b|, and the rounding of what is added and stored. */
static void check(const char *what, real got, double sum, double size, int k, double bias, double residual,
                  DType out) {
    double want = sum + bias + residual, bound = 2 * k * ROUNDING * size;
    bound += 2 * ROUNDING * (fabs(sum) + fabs(bias) + fabs(residual));
    if (out == K_BF16) bound += 0x1p-8 * (fabs(want) + bound);
    if (!(fabs((double)got - want) <= bound))
        fail_msg("%s is %.9g, wanted %.9g within %.2g", what, (double)got, want, bound);
}

/* Row r of a[.., k] times row c of b[.., k]; with `across`, columns of a[k, wide_a] and b[k, wide_b]. */
typedef struct {
    double sum, size;
} Dot;
static Dot dot_of(const real *a, size_t a_step, const real *b, size_t b_step, int k, DType type) {
    Dot dot = {0, 0};
    for (int i = 0; i < k; i++) {
        double p = (double)a[(size_t)i * a_step] * (double)stored(b[(size_t)i * b_step], type);
        dot.sum += p, dot.size += fabs(p);
    }
    return dot;
}

static void check_all(const void *self, const real *got) {
    const Case *c = self;
    const real *y = got, *full = y + c->m * c->n, *inplace = full + c->m * c->n, *dx = inplace + c->m * c->n,
               *more = dx + c->m * c->k, *dw = more + c->m * c->k, *db = dw + c->n * c->k;
    for (int r = 0; r < c->m; r++)
        for (int j = 0; j < c->n; j++) {
            int at = r * c->n + j;
            double bias = (double)c->bias[j], residual = (double)c->residual[at];
            Dot d = dot_of(c->x + r * c->k, 1, c->w + j * c->k, 1, c->k, c->type);
            check("y", y[at], d.sum, d.size, c->k, 0, 0, c->out);
            check("y + bias + residual", full[at], d.sum, d.size, c->k, bias, residual, c->out);
            check("y onto itself", inplace[at], d.sum, d.size, c->k, bias, (double)stored(c->residual[at], c->out),
                  c->out);
        }
    for (int r = 0; r < c->m; r++)
        for (int j = 0; j < c->k; j++) {
            Dot d = dot_of(c->dy + r * c->n, 1, c->w + j, (size_t)c->k, c->n, c->type);
            check("dx", dx[r * c->k + j], d.sum, d.size, c->n, 0, 0, c->out);
            double x = (double)stored(c->x[r * c->k + j], c->out);
            check("dx onto x", more[r * c->k + j], d.sum, d.size, c->n, 0, x, c->out);
        }
    for (int j = 0; j < c->n; j++) {
        for (int i = 0; i < c->k; i++) {
            Dot d = dot_of(c->dy + j, (size_t)c->n, c->x + i, (size_t)c->k, c->m, c->type);
            double start = (double)c->start[j * c->k + i];
            check("dw", dw[j * c->k + i], d.sum, d.size + fabs(start), c->m, start, 0, K_REAL);
        }
        double sum = (double)c->bias[j], size = fabs(sum);
        for (int r = 0; r < c->m; r++)
            sum += (double)c->dy[r * c->n + j], size += fabs((double)c->dy[r * c->n + j]);
        check("db", db[j], sum, size, c->m, 0, 0, K_REAL);
    }
}

/* On every path: right, and on those of fp32 FMA the same bits as plain C with one thread. BF16 dot and tiles have
 * bits of their own for bf16 operands, the same with any number of threads, and for tiles in plain C too. */
static void case_run(const Devs *devs, const Case *c) {
    on_each(devs, c->type == K_BF16, run_all, check_all, c);
}

/* ---- tests ---- */

static void products(void **state) {
    static const int sizes[] = {1, 15, 16, 17, 31, 32, 33, 100};
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) {
            int m = sizes[i], n = sizes[j], k = sizes[(3 * i + 5 * j + 1) % 8];
            for (int kind = 0; kind < 3; kind++) {
                Case c = case_make(m, n, k, kind ? K_BF16 : K_REAL, kind == 2 ? K_BF16 : K_REAL);
                case_run(*state, &c);
                case_free(&c);
            }
        }
}

/* More rows than a block of rows, more panels than an item, a long K. */
static void products_large(void **state) {
    Case c = case_make(270, 410, 70, K_BF16, K_REAL);
    case_run(*state, &c);
    case_free(&c);
    Case d = case_make(3, 33, 1500, K_REAL, K_REAL);
    case_run(*state, &d);
    case_free(&d);
}

/* Numbers at both ends of bf16's range, zeros and denormals among them: sums that vanish, underflow and overflow
 * have the same bits on all paths of one arithmetic. */
static void extremes(void **state) {
    const Devs *devs = *state;
    for (int round = 0; round < 6; round++) {
        Case c = case_make(35, 50, 90, K_BF16, K_REAL);
        real *all[] = {c.x, c.w, c.dy, c.start};
        int sizes[] = {35 * 90, 50 * 90, 35 * 50, 50 * 90};
        Rng rng = {(uint64_t)round, 0};
        for (int a = 0; a < 4; a++)
            for (int i = 0; i < sizes[a]; i++) {
                double power =
                    round < 4 ? -60 - 15 * (double)round - 25 * rng_uniform(&rng) : 50 + 25 * rng_uniform(&rng);
                all[a][i] = rng_below(&rng, 9) ? (real)((double)all[a][i] * exp2(a == 3 ? 2 * power : power)) : 0;
                if (a < 3) all[a][i] = stored(all[a][i], K_BF16);
            }
        Buf first[ARITHMETICS] = {{0}};
        for (int i = 0; i < devs->n; i++) {
            Buf one = {0}, *want = &first[arithmetic_of(devs->dev[i])];
            run_all(devs->dev[i], &c, want->n ? &one : want);
            if (one.n && memcmp(one.p, want->p, one.n) != 0)
                fail_msg("round %d: other bits on %s with %d threads", round, dev_path(devs->dev[i]),
                         dev_threads(devs->dev[i]));
            buf_free(&one);
        }
        for (int i = 0; i < ARITHMETICS; i++) buf_free(&first[i]);
        case_free(&c);
    }
}

/* dw over more rows than one stretch of the sum. */
static void gradient_of_many_rows(void **state) {
    Case c = case_make(2120, 17, 19, K_BF16, K_REAL);
    case_run(*state, &c);
    case_free(&c);
}

static Dev *device(const char *path, int threads) {
    Err err = {0};
    Dev *dev = dev_open(&(DevConf){.path = path, .threads = threads}, &err);
    if (!dev) fail_msg("%s", err.msg);
    return dev;
}

/* A row alone and the same row in the batch; as a view of a wider tensor too. */
static void row_alone(const Case *c, Dev *dev) {
    Mat mat = mat_of(dev, c);
    Ten x = ten_make(dev, c->m, c->k, c->type, c->x), dy = ten_make(dev, c->m, c->n, c->type, c->dy);
    Ten wide = ten_make(dev, c->m, c->k + 48, c->type, NULL);
    Ten y = ten_make(dev, c->m, c->n, K_REAL, NULL), dx = ten_make(dev, c->m, c->k, K_REAL, NULL);
    Ten y1 = ten_make(dev, c->m, c->n, K_REAL, NULL), dx1 = ten_make(dev, c->m, c->k, K_REAL, NULL);
    Ten view = ten_cols(wide, 16, c->k);
    k_copy(dev, view, x);
    k_matmul(dev, y, x, &mat, TEN_NONE, TEN_NONE);
    k_matmul_dx(dev, dx, dy, &mat, TEN_NONE);
    for (int r = 0; r < c->m;) { /* one row, then two, then one ... */
        int n = r % 3 == 0 || r + 2 > c->m ? 1 : 2;
        k_matmul(dev, ten_rows(y1, r, n), ten_rows(r % 2 ? view : x, r, n), &mat, TEN_NONE, TEN_NONE);
        k_matmul_dx(dev, ten_rows(dx1, r, n), ten_rows(dy, r, n), &mat, TEN_NONE);
        r += n;
    }
    Buf batch = {0}, alone = {0};
    ten_take(dev, y, &batch), ten_take(dev, dx, &batch);
    ten_take(dev, y1, &alone), ten_take(dev, dx1, &alone);
    assert_memory_equal(batch.p, alone.p, batch.n);
    buf_free(&batch), buf_free(&alone);
    k_free(dev, &x), k_free(dev, &dy), k_free(dev, &wide), k_mat_free(dev, &mat);
}

static void dw_cut(const Case *c, Dev *dev) {
    Ten x = ten_make(dev, c->m, c->k, c->type, c->x), dy = ten_make(dev, c->m, c->n, c->type, c->dy);
    Buf whole = {0}, cut = {0};
    Ten dw = ten_make(dev, c->n, c->k, K_REAL, c->start);
    k_matmul_dw(dev, dw, dy, x, false);
    ten_take(dev, dw, &whole);
    for (int at = 32; at < c->m; at += 32) {
        dw = ten_make(dev, c->n, c->k, K_REAL, c->start);
        buf_clear(&cut);
        k_matmul_dw(dev, dw, ten_rows(dy, 0, at), ten_rows(x, 0, at), false);
        k_matmul_dw(dev, dw, ten_rows(dy, at, c->m - at), ten_rows(x, at, c->m - at), false);
        ten_take(dev, dw, &cut);
        assert_memory_equal(whole.p, cut.p, whole.n);
    }
    buf_free(&whole), buf_free(&cut);
    k_free(dev, &x), k_free(dev, &dy);
}

/* Fresh gradients are those that go on from zeros, whatever was there, and also of no rows, of several stretches
 * of rows and where they are large enough to be stored past the caches; after them the chain goes on. */
static void dw_fresh(Dev *dev, int m, int n, int k, DType type, int at) {
    real *xs = reals_random(1, (size_t)(m * k), 1, type), *dys = reals_random(2, (size_t)(m * n), 1, type);
    real *nans = MEM_ARRAY(real, n * k);
    for (int i = 0; i < n * k; i++) nans[i] = NAN;
    Ten x = ten_make(dev, m, k, type, xs), dy = ten_make(dev, m, n, type, dys);
    Ten fresh = ten_make(dev, n, k, K_REAL, nans), parts = ten_make(dev, n, k, K_REAL, nans);
    Buf a = {0}, b = {0};
    k_matmul_dw(dev, fresh, dy, x, true);
    k_matmul_dw(dev, parts, ten_rows(dy, 0, 0), ten_rows(x, 0, 0), true);
    k_matmul_dw(dev, parts, ten_rows(dy, 0, at), ten_rows(x, 0, at), false);
    k_matmul_dw(dev, parts, ten_rows(dy, at, m - at), ten_rows(x, at, m - at), false);
    ten_take(dev, fresh, &a), ten_take(dev, parts, &b);
    assert_memory_equal(a.p, b.p, a.n);
    buf_free(&a), buf_free(&b), free(xs), free(dys), free(nans);
    k_free(dev, &x), k_free(dev, &dy);
}

static void batches_and_threads(void **state) {
    (void)state;
    const char *names[8];
    int n = dev_paths(names);
    for (int p = 0; p < n; p++)
        for (int kind = 0; kind < 2; kind++) {
            Case c = case_make(100, 77, 45, kind ? K_BF16 : K_REAL, K_REAL),
                 d = case_make(37, 700, 64, c.type, K_REAL);
            Buf first = {0};
            for (int threads = 1; threads <= 3; threads++) {
                Dev *dev = device(names[p], threads);
                row_alone(&c, dev);
                row_alone(&d, dev);
                dw_cut(&c, dev);
                dw_fresh(dev, 77, 70, 300, c.type, 32);
                if (threads == 2 && !strstr(names[p], "plain")) dw_fresh(dev, 1060, 516, 528, c.type, 512);
                Buf one = {0};
                run_all(dev, &c, &one);
                run_all(dev, &d, &one);
                if (threads == 1)
                    buf_add(&first, one.p, one.n);
                else
                    assert_memory_equal(first.p, one.p, first.n);
                buf_free(&one);
                dev_close(dev);
            }
            buf_free(&first);
            case_free(&c), case_free(&d);
        }
}

/* ---- the NaN trap ---- */

/* A NaN in x with the trap on: the program stops and names the op and the element. */
static void nan_trap(void **state) {
    (void)state;
    Case c = case_make(3, 20, 5, K_BF16, K_REAL);
    c.x[7] = NAN;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], 2);
        Buf out = {0};
        Err err = {0};
        run_all(dev_open(&(DevConf){.threads = 1, .trap_nan = true}, &err), &c, &out);
        _exit(0);
    }
    close(pipes[1]);
    char text[4096] = "";
    size_t n = 0;
    for (ssize_t more; (more = read(pipes[0], text + n, sizeof text - 1 - n)) > 0;) n += (size_t)more;
    close(pipes[0]);
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_non_null(strstr(text, "matmul: y[1, 0] is NaN"));
    Buf out = {0};
    Err err = {0};
    Dev *dev = dev_open(&(DevConf){.threads = 1}, &err);
    run_all(dev, &c, &out); /* without the trap it goes on */
    assert_true(isnan((double)reals_of(&out)[20]) && !isnan((double)reals_of(&out)[0]));
    dev_close(dev);
    buf_free(&out);
    case_free(&c);
}

/* Outputs above a megabyte are stored past the caches, those of some rows alone are not: the same bits, with and
 * without a residual. W is packed in two parts at a whole panel. */
static void large_outputs_are_those_of_their_rows(void **state) {
    const Devs *devs = *state;
    enum { N = 1024, K = 40, PART = 48 };
    for (int d = 0; d < devs->n; d++)
        for (int kind = 0; kind < 2; kind++) {
            Dev *dev = devs->dev[d];
            Err err = {0};
            DType out = kind ? K_BF16 : K_REAL;
            int m = kind ? 528 : 264;
            Case c = case_make(m, N, K, K_BF16, out);
            Mat mat = k_mat_new(dev, N, K, K_BF16, false, &err);
            Ten w = ten_make(dev, N, K, K_REAL, c.w), x = ten_make(dev, m, K, K_BF16, c.x);
            Ten residual = ten_make(dev, m, N, K_REAL, c.residual);
            k_mat_pack(dev, &mat, ten_rows(w, 0, PART), 0);
            k_mat_pack(dev, &mat, ten_rows(w, PART, N - PART), PART);
            for (int add = 0; add < 2; add++) {
                Ten whole = ten_make(dev, m, N, out, NULL), parts = ten_make(dev, m, N, out, NULL);
                k_matmul(dev, whole, x, &mat, TEN_NONE, add ? residual : TEN_NONE);
                for (int r = 0; r < m; r += PART) {
                    int n = r + PART < m ? PART : m - r;
                    k_matmul(dev, ten_rows(parts, r, n), ten_rows(x, r, n), &mat, TEN_NONE,
                             add ? ten_rows(residual, r, n) : TEN_NONE);
                }
                Buf a = {0}, b = {0};
                ten_take(dev, whole, &a), ten_take(dev, parts, &b);
                assert_memory_equal(a.p, b.p, a.n);
                for (int j = 0; j < N && !add; j += 37) {
                    Dot dot = dot_of(c.x + (m - 1) * K, 1, c.w + j * K, 1, K, K_BF16);
                    check("a large y", reals_of(&a)[(m - 1) * N + j], dot.sum, dot.size, K, 0, 0, out);
                }
                buf_free(&a), buf_free(&b);
            }
            k_free(dev, &w), k_free(dev, &x), k_free(dev, &residual), k_mat_free(dev, &mat);
            case_free(&c);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(products, devs_open, devs_close),
        cmocka_unit_test_setup_teardown(products_large, devs_open, devs_close),
        cmocka_unit_test_setup_teardown(extremes, devs_open, devs_close),
        cmocka_unit_test_setup_teardown(gradient_of_many_rows, devs_open, devs_close),
        cmocka_unit_test(batches_and_threads),
        cmocka_unit_test_setup_teardown(large_outputs_are_those_of_their_rows, devs_open, devs_close),
        cmocka_unit_test(nan_trap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
