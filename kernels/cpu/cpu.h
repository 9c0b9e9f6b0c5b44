/* cpu.h: private to kernels/: the CPU's paths and threads, packed formats.
 *
 * Each instruction set is one file (plain.c, avx2.c, avx512.c, dot.c, amx.c): it includes one vec_*.h, which gives
 * sixteen lanes of arithmetic, and body.h, which holds the ops written once over these lanes. So every path over
 * fp32 FMA gives the same bits; only the products' inner loops of dot.c (BF16 dot) and of amx.c (tiles) are other
 * arithmetics. amx_plain.c gives amx.c's bits in plain C, and dot_plain.c dot.c's; plain_fma.c is plain.c for processors
 * with FMA.
 */
#ifndef WHET_CPU_H
#define WHET_CPU_H

#include "kernels/back.h"

/* ---- threads ---- */

typedef struct Pool Pool;
Pool *pool_open(int threads);
int pool_threads(const Pool *pool);
/* Calls run(self, item, thread) for each item in [0, n), each on some thread; returns when all are done. Items
 * must write disjoint memory; no result may depend on which thread ran what. */
void pool_run(Pool *pool, int n, void (*run)(void *self, int item, int thread), void *self);
void pool_close(Pool *pool);

/* ---- the paths ---- */

extern const Ops cpu_plain_ops, cpu_plain_fma_ops, cpu_avx2_ops, cpu_avx512_ops, cpu_dot_ops, cpu_amx_ops,
    cpu_amx_plain_ops, cpu_dot_plain_ops;
/* Opens the path by name (auto: the fastest here) and its threads; false and err on failure. */
bool cpu_open(Dev *dev, const DevConf *conf, Err *err);

/* ---- packed weights ----
 * One format
 * for all paths. A matrix of N outputs and K inputs is cut into panels of 16 outputs; a panel is K/2 pairs; a pair
 * holds 16 outputs x 2 consecutive inputs: element (n, k) lies at
 *     ((n / 16) * pairs + k / 2) * 32 + (n % 16) * 2 + k % 2        pairs = PAIRS(K), rounded up to 16: whole
 * so that 16 pairs make the 1 KiB tile of bf16 that AMX loads, and one vector load is what BF16 dot multiplies.
 * N and K are padded with zeros. In K_REAL the same order holds floats. The `back` copy is the same format of the
 * transposed matrix. In K_I8 a panel's bytes are its 16 outputs of k = 0, those of k = 1, and so on: half a tile's
 * bytes for a tile's numbers (matmul_int8.h).
 *
 * A tensor of K_BF16_PAIRS is this format of its transpose: element (row, col) of M rows lies at
 *     ((col / 16) * M / 2 + row / 2) * 32 + (col % 16) * 2 + row % 2 */
#define PANELS(n) (((n) + 15) / 16)
#define PAIRS(k) (((k) + 31) / 32 * 16)

#endif
