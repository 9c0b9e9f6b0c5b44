/* avx512.c: the ops with AVX-512 FMA. */
#ifndef WHET_DOUBLE
#include "kernels/cpu/memory.h"
#include "kernels/cpu/vec_avx512.h"

#define TILE_ROWS 8
#define TILE_PANELS 3
#define STREAM_PANELS 8
#include "kernels/cpu/body.h"

const Ops cpu_avx512_ops = OPS_TABLE("avx512");
#else
typedef int NothingHere; /* the double variant has the plain path only */
#endif
