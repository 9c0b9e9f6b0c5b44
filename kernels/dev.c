/* dev.c: the front of all backs. It checks shapes and types once, counts calls and seconds, keeps account of
 * memory and, where asked, looks for NaN after each op; the mathematics is the back's. */
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the device ---- */

enum { STATS_MAX = 40 };
struct OpStat {
    const char *name;
    long calls;
    double seconds;
};

/* "cuda" is device 0; -1: not the name of a CUDA device. */
static int cuda_number(const char *device) {
    int n = 0, end = 0;
    if (strcmp(device, "cuda") == 0) return 0;
    return sscanf(device, "cuda:%d%n", &n, &end) == 1 && !device[end] && n >= 0 ? n : -1;
}

static bool back_open(Dev *dev, const DevConf *conf, Err *err) {
    const char *device = conf->device && *conf->device ? conf->device : "cpu";
    bool any = strcmp(device, "auto") == 0, path = conf->path && *conf->path && strcmp(conf->path, "auto") != 0;
    int number = any ? 0 : cuda_number(device);
    if (strcmp(device, "cpu") != 0 && number < 0)
        return err_set(err, "device %s is not known; use auto, cpu, cuda or cuda:N", device);
    if (number >= 0 && !(any && (path || cuda_count() == 0))) {
        if (path) return err_set(err, "cpu_path %s is for the CPU: use it with device cpu", conf->path);
        Err why = {0};
        if (cuda_open(dev, number, any ? &why : err)) return true;
        if (!any) return false;
        fprintf(stderr, "whet: %s; device auto takes the CPU\n", why.msg);
    }
    return cpu_open(dev, conf, err);
}

Dev *dev_open(const DevConf *conf, Err *err) {
    Dev *dev = MEM_NEW(Dev);
    dev->threads = 1, dev->trap_nan = conf->trap_nan;
    dev->stats = MEM_ARRAY(struct OpStat, STATS_MAX);
    if (back_open(dev, conf, err)) return dev;
    free(dev->stats);
    free(dev);
    return NULL;
}

void dev_close(Dev *dev) {
    if (!dev) return;
    for (size_t i = 0; i < sizeof dev->scratch / sizeof *dev->scratch; i++) k_free(dev, &dev->scratch[i]);
    dev->ops->close(dev);
    free(dev->stats);
    free(dev);
}

const char *dev_path(const Dev *dev) { return dev->path; }
const char *dev_name(const Dev *dev) { return dev->about; }
int dev_row_unit(const Dev *dev) { return dev->ops->row_unit ? dev->ops->row_unit : 1; }
int64_t dev_left(Dev *dev) { return dev->ops->mem_left(dev); }
int dev_threads(const Dev *dev) { return dev->threads; }
size_t dev_bytes(const Dev *dev) { return dev->bytes; }
size_t dev_peak(const Dev *dev) { return dev->peak; }
void dev_limit(Dev *dev, size_t bytes) { dev->limit = bytes; }

const char *dev_stat(const Dev *dev, int i, long *calls, double *seconds) {
    if (i < 0 || i >= STATS_MAX || !dev->stats[i].name) return NULL;
    *calls = dev->stats[i].calls, *seconds = dev->stats[i].seconds;
    return dev->stats[i].name;
}

void dev_stat_apart(Dev *dev, bool on) { dev->apart = on; }
void dev_stat_reset(Dev *dev) { memset(dev->stats, 0, STATS_MAX * sizeof *dev->stats); }

double dev_roof_flops(Dev *dev) { return dev->ops->roof_flops(dev); }
double dev_roof_bytes(Dev *dev) { return dev->ops->roof_bytes(dev); }

static void account(Dev *dev, size_t more, size_t less) {
    dev->bytes += more;
    dev->bytes -= less;
    if (dev->bytes > dev->peak) dev->peak = dev->bytes;
}

void *dev_scratch(Dev *dev, int which, size_t bytes) {
    Ten *t = &dev->scratch[which];
    if ((size_t)t->rows * 64 < bytes) {
        k_free(dev, t);
        int rows = (int)((bytes + bytes / 4) / 64 + 1);
        *t = dev->ops->mem_new(dev, rows, 16, K_I32);
        if (!t->p) die("out of memory: %zu bytes for an operation's workspace", (size_t)rows * 64);
        account(dev, (size_t)rows * 64, 0);
    }
    return t->p;
}

