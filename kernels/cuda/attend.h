/* attend.h: what the attention kernels of both directions share: tiles of 16-bit numbers in shared memory,
 * products of them on tensor cores, masks. Included by attend.cu and attend_back.cu. */
#ifndef WHET_CUDA_ATTEND_H
#define WHET_CUDA_ATTEND_H

#include "kernels/cuda/device.h"
#include "kernels/cuda/ptx.h"

/* A tile in shared memory: rows of DIM numbers, 8 more from one row to the next, so that the eight rows of a
 * matrix that ldmatrix reads lie in different banks. */
template <int DIM> struct Tile {
    static constexpr int STEP = DIM + 8;
    bf16 *p;
    __device__ __forceinline__ bf16 *at(int row, int col) const { return p + row * STEP + col; }
};

/* Rows row0 .. row0+15, columns col0 .. col0+15 as the left operand of a product. */
template <int DIM> __device__ __forceinline__ void left_of(uint32_t (&r)[4], Tile<DIM> t, int row0, int col0) {
    int lane = threadIdx.x % 32;
    ptx_ldmatrix(r, t.at(row0 + lane % 16, col0 + lane / 16 * 8));
}
/* The right operand of two products whose outputs are rows row0 .. row0+7 and row0+8 .. row0+15 of the tile and
 * whose sum goes over columns col0 .. col0+15: {r0, r1} and {r2, r3}. */
template <int DIM> __device__ __forceinline__ void right_rows(uint32_t (&r)[4], Tile<DIM> t, int row0, int col0) {
    int lane = threadIdx.x % 32, m = lane / 8;
    ptx_ldmatrix(r, t.at(row0 + m / 2 * 8 + lane % 8, col0 + m % 2 * 8));
}
/* The same with outputs being columns col0 .. col0+7 and col0+8 .. col0+15, the sum going over rows row0 ..
 * row0+15.
 */
template <int DIM> __device__ __forceinline__ void right_cols(uint32_t (&r)[4], Tile<DIM> t, int row0, int col0) {
    int lane = threadIdx.x % 32, m = lane / 8;
    ptx_ldmatrix_trans(r, t.at(row0 + m % 2 * 8 + lane % 8, col0 + m / 2 * 8));
}

/* s[16, 8 TILES] = 16 rows of a times rows row_b .. of b, over all DIM columns. */
template <int DIM, int TILES>
__device__ __forceinline__ void product_rows(float (&s)[TILES][4], Tile<DIM> a, int row_a, Tile<DIM> b,
                                             int row_b) {
#pragma unroll
    for (int j = 0; j < TILES; j++)
        for (int i = 0; i < 4; i++) s[j][i] = 0;
#pragma unroll
    for (int k = 0; k < DIM; k += 16) {
        uint32_t left[4], right[4];
        left_of(left, a, row_a, k);
#pragma unroll
        for (int j = 0; j < TILES; j += 2) {
            right_rows(right, b, row_b + j * 8, k);
            ptx_mma(s[j], left, right[0], right[1]);
            ptx_mma(s[j + 1], left, right[2], right[3]);
        }
    }
}

/* Sixteen columns of a 16-row result, s[j] and s[j + 1], rounded, as the left operand of a further product. */
template <int TILES>
__device__ __forceinline__ void left_of_result(uint32_t (&r)[4], const float (&s)[TILES][4], int j) {
    r[0] = pair(s[j][0], s[j][1]), r[1] = pair(s[j][2], s[j][3]);
    r[2] = pair(s[j + 1][0], s[j + 1][1]), r[3] = pair(s[j + 1][2], s[j + 1][3]);
}

