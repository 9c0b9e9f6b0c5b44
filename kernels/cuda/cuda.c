/* cuda.c: the CUDA back's device: opening it, its memory, uploads, and the table of ops. The runtime is linked
 * statically and needs no driver to start; what needs one is called only once a device has been found. */
#include "kernels/cuda/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cuda_must(cudaError_t error, const char *what) {
    if (error != cudaSuccess) die("cuda: %s: %s", what, cudaGetErrorString(error));
}

int cuda_count(void) {
    int n = 0; /* without a driver the call fails and leaves it alone */
    if (cudaGetDeviceCount(&n) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    return n;
}

/* ---- uploads ---- */

/* Copies to device memory `to` through pinned memory; the host's bytes are free again when it returns. NULL: into
 * the pinned memory's own copy, which is returned. */
static void *send(Dev *dev, void *to, const void *host, size_t bytes) {
    struct Cuda *cuda = dev->cuda;
    struct Upload *up = &cuda->uploads[cuda->next];
    cuda->next = (cuda->next + 1) % UPLOADS;
    CHECK(!graphs_recording(cuda->graphs), "%zu bytes are sent inside of a step that comes again", bytes);
    if (up->used) cuda_must(cudaEventSynchronize(up->done), "upload");
    if (up->room < bytes) {
        cuda_must(cudaFreeHost(up->host), "upload");
        cuda_must(cudaFree(up->device), "upload");
        up->room = bytes + bytes / 2 + 4096;
        cuda_must(cudaMallocHost(&up->host, up->room), "pinned memory for an upload");
        cuda_must(cudaMalloc(&up->device, up->room), "memory for an upload");
    }
    memcpy(up->host, host, bytes);
    if (!to) to = up->device;
    if (bytes) cuda_must(cudaMemcpyAsync(to, up->host, bytes, cudaMemcpyHostToDevice, cuda->stream), "upload");
    cuda_must(cudaEventRecord(up->done, cuda->stream), "upload");
    up->used = true;
    return to;
}

const void *upload(Dev *dev, const void *host, size_t bytes) { return send(dev, NULL, host, bytes); }

/* Entries of the spans' tables: how far they reach. */
static int table_length(const Rows *rows) {
    int most = 0;
    for (int i = 0; i < rows->n_spans; i++) {
        const KvSpan *s = &rows->spans[i];
        int end = s->table + (s->n ? (s->pos0 + s->n + KV_PAGE - 1) / KV_PAGE : 0);
        if (end > most) most = end;
    }
    return most;
}

const void *upload_kept(Dev *dev, struct Kept *kept, const void *host, size_t bytes) {
    if (kept->host && kept->bytes == bytes && memcmp(host, kept->host, bytes) == 0) return kept->device;
    if (kept->room < bytes || !kept->host) {
        free(kept->host);
        if (kept->device) graphs_drop(dev->cuda->graphs); /* what they read moves */
        cuda_must(cudaFree(kept->device), "upload");
        kept->room = 2 * bytes + 4096;
        kept->host = mem_alloc(kept->room, 1);
        cuda_must(cudaMalloc(&kept->device, kept->room), "memory for an upload");
    }
    memcpy(kept->host, host, bytes);
    kept->bytes = bytes;
    return send(dev, kept->device, host, bytes);
}

/* One block of ints. The layers of a batch ask for the same one. What is as long in every batch of as many rows
 * and spans comes first: it then lies where it lay. */
DevRows rows_on(Dev *dev, const Rows *rows) {
    const size_t m = (size_t)rows->m * sizeof(int), table = (size_t)table_length(rows) * sizeof(int);
    const size_t spans = (size_t)rows->n_spans * sizeof(KvSpan), shares = (size_t)rows->n_shares * sizeof(KvShare);
    const struct {
        const void *p;
        size_t bytes;
    } parts[] = {{rows->tok, m},       {rows->pos, m},         {rows->page, m},
                 {rows->spans, spans}, {rows->shares, shares}, {rows->table, table}};
    const size_t bytes = 3 * m + table + spans + shares;
    char *block = mem_alloc(bytes + 1, 1);
    size_t at = 0, starts[6];
    for (int i = 0; i < 6; i++) {
        starts[i] = at;
        if (parts[i].bytes) memcpy(block + at, parts[i].p, parts[i].bytes);
        at += parts[i].bytes;
    }
    const char *to = upload_kept(dev, &dev->cuda->rows, block, bytes);
    free(block);
    DevRows there = {.m = rows->m, .n_spans = rows->n_spans, .n_shares = rows->n_shares};
    there.tok = (const int *)(const void *)(to + starts[0]),
    there.pos = (const int *)(const void *)(to + starts[1]);
    there.page = (const int *)(const void *)(to + starts[2]);
    there.spans = (const KvSpan *)(const void *)(to + starts[3]);
    there.shares = (const KvShare *)(const void *)(to + starts[4]);
    there.table = (const int *)(const void *)(to + starts[5]);
    return there;
}

/* ---- memory ---- */

static size_t ten_bytes(Ten t) { return (size_t)t.rows * (size_t)t.cols * dtype_size(t.type); }

static Ten cuda_new(Dev *dev, int rows, int cols, DType type) {
    Ten t = {NULL, rows, cols, cols, type};
    size_t bytes = ten_bytes(t) ? ten_bytes(t) : 1;
    if (cudaMalloc(&t.p, bytes) != cudaSuccess) {
        cudaGetLastError();
        t.p = NULL;
        return t;
    }
    cuda_must(cudaMemsetAsync(t.p, 0, bytes, dev->cuda->stream), "memset");
    return t;
}

static void cuda_free(Dev *dev, Ten t) {
    cuda_must(cudaStreamSynchronize(dev->cuda->stream), "free");
    graphs_drop(dev->cuda->graphs); /* one may use it */
    cuda_must(cudaFree(t.p), "free");
}

static void copy2d(Dev *dev, void *to, size_t to_pitch, const void *from, size_t from_pitch, Ten shape,
                   enum cudaMemcpyKind kind) {
    size_t wide = (size_t)shape.cols * dtype_size(shape.type);
    if (wide == 0 || shape.rows == 0) return;
    if (shape.rows == 1 || (to_pitch == wide && from_pitch == wide)) /* no limit of width or pitch */
        cuda_must(cudaMemcpyAsync(to, from, wide * (size_t)shape.rows, kind, dev->cuda->stream), "copy");
    else
        cuda_must(
            cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, wide, (size_t)shape.rows, kind, dev->cuda->stream),
            "copy");
}

