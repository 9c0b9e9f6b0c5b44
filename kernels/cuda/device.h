/* device.h: what the kernels share: numbers of either type from and to memory, sums of a warp and of a block in
 * one fixed tree, exp and log. Compiled with -fmad=false: a product is fused with a sum only where fmaf says so,
 * so that one formula has one result in every kernel. Included by the .cu files only. */
#ifndef WHET_CUDA_DEVICE_H
#define WHET_CUDA_DEVICE_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "kernels/cuda/launch.h"

typedef __nv_bfloat16 bf16;
#define ALL_LANES 0xffffffffu

/* After a launch: an error of it ends the program with one line. */
static inline void launched(const char *name) {
    cudaError_t error = cudaPeekAtLastError();
    if (error != cudaSuccess) die("cuda: %s: %s", name, cudaGetErrorString(error));
}

static inline unsigned blocks_of(size_t n, size_t each) { return (unsigned)((n + each - 1) / each); }

/* ---- numbers of a tensor ---- */

__device__ __forceinline__ float get1(const Ten &t, int row, int col) {
    size_t at = (size_t)row * t.stride + col;
    return t.type == K_BF16 ? __bfloat162float(((const bf16 *)t.p)[at]) : ((const float *)t.p)[at];
}
__device__ __forceinline__ void set1(const Ten &t, int row, int col, float x) {
    size_t at = (size_t)row * t.stride + col;
    if (t.type == K_BF16)
        ((bf16 *)t.p)[at] = __float2bfloat16_rn(x);
    else
        ((float *)t.p)[at] = x;
}

struct Four {
    float at[4];
};
/* Whether four numbers from a column that is a multiple of 4 can be moved at once. */
__device__ __forceinline__ bool whole4(const Ten &t, int col) {
    return t.cols - col >= 4 && t.stride % 4 == 0 && ((uintptr_t)t.p & (t.type == K_BF16 ? 7 : 15)) == 0;
}
/* Columns col .. col+3 of a row, those past the last as 0; col is a multiple of 4. */
__device__ __forceinline__ Four get4(const Ten &t, int row, int col) {
    size_t at = (size_t)row * t.stride + col;
    Four r;
    if (!whole4(t, col)) {
#pragma unroll
        for (int i = 0; i < 4; i++) r.at[i] = col + i < t.cols ? get1(t, row, col + i) : 0;
    } else if (t.type == K_BF16) {
        uint2 u = *(const uint2 *)((const bf16 *)t.p + at);
        r.at[0] = __uint_as_float(u.x << 16), r.at[1] = __uint_as_float(u.x & 0xffff0000u);
        r.at[2] = __uint_as_float(u.y << 16), r.at[3] = __uint_as_float(u.y & 0xffff0000u);
    } else {
        float4 f = *(const float4 *)((const float *)t.p + at);
        r.at[0] = f.x, r.at[1] = f.y, r.at[2] = f.z, r.at[3] = f.w;
    }
    return r;
}
/* Two numbers rounded to bf16, the first in the low half. */
__device__ __forceinline__ uint32_t pair(float low, float high) {
    return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(low)) |
           (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(high)) << 16;
}
__device__ __forceinline__ void set4(const Ten &t, int row, int col, const Four &x) {
    size_t at = (size_t)row * t.stride + col;
    if (!whole4(t, col)) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (col + i < t.cols) set1(t, row, col + i, x.at[i]);
    } else if (t.type == K_BF16) {
        *(uint2 *)((bf16 *)t.p + at) = make_uint2(pair(x.at[0], x.at[1]), pair(x.at[2], x.at[3]));
    } else {
        *(float4 *)((float *)t.p + at) = make_float4(x.at[0], x.at[1], x.at[2], x.at[3]);
    }
}

/* ---- sums and maxima ---- */

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int lane = 16; lane; lane /= 2) x += __shfl_xor_sync(ALL_LANES, x, lane);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int lane = 16; lane; lane /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lane));
    return x;
}
/* Of all threads of a block of whole warps; every thread gets the result. room: 32 floats of shared memory. */
template <bool MAX> __device__ __forceinline__ float block_all(float x, float *room) {
    x = MAX ? warp_max(x) : warp_sum(x);
    int warps = blockDim.x / 32;
    if (warps == 1) return x;
    __syncthreads(); /* the room's last use is over */
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    x = room[0];
    for (int w = 1; w < warps; w++) x = MAX ? fmaxf(x, room[w]) : x + room[w];
    return x;
}
__device__ __forceinline__ float block_sum(float x, float *room) { return block_all<false>(x, room); }
__device__ __forceinline__ float block_max(float x, float *room) { return block_all<true>(x, room); }

/* ---- functions: kernels/cpu/vec_math.h, operation by operation ---- */

__device__ __forceinline__ float d_exp(float x) {
    float clipped = fmaxf(fminf(x, 88.0f), -87.0f);
    float n = rintf(clipped * 1.44269504f);
    float r = fmaf(n, -0.693359375f, clipped);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.0f / 5040;
    p = fmaf(p, r, 1.0f / 720);
    p = fmaf(p, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    p *= __int_as_float(((int)n + 127) << 23);
    return x < -87.0f ? 0.0f : p; /* a masked score gives exactly 0 */
}

__device__ __forceinline__ float d_log(float x) {
    uint32_t u = __float_as_uint(x);
    int n = (int)(u >> 23) - 127;
    double d = __uint_as_float((u & 0x7fffff) | 0x3f800000);
    if (d > 1.41421356) d *= 0.5, n++;
    double s = (d - 1) / (d + 1), q = s * s, p = 1.0 / 13;
    p = p * q + 1.0 / 11, p = p * q + 1.0 / 9, p = p * q + 1.0 / 7, p = p * q + 1.0 / 5, p = p * q + 1.0 / 3;
    p = p * q + 1.0;
    return (float)(2 * s * p + n * 0.693147180559945309);
}

__device__ __forceinline__ float d_sigmoid(float x) { return 1.0f / (1.0f + d_exp(0.0f - x)); }
__device__ __forceinline__ float d_tanh(float x) {
    x = fmaxf(fminf(x, 10.0f), -10.0f);
    float size = fabsf(x), z = x * x;
    float p = fmaf(-5.70498872745e-3f, z, 2.06390887954e-2f);
    p = fmaf(p, z, -5.37397155531e-2f);
    p = fmaf(p, z, 1.33314422036e-1f);
    p = fmaf(p, z, -3.33332819422e-1f);
    p = fmaf(p * z, x, x);
    float far = 1.0f - 2.0f / (d_exp(size + size) + 1.0f);
    return size < 0.625f ? p : copysignf(far, x);
}

/* cap tanh(x / cap), and its slope where it gave y; per = 1 / cap. */
__device__ __forceinline__ float softcap(float x, float cap, float per) { return d_tanh(x * per) * cap; }
__device__ __forceinline__ float softcap_slope(float y, float per) { return fmaf(-(y * per), y * per, 1.0f); }

#endif
