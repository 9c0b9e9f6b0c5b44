/* attend.cu: rotary and pages, and attention, forward.
 *
 * A chain is one query head of one row; sixteen chains are the rows of a tensor core's tile, one warp each. A warp
 * visits the blocks of 32 keys at their fixed positions, ascending, with one running maximum and sum a chain, so
 * that a chain's bits depend on nothing but its row: decoding (a tile with few chains) and training are one
 * kernel. float32 has kernels of its own, a warp a chain. Tested under tests/ptx. */
#include "kernels/cuda/attend.h"

enum { THREADS = 128, WARPS_MOST = 4 };

/* ---- rows into pages and back ---- */

/* Feature d of a head whose first 2 `half` features turn by the angles of row pos. */
__device__ __forceinline__ float turned(const Ten &x, int row, int col0, int d, int half, const Ten &cos,
                                        const Ten &sin, int pos, float sign) {
    float a = get1(x, row, col0 + d);
    if (d >= 2 * half) return a;
    bool low = d < half;
    int i = low ? d : d - half;
    float b = get1(x, row, col0 + (low ? d + half : i)), c = get1(cos, pos, i), s = get1(sin, pos, i) * sign;
    return low ? a * c - b * s : a * c + b * s;
}

__device__ __forceinline__ size_t kv_at(const DevKv &kv, int page, int g, int value, int slot, int d) {
    return ((((size_t)page * kv.heads + g) * 2 + value) * KV_PAGE + slot) * kv.wide + d;
}

static __global__ void __launch_bounds__(THREADS)
    qkv_kernel(Ten q, DevKv kv, Ten qkv, DevRows rows, Ten cos, Ten sin) {
    const int row = blockIdx.x, page = rows.page[row], pos = rows.pos[row], half = cos.p ? cos.cols : 0;
    for (int col = threadIdx.x; col < qkv.cols; col += THREADS) {
        int head = col / kv.dim, d = col % kv.dim, g = head - q.cols / kv.dim;
        if (page < 0) {
            if (g < 0) set1(q, row, col, 0);
            continue;
        }
        float x = turned(qkv, row, col - d, d, g < kv.heads ? half : 0, cos, sin, pos, 1);
        if (g < 0) {
            set1(q, row, col, x);
            continue;
        }
        size_t at = kv_at(kv, page, g % kv.heads, g >= kv.heads, pos % KV_PAGE, d);
        if (kv.type == K_BF16)
            ((bf16 *)kv.p)[at] = __float2bfloat16_rn(x);
        else
            ((float *)kv.p)[at] = x;
    }
}

extern "C" void cu_qkv(cudaStream_t s, Ten q, DevKv kv, Ten qkv, DevRows rows, Ten cos, Ten sin) {
    if (rows.m == 0) return;
    qkv_kernel<<<(unsigned)rows.m, THREADS, 0, s>>>(q, kv, qkv, rows, cos, sin);
    launched("qkv");
}

/* dkv in the order of dqkv's columns: a row's own slot. */
static __global__ void __launch_bounds__(THREADS)
    qkv_back_kernel(Ten dqkv, Ten dq, DevKv dkv, DevRows rows, Ten cos, Ten sin) {
    const int row = blockIdx.x, page = rows.page[row], pos = rows.pos[row], half = cos.p ? cos.cols : 0;
    for (int col = threadIdx.x; col < dqkv.cols; col += THREADS) {
        int head = col / dkv.dim, d = col % dkv.dim, g = head - dq.cols / dkv.dim;
        if (page < 0) {
            set1(dqkv, row, col, 0);
            continue;
        }
        if (g < 0) {
            set1(dqkv, row, col, turned(dq, row, col - d, d, half, cos, sin, pos, -1));
            continue;
        }
        Ten slot = {(float *)dkv.p + kv_at(dkv, page, g % dkv.heads, g >= dkv.heads, pos % KV_PAGE, 0), 1, dkv.dim,
                    dkv.dim, K_REAL};
        set1(dqkv, row, col, turned(slot, 0, 0, d, g < dkv.heads ? half : 0, cos, sin, pos, -1));
    }
}

extern "C" void cu_qkv_back(cudaStream_t s, Ten dqkv, Ten dq, DevKv dkv, DevRows rows, Ten cos, Ten sin) {
    if (rows.m == 0) return;
    qkv_back_kernel<<<(unsigned)rows.m, THREADS, 0, s>>>(dqkv, dq, dkv, rows, cos, sin);
    launched("qkv_back");
}

static __global__ void __launch_bounds__(THREADS)
    share_kernel(DevKv kv, size_t step, const KvShare *shares, int n) {
    const int g = blockIdx.x / 2, value = blockIdx.x % 2;
    for (int i = 0; i < n; i++) { /* in order: a page may be both */
        size_t from = blockIdx.y * step + kv_at(kv, shares[i].src, g, value, 0, 0);
        size_t to = blockIdx.y * step + kv_at(kv, shares[i].dst, g, value, 0, 0);
        for (int j = threadIdx.x; j < shares[i].n * kv.wide; j += THREADS) {
            if (kv.type == K_BF16)
                ((bf16 *)kv.p)[to + j] = ((const bf16 *)kv.p)[from + j];
            else
                ((float *)kv.p)[to + j] = ((const float *)kv.p)[from + j];
        }
        __syncthreads();
    }
}

