/* gemm.cu: the gradient of a weight matrix: dw[N, K] += dy[M, N]^T x[M, K]; and products for which the library has
 * no algorithm that will do.
 *
 * cuBLASLt does the other products. Here the summed dimension is that of the rows, and kernels.h promises that a
 * batch may be cut between rows without changing a bit: each output is one chain over the rows, sixteen at a time,
 * that starts from what dw holds. Tested under tests/ptx. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/ptx.h"

enum { THREADS = 256, TILE_N = 128, TILE_K = 128, STAGE = 32, STAGES = 3, STEP = 128 + 8 };

/* Rows row0 .. row0+STAGE-1 of 128 columns from col0 on; what lies outside of x as 0. Needs a ptx_wait. */
__device__ __forceinline__ void stage_load(bf16 *to, const Ten &x, int row0, int col0) {
    for (int i = threadIdx.x; i < STAGE * 16; i += THREADS) {
        int row = i / 16, col = i % 16 * 8, left = x.cols - (col0 + col);
        bool there = row0 + row < x.rows && left > 0;
        const bf16 *from = (const bf16 *)x.p;
        if (there) from += (size_t)(row0 + row) * x.stride + col0 + col;
        ptx_copy16(to + row * STEP + col, from, there ? min(left, 8) * 2 : 0);
    }
}

/* A warp has 64 rows of dw by 32 columns. Features are rows of the product on the left: both operands are read
 * transposed from their stages. */
static __global__ void __launch_bounds__(THREADS) dw_kernel(Ten dw, Ten dy, Ten x) {
    extern __shared__ __align__(16) bf16 room[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, m = lane / 8;
    const int n0 = blockIdx.y * TILE_N, k0 = blockIdx.x * TILE_K, row_n = warp / 4 * 64, col_k = warp % 4 * 32;
    float acc[4][4][4];
#pragma unroll
    for (int a = 0; a < 4; a++)
#pragma unroll
        for (int b = 0; b < 4; b++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int n = n0 + row_n + a * 16 + lane / 4 + i / 2 * 8, k = k0 + col_k + b * 8 + lane % 4 * 2 + i % 2;
                acc[a][b][i] = n < dw.rows && k < dw.cols ? get1(dw, n, k) : 0;
            }
    const int stages = (dy.rows + STAGE - 1) / STAGE;
    for (int t = 1 - STAGES; t < stages; t++) {
        int next = t + STAGES - 1;
        if (next < stages) {
            bf16 *to = room + next % STAGES * 2 * STAGE * STEP;
            stage_load(to, dy, next * STAGE, n0);
            stage_load(to + STAGE * STEP, x, next * STAGE, k0);
        }
        ptx_commit();
        if (t < 0) continue;
        ptx_wait<STAGES - 1>();
        __syncthreads();
        const bf16 *dys = room + t % STAGES * 2 * STAGE * STEP, *xs = dys + STAGE * STEP;
#pragma unroll
        for (int r = 0; r < STAGE; r += 16) {
            uint32_t left[4][4], right[2][4];
#pragma unroll
            for (int a = 0; a < 4; a++)
                ptx_ldmatrix_trans(left[a], dys + (r + m / 2 * 8 + lane % 8) * STEP + row_n + a * 16 + m % 2 * 8);
#pragma unroll
            for (int b = 0; b < 2; b++)
                ptx_ldmatrix_trans(right[b], xs + (r + m % 2 * 8 + lane % 8) * STEP + col_k + b * 16 + m / 2 * 8);
#pragma unroll
            for (int a = 0; a < 4; a++)
#pragma unroll
                for (int b = 0; b < 4; b++)
                    ptx_mma(acc[a][b], left[a], right[b / 2][b % 2 * 2], right[b / 2][b % 2 * 2 + 1]);
        }
        __syncthreads(); /* the stage's room is refilled next */
    }
#pragma unroll
    for (int a = 0; a < 4; a++)
#pragma unroll
        for (int b = 0; b < 4; b++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int n = n0 + row_n + a * 16 + lane / 4 + i / 2 * 8, k = k0 + col_k + b * 8 + lane % 4 * 2 + i % 2;
                if (n < dw.rows && k < dw.cols) set1(dw, n, k, acc[a][b][i]);
            }
}

/* float32: 64 by 64 outputs a block, 4 by 4 a thread. */
enum { PLAIN = 64, PLAIN_ROWS = 16 };
static __global__ void __launch_bounds__(THREADS) dw_plain_kernel(Ten dw, Ten dy, Ten x) {
    __shared__ float left[PLAIN_ROWS][PLAIN + 1], right[PLAIN_ROWS][PLAIN + 1];
    const int n0 = blockIdx.y * PLAIN, k0 = blockIdx.x * PLAIN, tn = threadIdx.x / 16, tk = threadIdx.x % 16;
    float acc[4][4];
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            int n = n0 + tn + a * 16, k = k0 + tk + b * 16;
            acc[a][b] = n < dw.rows && k < dw.cols ? get1(dw, n, k) : 0;
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

extern "C" void cu_dw(cudaStream_t s, Ten dw, Ten dy, Ten x) {
    if (dy.rows == 0) return;
    if (dy.type == K_BF16) {
        const int bytes = STAGES * 2 * STAGE * STEP * (int)sizeof(bf16);
        cudaFuncSetAttribute(dw_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
        dim3 grid(blocks_of((size_t)dw.cols, TILE_K), blocks_of((size_t)dw.rows, TILE_N));
        dw_kernel<<<grid, THREADS, bytes, s>>>(dw, dy, x);
    } else {
        dim3 grid(blocks_of((size_t)dw.cols, PLAIN), blocks_of((size_t)dw.rows, PLAIN));
        dw_plain_kernel<<<grid, THREADS, 0, s>>>(dw, dy, x);
    }
    launched("dw");
}