static size_t pitch_of(Ten t) { return (size_t)t.stride * dtype_size(t.type); }

static void cuda_put(Dev *dev, Ten dst, const void *host) {
    copy2d(dev, dst.p, pitch_of(dst), host, (size_t)dst.cols * dtype_size(dst.type), dst, cudaMemcpyHostToDevice);
    cuda_must(cudaStreamSynchronize(dev->cuda->stream), "put"); /* the host's memory is the caller's again */
}

static void cuda_get(Dev *dev, void *host, Ten src) {
    copy2d(dev, host, (size_t)src.cols * dtype_size(src.type), src.p, pitch_of(src), src, cudaMemcpyDeviceToHost);
    cuda_must(cudaStreamSynchronize(dev->cuda->stream), "get");
}

static void cuda_zero(Dev *dev, Ten t) {
    size_t wide = (size_t)t.cols * dtype_size(t.type);
    if (wide == 0 || t.rows == 0) return;
    if (t.rows == 1 || t.stride == t.cols)
        cuda_must(cudaMemsetAsync(t.p, 0, wide * (size_t)t.rows, dev->cuda->stream), "zero");
    else
        cuda_must(cudaMemset2DAsync(t.p, pitch_of(t), 0, wide, (size_t)t.rows, dev->cuda->stream), "zero");
}

