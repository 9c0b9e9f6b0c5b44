/* head.cu: log-probabilities, their gradient, and sampling, over logits that a product made.
 *
 * One arithmetic for learner and sampler: z comes from a logit by head_z; each block of HEAD_BLOCK columns has a
 * maximum and sums (a thread block makes them, in a fixed tree); a row's blocks are merged in ascending order.
 * Sampling with top_k, top_p or min_p needs the logits in order (logit descending, then id ascending): what is
 * kept is a prefix of that order, and its end, as well as the token that is drawn, is found by bisection on the
 * key (logit, id), with counts and masses of all keys below one. A mass is a sum of 2^44 p in whole numbers, so
 * that its bits do not depend on the order in which threads add. Tested under tests/ptx. */
#include "kernels/cuda/device.h"

enum { THREADS = 128, SAMPLE_THREADS = 512 };
#define LSE_LOW (-1e30f)

/* ---- log-sum-exp by blocks ---- */

/* The scaled logit of column col (of the logits at hand). */
__device__ __forceinline__ float head_z(const HeadZ &h, int row, int col) {
    int id = h.col0 + col;
    if (id >= h.used) return LSE_LOW;
    if (h.kept.p && !(((const uint32_t *)h.kept.p)[(size_t)row * h.kept.stride + id / 32] >> (id % 32) & 1))
        return LSE_LOW;
    float x = get1(h.logits, row, col);
    if (h.cap > 0) x = softcap(x, h.cap, 1 / h.cap);
    return (h.temp ? h.temp[row] : h.inv_temp) * x;
}

static __global__ void __launch_bounds__(THREADS)
    parts_kernel(HeadPart *parts, int blocks, HeadZ h, float *picked, const int *target) {
    __shared__ float room[32];
    const int row = blockIdx.x, col0 = blockIdx.y * HEAD_BLOCK, n = min(HEAD_BLOCK, h.logits.cols - col0);
    float z[HEAD_BLOCK / THREADS], top = LSE_LOW, sum = 0, sum_z = 0;
#pragma unroll
    for (int i = 0; i < HEAD_BLOCK / THREADS; i++) {
        int col = i * THREADS + threadIdx.x;
        z[i] = col < n ? head_z(h, row, col0 + col) : LSE_LOW;
        top = fmaxf(top, z[i]);
        if (target && col < n && target[row] == h.col0 + col0 + col) picked[row] = z[i];
    }
    top = block_max(top, room);
#pragma unroll
    for (int i = 0; i < HEAD_BLOCK / THREADS; i++) {
        if (z[i] <= LSE_LOW) continue; /* dropped: not even where all of a block are */
        float e = d_exp(z[i] - top);
        sum += e;
        sum_z = fmaf(e, z[i], sum_z);
    }
    sum = block_sum(sum, room);
    sum_z = block_sum(sum_z, room);
    if (threadIdx.x == 0) parts[(size_t)row * blocks + h.col0 / HEAD_BLOCK + blockIdx.y] = {top, sum, sum_z};
}

extern "C" void cu_head_parts(cudaStream_t s, HeadPart *parts, int blocks, HeadZ h, float *picked,
                              const int *target) {
    if (h.logits.rows == 0) return;
    dim3 grid((unsigned)h.logits.rows, blocks_of((size_t)h.logits.cols, HEAD_BLOCK));
    parts_kernel<<<grid, THREADS, 0, s>>>(parts, blocks, h, picked, target);
    launched("head");
}

struct Lse {
    float max, sum;
};
__device__ __forceinline__ Lse lse_of(const HeadPart *parts, int blocks) {
    Lse a = {LSE_LOW, 0};
    for (int b = 0; b < blocks; b++) {
        float max = fmaxf(a.max, parts[b].max);
        a = {max, a.sum * d_exp(a.max - max) + parts[b].sum * d_exp(parts[b].max - max)};
    }
    return a;
}
__device__ __forceinline__ float lse_value(Lse a) { return a.max + d_log(a.sum); }

