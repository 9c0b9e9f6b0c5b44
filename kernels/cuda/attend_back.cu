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
    if ((int)blockIdx.x == a.items) {
        clear_padding(a, b.dq);
        return;
    }
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
 * A block has sixteen keys of a page and a key-value head, and goes through chains in stages. Of a stage each warp makes
 * the scores of sixteen chains; these lie in shared memory then, and each warp takes all of them to a quarter of the
 * features. */

enum { KEYS = 16, WARPS = THREADS / 32 };

template <int DIM> struct Stage {
    static constexpr int CHAINS = DIM > 128 ? 32 : 64; /* shared memory */
    Tile<DIM> q, dout;
};

template <int DIM>
__device__ __forceinline__ void stage_load(const Stage<DIM> &stage, const AttendBack &b, const KvSpan &span,
                                           int chain0, int g) {
    constexpr int n = Stage<DIM>::CHAINS;
    const int chains = span.n * b.a.group;
    chains_load(stage.q, b.a.q, span.row0, chain0, n, chains, b.a.group, g, b.a.kv.dim);
    chains_load(stage.dout, b.dout, span.row0, chain0, n, chains, b.a.group, g, b.a.kv.dim);
}

/* Probabilities and the gradients of q k of the block's keys, from key0 on, and the warp's chains, of which chain0 is the
 * stage's first in its span; rounded, keys down, chains across. */
template <int DIM>
__device__ __forceinline__ void stage_scores(Tile<Stage<DIM>::CHAINS> p_out, Tile<Stage<DIM>::CHAINS> ds_out,
                                             const Stage<DIM> &stage, Tile<DIM> keys, Tile<DIM> values,
                                             const AttendBack &b, const KvSpan &span, int chain0, int g, int key0) {
    const Attend &a = b.a;
    const int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * 16, heads = a.q.cols / a.kv.dim;
    if (mine >= Stage<DIM>::CHAINS) return; /* the whole warp */
    float p[2][4], ds[2][4], lse[2][2], delta[2][2];
    int pos[2][2];
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int c = chain0 + mine + j * 8 + lane % 4 * 2 + i, row = span.row0 + c / a.group;
            const bool there = c < span.n * a.group;
            pos[j][i] = there ? span.pos0 + c / a.group : -1; /* sees nothing */
            lse[j][i] = there ? get1(a.lse, row, g * a.group + c % a.group) : 0;
            delta[j][i] = there ? b.delta[(size_t)row * heads + g * a.group + c % a.group] : 0;
        }
    product_rows(p, keys, 0, stage.q, mine);
    product_rows(ds, values, 0, stage.dout, mine);
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool visible = seen(key0 + lane / 4 + i / 2 * 8, pos[j][i % 2], a.window);
            score_back(p[j][i], ds[j][i], a, lse[j][i % 2], delta[j][i % 2], visible);
        }
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int key = lane / 4 + 8 * half, chain = mine + j * 8 + lane % 4 * 2;
            *(uint32_t *)p_out.at(key, chain) = pair(p[j][2 * half], p[j][2 * half + 1]);
            *(uint32_t *)ds_out.at(key, chain) = pair(ds[j][2 * half], ds[j][2 * half + 1]);
        }
}

/* The block's gradients, of keys or values, in the places where a warp's products leave them: body(two numbers side by
 * side, key of the block, feature of the first). */
template <int DIM, typename Body> __device__ __forceinline__ void each_pair(float (&acc)[DIM / 32][4], Body body) {
    const int lane = threadIdx.x % 32, col = threadIdx.x / 32 * (DIM / WARPS);
#pragma unroll
    for (int j = 0; j < DIM / 32; j++)
#pragma unroll
        for (int i = 0; i < 4; i += 2)
            body(acc[j][i], acc[j][i + 1], lane / 4 + i / 2 * 8, col + j * 8 + lane % 4 * 2);
}

template <int DIM>
__device__ __forceinline__ void add_copied(float (&acc)[DIM / 32][4], const float *from, int n, int wide) {
    each_pair<DIM>(acc, [&](float &x, float &y, int key, int d) {
        if (key >= n || d >= wide) return;
        float2 more = *(const float2 *)(from + key * wide + d);
        x += more.x, y += more.y;
    });
}

