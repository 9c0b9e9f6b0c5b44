/* dot_plain.c: dot.c's arithmetic in plain C, for every processor: slow, and bit for bit the same as Intel's. It
 * tests the logic around the pairs where the instruction is missing. */
#ifndef WHET_DOUBLE
#include "kernels/cpu/memory.h"
#include "kernels/cpu/vec_plain.h"

#include "kernels/cpu/dot_plain.h"

#define BF16_DOT
#define TILE_ROWS 4
#define TILE_PANELS 1
#define STREAM_PANELS 1
#include "kernels/cpu/body.h"

const Ops cpu_dot_plain_ops = OPS_TABLE("avx512_bf16_plain");
#else
typedef int NothingHere; /* the double variant has the plain path only */
#endif