static void cuda_sync(Dev *dev) { cuda_must(cudaStreamSynchronize(dev->cuda->stream), "synchronize"); }

/* A little is left to the driver, which takes memory for kernels and their printing when they are first used. */
static int64_t cuda_left(Dev *dev) {
    (void)dev;
    size_t left = 0, all = 0, keep;
    cuda_must(cudaMemGetInfo(&left, &all), "free memory");
    keep = all / 32 < ((size_t)512 << 20) ? all / 32 : (size_t)512 << 20;
    return left > keep ? (int64_t)(left - keep) : 0;
}

Ten scratch_ten(Dev *dev, int which, int rows, int cols, DType type) {
    Ten t = {NULL, rows, cols, cols, type};
    t.p = dev_scratch(dev, which, ten_bytes(t));
    return t;
}

static size_t mat_elements(int n, int k) { /* a multiple of 32, as the front wants it */
    return ((size_t)MAT_ALIGN(n) * (size_t)MAT_ALIGN(k) + 31) / 32 * 32;
}

static size_t kv_page_elements(int heads, int head_dim, bool grad) {
    (void)grad;
    return 2 * (size_t)heads * KV_PAGE * (size_t)((head_dim + KV_WIDE - 1) / KV_WIDE * KV_WIDE);
}

static void kv_zero(Dev *dev, Kv *kv, int page) {
    size_t wide = kv_page_elements(kv->heads, kv->head_dim, kv->grad) * dtype_size(kv->type);
    const size_t pitch = (size_t)kv->pages * wide, most = INT32_MAX; /* of a pitch, on every device */
    char *at = (char *)kv->data.p + (size_t)page * wide;
    if (pitch <= most)
        cuda_must(cudaMemset2DAsync(at, pitch, 0, wide, (size_t)kv->layers, dev->cuda->stream), "zero a page");
    for (int l = 0; pitch > most && l < kv->layers; l++)
        cuda_must(cudaMemsetAsync(at + (size_t)l * pitch, 0, wide, dev->cuda->stream), "zero a page");
}

/* ---- what the ops take beside the tensors: see WS_* in host.h ---- */

/* What lt.c holds while it chooses the algorithm of a product of n outputs of k numbers and of its gradient's. */
static size_t choosing(size_t n, size_t k) {
    size_t some = least_of(n, PRODUCT_COLS), forth = some * (k + 8) + CHECK_ROWS * (k + 2 * some + 24);
    size_t back = (some + 8) * (k + 8) + CHECK_ROWS * (some + 2 * least_of(k, PRODUCT_COLS) + 24);
    return most_of(forth, back) * sizeof(float);
}