extern "C" void cu_shares(cudaStream_t s, DevKv kv, size_t step, int layers, const KvShare *shares, int n) {
    if (n == 0 || layers == 0) return;
    share_kernel<<<dim3((unsigned)kv.heads * 2, (unsigned)layers), THREADS, 0, s>>>(kv, step, shares, n);
    launched("shares");
}

/* ---- attention, bf16 ---- */

/* The running maximum, the sum and what they scale, for the two rows that a thread holds of a warp's sixteen. */
template <int DIM> struct Running { float max[2], sum[2], out[DIM / 8][4]; };

/* A block's scores become probabilities against the new maximum; what was summed before is scaled to it. */
template <int DIM>
__device__ __forceinline__ void softmax_block(Running<DIM> &r, float (&s)[4][4], const Attend &a,
                                              const int (&pos)[2], int key0) {
    const int col = threadIdx.x % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = -INFINITY;
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float x = s[j][2 * half + i] * a.scale;
                if (a.cap > 0) x = softcap(x, a.cap, 1 / a.cap);
                if (!seen(key0 + j * 8 + col + i, pos[half], a.window)) x = -INFINITY;
                s[j][2 * half + i] = x;
                top = fmaxf(top, x);
            }
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2));
        top = fmaxf(top, r.max[half]);
        float base = top == -INFINITY ? 0 : top, old = d_exp(r.max[half] - base), sum = 0;
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float p = d_exp(s[j][2 * half + i] - base);
                s[j][2 * half + i] = p;
                sum += p;
            }
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        r.max[half] = top;
        r.sum[half] = r.sum[half] * old + sum;
#pragma unroll
        for (int j = 0; j < DIM / 8; j++) r.out[j][2 * half] *= old, r.out[j][2 * half + 1] *= old;
    }
}

template <int DIM>
__device__ __forceinline__ void tile_end(const Running<DIM> &r, const Attend &a, const KvSpan &span, int chain0,
                                         int g) {
    const int lane = threadIdx.x % 32, dim = a.kv.dim;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int c = chain0 + lane / 4 + 8 * half;
        if (c >= span.n * a.group) continue;
        int row = span.row0 + c / a.group, head = g * a.group + c % a.group;
        float inverse = 1 / r.sum[half];
#pragma unroll
        for (int j = 0; j < DIM / 8; j++)
            for (int i = 0; i < 2; i++) {
                int d = j * 8 + lane % 4 * 2 + i;
                if (d < dim) set1(a.o, row, head * dim + d, r.out[j][2 * half + i] * inverse);
            }
        if (a.lse.p && lane % 4 == 0) set1(a.lse, row, head, r.max[half] + d_log(r.sum[half]));
    }
}

template <int DIM> static __global__ void __launch_bounds__(WARPS_MOST * 32) attend_kernel(Attend a) {
    extern __shared__ __align__(16) bf16 room[];
    if ((int)blockIdx.x == a.items) {
        clear_padding(a, a.o);
        if (a.lse.p) clear_padding(a, a.lse);
        return;
    }
    int chain0;
    const int s = span_of(a, blockIdx.x, &chain0), g = blockIdx.y, warp = threadIdx.x / 32;
    const KvSpan span = a.rows.spans[s];
    const int chains = span.n * a.group;
    if (chains == 0) return; /* the whole block: an empty span among others of one row */
    const int last_chain = min(chains, chain0 + a.chains) - 1;
    const int pos_low = span.pos0 + chain0 / a.group, pos_high = span.pos0 + last_chain / a.group;
    const int first = a.window ? max(0, pos_low - a.window + 1) / KV_PAGE : 0, last = pos_high / KV_PAGE;
    const Tile<DIM> q = {room};
    const int pages = a.chains * Tile<DIM>::STEP,
              page = KV_PAGE * Tile<DIM>::STEP; /* keys, values, keys, values */
    int mine = chain0 + warp * 16, pos[2];
    for (int half = 0; half < 2; half++)
        pos[half] = span.pos0 + min(mine + (int)threadIdx.x % 32 / 4 + 8 * half, chains - 1) / a.group;
    const int warp_high = span.pos0 + min(mine + 15, chains - 1) / a.group;
    Running<DIM> r;
    r.max[0] = r.max[1] = -INFINITY, r.sum[0] = r.sum[1] = 0;
#pragma unroll
    for (int j = 0; j < DIM / 8; j++)
        for (int i = 0; i < 4; i++) r.out[j][i] = 0;
    chains_load(q, a.q, span.row0, chain0, a.chains, chains, a.group, g, a.kv.dim);
    for (int block = first - 1; block <= last; block++) {
        if (block < last) {
            const int next = a.rows.table[span.table + block + 1];
            bf16 *to = room + pages + (block + 1 - first) % 2 * 2 * page;
            page_load(Tile<DIM>{to}, a.kv, next, g, 0);
            page_load(Tile<DIM>{to + page}, a.kv, next, g, 1);
        }
        ptx_commit();
        if (block < first) continue;
        ptx_wait<1>();
        __syncthreads();
        if (mine < chains && block * KV_PAGE <= warp_high) {
            bf16 *at = room + pages + (block - first) % 2 * 2 * page;
            float p[4][4];
            uint32_t left[4];
            product_rows(p, q, warp * 16, Tile<DIM>{at}, 0);
            softmax_block(r, p, a, pos, block * KV_PAGE);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                left_of_result(left, p, 2 * k);
                product_cols(r.out, left, Tile<DIM>{at + page}, 16 * k, 0);
            }
        }
        __syncthreads(); /* the block's room is refilled next */
    }
    if (mine < chains) tile_end(r, a, span, mine, g);
}

