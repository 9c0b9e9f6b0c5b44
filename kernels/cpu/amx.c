/* amx.c: as avx512.c, with products of bf16 by AMX's tiles: another arithmetic than the FMA paths (tile.h), and so
 * a path of its own. */
#ifndef WHET_DOUBLE
#include "kernels/cpu/memory.h"
#include "kernels/cpu/vec_avx512.h"

#include "kernels/cpu/tile.h"

#define TILES
#define TILE_ROWS 8
#define TILE_PANELS 3
#define STREAM_PANELS 8
#include "kernels/cpu/body.h"

const Ops cpu_amx_ops = OPS_TABLE("amx");
#else
typedef int NothingHere; /* the double variant has the plain path only */
#endif