static __global__ void __launch_bounds__(THREADS)
    merge_kernel(Ten logp, Ten lse, Ten entropy, const HeadPart *parts, int blocks, const float *picked,
                 const int *target) {
    int row = blockIdx.x * THREADS + threadIdx.x;
    if (row >= logp.cols) return;
    const HeadPart *mine = parts + (size_t)row * blocks;
    bool on = target[row] >= 0;
    float all = on ? lse_value(lse_of(mine, blocks)) : 0, mean_z = 0;
    set1(lse, 0, row, all);
    set1(logp, 0, row, on ? picked[row] - all : 0);
    if (!entropy.p) return;
    for (int b = 0; b < blocks; b++) mean_z += d_exp(mine[b].max - all) * mine[b].sum_z;
    set1(entropy, 0, row, on ? all - mean_z : 0);
}

extern "C" void cu_head_merge(cudaStream_t s, Ten logp, Ten lse, Ten entropy, const HeadPart *parts, int blocks,
                              const float *picked, const int *target) {
    if (logp.cols == 0) return;
    merge_kernel<<<blocks_of((size_t)logp.cols, THREADS), THREADS, 0, s>>>(logp, lse, entropy, parts, blocks,
                                                                           picked, target);
    launched("head");
}

/* ---- the gradient of the logits ---- */

static __global__ void __launch_bounds__(THREADS)
    dz_kernel(Ten dz, HeadZ h, const int *target, const float *coef, const float *ent_coef, const float *lse,
              const float *entropy) {
    const int row = blockIdx.x, id = target[row];
    const float c = id >= 0 ? coef[row] * h.inv_temp : 0, e = id >= 0 && ent_coef ? ent_coef[row] * h.inv_temp : 0;
    const float shift = lse[row], high = e != 0 ? entropy[row] : 0, per = h.cap > 0 ? 1 / (h.cap * h.inv_temp) : 0;
    for (int col = blockIdx.y * THREADS * 4 + threadIdx.x; col < min(dz.cols, (int)(blockIdx.y + 1) * THREADS * 4);
         col += THREADS) {
        float z = head_z(h, row, col), log_p = z - shift, p = d_exp(log_p), d = -c * p;
        if (e != 0) d = fmaf(-e * p, log_p + high, d);
        if (h.col0 + col == id) d += c;
        if (h.cap > 0 && z > LSE_LOW) d *= softcap_slope(z, per);
        set1(dz, row, col, id >= 0 ? d : 0);
    }
}

extern "C" void cu_head_dz(cudaStream_t s, Ten dz, HeadZ h, const int *target, const float *coef,
                           const float *ent_coef, const float *lse, const float *entropy) {
    if (dz.rows == 0) return;
    dim3 grid((unsigned)dz.rows, blocks_of((size_t)dz.cols, THREADS * 4));
    dz_kernel<<<grid, THREADS, 0, s>>>(dz, h, target, coef, ent_coef, lse, entropy);
    launched("head, backward");
}

/* ---- sampling: a block a row ---- */

typedef unsigned long long u64;

/* Ascending keys are the order of the candidates: logit descending, then id ascending. */
__device__ __forceinline__ u64 key_of(float z, int id) {
    uint32_t u = __float_as_uint(z + 0.0f);     /* -0 becomes 0 */
    u = u & 0x80000000u ? u : ~u & 0x7fffffffu; /* descending; all negative numbers after all positive */
    return (u64)u << 32 | (uint32_t)id;
}

struct Row {
    HeadZ h;
    const HeadPart *parts; /* of the ids < used */
    int row;
    float max;
    u64 *room; /* shared: two sums in turn */
    int turn;
};

__device__ __forceinline__ u64 whole_of(float z, float max) { return (u64)((double)d_exp(z - max) * 0x1p44); }

/* Masses (or, with COUNT, numbers) of the keys <= last, over the whole block of threads. Blocks of columns whose
 * largest logit comes after the last key are passed over. */
template <bool COUNT> __device__ __forceinline__ u64 below(Row &r, u64 last) {
    u64 sum = 0, *to = &r.room[r.turn];
    r.turn ^= 1;
    if (threadIdx.x == 0) *to = 0;
    __syncthreads();
    for (int b = 0; b * HEAD_BLOCK < r.h.used; b++) {
        if (key_of(r.parts[b].max, 0) > last) continue;
        int end = min((b + 1) * HEAD_BLOCK, r.h.used);
        for (int id = b * HEAD_BLOCK + threadIdx.x; id < end; id += SAMPLE_THREADS) {
            float z = head_z(r.h, r.row, id);
            if (key_of(z, id) <= last) sum += COUNT ? 1 : whole_of(z, r.max);
        }
    }
    if (sum) atomicAdd(to, sum); /* whole numbers: in any order */
    __syncthreads();
    return *to;
}

