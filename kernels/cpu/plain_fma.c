/* plain_fma.c: plain.c once more, compiled for processors with FMA, where fmaf() is an instruction and no call: the
 * same bits, many times as fast. */
#ifndef WHET_DOUBLE
#define cpu_plain_ops cpu_plain_fma_ops
#include "kernels/cpu/plain.c"
#else
typedef int NothingHere;
#endif
