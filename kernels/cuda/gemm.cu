/* gemm.cu: the gradient of a weight matrix: dw[N, K] += dy[M, N]^T x[M, K]; and products for which the library has
 * no algorithm that will do.
 *
 * cuBLASLt does the other products. Here the summed dimension is that of the rows, and kernels.h promises that a
 * batch may be cut between rows without changing a bit: each output is one chain over the rows, sixteen at a time,
 * that starts from what dw holds. Tested under tests/ptx. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/ptx.h"

enum { THREADS = 256, DW_THREADS = 128, TILE = 64, STAGE = 64, STAGES = 3, STEP = TILE + 8 };

/* Rows row0 .. row0+STAGE-1 of TILE columns from col0 on; what lies outside of x as 0. Needs a ptx_wait. */
__device__ __forceinline__ void stage_load(bf16 *to, const Ten &x, int row0, int col0) {
    const int col = threadIdx.x % (TILE / 8) * 8, left = x.cols - (col0 + col);
#pragma unroll
    for (int row = threadIdx.x / (TILE / 8); row < STAGE; row += DW_THREADS / (TILE / 8)) {
        bool there = row0 + row < x.rows && left > 0;
        const bf16 *from = (const bf16 *)x.p;
        if (there) from += (size_t)(row0 + row) * x.stride + col0 + col;
        ptx_copy16(to + row * STEP + col, from, there ? min(left, 8) * 2 : 0);
    }
}

/* Two numbers side by side of dw; `whole`: at once. */
__device__ __forceinline__ float2 pair_get(const Ten &dw, int n, int k, bool whole) {
    const float *at = (const float *)dw.p + (size_t)n * dw.stride + k;
    if (n >= dw.rows || k >= dw.cols) return make_float2(0, 0);
    return whole && k + 1 < dw.cols ? *(const float2 *)at : make_float2(at[0], k + 1 < dw.cols ? at[1] : 0);
}
__device__ __forceinline__ void pair_set(const Ten &dw, int n, int k, bool whole, float2 x) {
    float *at = (float *)dw.p + (size_t)n * dw.stride + k;
    if (n >= dw.rows || k >= dw.cols) return;
    if (whole && k + 1 < dw.cols) {
        *(float2 *)at = x;
        return;
    }
    at[0] = x.x;
    if (k + 1 < dw.cols) at[1] = x.y;
}

/* A warp's sums of 32 rows from n0 on and 32 columns from k0 on, two side by side at a time. */
template <typename Body> __device__ __forceinline__ void each_pair(float (&acc)[2][4][4], int n0, int k0, Body body) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int a = 0; a < 2; a++)
#pragma unroll
        for (int b = 0; b < 4; b++)
#pragma unroll
            for (int i = 0; i < 4; i += 2)
                body(acc[a][b][i], acc[a][b][i + 1], n0 + a * 16 + lane / 4 + i / 2 * 8, k0 + b * 8 + lane % 4 * 2);
}

/* A warp has 32 rows of dw by 32 columns. Features are rows of the product on the left: both operands are read
 * transposed from their stages. Tiles are small, for a model's matrices are: 128 by 128 left most of the chip idle. */
static __global__ void __launch_bounds__(DW_THREADS, 4) dw_kernel(Ten dw, Ten dy, Ten x, bool fresh) {
    extern __shared__ __align__(16) bf16 room[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, m = lane / 8;
    const int n0 = blockIdx.y * TILE, k0 = blockIdx.x * TILE, row_n = warp / 2 * 32, col_k = warp % 2 * 32;
    const bool whole = dw.stride % 2 == 0 && ((uintptr_t)dw.p & 7) == 0;
    const int stages = (dy.rows + STAGE - 1) / STAGE;
    float acc[2][4][4];
    for (int t = 0; t < STAGES - 1; t++) {
        bf16 *to = room + t * 2 * STAGE * STEP;
        if (t < stages) stage_load(to, dy, t * STAGE, n0), stage_load(to + STAGE * STEP, x, t * STAGE, k0);
        ptx_commit();
    }
    each_pair(acc, n0 + row_n, k0 + col_k, [&](float &low, float &high, int n, int k) {
        float2 had = fresh ? make_float2(0, 0) : pair_get(dw, n, k, whole);
        low = had.x, high = had.y;
    });
    for (int t = 0; t < stages; t++) {
        ptx_wait<STAGES - 2>();
        __syncthreads(); /* the stage is there; that before it is refilled next */
        int next = t + STAGES - 1;
        if (next < stages) {
            bf16 *to = room + next % STAGES * 2 * STAGE * STEP;
            stage_load(to, dy, next * STAGE, n0);
            stage_load(to + STAGE * STEP, x, next * STAGE, k0);
        }
        ptx_commit();
        const bf16 *dys = room + t % STAGES * 2 * STAGE * STEP, *xs = dys + STAGE * STEP;
#pragma unroll
        for (int r = 0; r < STAGE; r += 16) {
            uint32_t left[2][4], right[2][4];
#pragma unroll
            for (int a = 0; a < 2; a++)
                ptx_ldmatrix_trans(left[a], dys + (r + m / 2 * 8 + lane % 8) * STEP + row_n + a * 16 + m % 2 * 8);
#pragma unroll
            for (int b = 0; b < 2; b++)
                ptx_ldmatrix_trans(right[b], xs + (r + m % 2 * 8 + lane % 8) * STEP + col_k + b * 16 + m / 2 * 8);
#pragma unroll
            for (int a = 0; a < 2; a++)
#pragma unroll
                for (int b = 0; b < 4; b++)
                    ptx_mma(acc[a][b], left[a], right[b / 2][b % 2 * 2], right[b / 2][b % 2 * 2 + 1]);
        }
    }
    each_pair(acc, n0 + row_n, k0 + col_k,
              [&](float low, float high, int n, int k) { pair_set(dw, n, k, whole, make_float2(low, high)); });
}

/* float32: 64 by 64 outputs a block, 4 by 4 a thread. */
enum { PLAIN = 64, PLAIN_ROWS = 16 };
static __global__ void __launch_bounds__(THREADS) dw_plain_kernel(Ten dw, Ten dy, Ten x, bool fresh) {
    __shared__ float left[PLAIN_ROWS][PLAIN + 1], right[PLAIN_ROWS][PLAIN + 1];
    const int n0 = blockIdx.y * PLAIN, k0 = blockIdx.x * PLAIN, tn = threadIdx.x / 16, tk = threadIdx.x % 16;
    float acc[4][4];
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            int n = n0 + tn + a * 16, k = k0 + tk + b * 16;
            acc[a][b] = !fresh && n < dw.rows && k < dw.cols ? get1(dw, n, k) : 0;
        }
    for (int row0 = 0; row0 < dy.rows; row0 += PLAIN_ROWS) {
        for (int i = threadIdx.x; i < PLAIN_ROWS * PLAIN; i += THREADS) {
            int row = i / PLAIN, col = i % PLAIN;
            bool there = row0 + row < dy.rows;
            left[row][col] = there && n0 + col < dy.cols ? get1(dy, row0 + row, n0 + col) : 0;
            right[row][col] = there && k0 + col < x.cols ? get1(x, row0 + row, k0 + col) : 0;
        }
        __syncthreads();
        for (int row = 0; row < PLAIN_ROWS; row++)
            for (int a = 0; a < 4; a++)
                for (int b = 0; b < 4; b++)
                    acc[a][b] = fmaf(left[row][tn + a * 16], right[row][tk + b * 16], acc[a][b]);
        __syncthreads();
    }
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            int n = n0 + tn + a * 16, k = k0 + tk + b * 16;
            if (n < dw.rows && k < dw.cols) set1(dw, n, k, acc[a][b]);
        }
}

