/* attend_back.cu: attention, backward: probabilities are computed again from the forward's log-sum-exp.
 *
 * With s = scale q k, p = exp(s - lse), dp = dout v, D = dout o: ds = p (dp - D) scale (under a cap s = cap
 * tanh(scale q k / cap), and ds gains the factor 1 - (s / cap)^2); dq = sum ds k; dk += ds q; dv += p dout. Two
 * kernels, so that nothing is added up by atomics: one has a tile of chains and visits the blocks of keys, the
 * other has a page and visits the chains that see it, span after span, rows ascending: a key's gradient is one
 * chain of sums that goes on from what the page held. In bf16 p and ds are rounded before their products, which
 * sum sixteen at a time on tensor cores; chains are counted from the span's first row, so the sixteens do not
 * depend on the batch. float32 has kernels of its own, a warp a chain or a key. Tested under tests/ptx. */
#include "kernels/cuda/attend.h"

enum { THREADS = 128 };

/* ---- D, and dout in the products' type ---- */

static __global__ void __launch_bounds__(THREADS) delta_kernel(float *delta, Ten low, Ten dout, Ten o, int dim) {
    const int row = blockIdx.x, lane = threadIdx.x % 32, heads = o.cols / dim;
    for (int head = threadIdx.x / 32; head < heads; head += THREADS / 32) {
        float sum = 0;
        for (int d = lane; d < dim; d += 32) {
            float x = get1(dout, row, head * dim + d);
            set1(low, row, head * dim + d, x);
            sum = fmaf(x, get1(o, row, head * dim + d), sum);
        }
        sum = warp_sum(sum);
        if (lane == 0) delta[(size_t)row * heads + head] = sum;
    }
}

extern "C" void cu_attend_delta(cudaStream_t s, float *delta, Ten low, Ten dout, Ten o, int dim) {
    if (o.rows == 0) return;
    delta_kernel<<<(unsigned)o.rows, THREADS, 0, s>>>(delta, low, dout, o, dim);
    launched("attention, D");
}

/* A score and dout v become a probability and the gradient of q k. */
__device__ __forceinline__ void score_back(float &s, float &dp, const Attend &a, float lse, float delta,
                                           bool visible) {
    float x = s * a.scale, slope = a.scale;
    if (a.cap > 0) {
        x = softcap(x, a.cap, 1 / a.cap);
        slope *= softcap_slope(x, 1 / a.cap);
    }
    s = visible ? d_exp(x - lse) : 0;
    dp = s * (dp - delta) * slope;
}

/* ---- bf16: dq ---- */

