/* test_kernels_head.c: log-probabilities, entropies and their gradient against naive doubles, at vocabularies and
 * widths that fill no block, over all ids and over a kept set of each row; entropy's gradient also by finite
 * differences (double variant). FMA paths give plain C's bits, a row's bits depend neither on its batch nor on
 * threads, and dW's not on where the rows are cut. (run.sh: long) */
#include "tests/kernels_help.h"

typedef struct {
    int t, vocab, dim;
    DType type;
    bool entropy; /* entropy's gradient takes part */
    real inv_temp, cap;
    int *target;
    real *x, *w, *coef, *ent_coef, *start;
    int32_t *kept; /* NULL: every id */
} Case;

static Case case_make(int t, int vocab, int dim, DType type, bool entropy, double inv_temp, double cap) {
    Case c = {t,    vocab, dim,  type, entropy, (real)inv_temp, (real)cap, MEM_ARRAY(int, t), NULL,
              NULL, NULL,  NULL, NULL, NULL};
    Rng rng = {17, 0};
    for (int i = 0; i < t; i++) c.target[i] = (int)rng_below(&rng, (uint64_t)vocab);
    c.target[0] = vocab - 1;
    if (t > 2) c.target[2] = -1; /* padding */
    c.x = reals_random(1, (size_t)(t * dim), 1, type);
    c.w = reals_random(2, (size_t)(vocab * dim), 2 / sqrt(dim), type);
    c.coef = reals_random(3, (size_t)t, 1, K_REAL), c.ent_coef = reals_random(4, (size_t)t, 0.5, K_REAL);
    c.start = reals_random(5, (size_t)(vocab * dim), 0.1, K_REAL);
    return c;
}

/* Each row keeps its own share of the ids, from few to nearly all, and its target; row 1 keeps nothing else. */
static void case_cut(Case *c) {
    size_t words = (size_t)KEPT_WORDS(c->vocab);
    Rng rng = {23, 0};
    c->kept = MEM_ARRAY(int32_t, (size_t)c->t * words);
    for (int t = 0; t < c->t; t++) {
        int32_t *row = c->kept + (size_t)t * words;
        double share = rng_uniform(&rng);
        for (int i = 0; i < c->vocab; i++)
            if (i == c->target[t] || (t != 1 && rng_uniform(&rng) < share * share))
                row[i / 32] |= (int32_t)(1u << i % 32);
    }
}

static bool case_keeps(const Case *c, size_t t, size_t id) {
    size_t words = (size_t)KEPT_WORDS(c->vocab);
    return !c->kept || ((uint32_t)c->kept[t * words + id / 32] >> id % 32 & 1);
}

static Ten kept_of(Dev *dev, const Case *c) {
    Err err = {0};
    if (!c->kept) return TEN_NONE;
    Ten kept = k_new(dev, c->t, KEPT_WORDS(c->vocab), K_I32, &err);
    k_put(dev, kept, c->kept);
    return kept;
}

static void case_free(Case *c) {
    free(c->target), free(c->x), free(c->w), free(c->coef), free(c->ent_coef), free(c->start), free(c->kept);
}

static Mat mat_of(Dev *dev, const Case *c) {
    Err err = {0};
    Mat mat = k_mat_new(dev, c->vocab, c->dim, c->type, true, &err);
    Ten w = ten_make(dev, c->vocab, c->dim, K_REAL, c->w);
    k_mat_pack(dev, &mat, w, 0);
    k_free(dev, &w);
    return mat;
}

/* Appends logp, lse, entropy, dx, dw. With cut > 0 the backward runs on the rows before it and then on the others.
 */