static size_t workspace(int threads, int m, int dim, int hidden, int vocab, int q, int kv) {
    (void)threads;
    size_t rows = (size_t)(m + 31) / 32 * 32, some = rows < HEAD_ROWS ? rows : HEAD_ROWS;
    size_t widest = most_of(most_of((size_t)(q + 2 * kv), 2 * (size_t)hidden),
                            most_of((size_t)dim, least_of((size_t)vocab, PRODUCT_COLS)));
    size_t blocks = (size_t)(vocab + HEAD_BLOCK - 1) / HEAD_BLOCK, wide = least_of(widest, PRODUCT_COLS) + 8;
    size_t sizes[][2] = {{q + 2 * kv, dim}, {dim, q}, {2 * hidden, dim}, {dim, hidden}, {vocab, dim}}, choice = 0;
    /* Of products whose widths are multiples of 8 the rows that no unit has are copied, of others PRODUCT_ROWS at
     * once: here those of adapters, which are at most as wide as the model. */
    size_t copied = ROW_UNIT * (widest + 8), all = PRODUCT_ROWS * ((size_t)dim + 8);
    if (dim % 8 || hidden % 8 || q % 8 || kv % 8) all = PRODUCT_ROWS * (widest + 8);
    copied = most_of(copied, all);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        choice = most_of(choice, choosing(sizes[i][0], sizes[i][1]));
    size_t each[] = {
        copied * sizeof(float),                                                          /* WS_LEFT */
        copied * sizeof(float),                                                          /* WS_OUT */
        some * wide * sizeof(float),                                                     /* WS_LOGITS */
        rows * (2 * blocks * sizeof(HeadPart) + sizeof(float) + sizeof(Drawn)) + 64,     /* WS_PARTS */
        LT_WORKSPACE,                                                                    /* WS_LT */
        rows * (size_t)q * 2 * sizeof(float),                                            /* WS_ATTEND */
        most_of(rows / SUM_ROWS * widest * sizeof(float), SUMSQ_PIECE * sizeof(double)), /* WS_SUMS */
        some * wide * sizeof(float),                                                     /* WS_DZ */
    };
    size_t sum = 0;
    for (size_t i = 0; i < sizeof each / sizeof *each; i++)
        sum += each[i] + each[i] / 4 + 64;                    /* as dev_scratch grows */
    return sum + choice + (UPLOADS + 2) * (64 * rows + 8192); /* small things on their way to the device */
}

/* ---- the roof ---- */

/* Bytes read a second: passes over memory until they take long enough to be timed. */
static double roof_bytes(Dev *dev) {
    for (size_t bytes = 1 << 20;; bytes *= 2) {
        Ten t = cuda_new(dev, (int)(bytes >> 10), 256, K_REAL);
        if (!t.p) return 0;
        float *out = dev_scratch(dev, WS_SUMS, 64);
        cu_read(dev->cuda->stream, out, t.p, bytes / 4);
        cuda_sync(dev);
        double began = clock_seconds();
        for (int i = 0; i < 4; i++) cu_read(dev->cuda->stream, out, t.p, bytes / 4);
        cuda_sync(dev);
        double seconds = clock_seconds() - began;
        cuda_free(dev, t);
        if (seconds > 0.004 || bytes >= (size_t)1 << 30) return 4 * (double)bytes / seconds;
    }
}

/* ---- open and close ---- */

/* Of a device that was opened in part as well. */
static void cuda_end(struct Cuda *cuda) {
    if (cuda->stream) cuda_must(cudaStreamSynchronize(cuda->stream), "close");
    for (int i = 0; i < UPLOADS; i++) {
        cuda_must(cudaFreeHost(cuda->uploads[i].host), "close");
        cuda_must(cudaFree(cuda->uploads[i].device), "close");
        if (cuda->uploads[i].done) cuda_must(cudaEventDestroy(cuda->uploads[i].done), "close");
    }
    for (int i = 0; i < 2; i++) {
        struct Kept *kept = i ? &cuda->tiles : &cuda->rows;
        cuda_must(cudaFree(kept->device), "close");
        free(kept->host);
    }
    cuda_must(cudaFreeHost(cuda->sums), "close");
    graphs_close(cuda->graphs);
    if (cuda->lt) lt_close(cuda->lt);
    if (cuda->stream) cuda_must(cudaStreamDestroy(cuda->stream), "close");
    free(cuda);
}

static void cuda_close(Dev *dev) { cuda_end(dev->cuda); }