/* y = x w^T, or x w (BACK), plus c: 64 by 64 outputs a block, 4 by 4 a thread, one chain over k. */
template <bool BACK> static __global__ void __launch_bounds__(THREADS) product_kernel(Ten y, Ten x, Ten w, Ten c) {
    __shared__ float left[PLAIN_ROWS][PLAIN + 1], right[PLAIN_ROWS][PLAIN + 1];
    const int row0 = blockIdx.y * PLAIN, col0 = blockIdx.x * PLAIN, tr = threadIdx.x / 16, tc = threadIdx.x % 16;
    float acc[4][4] = {};
    for (int k0 = 0; k0 < x.cols; k0 += PLAIN_ROWS) {
        for (int i = threadIdx.x; i < PLAIN_ROWS * PLAIN; i += THREADS) {
            int k = i % PLAIN_ROWS, at = i / PLAIN_ROWS;
            bool there = k0 + k < x.cols;
            left[k][at] = there && row0 + at < x.rows ? get1(x, row0 + at, k0 + k) : 0;
            if (BACK) k = i / PLAIN, at = i % PLAIN, there = k0 + k < x.cols;
            right[k][at] =
                there && col0 + at < y.cols ? BACK ? get1(w, k0 + k, col0 + at) : get1(w, col0 + at, k0 + k) : 0;
        }
        __syncthreads();
        for (int k = 0; k < PLAIN_ROWS; k++)
            for (int a = 0; a < 4; a++)
                for (int b = 0; b < 4; b++)
                    acc[a][b] = fmaf(left[k][tr + a * 16], right[k][tc + b * 16], acc[a][b]);
        __syncthreads();
    }
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            int row = row0 + tr + a * 16, col = col0 + tc + b * 16;
            if (row < y.rows && col < y.cols) set1(y, row, col, c.p ? acc[a][b] + get1(c, row, col) : acc[a][b]);
        }
}

extern "C" void cu_product(cudaStream_t s, Ten y, Ten x, Ten w, Ten c, int back) {
    if (y.rows == 0) return;
    dim3 grid(blocks_of((size_t)y.cols, PLAIN), blocks_of((size_t)y.rows, PLAIN));
    if (back)
        product_kernel<true><<<grid, THREADS, 0, s>>>(y, x, w, c);
    else
        product_kernel<false><<<grid, THREADS, 0, s>>>(y, x, w, c);
    launched("product");
}

extern "C" void cu_dw(cudaStream_t s, Ten dw, Ten dy, Ten x, int fresh) {
    if (dw.rows == 0 || dw.cols == 0 || (dy.rows == 0 && !fresh)) return;
    if (dy.type == K_BF16) {
        const int bytes = STAGES * 2 * STAGE * STEP * (int)sizeof(bf16);
        cudaFuncSetAttribute(dw_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        dim3 grid(blocks_of((size_t)dw.cols, TILE), blocks_of((size_t)dw.rows, TILE));
        dw_kernel<<<grid, DW_THREADS, bytes, s>>>(dw, dy, x, fresh != 0);
    } else {
        dim3 grid(blocks_of((size_t)dw.cols, PLAIN), blocks_of((size_t)dw.rows, PLAIN));
        dw_plain_kernel<<<grid, THREADS, 0, s>>>(dw, dy, x, fresh != 0);
    }
    launched("dw");
}