size_t k_workspace_bytes(const Dev *dev, int rows, int dim, int hidden, int vocab, int q, int kv) {
    CHECK(rows >= 0 && dim > 0 && vocab > 0 && kv > 0 && q >= kv, "%d rows, %d, %d, %d, %d", rows, dim, vocab, q,
          kv);
    return dev->ops->workspace(dev->threads, rows, dim, hidden, vocab, q, kv);
}

/* ---- views ---- */

size_t dtype_size(DType type) { return type == K_BF16 || type == K_BF16_PAIRS ? 2 : type == K_I32 ? 4 : type == K_I8 ? 1 : sizeof(real); }

static void *ten_at(Ten t, int row, int col) {
    return (char *)t.p + ((size_t)row * (size_t)t.stride + (size_t)col) * dtype_size(t.type);
}

Ten ten_rows(Ten t, int first, int n) {
    CHECK(first >= 0 && n >= 0 && first + n <= t.rows, "rows %d + %d of %d", first, n, t.rows);
    return (Ten){ten_at(t, first, 0), n, t.cols, t.stride, t.type};
}

Ten ten_cols(Ten t, int first, int n) {
    CHECK(first >= 0 && n >= 0 && first + n <= t.cols, "columns %d + %d of %d", first, n, t.cols);
    return (Ten){ten_at(t, 0, first), t.rows, n, t.stride, t.type};
}

Ten ten_shape(Ten t, int rows, int cols) {
    CHECK(t.stride == t.cols || t.rows == 1, "stride %d of %d columns", t.stride, t.cols);
    CHECK((int64_t)rows * cols == (int64_t)t.rows * t.cols, "%d x %d as %d x %d", t.rows, t.cols, rows, cols);
    return (Ten){t.p, rows, cols, cols, t.type};
}

/* ---- checks ---- */

#define SHAPE(t, r, c)                                                                                            \
    CHECK((t).p && (t).rows == (r) && (t).cols == (c), #t " is [%d, %d], not [%d, %d]", (t).rows, (t).cols,       \
          (int)(r), (int)(c))
#define TYPE(t, want) CHECK((t).type == (want), #t " has type %d, not %d", (int)(t).type, (int)(want))
#define FLOATING(t) CHECK((t).type == K_REAL || (t).type == K_BF16, #t " has type %d", (int)(t).type)
#define DENSE(t) CHECK((t).stride == (t).cols || (t).rows <= 1, #t " has stride %d of %d", (t).stride, (t).cols)

static void look_for_nan(Dev *dev, const char *op, const char *what, Ten t) {
    if (!ten_is(t) || t.type == K_I32) return;
    char *host = mem_alloc((size_t)t.rows * (size_t)t.cols + 1, dtype_size(t.type));
    dev->ops->get(dev, host, t);
    for (size_t i = 0; i < (size_t)t.rows * (size_t)t.cols; i++) {
        uint16_t h;
        bool nan;
        if (t.type == K_BF16)
            memcpy(&h, host + 2 * i, 2), nan = (h & 0x7fff) > 0x7f80;
        else
            nan = isnan(((real *)(void *)host)[i]);
        CHECK(!nan, "%s: %s[%zu, %zu] is NaN", op, what, i / (size_t)t.cols, i % (size_t)t.cols);
    }
    free(host);
}

static struct OpStat *stat_of(Dev *dev, const char *name) {
    for (int i = 0; i < STATS_MAX; i++) {
        if (!dev->stats[i].name) dev->stats[i].name = name;
        if (dev->stats[i].name == name) return &dev->stats[i];
    }
    CHECK(false, "more than %d ops", STATS_MAX);
}

