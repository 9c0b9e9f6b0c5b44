/* rows.cu: ops that work on rows or elements one by one: conversions, norms, gated units, embedding, gather and
 * scatter, the optimizer. Four columns a thread where a tensor's alignment allows. A sum over a row is a fixed
 * tree of the block's threads; a sum over rows is a chain. Tested under tests/ptx. */
#include "kernels/cuda/device.h"

enum { THREADS = 256 };

/* ---- elements ---- */

/* Calls body(row, col) for each four columns of a [rows, cols] shape. */
#define FOR_FOURS(rows, cols)                                                                                     \
    const size_t wide_ = ((size_t)(cols) + 3) / 4;                                                                \
    for (size_t i_ = (size_t)blockIdx.x * THREADS + threadIdx.x; i_ < wide_ * (size_t)(rows);                     \
         i_ += (size_t)gridDim.x * THREADS)                                                                       \
        if (const int row = (int)(i_ / wide_), col = (int)(i_ % wide_) * 4; true)

static unsigned fours_grid(int rows, int cols) {
    size_t blocks = ((size_t)rows * (((size_t)cols + 3) / 4) + THREADS - 1) / THREADS;
    return (unsigned)(blocks < 65536 ? blocks : 65536);
}

static __global__ void __launch_bounds__(THREADS) pair_kernel(PairOp op, Ten y, Ten x, float factor) {
    FOR_FOURS(y.rows, y.cols) {
        Four a = get4(x, row, col);
        if (op == PAIR_ADD) {
            Four b = get4(y, row, col);
            for (int i = 0; i < 4; i++) a.at[i] = b.at[i] + a.at[i];
        } else if (op == PAIR_SCALE) {
            for (int i = 0; i < 4; i++) a.at[i] = a.at[i] * factor;
        }
        set4(y, row, col, a);
    }
}

extern "C" void cu_pair(cudaStream_t s, PairOp op, Ten y, Ten x, float factor) {
    if (y.rows == 0 || y.cols == 0) return;
    pair_kernel<<<fours_grid(y.rows, y.cols), THREADS, 0, s>>>(op, y, x, factor);
    launched("copy");
}

static __global__ void __launch_bounds__(THREADS) bias_kernel(Ten y, Ten x, Ten bias, Ten residual) {
    FOR_FOURS(y.rows, y.cols) {
        Four a = get4(x, row, col);
        if (bias.p) {
            Four b = get4(bias, 0, col);
            for (int i = 0; i < 4; i++) a.at[i] += b.at[i];
        }
        if (residual.p) {
            Four b = get4(residual, row, col);
            for (int i = 0; i < 4; i++) a.at[i] += b.at[i];
        }
        set4(y, row, col, a);
    }
}

extern "C" void cu_bias(cudaStream_t s, Ten y, Ten x, Ten bias, Ten residual) {
    if (y.rows == 0) return;
    bias_kernel<<<fours_grid(y.rows, y.cols), THREADS, 0, s>>>(y, x, bias, residual);
    launched("bias");
}

static __global__ void __launch_bounds__(THREADS) softcap_kernel(Ten x, float cap) {
    FOR_FOURS(x.rows, x.cols) {
        Four a = get4(x, row, col);
        for (int i = 0; i < 4; i++) a.at[i] = softcap(a.at[i], cap, 1 / cap);
        set4(x, row, col, a);
    }
}

extern "C" void cu_softcap(cudaStream_t s, Ten x, float cap) {
    if (x.rows == 0) return;
    softcap_kernel<<<fours_grid(x.rows, x.cols), THREADS, 0, s>>>(x, cap);
    launched("softcap");
}

/* ---- gated units: as kernels/cpu/rows.h ---- */

#define GELU_1 1.5957691216057308f
#define GELU_3 0.07135481282553053f
__device__ __forceinline__ float gate(float g, GluKind kind) {
    return kind == GLU_SILU ? g : g * fmaf(g * g, GELU_3, GELU_1);
}
__device__ __forceinline__ float gate_slope(float g, GluKind kind) {
    return kind == GLU_SILU ? 1.0f : fmaf(g * g, 3 * GELU_3, GELU_1);
}

__device__ __forceinline__ Ten columns(Ten t, int first, int n) {
    t.p = (char *)t.p + (size_t)first * (t.type == K_BF16 ? 2 : 4);
    t.cols = n;
    return t;
}

static __global__ void __launch_bounds__(THREADS) glu_kernel(Ten h, Ten gu, GluKind kind) {
    FOR_FOURS(h.rows, h.cols) {
        Four g = get4(columns(gu, 0, h.cols), row, col), u = get4(columns(gu, h.cols, h.cols), row, col);
        for (int i = 0; i < 4; i++) g.at[i] = g.at[i] * d_sigmoid(gate(g.at[i], kind)) * u.at[i];
        set4(h, row, col, g);
    }
}

