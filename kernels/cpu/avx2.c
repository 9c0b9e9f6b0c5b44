/* avx2.c: the ops with AVX2 and FMA. */
#ifndef WHET_DOUBLE
#include "kernels/cpu/memory.h"
#include "kernels/cpu/vec_avx2.h"

#define TILE_ROWS 6
#define TILE_PANELS 1
#define STREAM_PANELS 4
#include "kernels/cpu/body.h"

const Ops cpu_avx2_ops = OPS_TABLE("avx2");
#else
typedef int NothingHere; /* the double variant has the plain path only */
#endif