static void run_cut(Dev *dev, const Case *c, int cut, Buf *out) {
    Mat mat = mat_of(dev, c);
    Ten x = ten_make(dev, c->t, c->dim, c->type, c->x), dx = ten_make(dev, c->t, c->dim, K_REAL, NULL);
    Ten logp = ten_make(dev, 1, c->t, K_REAL, NULL), lse = ten_make(dev, 1, c->t, K_REAL, NULL),
        entropy = ten_make(dev, 1, c->t, K_REAL, NULL), dw = ten_make(dev, c->vocab, c->dim, K_REAL, c->start);
    Ten kept = kept_of(dev, c);
    k_logprob(dev, logp, lse, entropy, x, &mat, c->target, kept, c->inv_temp, c->cap);
    for (int at = 0, next = cut ? cut : c->t; at < c->t; at = next, next = c->t) {
        int n = next - at;
        k_logprob_back(dev, ten_rows(dx, at, n), dw, ten_rows(x, at, n), &mat, c->target + at,
                       c->kept ? ten_rows(kept, at, n) : TEN_NONE, c->coef + at,
                       c->entropy ? c->ent_coef + at : NULL, ten_cols(lse, at, n), ten_cols(entropy, at, n),
                       c->inv_temp, c->cap, false);
    }
    Ten all[] = {logp, lse, entropy, dx, dw};
    for (int i = 0; i < 5; i++) ten_take(dev, all[i], out);
    k_free(dev, &x), k_free(dev, &kept), k_mat_free(dev, &mat);
}

/* ---- the naive reference ---- */

typedef struct {
    double *logp, *lse, *entropy, *dx, *dw;
} Naive;

/* dz as the products take it: rounded to bf16 where they do, in the naive version not at all. */
static Naive naive_run(const Case *c, const real *x) {
    size_t t = (size_t)c->t, v = (size_t)c->vocab, d = (size_t)c->dim;
    Naive n = {MEM_ARRAY(double, t), MEM_ARRAY(double, t), MEM_ARRAY(double, t), MEM_ARRAY(double, t *d),
               MEM_ARRAY(double, v *d)};
    double *z = MEM_ARRAY(double, v), *slope = MEM_ARRAY(double, v), cap = (double)c->cap;
    for (size_t i = 0; i < v * d; i++) n.dw[i] = (double)c->start[i];
    for (size_t r = 0; r < t; r++) {
        if (c->target[r] < 0) continue;
        double max = -1e300, sum = 0, mean = 0;
        for (size_t j = 0; j < v; j++) {
            z[j] = 0;
            for (size_t i = 0; i < d; i++) z[j] += (double)x[r * d + i] * (double)c->w[j * d + i];
            slope[j] = (double)c->inv_temp;
            if (cap > 0) slope[j] *= 1 - pow(tanh(z[j] / cap), 2), z[j] = cap * tanh(z[j] / cap);
            z[j] = case_keeps(c, r, j) ? (double)c->inv_temp * z[j] : -1e30;
            max = fmax(max, z[j]);
        }
        for (size_t j = 0; j < v; j++) sum += exp(z[j] - max);
        n.lse[r] = max + log(sum);
        for (size_t j = 0; j < v; j++) mean += exp(z[j] - n.lse[r]) * z[j];
        n.entropy[r] = n.lse[r] - mean;
        n.logp[r] = z[c->target[r]] - n.lse[r];
        for (size_t j = 0; j < v; j++) {
            double p = exp(z[j] - n.lse[r]), e = c->entropy ? (double)c->ent_coef[r] : 0;
            double dz = (double)c->coef[r] * ((double)((int)j == c->target[r]) - p);
            dz = slope[j] * (dz - e * p * (z[j] - n.lse[r] + n.entropy[r]));
            for (size_t i = 0; i < d; i++) {
                n.dx[r * d + i] += dz * (double)c->w[j * d + i];
                n.dw[j * d + i] += dz * (double)x[r * d + i];
            }
        }
    }
    free(z), free(slope);
    return n;
}

static void naive_free(Naive *n) { free(n->logp), free(n->lse), free(n->entropy), free(n->dx), free(n->dw); }

/* The norm of the difference over the norm. */
static double apart(const real *got, const double *want, size_t n) {
    double sum = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        sum += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        all += want[i] * want[i];
    }
    return sqrt(sum / fmax(all, 1e-30));
}

