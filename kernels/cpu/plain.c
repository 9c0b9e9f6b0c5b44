/* plain.c: the ops in plain C, for every processor; in the double variant the only path. */
#include "kernels/cpu/memory.h"
#include "kernels/cpu/vec_plain.h"

#define TILE_ROWS 4
#define TILE_PANELS 1
#define STREAM_PANELS 1
#include "kernels/cpu/body.h"

const Ops cpu_plain_ops = OPS_TABLE("plain");