/* What the block's keys get of a span, to which its page is block `block`. */
template <int DIM>
__device__ __forceinline__ void add_span(float (&dk)[DIM / 32][4], float (&dv)[DIM / 32][4], bf16 *stages, Tile<DIM> keys,
                                         Tile<DIM> values, const AttendBack &b, const KvSpan &span, int key0, int g) {
    constexpr int n = Stage<DIM>::CHAINS, size = n * Tile<DIM>::STEP;
    const Attend &a = b.a;
    const Tile<n> p = {stages + 4 * size}, ds = {p.p + KEYS * Tile<n>::STEP};
    const int rows = a.window ? min(span.n, key0 + KEYS - 1 + a.window - span.pos0) : span.n;
    const int first = max(0, key0 - span.pos0) * a.group / n, last = (rows * a.group + n - 1) / n - 1;
    const int col = threadIdx.x / 32 * (DIM / WARPS);
    auto stage_at = [&](int i) {
        bf16 *at = stages + (i - first) % 2 * 2 * size;
        return Stage<DIM>{{at}, {at + size}};
    };
    if (first <= last) stage_load(stage_at(first), b, span, first * n, g);
    ptx_commit();
    for (int i = first; i <= last; i++) {
        const Stage<DIM> stage = stage_at(i);
        ptx_wait<0>();
        __syncthreads(); /* the stage is there; the other's room is refilled next */
        if (i < last) stage_load(stage_at(i + 1), b, span, (i + 1) * n, g);
        ptx_commit();
        stage_scores(p, ds, stage, keys, values, b, span, i * n, g, key0);
        __syncthreads(); /* the scores are there */
#pragma unroll
        for (int c = 0; c < n; c += 16) {
            uint32_t left[4];
            left_of(left, p, 0, c);
            product_cols(dv, left, stage.dout, c, col);
            left_of(left, ds, 0, c);
            product_cols(dk, left, stage.q, c, col);
        }
    }
    __syncthreads(); /* the next span refills the rooms */
}

template <int DIM> static __global__ void __launch_bounds__(THREADS, DIM > 128 ? 2 : 4) dkv_kernel(AttendBack b, int page0) {
    extern __shared__ __align__(16) bf16 room[];
    const Attend &a = b.a;
    const int item = page0 + blockIdx.x, g = blockIdx.y, slot0 = blockIdx.z * KEYS, page = b.pages[item], wide = a.kv.wide;
    const Tile<DIM> keys = {room}, values = {room + KEYS * Tile<DIM>::STEP};
    bf16 *stages = room + 2 * KEYS * Tile<DIM>::STEP;
    const size_t values_at = (size_t)KV_PAGE * wide;
    auto gradients = [&](int of) {
        return (float *)b.dkv.p + ((size_t)of * b.dkv.heads + g) * 2 * values_at + (size_t)slot0 * wide;
    };
    float *grad = gradients(page), dk[DIM / 32][4], dv[DIM / 32][4];
#pragma unroll
    for (int j = 0; j < DIM / 32; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) dk[j][i] = dv[j][i] = 0;
    add_copied<DIM>(dk, grad, KEYS, wide), add_copied<DIM>(dv, grad + values_at, KEYS, wide);
    page_load(keys, a.kv, page, g, 0, slot0, KEYS);
    page_load(values, a.kv, page, g, 1, slot0, KEYS);
    for (int e = b.first[item], end = b.first[item + 1]; e < end; e++) {
        const BackEvent event = b.events[e];
        if (event.span < 0) {
            const float *from = gradients(event.block);
            add_copied<DIM>(dk, from, event.n - slot0, wide), add_copied<DIM>(dv, from + values_at, event.n - slot0, wide);
        } else {
            add_span(dk, dv, stages, keys, values, b, a.rows.spans[event.span], event.block * KV_PAGE + slot0, g);
        }
    }
    ptx_wait<0>(); /* of a page that no chain sees */
    auto put = [&](float *to, float (&acc)[DIM / 32][4]) {
        each_pair<DIM>(acc, [&](float x, float y, int key, int d) {
            if (d < wide) *(float2 *)(to + key * wide + d) = make_float2(x, y);
        });
    };
    put(grad, dk), put(grad + values_at, dv);
}

/* ---- float32 ---- */

enum { HEAD_MOST = 256 };

static __global__ void __launch_bounds__(THREADS, 4) dq_plain_kernel(AttendBack b) {
    __shared__ float room[THREADS / 32][2 * HEAD_MOST];
    const Attend &a = b.a;
    if ((int)blockIdx.x == a.items) {
        clear_padding(a, b.dq);
        return;
    }
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
    dq_kernel<DIM><<<attend_grid(b.a), b.a.chains * 2, bytes, s>>>(b);
}

extern "C" void cu_attend_dq(cudaStream_t s, AttendBack b) {
    if (b.a.items + b.a.padding == 0) return;
    if (b.a.kv.type != K_BF16)
        dq_plain_kernel<<<attend_grid(b.a), THREADS, 0, s>>>(b);
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
    size_t bytes = ((2 * KEYS + 4 * n) * Tile<DIM>::STEP + 2 * KEYS * Tile<n>::STEP) * sizeof(bf16);
    cudaFuncSetAttribute(dkv_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    dkv_kernel<DIM><<<dim3((unsigned)pages, (unsigned)b.a.kv.heads, KV_PAGE / KEYS), THREADS, bytes, s>>>(b, page0);
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