static void check(const Case *c, const real *got) {
    size_t t = (size_t)c->t, d = (size_t)c->dim, v = (size_t)c->vocab;
    const real *lse = got + t, *entropy = lse + t, *dx = entropy + t, *dw = dx + t * d;
    Naive want = naive_run(c, c->x);
    for (size_t r = 0; r < t; r++) {
        NEAR(got[r], want.logp[r], TOLERANCE(4e-6, 1e-13));
        NEAR(lse[r], want.lse[r], TOLERANCE(4e-6, 1e-13));
        double off = fabs((double)entropy[r] - want.entropy[r]); /* a difference of numbers as large as lse */
        assert_true(off <= TOLERANCE(4e-6, 1e-13) * (1 + fabs(want.lse[r])));
    }
    double bound = c->type == K_BF16 ? 4e-3 : TOLERANCE(4e-6, 1e-13); /* bf16: dz has 8 bits, errors are random */
    if (c->kept) bound *= 5; /* where few ids are kept, 1 - p is small beside its terms */
    double off[2] = {apart(dx, want.dx, t * d), apart(dw, want.dw, v * d)};
    if (!(off[0] < bound && off[1] < bound))
        fail_msg("%d x %d x %d, type %d: dx off by %.2g, dw by %.2g", c->t, c->vocab, c->dim, (int)c->type, off[0],
                 off[1]);
    naive_free(&want);
}

static void case_run(const Devs *devs, const Case *c) {
    Buf first[ARITHMETICS] = {{0}}, one = {0};
    for (int i = 0; i < devs->n; i++) {
        Buf *want = &first[c->type == K_BF16 ? arithmetic_of(devs->dev[i]) : 0];
        buf_clear(&one);
        run_cut(devs->dev[i], c, 0, &one);
        if (!want->n) {
            check(c, reals_of(&one));
            buf_add(want, one.p, one.n);
        }
        assert_int_equal(one.n, want->n);
        if (memcmp(one.p, want->p, one.n) != 0)
            fail_msg("%d x %d x %d: other bits on %s with %d threads", c->t, c->vocab, c->dim,
                     dev_path(devs->dev[i]), dev_threads(devs->dev[i]));
        for (int cut = 32; cut < c->t; cut += 32) { /* dx, dw: the same bits */
            Buf two = {0};
            run_cut(devs->dev[i], c, cut, &two);
            assert_memory_equal(one.p, two.p, one.n);
            buf_free(&two);
        }
    }
    for (int i = 0; i < ARITHMETICS; i++) buf_free(&first[i]);
    buf_free(&one);
}

/* ---- tests ---- */

static void against_naive(void **state) {
    static const int vocabs[] = {1, 15, 17, 100, 512, 513, 1000, 2100}, dims[] = {1, 16, 33, 45},
                     rows[] = {1, 15, 16, 17, 31, 33, 70};
    for (int i = 0; i < 8; i++)
        for (int kind = 0; kind < 8; kind++) {
            Case c =
                case_make(rows[(i + 2 * kind) % 7], vocabs[i], dims[(i + kind) % 4], kind % 2 ? K_BF16 : K_REAL,
                          kind % 4 >= 2, kind % 4 == 3 ? 1.7 : 1, (i + kind) % 3 ? 0 : 2.5);
            if (kind >= 4) case_cut(&c);
            case_run(*state, &c);
            case_free(&c);
        }
    for (int kind = 0; kind < 2; kind++) { /* more rows than are summed at once */
        Case c = case_make(600, 40, 17, kind ? K_BF16 : K_REAL, true, 1, 0);
        case_run(*state, &c);
        case_free(&c);
    }
}

/* A row alone, with one thread or three: the bits of the whole batch. */
static void row_alone(void **state) {
    (void)state;
    const char *names[8];
    Err err = {0};
    int n = dev_paths(names);
    for (int p = 0; p < n; p++)
        for (int kind = 0; kind < 2; kind++) {
            Case c = case_make(70, 1100, 40, kind ? K_BF16 : K_REAL, true, 0.8, kind ? 0 : 3);
            Buf first = {0};
            for (int threads = 1; threads <= 3; threads += 2) {
                Dev *dev = dev_open(&(DevConf){.path = names[p], .threads = threads}, &err);
                Buf one = {0};
                run_cut(dev, &c, 0, &one);
                if (threads == 1) buf_add(&first, one.p, one.n);
                assert_memory_equal(first.p, one.p, first.n);
                const real *whole = reals_of(&one);
                for (int r = 0; r < c.t; r += 23) {
                    Case row = c;
                    row.t = 1, row.x = c.x + r * c.dim, row.target = c.target + r;
                    row.coef = c.coef + r, row.ent_coef = c.ent_coef + r;
                    Buf alone = {0};
                    run_cut(dev, &row, 0, &alone);
                    const real *mine = reals_of(&alone);
                    for (int what = 0; what < 3; what++)
                        assert_memory_equal(&mine[what], &whole[what * c.t + r], sizeof *mine);
                    assert_memory_equal(mine + 3, whole + 3 * c.t + r * c.dim, (size_t)c.dim * sizeof *mine);
                    buf_free(&alone);
                }
                buf_free(&one);
                dev_close(dev);
            }
            buf_free(&first);
            case_free(&c);
        }
}