/* acc[16, 8 TILES] += left[16, 16] times rows row_b .. row_b+15, columns col_b .. of b. */
template <int DIM, int TILES>
__device__ __forceinline__ void product_cols(float (&acc)[TILES][4], const uint32_t (&left)[4], Tile<DIM> b,
                                             int row_b, int col_b) {
#pragma unroll
    for (int j = 0; j < TILES; j += 2) {
        uint32_t right[4];
        right_cols(right, b, row_b, col_b + j * 8);
        ptx_mma(acc[j], left, right[0], right[1]);
        ptx_mma(acc[j + 1], left, right[2], right[3]);
    }
}

/* One head's keys or values of a page, or some of its slots, into rows of a tile, columns past `wide` as 0; needs a
 * ptx_wait. */
template <int DIM>
__device__ __forceinline__ void page_load(Tile<DIM> to, const DevKv &kv, int page, int g, int value, int slot0 = 0,
                                          int slots = KV_PAGE) {
    const bf16 *from = (const bf16 *)kv.p + (((size_t)page * kv.heads + g) * 2 + value) * KV_PAGE * kv.wide;
    from += slot0 * kv.wide;
    for (int i = threadIdx.x; i < slots * (DIM / 8); i += blockDim.x) {
        int row = i / (DIM / 8), col = i % (DIM / 8) * 8;
        bool there = col < kv.wide;
        ptx_copy16(to.at(row, col), there ? from + row * kv.wide + col : from, there ? 16 : 0);
    }
}

/* Chains chain0 .. chain0+rows-1 of a span (rows of x, whose row row0 is the span's first, by query heads of the
 * group g) into rows of a tile; what lies past the last chain or past the head's width as 0. Needs a ptx_wait. */
template <int DIM>
__device__ __forceinline__ void chains_load(Tile<DIM> to, const Ten &x, int row0, int chain0, int rows, int chains,
                                            int group, int g, int dim) {
    bool whole = dim % 8 == 0 && x.stride % 8 == 0 && ((uintptr_t)x.p & 15) == 0;
    for (int i = threadIdx.x; i < rows * (DIM / 8); i += blockDim.x) {
        int row = i / (DIM / 8), col = i % (DIM / 8) * 8, c = chain0 + row;
        bool there = c < chains && col < dim;
        const bf16 *from = (const bf16 *)x.p;
        if (there) from += (size_t)(row0 + c / group) * x.stride + (g * group + c % group) * dim + col;
        if (whole) {
            ptx_copy16(to.at(row, col), from, there ? 16 : 0);
            continue;
        }
        for (int j = 0; j < 8; j++)
            *to.at(row, col + j) = there && col + j < dim ? from[j] : __float2bfloat16_rn(0.0f);
    }
}

/* The block past the tiles, of a batch with padding rows, clears these in x. All threads of whole warps come. */
__device__ __forceinline__ void clear_padding(const Attend &a, const Ten &x) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32 * gridDim.y;
    for (int row0 = (blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32) * 32; row0 < x.rows; row0 += warps * 32) {
        const int page = row0 + lane < x.rows ? a.rows.page[row0 + lane] : 0;
        for (int i = 0; i < 32; i++) {
            if (__shfl_sync(ALL_LANES, page, i) >= 0) continue;
            for (int col = lane; col < x.cols; col += 32) set1(x, row0 + i, col, 0);
        }
    }
}

/* The span of tile `item`, which has item0[span] <= item < item0[span + 1]; and the first chain of the tile. */
__device__ __forceinline__ int span_of(const Attend &a, int item, int *chain0) {
    int low = 0, high = a.rows.n_spans;
    if (a.tiles) low = item / a.tiles, high = low + 1;
    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (a.item0[mid] <= item)
            low = mid;
        else
            high = mid;
    }
    *chain0 = (item - (a.tiles ? low * a.tiles : a.item0[low])) * a.chains;
    return low;
}

static inline dim3 attend_grid(const Attend &a) {
    return dim3((unsigned)(a.items + a.padding), (unsigned)a.kv.heads);
}

__device__ __forceinline__ bool seen(int key, int pos, int window) {
    return key <= pos && (window == 0 || key > pos - window);
}

#endif