static const Ops cuda_ops = {
    .name = "cuda",
    .close = cuda_close,
    .mem_new = cuda_new,
    .mem_free = cuda_free,
    .put = cuda_put,
    .get = cuda_get,
    .zero = cuda_zero,
    .copy = op_copy,
    .scale = op_scale,
    .sync = cuda_sync,
    .again = cuda_again,
    .again_end = cuda_again_end,
    .row_unit = ROW_UNIT,
    .mem_left = cuda_left,
    .mat_elements = mat_elements,
    .one_copy = true,
    .mat_pack = op_mat_pack,
    .kv_page_elements = kv_page_elements,
    .kv_zero = kv_zero,
    .kv_copy = op_kv_copy,
    .qkv = op_qkv,
    .qkv_back = op_qkv_back,
    .attend = op_attend,
    .attend_back = op_attend_back,
    .embed = op_embed,
    .embed_back = op_embed_back,
    .rmsnorm = op_rmsnorm,
    .rmsnorm_back = op_rmsnorm_back,
    .matmul = op_matmul,
    .matmul_dx = op_matmul_dx,
    .matmul_dw = product_dw,
    .bias_back = op_bias_back,
    .glu = op_glu,
    .glu_back = op_glu_back,
    .gather = op_gather,
    .scatter = op_scatter,
    .logprob = op_logprob,
    .logprob_back = op_logprob_back,
    .softcap = op_softcap,
    .sample = op_sample,
    .adamw = op_adamw,
    .sumsq = op_sumsq,
    .hash = op_hash,
    .add = op_add,
    .roof_flops = lt_flops,
    .roof_bytes = roof_bytes,
    .workspace = workspace,
};

static bool device_fits(int number, struct cudaDeviceProp *about, Err *err) {
    int n = cuda_count(), driver = 0, own = 0;
    if (n == 0 && cudaDriverGetVersion(&driver) == cudaSuccess && cudaRuntimeGetVersion(&own) == cudaSuccess &&
        driver > 0 && driver < own)
        return err_set(
            err,
            "device cuda: the NVIDIA driver knows CUDA %d.%d, this whet was built with %d.%d: use a newer "
            "driver, build with an older toolkit, or use device cpu",
            driver / 1000, driver % 1000 / 10, own / 1000, own % 1000 / 10);
    if (n == 0)
        return err_set(err, "device cuda: no NVIDIA GPU and driver were found here: use device cpu (or auto)");
    if (number >= n) return err_set(err, "device cuda:%d: there are %d, numbered from 0", number, n);
    if (cudaSetDevice(number) != cudaSuccess || cudaGetDeviceProperties(about, number) != cudaSuccess)
        return err_set(err, "device cuda:%d: %s", number, cudaGetErrorString(cudaGetLastError()));
    if (about->major < 8)
        return err_set(err,
                       "device cuda:%d: %s has compute capability %d.%d, 8.0 or later is needed: use device cpu",
                       number, about->name, about->major, about->minor);
    return true;
}

bool cuda_open(Dev *dev, int number, Err *err) {
    struct cudaDeviceProp about;
    if (!device_fits(number, &about, err)) return false;
    struct Cuda *cuda = MEM_NEW(struct Cuda);
    cuda->number = number, cuda->graphs = graphs_open();
    bool good = cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking) == cudaSuccess;
    for (int i = 0; good && i < UPLOADS; i++)
        good = cudaEventCreateWithFlags(&cuda->uploads[i].done, cudaEventDisableTiming) == cudaSuccess;
    if (good)
        cuda->lt = lt_open(err);
    else /* first of all: a GPU that another process has for itself says so here */
        err_set(err, "device cuda:%d: %s", number, cudaGetErrorString(cudaGetLastError()));
    if (!cuda->lt) {
        cuda_end(cuda);
        return false;
    }
    const char *keep = getenv("WHET_CUDA_GRAPHS"); /* 0: no graphs, to see whether a fault lies with them */
    dev->no_again = keep && strcmp(keep, "0") == 0;
    dev->ops = &cuda_ops, dev->cuda = cuda;
    /* The bits of a product depend on the chip and on the library's version. */
    snprintf(dev->path, sizeof dev->path, "cuda_sm%d%d_lt%d", about.major, about.minor, lt_version(cuda->lt));
    snprintf(dev->about, sizeof dev->about, "%.60s", about.name);
    return true;
}