/* L = sum coef logp + ent_coef entropy: dx along a random direction against central differences of the op's own
 * outputs. */
static double value_of(Dev *dev, const Case *c, const real *x) {
    Case moved = *c;
    Buf out = {0};
    moved.x = (real *)x;
    run_cut(dev, &moved, 0, &out);
    const real *got = reals_of(&out);
    double sum = 0;
    for (int r = 0; r < c->t; r++)
        sum += (double)c->coef[r] * (double)got[r] + (double)c->ent_coef[r] * (double)got[2 * c->t + r];
    buf_free(&out);
    return sum;
}

static void check_differences(Dev *dev, bool cut) {
    Case c = case_make(7, 530, 24, K_REAL, true, 1.3, 4);
    if (cut) case_cut(&c);
    size_t n = (size_t)(c.t * c.dim);
    real *moved = MEM_ARRAY(real, n), *way = reals_random(99, n, 1, K_REAL);
    Buf out = {0};
    run_cut(dev, &c, 0, &out);
    const real *dx = reals_of(&out) + 3 * c.t;
    double expect = 0, value[2], step = TOLERANCE(3e-3, 1e-5);
    for (size_t i = 0; i < n; i++) expect += (double)dx[i] * (double)way[i];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++) moved[i] = c.x[i] + (real)(side ? -step : step) * way[i];
        value[side] = value_of(dev, &c, moved);
    }
    NEAR((value[0] - value[1]) / (2 * step), expect, TOLERANCE(1e-2, 1e-8));
    buf_free(&out);
    free(moved), free(way);
    case_free(&c);
}

static void finite_differences(void **state) {
    check_differences(((Devs *)*state)->dev[0], false);
    check_differences(((Devs *)*state)->dev[0], true);
}

/* Without a gradient of the head (it is frozen), without entropies: the same dx and logp. */
static void parts_left_out(void **state) {
    const Devs *devs = *state;
    Case c = case_make(40, 600, 33, K_BF16, false, 1, 30);
    for (int i = 0; i < devs->n; i++) {
        Dev *dev = devs->dev[i];
        Buf whole = {0}, part = {0};
        run_cut(dev, &c, 0, &whole);
        Mat mat = mat_of(dev, &c);
        Ten x = ten_make(dev, c.t, c.dim, c.type, c.x), dx = ten_make(dev, c.t, c.dim, K_REAL, NULL),
            logp = ten_make(dev, 1, c.t, K_REAL, NULL), lse = ten_make(dev, 1, c.t, K_REAL, NULL);
        k_logprob(dev, logp, lse, TEN_NONE, x, &mat, c.target, TEN_NONE, c.inv_temp, c.cap);
        k_logprob_back(dev, dx, TEN_NONE, x, &mat, c.target, TEN_NONE, c.coef, NULL, lse, TEN_NONE, c.inv_temp,
                       c.cap, false);
        ten_take(dev, logp, &part), ten_take(dev, lse, &part), ten_take(dev, dx, &part);
        size_t row = (size_t)c.t * sizeof(real);
        assert_memory_equal(part.p, whole.p, 2 * row);
        assert_memory_equal(part.p + 2 * row, whole.p + 3 * row, (size_t)c.dim * row);
        k_free(dev, &x), k_mat_free(dev, &mat);
        buf_free(&whole), buf_free(&part);
    }
    case_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(against_naive, devs_open, devs_close),
        cmocka_unit_test(row_alone),
        cmocka_unit_test_setup_teardown(finite_differences, devs_open, devs_close),
        cmocka_unit_test_setup_teardown(parts_left_out, devs_open, devs_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