extern "C" void cu_glu(cudaStream_t s, Ten h, Ten gu, GluKind kind) {
    if (h.rows == 0) return;
    glu_kernel<<<fours_grid(h.rows, h.cols), THREADS, 0, s>>>(h, gu, kind);
    launched("glu");
}

static __global__ void __launch_bounds__(THREADS) glu_back_kernel(Ten dgu, Ten dh, Ten gu, GluKind kind) {
    const int f = dh.cols;
    FOR_FOURS(dh.rows, f) {
        Four g = get4(columns(gu, 0, f), row, col), u = get4(columns(gu, f, f), row, col), d = get4(dh, row, col);
        Four dg, du;
        for (int i = 0; i < 4; i++) {
            float s = d_sigmoid(gate(g.at[i], kind)), rise = g.at[i] * gate_slope(g.at[i], kind) * (1 - s);
            dg.at[i] = d.at[i] * u.at[i] * (s * (rise + 1));
            du.at[i] = d.at[i] * (g.at[i] * s);
        }
        set4(columns(dgu, 0, f), row, col, dg);
        set4(columns(dgu, f, f), row, col, du);
    }
}

extern "C" void cu_glu_back(cudaStream_t s, Ten dgu, Ten dh, Ten gu, GluKind kind) {
    if (dh.rows == 0) return;
    glu_back_kernel<<<fours_grid(dh.rows, dh.cols), THREADS, 0, s>>>(dgu, dh, gu, kind);
    launched("glu_back");
}

/* ---- RMSNorm: a block a run ---- */

static int norm_threads(int cols) { return cols <= 256 ? 32 : cols <= 2048 ? 128 : 256; }

static __global__ void __launch_bounds__(THREADS)
    rmsnorm_kernel(Ten y, Ten rstd, Ten x, Ten w, Ten residual, float eps) {
    __shared__ float room[32];
    const int e = w.cols, row = blockIdx.x, at = blockIdx.y * e;
    x = columns(x, at, e), y = columns(y, at, e);
    float sum = 0;
    for (int col = threadIdx.x * 4; col < e; col += blockDim.x * 4) {
        Four a = get4(x, row, col);
        for (int i = 0; i < 4; i++) sum = fmaf(a.at[i], a.at[i], sum);
    }
    float r = 1 / sqrtf(block_sum(sum, room) / (float)e + eps);
    for (int col = threadIdx.x * 4; col < e; col += blockDim.x * 4) {
        Four a = get4(x, row, col), g = get4(w, 0, col);
        for (int i = 0; i < 4; i++) a.at[i] = g.at[i] * (a.at[i] * r);
        if (residual.p) {
            Four b = get4(columns(residual, at, e), row, col);
            for (int i = 0; i < 4; i++) a.at[i] += b.at[i];
        }
        set4(y, row, col, a);
    }
    if (rstd.p && threadIdx.x == 0) set1(rstd, row, blockIdx.y, r);
}

extern "C" void cu_rmsnorm(cudaStream_t s, Ten y, Ten rstd, Ten x, Ten w, Ten residual, float eps) {
    if (x.rows == 0) return;
    dim3 grid((unsigned)x.rows, (unsigned)(x.cols / w.cols));
    rmsnorm_kernel<<<grid, norm_threads(w.cols), 0, s>>>(y, rstd, x, w, residual, eps);
    launched("rmsnorm");
}

/* With n = x rstd: dx += rstd (w dy - n mean(w dy n)), low = dx, y = w n; what there is of them. */
static __global__ void __launch_bounds__(THREADS)
    rmsnorm_back_kernel(Ten dx, Ten low, Ten y, Ten dy, Ten x, Ten rstd, Ten w) {
    __shared__ float room[32];
    const int e = w.cols, row = blockIdx.x, at = blockIdx.y * e;
    dy = columns(dy, at, e), x = columns(x, at, e);
    float sum = 0, r = get1(rstd, row, blockIdx.y);
    for (int col = threadIdx.x * 4; col < e; col += blockDim.x * 4) {
        Four a = get4(x, row, col), d = get4(dy, row, col), g = get4(w, 0, col);
        for (int i = 0; i < 4; i++) a.at[i] *= r, sum = fmaf(g.at[i] * d.at[i], a.at[i], sum);
        if (!y.p) continue;
        for (int i = 0; i < 4; i++) a.at[i] *= g.at[i];
        set4(columns(y, at, e), row, col, a);
    }
    float mean = -(block_sum(sum, room) / (float)e);
    for (int col = threadIdx.x * 4; col < e; col += blockDim.x * 4) {
        Four a = get4(x, row, col), d = get4(dy, row, col), g = get4(w, 0, col), out = {{0, 0, 0, 0}};
        if (dx.p) out = get4(columns(dx, at, e), row, col);
        for (int i = 0; i < 4; i++) out.at[i] = fmaf(fmaf(a.at[i] * r, mean, g.at[i] * d.at[i]), r, out.at[i]);
        if (dx.p) set4(columns(dx, at, e), row, col, out);
        if (low.p) set4(columns(low, at, e), row, col, out);
    }
}

