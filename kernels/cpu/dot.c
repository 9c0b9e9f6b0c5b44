/* dot.c: as avx512.c, with products of bf16 pairs by VDPBF16PS: another arithmetic than the FMA paths (dot.h),
 * and so a path of its own. */
#ifndef WHET_DOUBLE
#include "kernels/cpu/memory.h"
#include "kernels/cpu/vec_avx512.h"

#include "kernels/cpu/dot.h"

#define BF16_DOT
#define TILE_ROWS 8
#define TILE_PANELS 3
#define STREAM_PANELS 8
#include "kernels/cpu/body.h"

const Ops cpu_dot_ops = OPS_TABLE("avx512_bf16");
#else
typedef int NothingHere; /* the double variant has the plain path only */
#endif
