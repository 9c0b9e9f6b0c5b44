/* none.c: the CUDA back of a build without nvcc. */
#include "kernels/cuda/cuda.h"

int cuda_count(void) { return 0; }

bool cuda_open(Dev *dev, int number, Err *err) {
    (void)dev, (void)number;
    return err_set(err,
                   "device cuda: this whet was built without CUDA: use device cpu, or build it where nvcc is");
}