/* ---- attention, float32: a warp a chain, a lane a key ---- */

enum { HEAD_MOST = 256 };

static __global__ void __launch_bounds__(THREADS, 4) attend_plain_kernel(Attend a) {
    __shared__ float room[WARPS_MOST][HEAD_MOST];
    if ((int)blockIdx.x == a.items) {
        clear_padding(a, a.o);
        if (a.lse.p) clear_padding(a, a.lse);
        return;
    }
    int chain0;
    const int s = span_of(a, blockIdx.x, &chain0), g = blockIdx.y, warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32, dim = a.kv.dim;
    const KvSpan span = a.rows.spans[s];
    const int c = chain0 + warp;
    if (c >= span.n * a.group) return; /* the whole warp; there is no barrier of the block */
    const int row = span.row0 + c / a.group, head = g * a.group + c % a.group, pos = span.pos0 + c / a.group;
    float *q = room[warp], max = -INFINITY, sum = 0, out[HEAD_MOST / 32];
    for (int d = lane; d < dim; d += 32) q[d] = get1(a.q, row, head * dim + d);
    __syncwarp();
    for (int i = 0; i < HEAD_MOST / 32; i++) out[i] = 0;
    for (int block = a.window ? ::max(0, pos - a.window + 1) / KV_PAGE : 0; block <= pos / KV_PAGE; block++) {
        const float *k = (const float *)a.kv.p + kv_at(a.kv, a.rows.table[span.table + block], g, 0, lane, 0);
        const float *v = (const float *)a.kv.p + kv_at(a.kv, a.rows.table[span.table + block], g, 1, 0, 0);
        float x = 0;
        for (int d = 0; d < dim; d++) x = fmaf(q[d], k[d], x);
        x *= a.scale;
        if (a.cap > 0) x = softcap(x, a.cap, 1 / a.cap);
        if (!seen(block * KV_PAGE + lane, pos, a.window)) x = -INFINITY;
        float top = fmaxf(max, warp_max(x)), base = top == -INFINITY ? 0 : top, old = d_exp(max - base);
        float p = d_exp(x - base);
        max = top, sum = sum * old + warp_sum(p);
        for (int i = 0; i < HEAD_MOST / 32; i++) out[i] *= old;
        for (int key = 0; key < KV_PAGE; key++) {
            float one = __shfl_sync(ALL_LANES, p, key);
#pragma unroll
            for (int i = 0; i < HEAD_MOST / 32; i++)
                if (lane + 32 * i < dim) out[i] = fmaf(one, v[key * a.kv.wide + lane + 32 * i], out[i]);
        }
    }
    float inverse = 1 / sum;
#pragma unroll
    for (int i = 0; i < HEAD_MOST / 32; i++)
        if (lane + 32 * i < dim) set1(a.o, row, head * dim + lane + 32 * i, out[i] * inverse);
    if (a.lse.p && lane == 0) set1(a.lse, row, head, max + d_log(sum));
}

/* ---- launch ---- */

extern "C" int cu_attend_chains(DType type, int dim, int most) {
    if (type != K_BF16) return WARPS_MOST;
    int warps = dim > 128 ? 2 : WARPS_MOST; /* shared memory */
    while (warps > 1 && (warps / 2) * 16 >= most) warps /= 2;
    return warps * 16;
}

template <int DIM> static void attend_launch(cudaStream_t s, const Attend &a) {
    size_t bytes = (size_t)(a.chains + 4 * KV_PAGE) * Tile<DIM>::STEP * sizeof(bf16);
    cudaFuncSetAttribute(attend_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    attend_kernel<DIM><<<attend_grid(a), a.chains * 2, bytes, s>>>(a);
}

extern "C" void cu_attend(cudaStream_t s, Attend a) {
    if (a.items + a.padding == 0) return;
    if (a.kv.type != K_BF16)
        attend_plain_kernel<<<attend_grid(a), THREADS, 0, s>>>(a);
    else if (a.kv.wide <= 64)
        attend_launch<64>(s, a);
    else if (a.kv.wide <= 128)
        attend_launch<128>(s, a);
    else
        attend_launch<256>(s, a);
    launched("attention");
}