template <int DIM> static __global__ void __launch_bounds__(THREADS, 2) dq_kernel(AttendBack b) {
    extern __shared__ __align__(16) bf16 room[];
    const Attend &a = b.a;
    int chain0;
    const int s = span_of(a, blockIdx.x, &chain0), g = blockIdx.y, warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32, heads = a.q.cols / a.kv.dim;
    const KvSpan span = a.rows.spans[s];
    const int chains = span.n * a.group;
    if (chains == 0) return; /* the whole block: an empty span among others of one row */
    const int last_chain = min(chains, chain0 + a.chains) - 1;
    const int pos_low = span.pos0 + chain0 / a.group, pos_high = span.pos0 + last_chain / a.group;
    const int first = a.window ? max(0, pos_low - a.window + 1) / KV_PAGE : 0, last = pos_high / KV_PAGE;
    const int page = KV_PAGE * Tile<DIM>::STEP, mine = chain0 + warp * 16;
    const Tile<DIM> q = {room}, dout = {room + a.chains * Tile<DIM>::STEP};
    bf16 *pages = room + 2 * a.chains * Tile<DIM>::STEP;
    float lse[2], delta[2], dq[DIM / 8][4];
    int pos[2];
    for (int half = 0; half < 2; half++) {
        int c = min(mine + lane / 4 + 8 * half, chains - 1), row = span.row0 + c / a.group;
        int head = g * a.group + c % a.group;
        pos[half] = span.pos0 + c / a.group;
        lse[half] = get1(a.lse, row, head), delta[half] = b.delta[(size_t)row * heads + head];
    }
#pragma unroll
    for (int j = 0; j < DIM / 8; j++)
        for (int i = 0; i < 4; i++) dq[j][i] = 0;
    chains_load(q, a.q, span.row0, chain0, a.chains, chains, a.group, g, a.kv.dim);
    chains_load(dout, b.dout, span.row0, chain0, a.chains, chains, a.group, g, a.kv.dim);
    for (int block = first - 1; block <= last; block++) {
        if (block < last) {
            const int next = a.rows.table[span.table + block + 1];
            bf16 *to = pages + (block + 1 - first) % 2 * 2 * page;
            page_load(Tile<DIM>{to}, a.kv, next, g, 0);
            page_load(Tile<DIM>{to + page}, a.kv, next, g, 1);
        }
        ptx_commit();
        if (block < first) continue;
        ptx_wait<1>();
        __syncthreads();
        if (mine < chains) {
            bf16 *at = pages + (block - first) % 2 * 2 * page;
            float p[4][4], ds[4][4];
            uint32_t left[4];
            product_rows(p, q, warp * 16, Tile<DIM>{at}, 0);
            product_rows(ds, dout, warp * 16, Tile<DIM>{at + page}, 0);
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int key = block * KV_PAGE + j * 8 + lane % 4 * 2 + i % 2;
                    score_back(p[j][i], ds[j][i], a, lse[i / 2], delta[i / 2], seen(key, pos[i / 2], a.window));
                }
#pragma unroll
            for (int k = 0; k < 2; k++) {
                left_of_result(left, ds, 2 * k);
                product_cols(dq, left, Tile<DIM>{at}, 16 * k, 0);
            }
        }
        __syncthreads(); /* the block's room is refilled next */
    }
    if (mine >= chains) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int c = mine + lane / 4 + 8 * half;
        if (c >= chains) continue;
        int row = span.row0 + c / a.group, head = g * a.group + c % a.group;
#pragma unroll
        for (int j = 0; j < DIM / 8; j++)
            for (int i = 0; i < 2; i++) {
                int d = j * 8 + lane % 4 * 2 + i;
                if (d < a.kv.dim) set1(b.dq, row, head * a.kv.dim + d, dq[j][2 * half + i]);
            }
    }
}

/* ---- bf16: dk, dv ----
 * A block has one page and key-value head. Its four warps share the page's 32 keys in halves and the features in
 * halves; the scores of sixteen keys and sixteen chains are made by both warps that want them. */

template <int DIM> struct Stage {
    static constexpr int CHAINS = DIM > 128 ? 16 : 32; /* shared memory */
    Tile<DIM> q, dout;
    float *lse, *delta;
    int *pos; /* -1: no chain */
};

template <int DIM> __device__ __forceinline__ Stage<DIM> stage_at(bf16 *room, float *numbers, int i) {
    constexpr int n = Stage<DIM>::CHAINS, size = n * Tile<DIM>::STEP;
    float *f = numbers + i * 3 * n;
    return {{room + 2 * i * size}, {room + (2 * i + 1) * size}, f, f + n, (int *)(f + 2 * n)};
}

template <int DIM>
__device__ __forceinline__ void stage_load(const Stage<DIM> &stage, const AttendBack &b, const KvSpan &span,
                                           int chain0, int g) {
    constexpr int n = Stage<DIM>::CHAINS;
    const int chains = span.n * b.a.group;
    chains_load(stage.q, b.a.q, span.row0, chain0, n, chains, b.a.group, g, b.a.kv.dim);
    chains_load(stage.dout, b.dout, span.row0, chain0, n, chains, b.a.group, g, b.a.kv.dim);
    for (int i = threadIdx.x; i < n; i += THREADS) {
        int c = chain0 + i, row = span.row0 + c / b.a.group, head = g * b.a.group + c % b.a.group;
        bool there = c < chains;
        stage.lse[i] = there ? get1(b.a.lse, row, head) : 0;
        stage.delta[i] = there ? b.delta[(size_t)row * (b.a.q.cols / b.a.kv.dim) + head] : 0;
        stage.pos[i] = there ? span.pos0 + c / b.a.group : -1;
    }
}