/* The smallest key in [low, high] with at least `want` of mass (or number) up to it, if high has that. */
template <bool COUNT> __device__ __forceinline__ u64 find_key(Row &r, u64 low, u64 high, u64 want) {
    while (low < high) {
        u64 mid = low + (high - low) / 2;
        if (below<COUNT>(r, mid) >= want)
            high = mid;
        else
            low = mid + 1;
    }
    return high;
}

#define ALL_KEYS 0xffffffffffffffffull

/* The last key that top_k, top_p and min_p keep, in transformers' order (kernels/cpu/sample.h). */
__device__ __forceinline__ u64 kept_end(Row &r, const Draw &draw) {
    u64 end = ALL_KEYS, whole = below<false>(r, ALL_KEYS);
    if (draw.top_k > 0 && draw.top_k < r.h.used) {
        end = find_key<true>(r, 0, ALL_KEYS, (u64)draw.top_k) | 0xffffffffull; /* with all that tie with it */
        whole = below<false>(r, end);
    }
    if (draw.top_p < 1) {
        /* A token is kept while those before it have less than top_p: up to the first that reaches it. */
        double want = (double)draw.top_p * (double)whole;
        u64 least = (u64)want;
        if ((double)least < want) least++;
        end = min(end, find_key<false>(r, 0, end, least > 0 ? least : 1));
    }
    if (draw.min_p > 0) { /* the last logit with at least min_p of the largest's probability */
        u64 low = key_of(r.max, 0) >> 32, high = end >> 32;
        while (low < high) {
            u64 mid = low + (high - low + 1) / 2;
            uint32_t u = (uint32_t)mid;
            float below = __uint_as_float(u & 0x80000000u ? u : ~u & 0x7fffffffu) - r.max;
            if (below >= -87.0f && d_exp(below) >= draw.min_p) /* false for what is no number */
                low = mid;
            else
                high = mid - 1;
        }
        if (low < end >> 32) end = low << 32 | 0xffffffffull;
    }
    return end;
}

/* The id at which the running sum of probabilities passes u: as kernels/cpu/sample.h, by one thread, from the
 * masses of the blocks and then the probabilities of one block. room: HEAD_BLOCK floats. */
__device__ __forceinline__ int draw_plain(Row &r, const Draw &draw, float max, float *room) {
    __shared__ int block;
    __shared__ double passed, target;
    const int blocks = (r.h.used + HEAD_BLOCK - 1) / HEAD_BLOCK;
    if (threadIdx.x == 0) {
        double total = 0, before = 0;
        for (int b = 0; b < blocks; b++) total += (double)r.parts[b].sum * (double)d_exp(r.parts[b].max - max);
        target = draw.u * total;
        int b = 0;
        for (; b < blocks - 1; b++) {
            double mass = (double)r.parts[b].sum * (double)d_exp(r.parts[b].max - max);
            if (before + mass > target) break;
            before += mass;
        }
        block = b, passed = before;
    }
    __syncthreads();
    const int id0 = block * HEAD_BLOCK, n = min(HEAD_BLOCK, r.h.used - id0);
    for (int i = threadIdx.x; i < n; i += SAMPLE_THREADS) room[i] = d_exp(head_z(r.h, r.row, id0 + i) - max);
    __syncthreads();
    if (threadIdx.x == 0) {
        int last = 0;
        double before = passed;
        for (int i = 0; i < n; i++) {
            if (room[i] > 0) last = i;
            before += (double)room[i];
            if (room[i] > 0 && before > target) break;
        }
        block = id0 + last;
    }
    __syncthreads();
    return block;
}

/* The first id with the largest logit. */
__device__ __forceinline__ int largest(Row &r) {
    __shared__ int first;
    if (threadIdx.x == 0) first = r.h.used - 1;
    __syncthreads();
    for (int b = 0; b * HEAD_BLOCK < r.h.used; b++) {
        if (r.parts[b].max < r.max) continue;
        for (int id = b * HEAD_BLOCK + threadIdx.x; id < min((b + 1) * HEAD_BLOCK, r.h.used); id += SAMPLE_THREADS)
            if (head_z(r.h, r.row, id) == r.max) atomicMin(&first, id);
    }
    __syncthreads();
    return first;
}

