/* ptx.h: all inline PTX of the CUDA back, one function an instruction (PTX ISA 8.0 and later, sm_80 and later).
 * Tested one by one by tests/test_ptx_*.c. */
#ifndef WHET_CUDA_PTX_H
#define WHET_CUDA_PTX_H

#include <stdint.h>

/* d[16, 8] += a[16, 16] b[16, 8]: bf16 in, fp32 sums. With g = lane / 4 and t = lane % 4, a thread holds
 * a: {(g, 2t), (g, 2t+1)}, {(g+8, 2t), ..}, {(g, 2t+8), ..}, {(g+8, 2t+8), ..}; b (row k, column n): {(2t, g),
 * (2t+1, g)}, {(2t+8, g), (2t+9, g)}; d: (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1). */
__device__ __forceinline__ void ptx_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices of 16-bit numbers; lane i gives the address of row i % 8 of matrix i / 8, 16 bytes aligned.
 * Register j of a thread gets (g, 2t) and (g, 2t+1) of matrix j. */
__device__ __forceinline__ void ptx_ldmatrix(uint32_t (&r)[4], const void *shared) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
/* The same transposed: (2t, g) and (2t+1, g) of matrix j. */
__device__ __forceinline__ void ptx_ldmatrix_trans(uint32_t (&r)[4], const void *shared) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* 16 bytes from global to shared memory, of which the first `bytes` are read and the others become 0. Both
 * addresses are aligned to 16. Done when ptx_wait says so. */
__device__ __forceinline__ void ptx_copy16(void *shared, const void *global, int bytes) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(at), "l"(global), "r"(bytes) : "memory");
}
__device__ __forceinline__ void ptx_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
/* Until at most N groups of this thread are under way. */
template <int N> __device__ __forceinline__ void ptx_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

#endif