/* A stage's chains against the warp's sixteen keys. */
template <int DIM>
__device__ __forceinline__ void stage_add(float (&dk)[DIM / 16][4], float (&dv)[DIM / 16][4],
                                          const Stage<DIM> &stage, Tile<DIM> keys, Tile<DIM> values,
                                          const Attend &a, int key0) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = warp % 2 * 16, col = warp / 2 * (DIM / 2);
#pragma unroll
    for (int c = 0; c < Stage<DIM>::CHAINS; c += 16) {
        float p[2][4], ds[2][4];
        uint32_t left[4];
        product_rows(p, keys, row, stage.q, c);
        product_rows(ds, values, row, stage.dout, c);
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int chain = c + j * 8 + lane % 4 * 2 + i % 2, key = key0 + row + lane / 4 + i / 2 * 8;
                bool visible = seen(key, stage.pos[chain], a.window);
                score_back(p[j][i], ds[j][i], a, stage.lse[chain], stage.delta[chain], visible);
            }
        left_of_result(left, p, 0);
        product_cols(dv, left, stage.dout, c, col);
        left_of_result(left, ds, 0);
        product_cols(dk, left, stage.q, c, col);
    }
}

/* The page's gradients, of keys (value 0) or values, in the places where a warp's products leave them:
 * body(number, slot, feature). */
template <int DIM, typename Body> __device__ __forceinline__ void for_page(float (&acc)[DIM / 16][4], Body body) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int j = 0; j < DIM / 16; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            body(acc[j][i], warp % 2 * 16 + lane / 4 + i / 2 * 8,
                 warp / 2 * (DIM / 2) + j * 8 + lane % 4 * 2 + i % 2);
}

template <int DIM>
__device__ __forceinline__ void add_copied(float (&acc)[DIM / 16][4], const float *from, int n, int wide) {
    for_page<DIM>(acc, [&](float &x, int slot, int d) {
        if (slot < n && d < wide) x += from[slot * wide + d];
    });
}

template <int DIM> static __global__ void __launch_bounds__(THREADS, 2) dkv_kernel(AttendBack b, int page0) {
    extern __shared__ __align__(16) bf16 room[];
    constexpr int n = Stage<DIM>::CHAINS;
    const Attend &a = b.a;
    const int item = page0 + blockIdx.x, g = blockIdx.y, page = b.pages[item], wide = a.kv.wide;
    const Tile<DIM> keys = {room}, values = {room + KV_PAGE * Tile<DIM>::STEP};
    bf16 *stages = room + 2 * KV_PAGE * Tile<DIM>::STEP;
    float *numbers = (float *)(stages + 4 * n * Tile<DIM>::STEP);
    const size_t block_size = (size_t)KV_PAGE * wide;
    float *grad = (float *)b.dkv.p + ((size_t)page * b.dkv.heads + g) * 2 * block_size;
    float dk[DIM / 16][4], dv[DIM / 16][4];
    for_page<DIM>(dk, [&](float &x, int slot, int d) { x = d < wide ? grad[slot * wide + d] : 0; });
    for_page<DIM>(dv, [&](float &x, int slot, int d) { x = d < wide ? grad[block_size + slot * wide + d] : 0; });
    page_load(keys, a.kv, page, g, 0);
    page_load(values, a.kv, page, g, 1);
    for (int e = b.first[item]; e < b.first[item + 1]; e++) {
        const BackEvent event = b.events[e];
        if (event.span < 0) {
            const float *from = (const float *)b.dkv.p + ((size_t)event.block * b.dkv.heads + g) * 2 * block_size;
            add_copied<DIM>(dk, from, event.n, wide);
            add_copied<DIM>(dv, from + block_size, event.n, wide);
            continue;
        }
        const KvSpan span = a.rows.spans[event.span];
        const int key0 = event.block * KV_PAGE, first_row = max(0, key0 - span.pos0);
        const int rows = a.window ? min(span.n, key0 + KV_PAGE - 1 + a.window - span.pos0) : span.n;
        const int first = first_row * a.group / n, last = (rows * a.group + n - 1) / n - 1;
        for (int i = first - 1; i <= last; i++) {
            if (i < last) stage_load(stage_at<DIM>(stages, numbers, (i + 1 - first) % 2), b, span, (i + 1) * n, g);
            ptx_commit();
            if (i < first) continue;
            ptx_wait<1>();
            __syncthreads();
            stage_add<DIM>(dk, dv, stage_at<DIM>(stages, numbers, (i - first) % 2), keys, values, a, key0);
            __syncthreads(); /* the stage's room is refilled next */
        }
    }
    ptx_wait<0>(); /* of a page that no chain sees */
    for_page<DIM>(dk, [&](float &x, int slot, int d) {
        if (d < wide) grad[slot * wide + d] = x;
    });
    for_page<DIM>(dv, [&](float &x, int slot, int d) {
        if (d < wide) grad[block_size + slot * wide + d] = x;
    });
}