/* Bits of the ids up to the last key; none where nothing was filtered. */
__device__ __forceinline__ void keep(const Row &r, const Ten &kept, bool filtered, u64 end) {
    for (int word = threadIdx.x; word < kept.cols; word += SAMPLE_THREADS) {
        uint32_t bits = 0;
        for (int i = 0; i < 32 && filtered; i++) {
            int id = word * 32 + i;
            if (id < r.h.used && key_of(head_z(r.h, r.row, id), id) <= end) bits |= 1u << i;
        }
        ((uint32_t *)kept.p)[(size_t)r.row * kept.stride + word] = bits;
    }
}

/* The log-sum-exp of the kept ids, by the blocks and merges of k_logprob with that set. */
__device__ __forceinline__ float kept_lse(Row &r, u64 end, float *room) {
    Lse all = {LSE_LOW, 0};
    for (int b = 0; b * HEAD_BLOCK < r.h.logits.cols; b++) {
        /* the lanes of parts_kernel: threads past its THREADS have nothing */
        float z[HEAD_BLOCK / THREADS], top = LSE_LOW, sum = 0;
#pragma unroll
        for (int i = 0; i < HEAD_BLOCK / THREADS; i++) {
            int id = b * HEAD_BLOCK + i * THREADS + threadIdx.x;
            bool there = threadIdx.x < THREADS && id < r.h.used;
            z[i] = there ? head_z(r.h, r.row, id) : LSE_LOW;
            if (there && end != ALL_KEYS && key_of(z[i], id) > end) z[i] = LSE_LOW;
            top = fmaxf(top, z[i]);
        }
        top = block_max(top, room);
#pragma unroll
        for (int i = 0; i < HEAD_BLOCK / THREADS; i++)
            if (z[i] > LSE_LOW) sum += d_exp(z[i] - top);
        sum = block_sum(sum, room);
        float max = fmaxf(all.max, top);
        all = {max, all.sum * d_exp(all.max - max) + sum * d_exp(top - max)};
    }
    return lse_value(all);
}

static __global__ void __launch_bounds__(SAMPLE_THREADS, 2)
    sample_kernel(Drawn *drawn, Ten kept, HeadZ h, const Draw *draws, const HeadPart *parts,
                  const HeadPart *used_parts, int blocks) {
    __shared__ float room[HEAD_BLOCK];
    __shared__ u64 sums[2];
    const int row = blockIdx.x, used_blocks = (h.used + HEAD_BLOCK - 1) / HEAD_BLOCK;
    const Draw draw = draws[row];
    const bool greedy = draw.inv_temp == 0;
    const bool filtered = !greedy && ((draw.top_k > 0 && draw.top_k < h.used) || draw.top_p < 1 || draw.min_p > 0);
    Row r = {h, used_parts + (size_t)row * blocks, row, 0, sums, 0};
    Lse used = lse_of(r.parts, used_blocks), all = lse_of(parts + (size_t)row * blocks, blocks);
    r.max = used.max;
    u64 end = filtered ? kept_end(r, draw) : ALL_KEYS;
    int tok;
    float draw_logp = 0;
    if (greedy) {
        tok = largest(r);
    } else if (!filtered) {
        tok = draw_plain(r, draw, used.max, room);
    } else {
        double target = draw.u * (double)below<false>(r, end);
        tok = (int)(uint32_t)find_key<false>(r, 0, end, (u64)target + 1);
    }
    float z = head_z(h, row, tok);
    if (filtered)
        draw_logp = z - kept_lse(r, end, room);
    else if (!greedy)
        draw_logp = z - lse_value(used);
    if (kept.p) keep(r, kept, filtered, end);
    if (threadIdx.x == 0) drawn[row] = {tok, z - lse_value(all), draw_logp};
}

extern "C" void cu_sample(cudaStream_t s, Drawn *drawn, Ten kept, HeadZ h, const Draw *draws,
                          const HeadPart *parts, const HeadPart *used_parts, int blocks) {
    if (h.logits.rows == 0) return;
    sample_kernel<<<(unsigned)h.logits.rows, SAMPLE_THREADS, 0, s>>>(drawn, kept, h, draws, parts, used_parts,
                                                                     blocks);
    launched("sample");
}
