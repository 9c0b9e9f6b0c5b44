/* cuda.h: what the front knows of the CUDA back. A build without nvcc has none.c in place of the others.
 * Tested by tests/cmd_errors.sh and, under the stand-ins for a GPU, by tests/test_ptx_*.c. */
#ifndef WHET_CUDA_H
#define WHET_CUDA_H

#include "kernels/back.h"

int cuda_count(void); /* devices that can be used; 0 without a driver */
/* Opens device `number`: sets ops, path and cuda; false and err, in one line, when there is none. */
bool cuda_open(Dev *dev, int number, Err *err);

#endif