/* ---- float32 ---- */

enum { HEAD_MOST = 256 };

static __global__ void __launch_bounds__(THREADS, 4) dq_plain_kernel(AttendBack b) {
    __shared__ float room[THREADS / 32][2 * HEAD_MOST];
    const Attend &a = b.a;
    int chain0;
    const int s = span_of(a, blockIdx.x, &chain0), g = blockIdx.y, warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32, dim = a.kv.dim, heads = a.q.cols / dim;
    const KvSpan span = a.rows.spans[s];
    const int c = chain0 + warp;
    if (c >= span.n * a.group) return; /* the whole warp; there is no barrier of the block */
    const int row = span.row0 + c / a.group, head = g * a.group + c % a.group, pos = span.pos0 + c / a.group;
    const float lse = get1(a.lse, row, head), delta = b.delta[(size_t)row * heads + head];
    float *q = room[warp], *dout = q + HEAD_MOST, dq[HEAD_MOST / 32];
    for (int d = lane; d < dim; d += 32) {
        q[d] = get1(a.q, row, head * dim + d);
        dout[d] = get1(b.dout, row, head * dim + d);
    }
    __syncwarp();
    for (int i = 0; i < HEAD_MOST / 32; i++) dq[i] = 0;
    for (int block = a.window ? max(0, pos - a.window + 1) / KV_PAGE : 0; block <= pos / KV_PAGE; block++) {
        const size_t size = (size_t)KV_PAGE * a.kv.wide;
        const float *k =
            (const float *)a.kv.p + ((size_t)a.rows.table[span.table + block] * a.kv.heads + g) * 2 * size;
        const float *mine = k + lane * a.kv.wide;
        float p = 0, ds = 0;
        for (int d = 0; d < dim; d++) p = fmaf(q[d], mine[d], p), ds = fmaf(dout[d], mine[size + d], ds);
        score_back(p, ds, a, lse, delta, seen(block * KV_PAGE + lane, pos, a.window));
        for (int key = 0; key < KV_PAGE; key++) {
            float one = __shfl_sync(ALL_LANES, ds, key);
#pragma unroll
            for (int i = 0; i < HEAD_MOST / 32; i++)
                if (lane + 32 * i < dim) dq[i] = fmaf(one, k[key * a.kv.wide + lane + 32 * i], dq[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < HEAD_MOST / 32; i++)
        if (lane + 32 * i < dim) set1(b.dq, row, head * dim + lane + 32 * i, dq[i]);
}

/* A warp has one key of a page: blockIdx.z is a set of four of them. */
static __global__ void __launch_bounds__(THREADS, 4) dkv_plain_kernel(AttendBack b, int page0) {
    const Attend &a = b.a;
    const int item = page0 + blockIdx.x, g = blockIdx.y, slot = blockIdx.z * (THREADS / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32, dim = a.kv.dim, heads = a.q.cols / dim;
    const size_t size = (size_t)KV_PAGE * a.kv.wide, page_size = (size_t)a.kv.heads * 2 * size;
    const size_t at = g * 2 * size + (size_t)slot * a.kv.wide;
    const float *k = (const float *)a.kv.p + b.pages[item] * page_size + at;
    float *grad = (float *)b.dkv.p + b.pages[item] * page_size + at, dk[HEAD_MOST / 32], dv[HEAD_MOST / 32];
#pragma unroll
    for (int i = 0; i < HEAD_MOST / 32; i++) {
        int d = lane + 32 * i;
        dk[i] = d < dim ? grad[d] : 0, dv[i] = d < dim ? grad[size + d] : 0;
    }
    for (int e = b.first[item]; e < b.first[item + 1]; e++) {
        const BackEvent event = b.events[e];
        if (event.span < 0) {
            const float *from = (const float *)b.dkv.p + event.block * page_size + at;
#pragma unroll
            for (int i = 0; i < HEAD_MOST / 32; i++)
                if (slot < event.n && lane + 32 * i < dim)
                    dk[i] += from[lane + 32 * i], dv[i] += from[size + lane + 32 * i];
            continue;
        }
        const KvSpan span = a.rows.spans[event.span];
        const int key = event.block * KV_PAGE + slot;
        for (int c = max(0, key - span.pos0) * a.group; c < span.n * a.group; c++) {
            const int row = span.row0 + c / a.group, head = g * a.group + c % a.group,
                      pos = span.pos0 + c / a.group;
            if (!seen(key, pos, a.window)) continue;
            float p = 0, ds = 0, q[HEAD_MOST / 32], dout[HEAD_MOST / 32];
#pragma unroll
            for (int i = 0; i < HEAD_MOST / 32; i++) {
                int d = lane + 32 * i;
                if (d >= dim) continue;
                q[i] = get1(a.q, row, head * dim + d), dout[i] = get1(b.dout, row, head * dim + d);
                p = fmaf(q[i], k[d], p), ds = fmaf(dout[i], k[size + d], ds);
            }
            p = warp_sum(p), ds = warp_sum(ds);
            score_back(p, ds, a, get1(a.lse, row, head), b.delta[(size_t)row * heads + head], true);
#pragma unroll
            for (int i = 0; i < HEAD_MOST / 32; i++)
                if (lane + 32 * i < dim) dk[i] = fmaf(ds, q[i], dk[i]), dv[i] = fmaf(p, dout[i], dv[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < HEAD_MOST / 32; i++) {
        int d = lane + 32 * i;
        if (d < dim) grad[d] = dk[i], grad[size + d] = dv[i];
    }
}

/* ---- launch ---- */

template <int DIM> static void dq_launch(cudaStream_t s, const AttendBack &b) {
    size_t bytes = (size_t)(2 * b.a.chains + 4 * KV_PAGE) * Tile<DIM>::STEP * sizeof(bf16);
    cudaFuncSetAttribute(dq_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    dq_kernel<DIM><<<dim3((unsigned)b.a.items, (unsigned)b.a.kv.heads), b.a.chains * 2, bytes, s>>>(b);
}

extern "C" void cu_attend_dq(cudaStream_t s, AttendBack b) {
    if (b.a.items == 0) return;
    if (b.a.kv.type != K_BF16)
        dq_plain_kernel<<<dim3((unsigned)b.a.items, (unsigned)b.a.kv.heads), THREADS, 0, s>>>(b);
    else if (b.a.kv.wide <= 64)
        dq_launch<64>(s, b);
    else if (b.a.kv.wide <= 128)
        dq_launch<128>(s, b);
    else
        dq_launch<256>(s, b);
    launched("attention, dq");
}

template <int DIM> static void dkv_launch(cudaStream_t s, const AttendBack &b, int page0, int pages) {
    constexpr int n = Stage<DIM>::CHAINS;
    size_t bytes = (size_t)(2 * KV_PAGE + 4 * n) * Tile<DIM>::STEP * sizeof(bf16) + 2 * 3 * n * sizeof(float);
    cudaFuncSetAttribute(dkv_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    dkv_kernel<DIM><<<dim3((unsigned)pages, (unsigned)b.a.kv.heads), THREADS, bytes, s>>>(b, page0);
}

extern "C" void cu_attend_dkv(cudaStream_t s, AttendBack b, int page0, int n_pages) {
    if (n_pages == 0) return;
    const unsigned warps = THREADS / 32;
    if (b.a.kv.type != K_BF16)
        dkv_plain_kernel<<<dim3((unsigned)n_pages, (unsigned)b.a.kv.heads, KV_PAGE / warps), THREADS, 0, s>>>(
            b, page0);
    else if (b.a.kv.wide <= 64)
        dkv_launch<64>(s, b, page0, n_pages);
    else if (b.a.kv.wide <= 128)
        dkv_launch<128>(s, b, page0, n_pages);
    else
        dkv_launch<256>(s, b, page0, n_pages);
    launched("attention, dk and dv");
}
