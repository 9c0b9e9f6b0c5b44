/* amx_plain.c: amx.c's arithmetic in plain C, for every processor: slow, and bit for bit the same. It repeats a
 * run that was made with AMX where there is none, and tests the logic around the tiles there. */
#ifndef WHET_DOUBLE
#include "kernels/cpu/memory.h"
#include "kernels/cpu/vec_plain.h"

#include "kernels/cpu/tile_plain.h"

#define TILES
#define TILE_ROWS 4
#define TILE_PANELS 1
#define STREAM_PANELS 1
#include "kernels/cpu/body.h"

const Ops cpu_amx_plain_ops = OPS_TABLE("amx_plain");
#else
typedef int NothingHere; /* the double variant has the plain path only */
#endif