/* Calls the back's op and accounts for it; `out` is what the NaN trap reads. */
#define RUN(op, out, ...)                                                                                         \
    do {                                                                                                          \
        static const char name_[] = #op;                                                                          \
        double began_ = clock_seconds();                                                                          \
        dev->ops->op(dev, __VA_ARGS__);                                                                           \
        if (dev->apart) dev->ops->sync(dev);                                                                      \
        struct OpStat *stat_ = stat_of(dev, name_);                                                               \
        stat_->calls++, stat_->seconds += clock_seconds() - began_;                                               \
        if (dev->trap_nan) look_for_nan(dev, name_, #out, out);                                                   \
    } while (0)

/* ---- memory ---- */

static bool fits(Dev *dev, size_t bytes, Err *err) {
    if (!dev->limit || dev->bytes + bytes <= dev->limit) return true;
    return err_set(err, "%.2f GB are asked where %.2f GB are in use and the limit is %.2f GB",
                   (double)bytes * 1e-9, (double)dev->bytes * 1e-9, (double)dev->limit * 1e-9);
}

Ten k_new(Dev *dev, int rows, int cols, DType type, Err *err) {
    CHECK(rows >= 0 && cols >= 0, "%d x %d", rows, cols);
    size_t bytes = (size_t)rows * (size_t)cols * dtype_size(type);
    Ten t = {0};
    if (!fits(dev, bytes, err)) return t;
    t = dev->ops->mem_new(dev, rows, cols, type);
    if (t.p)
        account(dev, bytes, 0);
    else
        err_set(err, "out of memory: %.2f GB asked, %.2f GB in use", (double)bytes * 1e-9,
                (double)dev->bytes * 1e-9);
    return t;
}

void k_free(Dev *dev, Ten *t) {
    if (!t->p) return;
    dev->ops->mem_free(dev, *t);
    account(dev, 0, (size_t)t->rows * (size_t)t->cols * dtype_size(t->type));
    *t = TEN_NONE;
}

void k_put(Dev *dev, Ten dst, const void *host) { dev->ops->put(dev, dst, host); }
void k_get(Dev *dev, void *host, Ten src) { dev->ops->get(dev, host, src); }
void k_zero(Dev *dev, Ten t) { RUN(zero, t, t); }
void k_sync(Dev *dev) { dev->ops->sync(dev); }

void dev_again(Dev *dev, bool on) { dev->no_again = !on; }
bool k_again(Dev *dev, const Rows *rows, const void *key, size_t n) {
    return !dev->ops->again || dev->no_again || dev->apart || dev->trap_nan || dev->ops->again(dev, rows, key, n);
}
void k_again_end(Dev *dev) {
    if (dev->ops->again_end) dev->ops->again_end(dev);
}

void k_copy(Dev *dev, Ten dst, Ten src) {
    SHAPE(dst, src.rows, src.cols);
    FLOATING(dst);
    FLOATING(src);
    RUN(copy, dst, dst, src);
}

void k_scale(Dev *dev, Ten y, Ten x, real s) {
    SHAPE(y, x.rows, x.cols);
    FLOATING(y);
    FLOATING(x);
    RUN(scale, y, y, x, s);
}

/* ---- weight matrices ---- */

size_t k_mat_bytes(const Dev *dev, int n, int k, DType type, bool with_back) {
    size_t elements =
        dev->ops->mat_elements(n, k) + (with_back && !dev->ops->one_copy ? dev->ops->mat_elements(k, n) : 0);
    return elements * dtype_size(type);
}

/* A copy's rows of 32 elements: their count may pass what one row can number. */
static int packed_rows(const Dev *dev, int n, int k) { return (int)(dev->ops->mat_elements(n, k) / 32); }

bool k_mats_new(Dev *dev, MatHome *home, Mat *const *mats, const bool *with_back, int n, DType type, Err *err) {
    int64_t fwd = 0, back = 0;
    const bool one_copy = dev->ops->one_copy;
    for (int i = 0; i < n; i++) {
        CHECK(mats[i]->n > 0 && mats[i]->k > 0, "%d x %d", mats[i]->n, mats[i]->k);
        fwd += packed_rows(dev, mats[i]->n, mats[i]->k);
        if (with_back[i] && !one_copy) back += packed_rows(dev, mats[i]->k, mats[i]->n);
    }
    CHECK(fwd <= INT32_MAX && back <= INT32_MAX, "%lld rows of 32 weights", (long long)fwd);
    *home = (MatHome){.fwd = k_new(dev, (int)fwd, 32, type, err)};
    if (home->fwd.p && back) home->back = k_new(dev, (int)back, 32, type, err);
    if (!home->fwd.p || (back && !home->back.p)) {
        k_mats_free(dev, home);
        return false;
    }
    int fwd_at = 0, back_at = 0;
    for (int i = 0; i < n; i++) {
        Mat *mat = mats[i];
        int rows = packed_rows(dev, mat->n, mat->k), rows_back = packed_rows(dev, mat->k, mat->n);
        *mat = (Mat){.n = mat->n, .k = mat->k, .type = type, .fwd = ten_rows(home->fwd, fwd_at, rows)};
        fwd_at += rows;
        if (!with_back[i]) continue;
        mat->back = one_copy ? mat->fwd : ten_rows(home->back, back_at, rows_back);
        if (!one_copy) back_at += rows_back;
    }
    return true;
}

bool k_has_int8(const Dev *dev) { return dev->ops->int8; }

static int scales(int n) { return (n + 15) / 16 * 16; } /* whole vectors */

size_t k_mat_bytes_int8(const Dev *dev, int n, int k) {
    return dev->ops->mat_elements(n, k) + (size_t)scales(n) * sizeof(real);
}

bool k_mats_new_int8(Dev *dev, MatHome *home, Mat *const *mats, int n, DType type, Err *err) {
    int64_t rows = 0, outputs = 0;
    CHECK(dev->ops->int8, "int8 on %s", dev->path);
    for (int i = 0; i < n; i++) rows += packed_rows(dev, mats[i]->n, mats[i]->k), outputs += scales(mats[i]->n);
    CHECK(rows <= INT32_MAX && outputs <= INT32_MAX, "%lld rows of 32 weights", (long long)rows);
    *home = (MatHome){.fwd = k_new(dev, (int)rows, 32, K_I8, err)};
    if (home->fwd.p) home->scale = k_new(dev, 1, (int)outputs, K_REAL, err);
    if (!home->scale.p) {
        k_mats_free(dev, home);
        return false;
    }
    int at = 0, scale_at = 0;
    for (int i = 0; i < n; i++) {
        Mat *mat = mats[i];
        *mat = (Mat){.n = mat->n, .k = mat->k, .type = type};
        mat->fwd = ten_rows(home->fwd, at, packed_rows(dev, mat->n, mat->k)), at += mat->fwd.rows;
        mat->scale = ten_cols(home->scale, scale_at, scales(mat->n)), scale_at += mat->scale.cols;
    }
    return true;
}

void k_mats_free(Dev *dev, MatHome *home) {
    k_free(dev, &home->fwd);
    k_free(dev, &home->back);
    k_free(dev, &home->scale);
}

Mat k_mat_new(Dev *dev, int n, int k, DType type, bool with_back, Err *err) {
    Mat mat = {.n = n, .k = k};
    MatHome home;
    k_mats_new(dev, &home, (Mat *[]){&mat}, &with_back, 1, type, err); /* on failure mat stays without memory */
    return mat;
}

void k_mat_free(Dev *dev, Mat *mat) {
    if (dev->ops->one_copy) mat->back = TEN_NONE;
    k_mats_free(dev, &(MatHome){mat->fwd, mat->back, mat->scale});
    mat->fwd = mat->back = mat->scale = TEN_NONE;
}

void k_mat_pack(Dev *dev, Mat *mat, Ten w, int row0) {
    SHAPE(w, w.rows, mat->k);
    TYPE(w, K_REAL);
    CHECK(row0 >= 0 && row0 + w.rows <= mat->n, "rows %d + %d of %d", row0, w.rows, mat->n);
    RUN(mat_pack, w, mat, w, row0);
}

/* ---- keys and values ---- */

size_t k_kv_page_bytes(const Dev *dev, int layers, int heads, int head_dim, DType type, bool grad) {
    return dev->ops->kv_page_elements(heads, head_dim, grad) * (size_t)layers * dtype_size(type);
}

Kv k_kv_new(Dev *dev, int pages, int layers, int heads, int head_dim, DType type, bool grad, Err *err) {
    CHECK(head_dim % 2 == 0 && head_dim <= 256, "head_dim %d", head_dim);
    CHECK(!grad || type == K_REAL, "gradient of type %d", (int)type);
    Kv kv = {layers, heads, head_dim, pages, type, TEN_NONE, grad};
    kv.data = k_new(dev, pages * layers, (int)dev->ops->kv_page_elements(heads, head_dim, grad), type, err);
    return kv;
}

void k_kv_free(Dev *dev, Kv *kv) { k_free(dev, &kv->data); }

void k_kv_zero(Dev *dev, Kv *kv, int page) {
    CHECK(page >= 0 && page < kv->pages, "page %d of %d", page, kv->pages);
    RUN(kv_zero, TEN_NONE, kv, page);
}

static void check_shares(const Kv *kv, const KvShare *shares, int n) {
    for (int i = 0; i < n; i++) {
        const KvShare *s = &shares[i];
        CHECK(s->src >= 0 && s->src < kv->pages && s->dst >= 0 && s->dst < kv->pages && s->src != s->dst,
              "share of page %d with %d of %d", s->src, s->dst, kv->pages);
        CHECK(s->n >= 0 && s->n <= KV_PAGE, "%d slots", s->n);
    }
}

void k_kv_copy(Dev *dev, Kv *kv, const KvShare *shares, int n) {
    check_shares(kv, shares, n);
    RUN(kv_copy, TEN_NONE, kv, shares, n);
}

static void check_rows(const Rows *rows, const Kv *kv, int layer) {
    CHECK(layer >= 0 && layer < kv->layers, "layer %d of %d", layer, kv->layers);
    for (int r = 0; r < rows->m; r++) {
        CHECK(rows->page[r] >= -1 && rows->page[r] < kv->pages, "row %d: page %d of %d", r, rows->page[r],
              kv->pages);
        CHECK(rows->pos[r] >= 0, "row %d: position %d", r, rows->pos[r]);
    }
    for (int s = 0; s < rows->n_spans; s++) {
        const KvSpan *span = &rows->spans[s];
        CHECK(span->row0 >= 0 && span->n >= 0 && span->row0 + span->n <= rows->m, "span %d: rows %d + %d of %d", s,
              span->row0, span->n, rows->m);
        CHECK(span->share >= 0 && span->share <= rows->n_shares, "span %d: share %d of %d", s, span->share,
              rows->n_shares);
        for (int i = 0; i < (span->n ? (span->pos0 + span->n + KV_PAGE - 1) / KV_PAGE : 0); i++) {
            int page = rows->table[span->table + i];
            CHECK(page >= 0 && page < kv->pages, "span %d: page %d of %d", s, page, kv->pages);
        }
    }
    check_shares(kv, rows->shares, rows->n_shares);
}

static int qkv_cols(Ten q, const Kv *kv) { return q.cols + 2 * kv->heads * kv->head_dim; }

static void check_rotary(const Rows *rows, Ten cos, Ten sin, int head_dim) {
    if (!ten_is(cos)) return;
    CHECK(cos.cols > 0 && cos.cols <= head_dim / 2, "%d pairs of a head of %d", cos.cols, head_dim);
    SHAPE(cos, cos.rows, cos.cols);
    SHAPE(sin, cos.rows, cos.cols);
    for (int r = 0; r < rows->m; r++)
        CHECK(rows->pos[r] < cos.rows, "row %d: position %d of %d", r, rows->pos[r], cos.rows);
}

void k_qkv(Dev *dev, Ten q, Kv *kv, int layer, Ten qkv, const Rows *rows, Ten cos, Ten sin) {
    check_rows(rows, kv, layer);
    check_rotary(rows, cos, sin, kv->head_dim);
    SHAPE(qkv, rows->m, qkv_cols(q, kv));
    SHAPE(q, rows->m, q.cols);
    TYPE(qkv, K_REAL);
    TYPE(q, kv->type);
    RUN(qkv, q, q, kv, layer, qkv, rows, cos, sin);
}

void k_qkv_back(Dev *dev, Ten dqkv, Ten dq, Kv *dkv, int layer, const Rows *rows, Ten cos, Ten sin) {
    check_rows(rows, dkv, layer);
    check_rotary(rows, cos, sin, dkv->head_dim);
    SHAPE(dqkv, rows->m, qkv_cols(dq, dkv));
    SHAPE(dq, rows->m, dq.cols);
    TYPE(dq, K_REAL);
    FLOATING(dqkv);
    CHECK(dkv->grad, "pages of layer %d hold no gradient", layer);
    RUN(qkv_back, dqkv, dqkv, dq, dkv, layer, rows, cos, sin);
}

static void check_heads(Ten q, const Kv *kv) {
    int width = kv->heads * kv->head_dim;
    CHECK(q.cols % width == 0, "%d query columns over %d key columns", q.cols, width);
}

void k_attend(Dev *dev, Ten o, Ten lse, Ten q, const Kv *kv, int layer, const Rows *rows, real scale, real cap,
              int window) {
    check_rows(rows, kv, layer);
    check_heads(q, kv);
    SHAPE(q, rows->m, q.cols);
    SHAPE(o, rows->m, q.cols);
    TYPE(q, kv->type);
    FLOATING(o);
    if (ten_is(lse)) SHAPE(lse, rows->m, q.cols / kv->head_dim);
    RUN(attend, o, o, lse, q, kv, layer, rows, scale, cap, window);
}

void k_attend_back(Dev *dev, Ten dq, Kv *dkv, Ten dout, Ten o, Ten lse, Ten q, const Kv *kv, int layer,
                   const Rows *rows, real scale, real cap, int window) {
    check_rows(rows, kv, layer);
    check_heads(q, kv);
    SHAPE(q, rows->m, q.cols);
    SHAPE(dq, rows->m, q.cols);
    SHAPE(dout, rows->m, q.cols);
    SHAPE(o, rows->m, q.cols);
    SHAPE(lse, rows->m, q.cols / kv->head_dim);
    TYPE(dq, K_REAL);
    CHECK(dkv->grad && dkv->pages == kv->pages && dkv->heads == kv->heads && dkv->head_dim == kv->head_dim,
          "%d pages of gradient for %d", dkv->pages, kv->pages);
    RUN(attend_back, dq, dq, dkv, dout, o, lse, q, kv, layer, rows, scale, cap, window);
}

/* ---- rows ---- */

static void check_tokens(const Rows *rows, int vocab) {
    for (int r = 0; r < rows->m; r++)
        CHECK(rows->tok[r] >= 0 && rows->tok[r] < vocab, "row %d: token %d of %d", r, rows->tok[r], vocab);
}

void k_embed(Dev *dev, Ten x, const Mat *w, const Rows *rows) {
    TYPE(w->fwd, w->type);
    check_tokens(rows, w->n);
    SHAPE(x, rows->m, w->k);
    TYPE(x, K_REAL);
    RUN(embed, x, x, w, rows);
}

void k_embed_back(Dev *dev, Ten dw, Ten dx, const Rows *rows) {
    check_tokens(rows, dw.rows);
    SHAPE(dx, rows->m, dw.cols);
    TYPE(dw, K_REAL);
    TYPE(dx, K_REAL);
    RUN(embed_back, TEN_NONE, dw, dx, rows);
}

static void check_norm(Ten x, Ten w, Ten rstd) {
    CHECK(w.cols > 0 && x.cols % w.cols == 0, "%d columns in runs of %d", x.cols, w.cols);
    SHAPE(w, 1, w.cols);
    if (ten_is(rstd)) SHAPE(rstd, x.rows, x.cols / w.cols);
}

void k_rmsnorm(Dev *dev, Ten y, Ten rstd, Ten x, Ten w, Ten residual, real eps) {
    SHAPE(y, x.rows, x.cols);
    check_norm(x, w, rstd);
    if (ten_is(residual)) SHAPE(residual, x.rows, x.cols);
    TYPE(x, K_REAL);
    TYPE(w, K_REAL);
    FLOATING(y);
    RUN(rmsnorm, y, y, rstd, x, w, residual, eps);
}

void k_rmsnorm_back(Dev *dev, Ten dx, Ten low, Ten dw, Ten y, Ten dy, Ten x, Ten rstd, Ten w) {
    if (ten_is(y)) SHAPE(y, x.rows, x.cols);
    if (ten_is(dx)) SHAPE(dx, x.rows, x.cols);
    if (ten_is(low)) SHAPE(low, x.rows, x.cols);
    CHECK(ten_is(dx) || ten_is(low), "no output of %d rows", x.rows);
    SHAPE(dy, x.rows, x.cols);
    check_norm(x, w, rstd);
    CHECK(ten_is(rstd), "no rstd for %d rows", x.rows);
    if (ten_is(dx)) TYPE(dx, K_REAL);
    TYPE(x, K_REAL);
    if (ten_is(dw)) SHAPE(dw, 1, w.cols);
    RUN(rmsnorm_back, ten_is(dx) ? dx : low, dx, low, dw, y, dy, x, rstd, w);
}

void k_matmul(Dev *dev, Ten y, Ten x, const Mat *w, Ten bias, Ten residual) {
    SHAPE(x, x.rows, w->k);
    SHAPE(y, x.rows, w->n);
    TYPE(x, w->type);
    FLOATING(y);
    if (ten_is(bias)) SHAPE(bias, 1, w->n);
    if (ten_is(residual)) SHAPE(residual, x.rows, w->n);
    RUN(matmul, y, y, x, w, bias, residual);
}

void k_matmul_dx(Dev *dev, Ten dx, Ten dy, const Mat *w, Ten residual) {
    SHAPE(dy, dy.rows, w->n);
    SHAPE(dx, dy.rows, w->k);
    TYPE(dy, w->type);
    FLOATING(dx);
    if (ten_is(residual)) SHAPE(residual, dy.rows, w->k);
    CHECK(ten_is(w->back), "a matrix of %d x %d has no transposed copy", w->n, w->k);
    RUN(matmul_dx, dx, dx, dy, w, residual);
}

void k_matmul_dw(Dev *dev, Ten dw, Ten dy, Ten x, bool fresh) {
    SHAPE(dw, dy.cols, x.cols);
    SHAPE(dy, x.rows, dy.cols);
    TYPE(dw, K_REAL);
    TYPE(dy, x.type == K_BF16_PAIRS ? K_BF16 : x.type);
    RUN(matmul_dw, dw, dw, dy, x, fresh);
}

Ten ten_pairs(const Dev *dev, Ten t) {
    bool whole = t.stride == t.cols && t.rows % 32 == 0 && t.cols % 16 == 0 && (uintptr_t)t.p % 64 == 0;
    if (dev->ops->pairs && t.type == K_BF16 && whole) t.type = K_BF16_PAIRS;
    return t;
}

void k_bias_back(Dev *dev, Ten db, Ten dy) {
    SHAPE(db, 1, dy.cols);
    TYPE(db, K_REAL);
    RUN(bias_back, db, db, dy);
}

void k_glu(Dev *dev, Ten h, Ten gu, GluKind kind) {
    SHAPE(gu, h.rows, 2 * h.cols);
    RUN(glu, h, h, gu, kind);
}

void k_glu_back(Dev *dev, Ten dgu, Ten h, Ten dh, Ten gu, GluKind kind) {
    if (ten_is(h)) SHAPE(h, dh.rows, dh.cols);
    SHAPE(gu, dh.rows, 2 * dh.cols);
    SHAPE(dgu, dh.rows, 2 * dh.cols);
    RUN(glu_back, dgu, dgu, h, dh, gu, kind);
}

static void check_index(const int *index, int n, int limit) {
    for (int i = 0; i < n; i++)
        CHECK(index[i] >= -1 && index[i] < limit, "index[%d] is %d of %d", i, index[i], limit);
}

void k_gather(Dev *dev, Ten y, Ten x, const int *index) {
    SHAPE(y, y.rows, x.cols);
    TYPE(y, K_REAL);
    TYPE(x, K_REAL);
    check_index(index, y.rows, x.rows);
    RUN(gather, y, y, x, index);
}

void k_scatter(Dev *dev, Ten x, Ten y, const int *index) {
    SHAPE(y, y.rows, x.cols);
    TYPE(y, K_REAL);
    TYPE(x, K_REAL);
    check_index(index, y.rows, x.rows);
    RUN(scatter, x, x, y, index);
}

/* ---- the head ---- */

static void check_targets(const int *target, int n, int vocab) { check_index(target, n, vocab); }

static void check_kept(Ten kept, int rows, int vocab) {
    if (!ten_is(kept)) return;
    SHAPE(kept, rows, KEPT_WORDS(vocab));
    TYPE(kept, K_I32);
}

void k_logprob(Dev *dev, Ten logp, Ten lse, Ten entropy, Ten x, const Mat *w, const int *target, Ten kept,
               real inv_temp, real cap) {
    SHAPE(x, x.rows, w->k);
    SHAPE(logp, 1, x.rows);
    SHAPE(lse, 1, x.rows);
    if (ten_is(entropy)) SHAPE(entropy, 1, x.rows);
    TYPE(x, w->type);
    TYPE(w->fwd, w->type);
    TYPE(logp, K_REAL);
    check_targets(target, x.rows, w->n);
    check_kept(kept, x.rows, w->n);
    RUN(logprob, logp, logp, lse, entropy, x, w, target, kept, inv_temp, cap);
}

void k_logprob_back(Dev *dev, Ten dx, Ten dw, Ten x, const Mat *w, const int *target, Ten kept, const real *coef,
                    const real *ent_coef, Ten lse, Ten entropy, real inv_temp, real cap, bool fresh) {
    SHAPE(x, x.rows, w->k);
    SHAPE(dx, x.rows, w->k);
    SHAPE(lse, 1, x.rows);
    TYPE(x, w->type);
    TYPE(dx, K_REAL);
    if (ten_is(dw)) SHAPE(dw, w->n, w->k);
    if (ent_coef) SHAPE(entropy, 1, x.rows);
    check_targets(target, x.rows, w->n);
    check_kept(kept, x.rows, w->n);
    CHECK(ten_is(w->back), "the head has no transposed copy");
    RUN(logprob_back, dx, dx, dw, x, w, target, kept, coef, ent_coef, lse, entropy, inv_temp, cap, fresh);
}

void k_softcap(Dev *dev, Ten x, real cap) {
    TYPE(x, K_REAL);
    CHECK(cap > 0, "cap %g", (double)cap);
    RUN(softcap, x, x, cap);
}

void k_sample(Dev *dev, Drawn *drawn, Ten kept, Ten logits, const Draw *draws, int vocab_used) {
    TYPE(logits, K_REAL);
    check_kept(kept, logits.rows, logits.cols);
    CHECK(vocab_used > 0 && vocab_used <= logits.cols, "%d of %d ids", vocab_used, logits.cols);
    for (int r = 0; r < logits.rows; r++)
        CHECK(draws[r].u >= 0 && draws[r].u < 1 && draws[r].inv_temp >= 0, "row %d: u %g", r, draws[r].u);
    RUN(sample, TEN_NONE, drawn, kept, logits, draws, vocab_used);
}

/* ---- the optimizer ---- */

void k_adamw(Dev *dev, Ten w, Ten m, Ten v, Ten grad, const AdamStep *step) {
    SHAPE(m, w.rows, w.cols);
    SHAPE(v, w.rows, w.cols);
    SHAPE(grad, w.rows, w.cols);
    DENSE(w);
    RUN(adamw, w, w, m, v, grad, step);
}

double k_sumsq(Dev *dev, Ten t) {
    TYPE(t, K_REAL);
    DENSE(t);
    return dev->ops->sumsq(dev, t);
}

void k_add(Dev *dev, Ten y, Ten x) {
    SHAPE(y, x.rows, x.cols);
    TYPE(y, K_REAL);
    TYPE(x, K_REAL);
    RUN(add, y, y, x);
}

uint64_t k_hash(Dev *dev, const Ten *parts, int n) {
    for (int i = 0; i < n; i++) DENSE(parts[i]);
    return dev->ops->hash(dev, parts, n);
}