extern "C" void cu_rmsnorm_back(cudaStream_t s, Ten dx, Ten low, Ten y, Ten dy, Ten x, Ten rstd, Ten w) {
    if (x.rows == 0) return;
    dim3 grid((unsigned)x.rows, (unsigned)(x.cols / w.cols));
    rmsnorm_back_kernel<<<grid, norm_threads(w.cols), 0, s>>>(dx, low, y, dy, x, rstd, w);
    launched("rmsnorm_back");
}

/* ---- sums over rows ---- */

enum { AHEAD = 8 }; /* loads that wait for memory together */

static __global__ void __launch_bounds__(THREADS) sum_part_kernel(float *part, int e, Ten dy, Ten x, Ten rstd) {
    const int col = blockIdx.x * THREADS + threadIdx.x, row0 = blockIdx.y * SUM_ROWS, runs = dy.cols / e;
    const int n = min(SUM_ROWS, dy.rows - row0) * runs;
    if (col >= e) return;
    float sum = 0;
    for (int first = 0; first < n; first += AHEAD) {
        float d[AHEAD], normed[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int at = min(first + i, n - 1), row = row0 + at / runs, run = at % runs;
            d[i] = get1(dy, row, run * e + col);
            normed[i] = x.p ? get1(x, row, run * e + col) * get1(rstd, row, run) : 0;
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (first + i < n) sum = x.p ? fmaf(d[i], normed[i], sum) : sum + d[i];
    }
    part[(size_t)blockIdx.y * e + col] = sum;
}

static __global__ void __launch_bounds__(THREADS) sum_chain_kernel(Ten dw, const float *part, int blocks) {
    int col = blockIdx.x * THREADS + threadIdx.x;
    if (col >= dw.cols) return;
    float sum = get1(dw, 0, col);
    for (int first = 0; first < blocks; first += AHEAD) {
        float next[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) next[i] = part[(size_t)min(first + i, blocks - 1) * dw.cols + col];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (first + i < blocks) sum += next[i];
    }
    set1(dw, 0, col, sum);
}

extern "C" void cu_sum_rows(cudaStream_t s, Ten dw, float *part, Ten dy, Ten x, Ten rstd) {
    if (dy.rows == 0) return;
    unsigned wide = blocks_of((size_t)dw.cols, THREADS), blocks = blocks_of((size_t)dy.rows, SUM_ROWS);
    sum_part_kernel<<<dim3(wide, blocks), THREADS, 0, s>>>(part, dw.cols, dy, x, rstd);
    launched("sum of rows");
    sum_chain_kernel<<<wide, THREADS, 0, s>>>(dw, part, (int)blocks);
    launched("sum of rows");
}

/* ---- rows by index ---- */

static __global__ void __launch_bounds__(THREADS) gather_kernel(Ten y, Ten x, const int *index, float factor) {
    FOR_FOURS(y.rows, y.cols) {
        int from = index[row];
        Four a = {{0, 0, 0, 0}};
        if (from >= 0) a = get4(x, from, col);
        for (int i = 0; i < 4; i++) a.at[i] = a.at[i] * factor;
        set4(y, row, col, a);
    }
}

extern "C" void cu_gather(cudaStream_t s, Ten y, Ten x, const int *index) {
    if (y.rows == 0) return;
    gather_kernel<<<fours_grid(y.rows, y.cols), THREADS, 0, s>>>(y, x, index, 1);
    launched("gather");
}

extern "C" void cu_embed(cudaStream_t s, Ten x, Ten w, const int *tok, float scale) {
    if (x.rows == 0) return;
    gather_kernel<<<fours_grid(x.rows, x.cols), THREADS, 0, s>>>(x, w, tok, scale);
    launched("embed");
}

static __global__ void __launch_bounds__(THREADS)
    scatter_kernel(Ten x, Ten y, int n, const int *to, const int *first, const int *from, float factor) {
    FOR_FOURS(n, x.cols) {
        Four sum = get4(x, to[row], col);
        for (int j = first[row]; j < first[row + 1]; j++) {
            Four a = get4(y, from[j], col);
            for (int i = 0; i < 4; i++) sum.at[i] = fmaf(factor, a.at[i], sum.at[i]);
        }
        set4(x, to[row], col, sum);
    }
}

extern "C" void cu_scatter(cudaStream_t s, Ten x, Ten y, int n, const int *to, const int *first, const int *from,
                           float factor) {
    if (n == 0) return;
    scatter_kernel<<<fours_grid(n, x.cols), THREADS, 0, s>>>(x, y, n, to, first, from, factor);
    launched("scatter");
}

/* home's columns are at least w's: those past them become 0. */
static __global__ void __launch_bounds__(THREADS) pack_kernel(Ten home, Ten w) {
    FOR_FOURS(home.rows, home.cols) {
        Four a = {{0, 0, 0, 0}};
        if (row < w.rows && col < w.cols) a = get4(w, row, col);
        set4(home, row, col, a);
    }
}

extern "C" void cu_pack(cudaStream_t s, Ten home, Ten w) {
    if (home.rows == 0) return;
    pack_kernel<<<fours_grid(home.rows, home.cols), THREADS, 0, s>>>(home, w);
    launched("pack");
}

/* ---- the optimizer: as kernels/cpu/optim.h ---- */

static __global__ void __launch_bounds__(THREADS) adamw_kernel(Ten w, Ten m, Ten v, Ten grad, AdamRates a) {
    FOR_FOURS(w.rows, w.cols) {
        Four g4 = get4(grad, row, col), m4 = get4(m, row, col), v4 = get4(v, row, col), w4 = get4(w, row, col);
        for (int i = 0; i < 4; i++) {
            float g = g4.at[i] * a.scale;
            m4.at[i] = fmaf(a.take1, g - m4.at[i], m4.at[i]);
            v4.at[i] = fmaf(a.take2 * g, g, v4.at[i] * a.beta2);
            float down = sqrtf(v4.at[i]) / a.root2 + a.eps;
            w4.at[i] = fmaf(-a.rate, m4.at[i] / down, w4.at[i] * a.keep);
        }
        set4(m, row, col, m4), set4(v, row, col, v4), set4(w, row, col, w4);
    }
}

extern "C" void cu_adamw(cudaStream_t s, Ten w, Ten m, Ten v, Ten grad, AdamRates rates) {
    if (w.rows == 0 || w.cols == 0) return;
    adamw_kernel<<<fours_grid(w.rows, w.cols), THREADS, 0, s>>>(w, m, v, grad, rates);
    launched("adamw");
}

static __global__ void __launch_bounds__(THREADS) sumsq_kernel(double *sums, const float *x, size_t n) {
    __shared__ float room[32];
    size_t at = (size_t)blockIdx.x * SUMSQ_CHUNK;
    float sum = 0;
    for (int i = threadIdx.x; i < SUMSQ_CHUNK && at + i < n; i += THREADS) sum = fmaf(x[at + i], x[at + i], sum);
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" void cu_sumsq(cudaStream_t s, double *sums, const float *x, size_t n) {
    if (n == 0) return;
    sumsq_kernel<<<blocks_of(n, SUMSQ_CHUNK), THREADS, 0, s>>>(sums, x, n);
    launched("sumsq");
}

/* ---- XXH3, the part that blocks have on their own: see hash.c ---- */

/* A thread has one of a block's eight lanes, in all of its sixteen stripes. */
static __global__ void __launch_bounds__(THREADS)
    hash_kernel(uint64_t *sums, const uint32_t *x, size_t n, const uint64_t *secret) {
    const size_t at = (size_t)blockIdx.x * THREADS + threadIdx.x;
    const int lane = threadIdx.x % 8;
    uint64_t mixed = 0, plain = 0;
    if (at < n * 8) {
        const uint32_t *from = x + at / 8 * 256 + lane * 2;
#pragma unroll
        for (int stripe = 0; stripe < 16; stripe++) {
            uint64_t value = from[stripe * 16] | (uint64_t)from[stripe * 16 + 1] << 32;
            uint64_t key = value ^ secret[stripe + lane];
            plain += value;
            mixed += (key & 0xffffffffu) * (key >> 32);
        }
    }
    plain = __shfl_xor_sync(ALL_LANES, plain, 1);
    if (at < n * 8) sums[at] = mixed + plain;
}

extern "C" void cu_hash(cudaStream_t s, uint64_t *sums, const void *x, size_t n, const void *secret) {
    hash_kernel<<<blocks_of(n * 8, THREADS), THREADS, 0, s>>>(sums, (const uint32_t *)x, n, (const uint64_t *)secret);
    launched("hash");
}

/* ---- a pass over memory, for the roof ---- */

static __global__ void __launch_bounds__(THREADS) read_kernel(float *out, const float4 *x, size_t n) {
    float sum = 0;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (size_t)gridDim.x * THREADS) {
        float4 a = x[i];
        sum += a.x + a.y + a.z + a.w;
    }
    if (sum == 1.25f) *out = sum; /* never: the memory is zero; but the loads must happen */
}

extern "C" void cu_read(cudaStream_t s, float *sum, const float *x, size_t n) {
    read_kernel<<<2048, THREADS, 0, s>>>(sum, (const float4 *)x, n / 4);
    launched("read");
}
